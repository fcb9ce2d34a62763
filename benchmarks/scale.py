"""How far a simple cost model goes: `python -m benchmarks.scale docs/study.csv` fits it to a benchmark's points.

A step of K networks on batches of B images takes a + c · K + b · K · B seconds: a is what Python and the libraries need
to say what is to be done, c what a network adds to that (its positions, its update), b what the arithmetic of an image
takes. An arm has one a, b and c for all its points; c is part of a where K is 1 throughout. They are fitted to the
relative errors of its step times, and the table shows what they give beside what was measured.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from benchmarks.study_results import ARMS, Cell, Measurement

FITTED = ("R1", "R2", "R4")
NORM = "gn"


class Point(NamedTuple):
    """One cell of the benchmark. seconds: of a step of one process."""

    cell: Cell
    seconds: float


class Fit(NamedTuple):
    """a: seconds per step; b: seconds per image; c: seconds per network."""

    a: float
    b: float
    c: float = 0.0

    def seconds(self, cell: Cell) -> float:
        return self.a + self.c * cell.networks + self.b * cell.networks * cell.batch


def points(measurements: Sequence[Measurement], arm: str) -> list[Point]:
    """The medians of an arm, as times of a step."""
    found: dict[Cell, list[float]] = {}
    for m in measurements:
        if m.arm == arm and m.norm == NORM:
            cell = Cell(m.norm, m.batch, m.arm, m.networks)
            found.setdefault(cell, []).append(m.batch * m.networks * m.processes / m.images_per_s)
    return [Point(cell, median(seconds)) for cell, seconds in sorted(found.items())]


def fit(found: Sequence[Point]) -> Fit:
    """Least squares of the relative errors."""
    several = len({point.cell.networks for point in found}) > 1
    terms = np.array([[1, p.cell.networks * p.cell.batch, *[p.cell.networks] * several] for p in found], dtype=float)
    seconds = np.array([p.seconds for p in found])
    found_, *_ = np.linalg.lstsq(terms / seconds[:, None], np.ones(len(found)), rcond=None)
    return Fit(*map(float, found_))


def table(measurements: Sequence[Measurement]) -> list[str]:
    """Markdown: for every arm a, b and c, then each point as measured and as the model has it."""
    lines = ["| arm | batch | networks | ms per step | model | error |", "|---|---:|---:|---:|---:|---:|"]
    told = []
    for arm in FITTED:
        found = points(measurements, arm)
        if len(found) < 3:
            continue
        model = fit(found)
        rate = f"{1e6 * model.b:,.0f} µs per image ({1 / model.b:,.0f} images/s)"
        each = f", c = {1e3 * model.c:.2f} ms per network" if model.c else ""
        told.append(f"- {arm}, {ARMS[arm]}: a = {1e3 * model.a:.1f} ms per step{each}, b = {rate}.")
        for point in found:
            by_model = model.seconds(point.cell)
            cell, error = point.cell, 100 * (by_model / point.seconds - 1)
            networks = str(cell.networks) if arm == "R4" else ""
            measured = f"{1e3 * point.seconds:,.1f} | {1e3 * by_model:,.1f} | {error:+.0f} %"
            lines.append(f"| {arm} | {cell.batch} | {networks} | {measured} |".replace("-", "−"))
    return [*told, "", *lines]


def read(file: Path) -> list[Measurement]:
    """The measurements that benchmarks/study.py wrote."""
    with file.open(encoding="utf-8", newline="") as stream:
        kinds = Measurement.__annotations__
        return [Measurement(**{key: kinds[key](value) for key, value in row.items()}) for row in csv.DictReader(stream)]


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("benchmarks.scale", description=__doc__)
    parser.add_argument("file", type=Path, help="study.csv of benchmarks.study, measured on a CPU")
    args = parser.parse_args(given)
    try:
        print("\n".join(table(read(args.file))))
    except (OSError, KeyError, TypeError, ValueError) as error:
        print(f"benchmarks: {args.file}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
