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
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.arms import say, together
from benchmarks.clock import BATCH, HELD_OUT, WARM_UP
from benchmarks.machine import bandwidth, bytes_per_image, flops_per_image, peak
from benchmarks.samples import cut, write_as_mnist
from benchmarks.study_results import ARMS, ARRAYS, Cell, Machine, figures, in_short, page, rows
from benchmarks.tables import load as load_of_machine
from benchmarks.tables import processor, releases
from normlab.data.sources import load
from normlab.errors import in_one_line

NORMS = ("bn", "ln", "gn", "in", "none", "rms")
BATCHES = (2, 8, 32, 128, 512)
SIZES = {"cpu": (1, 4, 16, 64), "gpu": (1, 4, 16, 60, 256)}  # networks of an array
USUAL = {"cpu": {2: 24, 8: 24, 32: 8, 128: 4, 512: 1}, "gpu": dict.fromkeys(BATCHES, 60)}
MOST = {"cpu": 512, "gpu": 65_536}  # images that all networks of an array take in a step: more would take minutes
WORKERS = (0, 1, 2)
SWEPT = "gn"  # the norm of the curves over batch and array size


def cells(device: str, norms: Sequence[str], quick: bool) -> list[Cell]:
    """Return everything that is measured, each once: norms at batch 128, batch sizes, sizes of the array."""
    arms = ["R0", *(["T", "R1", "R2"] if device == "cpu" else ["R1", "R3"]), *ARRAYS]
    if quick:
        return [Cell(SWEPT, 32, arm, 2 if arm in ARRAYS else 1) for arm in arms]
    wanted = [
        Cell(norm, batch, arm, USUAL[device][batch] if arm in ARRAYS else 1)
        for norm, batch in [*((norm, BATCH) for norm in norms), *((SWEPT, batch) for batch in BATCHES)]
        for arm in arms
        if arm != "H" or norm == SWEPT
    ]
    sizes = [(batch, size) for batch in (2, BATCH) for size in SIZES[device] if size * batch <= MOST[device]]
    wanted += [Cell(SWEPT, batch, arm, size) for batch, size in sizes for arm in ARRAYS]
    return list(dict.fromkeys(wanted))


class Bench:
    """Measures cells one at a time, and keeps what it measured.

    Attributes:
        measured: the rows of study.csv.
        workers: by batch size, what R0 was fastest with in the trials.
        peak, bandwidth: FLOP/s and bytes/s, the best of all repetitions.
    """

    def __init__(self, data: str, device: str, folder: Path, *, quick: bool) -> None:
        self.data, self.device, self.folder, self.quick = data, device, folder, quick
        self.measured: list[dict[str, Any]] = []
        self.workers: dict[int, int] = {}
        self.processes = torch.get_num_threads() if device == "cpu" else 1
        self.peak = self.bandwidth = 0.0

    def measure_machine(self) -> None:
        where, threads = "cuda" if self.device == "gpu" else "cpu", torch.get_num_threads()
        self.peak = max(self.peak, peak(threads, device=where))
        self.bandwidth = max(self.bandwidth, bandwidth(threads, device=where))

    def measure_all(self, wanted: Sequence[Cell], repetitions: int, report: Callable[[], None]) -> None:
        load(self.data)  # images that are not there are reported before anything is measured
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
        commands = self._commands(cell)
        rate, startup = together(commands)
        row = {"repetition": repetition, **cell._asdict(), "processes": len(commands)}
        self.measured.append(row | {"images_per_s": round(rate, 1), "startup_s": round(startup, 2)})
        networks = f" of {cell.networks}" if cell.arm in ARRAYS else ""
        arm = f"{cell.norm}, batch {cell.batch}, {cell.arm} {ARMS[cell.arm]}{networks}"
        say(f"repetition {repetition}: {arm}: {rate:,.0f} images/s")

    def _commands(self, cell: Cell) -> list[list[str]]:
        alone = ["--threads", "1"]
        array = ["--array", str(cell.networks), *alone]
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
                return [self._ours(cell, *array)] * self.processes
        return [["benchmarks.hfta", *self._shared(cell), *self._images_of(cell), *array]] * self.processes

    def _shared(self, cell: Cell) -> list[str]:
        return ["--norm", cell.norm, "--batch", str(cell.batch), "--accelerator", self.device]

    def _images_of(self, cell: Cell) -> list[str]:
        return ["--data", self.data, "--images", str(self._images(cell))]

    def _images(self, cell: Cell) -> int:
        """Return the training images of a network: enough for a few seconds, at least for twice the warm-up."""
        most = 60 if self.quick else 300 if self.device == "cpu" else 600
        return cell.batch * max(2 * WARM_UP, min(most, 12_800 // (cell.batch * cell.networks)))

    def _ours(self, cell: Cell, *more: str) -> list[str]:
        return ["benchmarks.ours", *self._shared(cell), *self._images_of(cell), "--training-only", *more]

    def _plain(self, cell: Cell, workers: int) -> list[str]:
        root = self.folder / str(self._images(cell))
        if not root.exists():
            root.mkdir()
            write_as_mnist(cut(load(self.data), int(root.name), HELD_OUT), root)
        return ["benchmarks.plain", *self._shared(cell), "--root", str(root), "--workers", str(workers)]


@in_one_line()
def main(given: Sequence[str]) -> int:
    """Measure; return the exit code: 0, 2 when an arm failed or the images are not there, 130 when stopped."""
    show_defaults = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser("benchmarks.study", description=__doc__, formatter_class=show_defaults)
    parser.add_argument("--reps", type=int, default=3, help="repetitions of every cell")
    parser.add_argument("--norms", nargs="+", choices=NORMS, default=NORMS, help="which to measure at batch 128")
    parser.add_argument("--batches", nargs="+", type=int, choices=BATCHES, default=BATCHES, help="batch sizes")
    parser.add_argument("--data", choices=("mnist", "digits"), default="mnist", help="digits: to try it without MNIST")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="gpu" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="one small cell per arm, to see whether it works")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write study.csv, study.md and two figures there")
    args = parser.parse_args(given)
    if args.reps < 1:
        parser.error("--reps must be 1 or more")
    before = load_of_machine()
    wanted = [cell for cell in cells(args.device, args.norms, args.quick) if args.quick or cell.batch in args.batches]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args.data, args.device, Path(folder), quick=args.quick)
        report_now = partial(report, bench, args, sorted({cell.norm for cell in wanted}), before)
        bench.measure_all(wanted, 1 if args.quick else args.reps, report_now)
    return 0


def report(bench: Bench, args: argparse.Namespace, norms: Sequence[str], load_before: float) -> None:
    """Print the page and, where a folder was given, write it there with its figures and all single measurements."""
    machine = Machine(
        name=processor("cuda" if args.device == "gpu" else "cpu"),
        cores=torch.get_num_threads(),
        peak=bench.peak,
        bandwidth=bench.bandwidth,
        flops={norm: flops_per_image(norm) for norm in norms},
        bytes={norm: bytes_per_image(norm) for norm in norms},
        load=load_before,
        versions=releases(),
        command=f"python -m benchmarks.study --reps {args.reps} --norms {' '.join(args.norms)} --data {args.data}",
        device=args.device,
    )
    measured = pd.DataFrame(bench.measured)
    table = rows(measured, machine)
    print(page(table, machine), in_short(table), sep="\n")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "study.md").write_text(page(table, machine), encoding="utf-8")
        measured.to_csv(args.out / "study.csv", index=False)
        for name, content in figures(table, machine):
            (args.out / name).write_bytes(content)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
