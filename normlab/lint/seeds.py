"""Are there enough seeds for the difference that is asked about?"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from normlab.analysis.cells import Cell
from normlab.lint.asked import IMAGES, Asked
from normlab.lint.finding import Finding, names
from normlab.record import Record
from normlab.settings import Study

if TYPE_CHECKING:
    from normlab.analysis.stats import Comparison  # scipy, a second that a single run need not wait for

__all__ = ["Spread", "few", "planned_seeds", "reached", "spread_of"]

ALPHA, POWER = 0.05, 0.8  # as in the verdicts of a report
ENOUGH = 5  # seeds, where no study says what difference matters
LEAST = 4  # degrees of freedom, for an sd of these runs to count before an assumed one

SEEN = 0.05  # sd of a run's test accuracy over seeds, pp: MNIST, 20 epochs, lightning_logs/replication
ACCURACY = {"digits": 0.993, "fashion_mnist": 0.9, "kmnist": 0.95}  # of study=replication_quick; the others are guesses


@dataclass(frozen=True)
class Spread:
    """Standard deviation, in pp, of the test accuracy of runs that differ in the seed alone; where it is from."""

    sd: float
    source: str


def spread_of(records: Iterable[Record]) -> Spread | None:
    """Pooled over the settings of finished runs: sqrt(Σ(x - mean of its setting)² / Σ(n - 1)); None below 4 degrees of
    freedom, where it says little, where all are equal, and for runs of several data sets."""
    accuracies: dict[str, list[float]] = {}
    sets = set()
    for record in records:
        sets.add(record.config["data"]["name"])
        if (acc := record.metrics.get("test_acc")) is not None:
            accuracies.setdefault(repr(sorted(record.setting.items())), []).append(100 * acc)
    df = sum(len(values) - 1 for values in accuracies.values())
    squares = sum(len(values) * float(np.var(values)) for values in accuracies.values())
    if df < LEAST or not squares or len(sets) > 1:
        return None
    return Spread(math.sqrt(squares / df), f"as in the {df + len(accuracies)} runs that stand finished")


def assumed(data: str) -> Spread | None:
    """Where nothing has run yet: what MNIST was seen to have, else the binomial sd sqrt(p·(1 - p) / n) of n test images
    at an accuracy p, which is of that size: 0.07 pp on MNIST, and 0.37 pp on digits where 18 runs of
    study=replication_quick had 0.35 pp."""
    if data == "mnist":
        return Spread(SEEN, "as in the replication study")
    if data not in ACCURACY:
        return None
    p, images = ACCURACY[data], IMAGES[data][1]
    return Spread(100 * math.sqrt(p * (1 - p) / images), f"binomial, {images:,} test images at {100 * p:g} %")


def planned_seeds(cells: Sequence[Asked], study: Study | None, spread: Spread | None) -> Iterator[Finding]:
    """Before the start. With a study, its margin is the difference asked about: warned of where a paired t test, at the
    level that Bonferroni leaves each pair of the report, would find it with less than 80 % power. Both settings of a
    pair have the sd of `spread`, or an assumed one, and do not correlate (in the replication they do not)."""
    from normlab.analysis.stats import Difference, seeds_needed
    from normlab.analysis.tables import family

    if len(cells) < 2:
        return
    seeds = min(len(cell.seeds) for cell in cells)
    spread = spread or assumed(cells[0].settings.data.name)
    if seeds == 1 or study is None or spread is None:
        yield from few(seeds)
        return
    pairs = len(family(cells))
    sd, nan = math.sqrt(2) * spread.sd, math.nan
    difference = Difference(study.margin, (sd,), sd / math.sqrt(seeds), seeds - 1, nan, nan, nan, "paired", seeds)
    needed = seeds_needed(difference, study.margin, ALPHA / max(pairs, 1), POWER)
    if needed is None or needed > seeds:
        takes = f"about {needed:,} would" if needed else "more than 10,000 would be needed to"
        yield Finding(
            "seeds",
            f"{seeds} seeds a setting are few for a difference of {study.margin:g} pp, the study's margin: {takes} "
            f"find it with {100 * POWER:g} % power in each of {pairs} pairs, at an sd of {spread.sd:.2g} pp a run "
            f"({spread.source}). Give more, as in 'seed=range({needed or 100})', or expect undecided pairs.",
        )


def few(seeds: int) -> Iterator[Finding]:
    """Where nobody has said what difference matters."""
    if seeds == 1:
        yield Finding("seeds", "One seed a setting: no interval and no verdict. Give several, as in 'seed=range(5)'.")
    elif seeds < ENOUGH:
        yield Finding("seeds", f"{seeds} seeds a setting are too few to show small differences; {ENOUGH} are a start.")


def reached(
    cells: Sequence[Cell], pairs: Sequence[tuple[Cell, Cell, "Comparison"]], margin: float | None
) -> Iterator[Finding]:
    """Beside the results: the pairs that are undecided because their interval is wider than the margin asked about."""
    counts = {cell.label: len(cell.completed) for cell in cells if cell.completed}
    if not counts:
        return
    single = [label for label, n in counts.items() if n == 1]
    if single and max(counts.values()) > 1:
        yield Finding("seeds", f"{names(single)}: one seed, so no interval and no verdict.")
        counts = {label: n for label, n in counts.items() if n > 1}
    if min(counts.values()) == 1 or margin is None or not pairs:
        yield from few(min(counts.values()))
        return
    open_ = [c.difference for *_, c in pairs if c.verdict == "undecided"]
    halves = sorted((d.high - d.low) / 2 for d in open_ if (d.high - d.low) / 2 > margin)  # NaN is not above
    if halves:
        yield Finding(
            "seeds",
            f"{len(halves)} of {len(pairs)} pairs {'is' if len(halves) == 1 else 'are'} undecided, and the 95 % "
            f"interval of the difference reaches {_span(halves)} pp to either side, more than the margin of "
            f"{margin:g} pp. The table of pairs says how many seeds would decide.",
        )


def _span(halves: Sequence[float]) -> str:
    low, high = f"{halves[0]:.2f}", f"{halves[-1]:.2f}"
    return low if low == high else f"{low} to {high}"
