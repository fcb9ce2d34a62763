"""One clock for every arm: when each optimizer step ended, in a time that all processes of a machine share."""

import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.optim.optimizer import register_optimizer_step_post_hook

BATCH = 128  # images a step, in every arm
HELD_OUT = 1000  # images that every arm validates on after its epoch, when the clock has stopped
WARM_UP = 10  # steps before the clock starts: they allocate memory and wait for the first workers


class Clock:
    """Notes the end of every step by torch's global hook: no arm needs a callback or a changed line for it."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        register_optimizer_step_post_hook(self._note)

    def _note(self, *_: Any) -> None:
        self.steps.append(time.monotonic())

    def print(self) -> None:
        """One line, which `read` finds among all that an arm prints."""
        print(f"\n{json.dumps({'steps': self.steps})}", flush=True)


def read(output: str) -> list[float]:
    """The steps in what an arm printed; `ValueError` where there are none."""
    lines = [line for line in output.splitlines() if line.startswith('{"steps": ')]
    if not lines:
        raise ValueError("it printed no steps")
    return list(json.loads(lines[-1])["steps"])


def rate(processes: Sequence[Sequence[float]]) -> float:
    """Training images a second of processes that train at the same time: the sum, while all of them train.

    `processes` has for each one when its steps ended, in seconds. A step that lies partly in the common window counts
    by that part. Raises `ValueError` where the window is less than a third of what some process did.
    """
    begin = max(steps[WARM_UP - 1] for steps in processes)
    end = min(steps[-1] for steps in processes)
    if any(end - begin < (steps[-1] - steps[WARM_UP - 1]) / 3 for steps in processes):
        raise ValueError("the processes hardly trained at the same time: take more --images")
    done = sum(float(np.diff(np.interp([begin, end], steps, np.arange(len(steps))))[0]) for steps in processes)
    return done * BATCH / (end - begin)
