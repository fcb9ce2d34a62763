"""Are there enough seeds for the difference that is asked about?"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from normlab.lint.asked import IMAGES, Asked
from normlab.lint.finding import Finding, names
from normlab.record import Record
from normlab.settings import Study

if TYPE_CHECKING:
    from normlab.analysis.questions import Answers  # scipy, a second that a single run need not wait for

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
    """Before the start. With a study, its margin is the difference asked about: warned of where a t test, at the level
    that Bonferroni leaves each declared question of the report, would find it with less than 80 % power. Runs have the
    sd of `spread`, or an assumed one; what the test images add does not depend on seeds and is left out."""
    from normlab.analysis.verdicts import enough_seeds

    if len(cells) < 2:
        return
    seeds = min(len(cell.seeds) for cell in cells)
    spread = spread or assumed(cells[0].settings.data.name)
    if seeds == 1 or study is None or spread is None:
        yield from few(seeds)
        return
    questions = declared([cell.levels for cell in cells]) + len(study.claims)
    needed = enough_seeds(spread.sd, study.margin, len(cells), ALPHA / max(questions, 1), POWER)
    if needed > seeds:
        yield Finding(
            "seeds",
            f"{seeds} seeds per setting are few for a difference of {study.margin:g} pp, the study's margin: about "
            f"{needed:,.0f} would find it with {100 * POWER:g} % power in each of {questions} questions, at an sd of "
            f"{spread.sd:.2g} pp per run ({spread.source}). Give more, as in 'seed=range({needed:.0f})', or expect "
            "undecided questions.",
        )


def declared(levels: Sequence[Mapping[str, object]]) -> int:
    """About how many questions a report of such settings would declare: each setting against its control in each
    factor, each level's effect, and a pair of factors each."""
    factors = {key: len({str(each.get(key)) for each in levels}) for each in levels for key in each}
    factors = {key: count for key, count in factors.items() if count > 1 and not key.startswith("norm.")}
    effects = sum(count - 1 for count in factors.values())
    settings = sum(len(levels) - len(levels) // count for count in factors.values()) if len(factors) > 1 else 0
    return effects + settings + len(factors) * (len(factors) - 1) // 2


def few(seeds: int) -> Iterator[Finding]:
    """Where nobody has said what difference matters."""
    if seeds == 1:
        yield Finding("seeds", "One seed per setting: no interval and no verdict. Give several, as in 'seed=range(5)'.")
    elif seeds < ENOUGH:
        yield Finding(
            "seeds", f"{seeds} seeds per setting are too few to show small differences; {ENOUGH} are a start."
        )


def reached(answers: "Answers", margin: float | None) -> Iterator[Finding]:
    """Beside the results: the questions that are undecided because their interval is wider than the margin asked
    about."""
    counts = {cell.label: len(cell.completed) for cell in answers.found.cells if cell.completed}
    if not counts:
        return
    single = [label for label, n in counts.items() if n == 1]
    if single and max(counts.values()) > 1:
        yield Finding("seeds", f"{names(single)}: one seed, so no interval and no verdict.")
        counts = {label: n for label, n in counts.items() if n > 1}
    if min(counts.values()) == 1 or margin is None or not answers.answers:
        yield from few(min(counts.values()))
        return
    halves = []
    for each in answers.answers:
        if each.decision.verdict == "undecided" and each.estimate is not None and each.outcome is answers.about:
            low, high = each.estimate.interval(0.95)
            halves.append(answers.about.factor * (high - low) / 2)
    halves = sorted(half for half in halves if half > margin)  # NaN is not above
    if halves:
        needed = answers.seeds_needed
        takes = f" {needed:,.0f} seeds per setting would do." if math.isfinite(needed) else ""
        yield Finding(
            "seeds",
            f"{len(halves)} of {len(answers.answers)} questions {'is' if len(halves) == 1 else 'are'} undecided, and "
            f"the 95 % interval reaches {_span(halves)} {answers.about.unit} to either side, more than the margin of "
            f"{margin:g} {answers.about.unit}.{takes}",
        )


def _span(halves: Sequence[float]) -> str:
    low, high = f"{halves[0]:.2f}", f"{halves[-1]:.2f}"
    return low if low == high else f"{low} to {high}"
