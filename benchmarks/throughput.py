"""Training images a second, in one call: `python -m benchmarks.throughput --out FOLDER`.

R0, the plain script (benchmarks/plain.py) with the best of 0, 1 and 2 workers; R1, one normlab run with its default
threads; R2, two normlab runs of one thread each, summed while both train (benchmarks/ours.py).

Why it is fair: the same network, images, batch size and optimizer; every arm in processes of its own, one arm at a
time; one clock, from the 10th optimizer step to the last, without start-up and evaluation; arms interleaved in a
rotating order, so that a machine that slows down slows them all; medians. R0 draws its progress bar into a file, which
costs less than a terminal. normlab does more for an image: it shifts it too.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.clock import BATCH, HELD_OUT, WARM_UP, rate, read
from benchmarks.machine import flops_per_image, peak
from benchmarks.results import ARMS, HEADINGS, Measurement, cells, markdown, summarise
from benchmarks.samples import cut, write_as_mnist
from normlab.config import load as settings
from normlab.data.sources import load
from normlab.errors import NormlabError
from normlab.training.device import describe_device, versions

NORMS = ("bn", "ln", "gn")
WORKERS = (0, 1, 2)
LEAST = 2 * WARM_UP * BATCH  # images of a measurement
BUSY = 0.5  # load before the start from which no target is said to be met or missed


class ArmError(Exception):
    """An arm that failed, with the end of what it printed."""


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def together(commands: Sequence[Sequence[str]]) -> tuple[float, float]:
    """Runs modules at the same time: their images a second, summed, and seconds until all have made a step."""
    began, processes = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder, f"{index}.log") for index in range(len(commands))]
        try:
            for command, log in zip(commands, logs, strict=True):
                with log.open("wb") as stream:
                    whole = [sys.executable, "-m", *command]
                    processes.append(subprocess.Popen(whole, stdout=stream, stderr=subprocess.STDOUT))
            codes = [process.wait() for process in processes]
        finally:
            for process in processes:
                process.kill()  # does nothing where it has ended
        outputs = [log.read_text(encoding="utf-8", errors="replace") for log in logs]
    for command, code, output in zip(commands, codes, outputs, strict=True):
        if code:
            tail = "\n".join(output.splitlines()[-30:])
            raise ArmError(
                f"{tail}\nbenchmarks: `python -m {' '.join(command)}` failed with exit code {code}, see above"
            )
    try:
        steps = [read(output) for output in outputs]
        return rate(steps), max(process.ends[0] for process in steps) - began
    except ValueError as error:
        raise ArmError(f"benchmarks: `python -m {' '.join(commands[0])}`: {error}") from error


class Bench:
    """Measures arms one at a time, and keeps what it measured.

    Attributes:
        workers: by norm, what R0 was fastest with in the trials.
        peaks: by number of threads, the best FLOP/s so far.
    """

    def __init__(self, data: str, images: int, folder: Path) -> None:
        write_as_mnist(cut(load(data), images, HELD_OUT), folder)
        self.run = ["benchmarks.ours", "--data", data, "--images", str(images), "--norm"]
        self.plain = ["benchmarks.plain", "--root", str(folder), "--dropout", str(settings().dropout), "--norm"]
        self.measurements: list[Measurement] = []
        self.workers: dict[str, int] = {}
        self.peaks = dict.fromkeys((1, torch.get_num_threads()), 0.0)

    def measure_all(self, norms: Sequence[str], repetitions: int) -> None:
        for norm in norms:
            self.workers[norm] = max(WORKERS, key=lambda workers: self.measure(0, norm, "R0", workers))
        for repetition in range(1, repetitions + 1):
            self.peaks = {threads: max(best, peak(threads)) for threads, best in self.peaks.items()}
            turn = repetition % len(ARMS)
            for norm in norms:
                for arm in [*ARMS][turn:] + [*ARMS][:turn]:
                    self.measure(repetition, norm, arm, self.workers[norm] if arm == "R0" else 0)

    def measure(self, repetition: int, norm: str, arm: str, workers: int) -> float:
        commands = {
            "R0": [[*self.plain, norm, "--workers", str(workers)]],
            "R1": [[*self.run, norm]],
            "R2": [[*self.run, norm, "--threads", "1"]] * 2,
        }
        found, startup = together(commands[arm])
        self.measurements.append(Measurement(repetition, norm, arm, workers, round(found, 1), round(startup, 2)))
        detail = f", {workers} workers" if arm == "R0" else ""
        when = f"repetition {repetition}" if repetition else "trial"
        say(f"{when}: {norm}, {arm} {ARMS[arm]}{detail}: {found:,.0f} images/s")
        return found


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    show_defaults = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser("benchmarks.throughput", description=__doc__, formatter_class=show_defaults)
    parser.add_argument("--reps", type=int, default=5, help="repetitions of every arm with every norm")
    parser.add_argument("--images", type=int, default=100 * BATCH, help="training images of a measurement")
    parser.add_argument("--norms", nargs="+", choices=NORMS, default=NORMS, help="which to measure")
    parser.add_argument("--data", choices=("mnist", "digits"), default="mnist", help="digits: to try it without MNIST")
    parser.add_argument("--quick", action="store_true", help=f"--reps 1 --images {LEAST}, to see whether it works")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write throughput.csv and throughput.md there")
    args = parser.parse_args(given)
    if args.quick:
        args.reps, args.images = 1, LEAST
    if args.reps < 1 or args.images < LEAST or args.images % BATCH:
        parser.error(f"--reps must be 1 or more, --images a multiple of {BATCH} from {LEAST}")
    return args


def notes(args: argparse.Namespace, bench: Bench, flops: float, load_before: float) -> list[str]:
    """What was measured, on what and how: without it the figures say nothing."""
    found = versions() | {"torchvision": version("torchvision")}
    device = describe_device(torch.device("cpu"))
    busy = " (busy: do not trust the figures)" if load_before > BUSY else ""
    flags = f"--reps {args.reps} --images {args.images} --norms {' '.join(args.norms)} --data {args.data}"
    gflops = [f"{value / 1e9:,.0f} GFLOP/s with {threads} thread(s)" for threads, value in bench.peaks.items()]
    workers = ", ".join(f"{count} with {norm}" for norm, count in bench.workers.items())
    return [
        f"Machine: {device['name']}, {device['threads']} cores, load before {load_before:.1f}{busy}.",
        f"Versions: {', '.join(f'{name} {number}' for name, number in found.items())}.",
        f"Command: `python -m benchmarks.throughput {flags}`.",
        f"Training alone, batch {BATCH}, from step {WARM_UP} to the last; medians, ranges over the repetitions.",
        f"R0's workers, the best of {WORKERS}: {workers}.",
        f"Peak, float32 matrix products: {', '.join(gflops)}; the per cent are of the latter.",
        f"An image takes {flops / 1e6:.2f} MFLOP: convolutions, forward and backward; a multiply-add is two.",
        "Start-up: from the start of the process to the end of its first step.",
    ]


def show(table: Sequence[Sequence[str]], remarks: Sequence[str], title: str) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)  # rich takes 80 columns where there is no terminal
    shown = Table(title=title, title_justify="left", box=None)
    for index, heading in enumerate(HEADINGS):
        shown.add_column(heading, justify="left" if index < 2 else "right")
    for row in table:
        shown.add_row(*row)
    console.print(shown, "", *remarks, sep="\n", markup=False, highlight=False, soft_wrap=True)


def main(given: Sequence[str] | None = None) -> int:
    """The command line; the exit code: 0, 1 when an arm failed, 2 when the images are not there, 130 when stopped."""
    args = arguments(given)
    load_before = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load_before > BUSY:
        say(f"benchmarks: this machine is busy (load {load_before:.1f}): do not trust the figures")
    try:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(args.data, args.images, Path(folder))
            bench.measure_all(args.norms, args.reps)
    except NormlabError as error:
        say(f"benchmarks: {getattr(error, 'summary', error)}")
        return 2
    except ArmError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("benchmarks: stopped")
        return 130
    threads = torch.get_num_threads()
    flops = {norm: flops_per_image(norm) for norm in args.norms}
    judged = threads == 2 and load_before <= BUSY and args.data == "mnist" and not args.quick
    table = [cells(row, judged=judged) for row in summarise(bench.measurements, flops, bench.peaks[threads])]
    remarks = notes(args, bench, flops[args.norms[0]], load_before)
    show(table, remarks, f"Training throughput on {args.data}")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "throughput.md").write_text(markdown(table, remarks), encoding="utf-8")
        with (args.out / "throughput.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerows([Measurement._fields, *bench.measurements])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
