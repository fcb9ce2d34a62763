"""One clock for every arm: when each step of training ended, in a time that all processes of a machine share."""

import json
import os
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.distributed import FileStore
from torch.optim.optimizer import register_optimizer_step_post_hook

BATCH = 128  # images per step, unless an arm is given another number
HELD_OUT = 1000  # images that every arm validates on after its epoch, when the clock has stopped
WARM_UP = 10  # steps before the clock starts: they allocate memory and wait for the first workers
MEETING = "NORMLAB_BENCHMARK_MEETING"  # environment: how many processes meet after their warm-up, and in which file
PATIENCE = timedelta(minutes=5)  # to wait for the slowest of them


class Steps(NamedTuple):
    """When the steps of a process ended, in seconds, and how many images each of them trained on."""

    ends: Sequence[float]
    images: int = BATCH


class Clock:
    """Notes the end of every step by torch's global hook: no arm needs a callback or a changed line for it.

    `images`: of a step; with `networks` trained together, of all of them.
    """

    def __init__(self, images: int = BATCH) -> None:
        self.images = images
        self.ends: list[float] = []
        register_optimizer_step_post_hook(self._note)

    def _note(self, *_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # steps are queued: the clock must wait for this one
        if len(self.ends) == WARM_UP - 1:
            meet()
        self.ends.append(time.monotonic())

    def print(self) -> None:
        """One line, which `read` finds among all that an arm prints."""
        print(f"\n{json.dumps({'steps': self.ends, 'images': self.images})}", flush=True)


def meet() -> None:
    """Wait until all processes of an arm are here: they start at different speeds and are measured together.

    The last to come sets the moment at which all go on: polling a store takes as long as several steps.
    """
    count, path = os.environ.get(MEETING, "1 -").split(maxsplit=1)
    if count == "1":
        return
    store = FileStore(path, int(count))
    if store.add("here", 1) == int(count):
        store.set("start", str(time.monotonic() + 0.1))
    store.wait(["start"], PATIENCE)
    time.sleep(max(0.0, float(store.get("start")) - time.monotonic()))


def read(output: str) -> Steps:
    """The steps in what an arm printed; `ValueError` where there are none."""
    lines = [line for line in output.splitlines() if line.startswith('{"steps": ')]
    if not lines:
        raise ValueError("it printed no steps")
    found = json.loads(lines[-1])
    return Steps(found["steps"], found["images"])


def rate(processes: Sequence[Steps]) -> float:
    """Return the training images per second of processes that train at the same time: the sum, while all of them train.

    A step that lies partly in the common window counts by that part. Raise `ValueError` where the window is less than
    a third of what some process did.
    """
    begin = max(steps.ends[WARM_UP - 1] for steps in processes)
    end = min(steps.ends[-1] for steps in processes)
    if any(end - begin < (steps.ends[-1] - steps.ends[WARM_UP - 1]) / 3 for steps in processes):
        raise ValueError("the processes hardly trained at the same time: take more --images")
    done = 0.0
    for steps in processes:
        done += steps.images * float(np.diff(np.interp([begin, end], steps.ends, np.arange(len(steps.ends))))[0])
    return done / (end - begin)
