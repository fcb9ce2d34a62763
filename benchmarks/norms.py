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

import torch
from rich.console import Console
from rich.progress import track
from torch.nn.functional import nll_loss

from benchmarks.norms_page import BATCH, LAYER, Measurement, markdown, show, write
from normlab.nets import Net
from normlab.norms import CATALOGUE, make_norm
from normlab.record import versions
from normlab.training.device import describe_device, keep_freed_memory

WARM_UP = 2  # rounds before the first that counts
BUSY = 0.5  # load before the start from which it is said


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

    def measure(self, number: int) -> Measurement:
        """Milliseconds of a step, and of the layer's forward and backward pass."""
        began = time.perf_counter()
        self.step()
        ended = time.perf_counter()
        y = self.layer(self.maps)
        forward = time.perf_counter()
        torch.autograd.grad(y, (self.maps, *self.layer.parameters()), self.slopes)
        backward = time.perf_counter()
        spans = (ended - began, forward - ended, backward - forward)
        return Measurement(number, self.name, *(round(1e3 * seconds, 4) for seconds in spans))


def measure(wanted: Sequence[str], rounds: int, batch: int, console: Console) -> list[Measurement]:
    """So many rounds, each with every norm."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    keep_freed_memory()
    arms = [Arm(name, batch) for name in wanted]
    measured: list[Measurement] = []
    for number in track(range(1 - WARM_UP, rounds + 1), "rounds", console=console):
        turn = number % len(arms)
        found = [arm.measure(number) for arm in arms[turn:] + arms[:turn]]
        measured += found if number > 0 else []
    torch.set_num_threads(threads)
    return measured


def load() -> float:
    """Processes that wanted a core in the last minute, where the system says it."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def notes_of(before: float, after: float, command: str) -> list[str]:
    """What was measured on, and how."""
    machine = describe_device(torch.device("cpu"))["name"]
    busy = "; others used the machine, so take the ratios rather than the milliseconds" if before > BUSY else ""
    return [
        f"Machine: {machine}, one of {os.cpu_count()} CPU cores, load before {before:.1f} and after {after:.1f}{busy}.",
        f"Versions: {', '.join(f'{name} {number}' for name, number in versions().items())}.",
        f"Command: `{command}`; every single measurement is in `norms.csv`.",
    ]


def main(given: Sequence[str] | None = None) -> int:
    show_defaults = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser("benchmarks.norms", description=__doc__, formatter_class=show_defaults)
    parser.add_argument("--rounds", type=int, default=60, help="rounds that count")
    parser.add_argument("--batch", type=int, default=BATCH, help="images a step")
    parser.add_argument("--norms", nargs="+", choices=[*CATALOGUE], default=[*CATALOGUE], help="which, beside none")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write norms.md and norms.csv there")
    args = parser.parse_args(given)
    if args.rounds < 1 or args.batch < 2:
        parser.error("--rounds must be 1 or more, --batch 2 or more")
    wanted = ["none", *(name for name in args.norms if name != "none")]
    before = load()
    measured = measure(wanted, args.rounds, args.batch, Console(stderr=True))
    words = f"--rounds {args.rounds}" + (f" --batch {args.batch}" if args.batch != BATCH else "")
    words += f" --norms {' '.join(args.norms)}" if args.norms != [*CATALOGUE] else ""
    notes = notes_of(before, load(), f"python -m benchmarks.norms {words} --out docs")
    show(measured, notes)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        write(measured, args.out / "norms.csv")
        (args.out / "norms.md").write_text(markdown(measured, args.batch, LAYER, notes), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
