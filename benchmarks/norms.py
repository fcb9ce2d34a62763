"""What each norm costs, beside what it is: `python -m benchmarks.norms --out docs`.

A training step of the network (forward, backward, update) and the forward and backward pass of one layer alone, in
float32 on one CPU thread. Every round gives each norm its turn, in an order that rotates, so that a machine that slows
down slows them all; medians, and the ratio to "none" of the same round.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import track
from torch.nn.functional import nll_loss

from benchmarks.norms_page import BATCH, LAYER, cost_part, page
from benchmarks.tables import BUSY, load, processor, releases
from normlab.nets import Net
from normlab.norms import CATALOGUE, make_norm
from normlab.training.device import keep_freed_memory

WARM_UP = 2  # rounds before the first that counts


class Arm:
    """One norm in its network and alone, ready to be timed."""

    def __init__(self, name: str, batch: int) -> None:
        torch.manual_seed(0)
        self.name = name
        self.images, self.labels = torch.randn(batch, 1, 28, 28), torch.randint(10, (batch,))
        self.net = Net(name).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.net.parameters(), 1e-3, momentum=0.9, nesterov=True)
        self.layer = make_norm(name, LAYER[0], size=LAYER[1:])
        maps = torch.randn(batch, *LAYER).relu_().to(memory_format=torch.channels_last)
        self.maps, self.slopes = maps.requires_grad_(), torch.randn_like(maps)

    def step(self) -> None:
        self.optimizer.zero_grad()
        nll_loss(self.net(self.images), self.labels).backward()  # type: ignore[no-untyped-call]  # torch's
        self.optimizer.step()

    def measure(self, number: int) -> dict[str, Any]:
        """Return a row of norms.csv: milliseconds of a step, and of the layer's forward and backward pass."""
        times = [time.perf_counter()]
        self.step()
        times.append(time.perf_counter())
        y = self.layer(self.maps)
        times.append(time.perf_counter())
        torch.autograd.grad(y, (self.maps, *self.layer.parameters()), self.slopes)
        times.append(time.perf_counter())
        columns = zip(("step_ms", "forward_ms", "backward_ms"), np.diff(times), strict=True)
        return {"round": number, "norm": self.name, **{name: round(1e3 * each, 4) for name, each in columns}}


def measure(wanted: Sequence[str], rounds: int, batch: int) -> pd.DataFrame:
    """So many rounds, each with every norm."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    keep_freed_memory()
    arms = [Arm(name, batch) for name in wanted]
    measured: list[dict[str, Any]] = []
    for number in track(range(1 - WARM_UP, rounds + 1), "rounds", console=Console(stderr=True)):
        turn = number % len(arms)
        found = [arm.measure(number) for arm in arms[turn:] + arms[:turn]]
        measured += found if number > 0 else []
    torch.set_num_threads(threads)
    return pd.DataFrame(measured)


def notes_of(before: float, after: float, command: str) -> list[str]:
    """Return what was measured on, and how."""
    busy = "; others used the machine, so take the ratios rather than the milliseconds" if before > BUSY else ""
    cores = f"one of {os.cpu_count()} CPU cores, load before {before:.1f} and after {after:.1f}"
    return [
        f"Machine: {processor()}, {cores}{busy}.",
        f"Versions: {releases()}.",
        f"Command: `{command}`; every single measurement is in `norms.csv`.",
    ]


def main(given: Sequence[str] | None = None) -> int:
    show_defaults = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser("benchmarks.norms", description=__doc__, formatter_class=show_defaults)
    parser.add_argument("--rounds", type=int, default=60, help="rounds that count")
    parser.add_argument("--batch", type=int, default=BATCH, help="images per step")
    parser.add_argument("--norms", nargs="+", choices=[*CATALOGUE], default=[*CATALOGUE], help="which, beside none")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write norms.md and norms.csv there")
    args = parser.parse_args(given)
    if args.rounds < 1 or args.batch < 2:
        parser.error("--rounds must be 1 or more, --batch 2 or more")
    wanted = ["none", *(name for name in args.norms if name != "none")]
    before = load()
    measured = measure(wanted, args.rounds, args.batch)
    words = f"--rounds {args.rounds}" + (f" --batch {args.batch}" if args.batch != BATCH else "")
    words += f" --norms {' '.join(args.norms)}" if args.norms != [*CATALOGUE] else ""
    notes = notes_of(before, load(), f"python -m benchmarks.norms {words} --out docs")
    print(cost_part(measured, args.batch), "", *notes, sep="\n")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        measured.to_csv(args.out / "norms.csv", index=False)
        (args.out / "norms.md").write_text(page(measured, args.batch, notes), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
