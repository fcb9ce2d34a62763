"""How fast a study goes, by every way to train it, in one call: `python -m benchmarks.study --out FOLDER`.

R0, the plain Lightning script (benchmarks/plain.py) with the best of 0, 1 and 2 workers; T, normlab runs one after the
other with kernels=torch (CPU); R1, the same by the kernels; R2, normlab runs in processes of one thread each, one per
core (CPU); R3, runs one after the other whose steps are replayed as a CUDA graph (GPU); H, networks fused by grouped
convolutions in the usual way (benchmarks/hfta.py), with one norm, and R4, normlab's array, both in one process per core
on CPU and in one on a GPU.

Why it is fair: the same network, images, batch size and optimizer; every arm in processes of its own, one arm at a
time; one clock, from the 10th step to the last; arms interleaved in a rotating order, so that a machine that slows down
slows them all; medians. R0 rotates images only and H does not augment, measure or write: they have less to do.
"""

import argparse
import csv
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.arms import code_of, say, together
from benchmarks.clock import BATCH, HELD_OUT, WARM_UP
from benchmarks.machine import bandwidth, bytes_per_image, flops_per_image, peak
from benchmarks.samples import cut, write_as_mnist
from benchmarks.study_results import ARMS, Cell, Machine, Measurement, figures, markdown, rows, show
from normlab.data.sources import load
from normlab.record import versions
from normlab.training.device import describe_device

NORMS = ("bn", "ln", "gn", "in", "none", "rms")
BATCHES = {"cpu": (2, 8, 32, 128, 512), "gpu": (2, 8, 32, 128, 512)}
SIZES = {"cpu": (1, 4, 16, 64), "gpu": (1, 4, 16, 60, 256)}  # networks of an array
USUAL = {"cpu": {2: 24, 8: 24, 32: 8, 128: 4, 512: 1}, "gpu": dict.fromkeys((2, 8, 32, 128, 512), 60)}
MOST = {"cpu": 512, "gpu": 65_536}  # images that all networks of an array take in a step: more would take minutes
WORKERS = (0, 1, 2)
SWEPT = "gn"  # the norm of the curves over batch and array size


def cells(device: str, norms: Sequence[str], quick: bool) -> Iterator[Cell]:
    """Everything that is measured: norms at batch 128, batch sizes, sizes of the array."""
    arms = ["R0", *(["T", "R1", "R2"] if device == "cpu" else ["R1", "R3"]), "H", "R4"]
    usual = USUAL[device]
    if quick:
        yield from (Cell(SWEPT, 32, arm, 2 if arm in ("H", "R4") else 1) for arm in arms)
        return
    found: dict[Cell, None] = {}  # in order, each once
    for norm, batch in [*((norm, BATCH) for norm in norms), *((SWEPT, batch) for batch in BATCHES[device])]:
        for arm in arms:
            if arm != "H" or norm == SWEPT:
                found[Cell(norm, batch, arm, usual[batch] if arm in ("H", "R4") else 1)] = None
    for batch in (2, BATCH):
        for size in SIZES[device]:
            if size * batch <= MOST[device]:
                found |= {Cell(SWEPT, batch, arm, size): None for arm in ("H", "R4")}
    yield from found


class Bench:
    """Measures cells one at a time, and keeps what it measured.

    Attributes:
        workers: by batch size, what R0 was fastest with in the trials.
        peak, bandwidth: FLOP/s and bytes/s, the best of all repetitions.
    """

    def __init__(self, data: str, device: str, folder: Path, *, quick: bool) -> None:
        self.data, self.device, self.folder, self.quick = data, device, folder, quick
        self.measurements: list[Measurement] = []
        self.workers: dict[int, int] = {}
        self.processes = torch.get_num_threads() if device == "cpu" else 1
        self.peak = self.bandwidth = 0.0

    def measure_machine(self) -> None:
        where, threads = "cuda" if self.device == "gpu" else "cpu", torch.get_num_threads()
        self.peak = max(self.peak, peak(threads, device=where))
        self.bandwidth = max(self.bandwidth, bandwidth(threads, device=where))

    def measure_all(self, wanted: Sequence[Cell], repetitions: int, report: Callable[[], None]) -> None:
        load(self.data)  # images that are not there are told before anything is measured
        for repetition in range(1, repetitions + 1):
            self.measure_machine()
            turn = repetition % len(ARMS)
            order = [*ARMS][turn:] + [*ARMS][:turn]
            for cell in sorted(wanted, key=lambda c: (c.norm, c.batch, c.networks > 1, c.networks, order.index(c.arm))):
                self.measure(repetition, cell)
            report()  # what is measured is kept, whatever comes

    def measure(self, repetition: int, cell: Cell) -> None:
        if cell.arm == "R0" and cell.batch not in self.workers:
            tried = {n: 0.0 if self.quick else together([self._plain(cell, n)])[0] for n in WORKERS}
            self.workers[cell.batch] = max(tried, key=lambda n: tried[n])  # quick: the first
        found, startup = together(self._commands(cell))
        processes = len(self._commands(cell))
        measured = Measurement(repetition, *cell, processes, round(found, 1), round(startup, 2))
        self.measurements.append(measured)
        networks = f" of {cell.networks}" if cell.arm in ("H", "R4") else ""
        told = f"{cell.norm}, batch {cell.batch}, {cell.arm} {ARMS[cell.arm]}{networks}"
        say(f"repetition {repetition}: {told}: {found:,.0f} images/s")

    def _commands(self, cell: Cell) -> list[list[str]]:
        alone = ["--threads", "1"]
        match cell.arm:
            case "R0":
                return [self._plain(cell, self.workers[cell.batch])]
            case "T":
                return [self._ours(cell, "--kernels", "torch")]
            case "R1":
                return [self._ours(cell, *["--eager"] * (self.device == "gpu"))]
            case "R2":
                return [self._ours(cell, *alone)] * self.processes
            case "R3":
                return [self._ours(cell)]
            case "R4":
                return [self._ours(cell, "--array", str(cell.networks), *alone)] * self.processes
        fused = ["benchmarks.hfta", *self._shared(cell), "--array", str(cell.networks), *alone]
        return [fused] * self.processes

    def _shared(self, cell: Cell) -> list[str]:
        images = str(self._images(cell))
        words = ["--norm", cell.norm, "--batch", str(cell.batch), "--accelerator", self.device]
        return [*words, "--data", self.data, "--images", images]

    def _images(self, cell: Cell) -> int:
        """Training images of a network: enough for a few seconds, at least for twice the warm-up."""
        most = 0 if self.quick else 300 if self.device == "cpu" else 600
        return cell.batch * max(2 * WARM_UP, min(most, 12_800 // (cell.batch * cell.networks)))

    def _ours(self, cell: Cell, *more: str) -> list[str]:
        return ["benchmarks.ours", *self._shared(cell), "--training-only", *more]

    def _plain(self, cell: Cell, workers: int) -> list[str]:
        root = self.folder / str(self._images(cell))
        if not root.exists():
            root.mkdir()
            write_as_mnist(cut(load(self.data), int(root.name), HELD_OUT), root)
        words = ["--norm", cell.norm, "--batch", str(cell.batch), "--accelerator", self.device]
        return ["benchmarks.plain", *words, "--root", str(root), "--workers", str(workers)]


def main(given: Sequence[str] | None = None) -> int:
    """The command line; the exit code: 0, 1 when an arm failed, 2 when the images are not there, 130 when stopped."""
    args = arguments(given)
    load_before = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    wanted = [cell for cell in cells(args.device, args.norms, args.quick) if args.quick or cell.batch in args.batches]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args.data, args.device, Path(folder), quick=args.quick)
        tell = partial(report, bench, args, sorted({cell.norm for cell in wanted}), load_before)
        return code_of(lambda: bench.measure_all(wanted, 1 if args.quick else args.reps, tell))


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    show_defaults = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser("benchmarks.study", description=__doc__, formatter_class=show_defaults)
    batches = sorted({batch for of in BATCHES.values() for batch in of})
    parser.add_argument("--reps", type=int, default=3, help="repetitions of every cell")
    parser.add_argument("--norms", nargs="+", choices=NORMS, default=NORMS, help="which to measure at batch 128")
    parser.add_argument("--batches", nargs="+", type=int, choices=batches, default=batches, help="batch sizes")
    parser.add_argument("--data", choices=("mnist", "digits"), default="mnist", help="digits: to try it without MNIST")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="gpu" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="one small cell an arm, to see whether it works")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write study.csv, study.md and two figures there")
    args = parser.parse_args(given)
    if args.reps < 1:
        parser.error("--reps must be 1 or more")
    return args


def report(bench: Bench, args: argparse.Namespace, norms: Sequence[str], load_before: float) -> None:
    """Prints the table and, where a folder was given, writes it, its figures and all single measurements."""
    where = "cuda" if args.device == "gpu" else "cpu"
    machine = Machine(
        name=describe_device(torch.device(where))["name"],
        cores=torch.get_num_threads(),
        peak=bench.peak,
        bandwidth=bench.bandwidth,
        flops={norm: flops_per_image(norm) for norm in norms},
        bytes={norm: bytes_per_image(norm) for norm in norms},
        load=load_before,
        versions=versions(),
        command=f"python -m benchmarks.study --reps {args.reps} --norms {' '.join(args.norms)} --data {args.data}",
        device=args.device,
    )
    table = rows(bench.measurements, machine)
    show(table, machine)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "study.md").write_text(markdown(table, machine), encoding="utf-8")
        with (args.out / "study.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerows([Measurement._fields, *bench.measurements])
        for name, content in figures(table, machine):
            (args.out / name).write_bytes(content)


if __name__ == "__main__":
    sys.exit(main())
