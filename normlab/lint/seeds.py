"""Rules about seeds: are there enough for the difference that is asked about?"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from normlab.lint.design import Design, Spread, assumed
from normlab.lint.network import at_chance_always
from normlab.lint.rules import names, rule
from normlab.settings import NO_STUDY, Study

if TYPE_CHECKING:
    from normlab.analysis.declared import Family

NEVER = 0.5  # of the sd that is expected: less is not plausible
TWICE = 2.0  # a critical t so many times that of many seeds leaves little to find


def family(design: Design) -> "Family":
    """Return the questions that a report of these settings will declare, if all of them train that can."""
    from normlab.analysis.declared import Family  # scipy, a second that a single run need not wait for

    stuck = {each.label for each in design.settings if at_chance_always(each)}
    cells = tuple(cell for cell in design.grouped.cells if cell.label not in stuck)
    study = design.study
    return Family(replace(design.grouped, cells=cells), study, (study or NO_STUDY).margin)


@rule("NL011", "one-seed", "plan", "report")
def one_seed(design: Design) -> Iterator[str]:
    """Settings with a single seed: all of them or, in a report, some.

    How much runs vary is then unknown, and a difference between two runs cannot be told from luck: no interval, no
    verdict.

    Give several seeds, as in `'seed=range(5)'`, or `until=decided`.
    """
    cells = [cell.ended if design.answers is None else cell.completed for cell in design.grouped.cells]
    counts = {cell.label: len(runs) for cell, runs in zip(design.grouped.cells, cells, strict=True) if runs}
    single = [label for label, n in counts.items() if n == 1]
    if not single or (design.answers is None and (len(counts) == 1 or _until(design))):
        return
    who = "One seed per setting:" if len(single) == len(counts) else f"{names(single)}: one seed, so"
    yield f"{who} no interval and no verdict. Give several, as in 'seed=range(5)'."


@rule("NL012", "seeds-that-decide-nothing", "plan")
def undecidable(design: Design) -> Iterator[str]:
    """S settings with n seeds leave at most S·(n - 1) degrees of freedom, and each of the G questions that the report
    will declare is tested at the level 0.05/G: |t| has to exceed t(1 - 0.05/2G). In a study with a margin the case is
    that this t, with half the standard deviation per run that is expected, puts the smallest difference that can be
    found above the margin; without one, that it is over twice the t of many seeds.

    Whatever comes out, a difference of the margin would be missed more often than found, and no two settings could be
    shown to be equivalent: the study is undecided before it starts.

    Give more seeds or `until=decided`, compare fewer settings, or choose a margin that such a study can resolve.
    """
    from scipy import special  # type: ignore[import-untyped, unused-ignore]

    from normlab.analysis.verdicts import ALPHA

    if (counts := _counts(design)) is None:
        return
    seeds, count, settings = counts
    df, level = settings * (seeds - 1), 1 - ALPHA / 2 / count
    critical, least = float(special.stdtrit(df, level)), float(special.ndtri(level))
    said = (
        f"{seeds} seeds for each of {settings} settings leave {df} degrees of freedom, and |t| has to exceed "
        f"{critical:.1f} in {f'each of {count} questions' if count > 1 else 'the one question'}"
    )
    spread, study = _spread(design), design.study
    if study is not None and spread is not None:
        if (half := NEVER * spread.sd) * critical * math.sqrt(2 / seeds) > study.margin:
            yield (
                f"{said}: even if runs varied half as much as expected ({half:.2g} pp, {spread.source}), a difference "
                f"of {study.margin:g} pp, the study's margin, would be missed more often than found. "
                f"{_more(_needed(spread, study, settings, count))}"
            )
    elif critical > TWICE * least:
        yield (
            f"{said}, where many seeds need {least:.1f}: large differences only will be found. Give more seeds, as in "
            "'seed=range(5)', or until=decided."
        )


@rule("NL013", "few-seeds-for-the-margin", "plan", "report")
def few(design: Design) -> Iterator[str]:
    """Before a named study starts: a t test at the level 0.05/G, for each of the G questions of the report, would find
    a difference of the study's margin with less than 80 % power, at the standard deviation of its finished runs, else
    of committed ones (0.08 points on MNIST), else the binomial one of the test images. In a report: questions are
    undecided and their 95 % intervals wider than the margin.

    "Undecided" then says nothing about the settings; it says that there were too few runs.

    Give as many seeds as the message names, or `until=decided`, which gives them to the open questions only.
    """
    if design.answers is not None:
        yield from _reached(design)
        return
    study, spread, counts = design.study, _spread(design), _counts(design)
    if study is None or spread is None or counts is None or next(undecidable(design), None):
        return
    seeds, count, settings = counts
    if (needed := _needed(spread, study, settings, count)) > seeds:
        yield (
            f"{seeds} seeds per setting are few for a difference of {study.margin:g} pp, the study's margin, at an sd "
            f"of {spread.sd:.2g} pp per run ({spread.source}) and {count} questions. {_more(needed)}"
        )


def _needed(spread: Spread, study: Study, settings: int, count: int) -> float:
    """Seeds per setting. What the test images add does not depend on seeds and is left out."""
    from normlab.analysis.verdicts import ALPHA, enough_seeds

    return enough_seeds(spread.sd, study.margin, settings, ALPHA / count)


def _more(needed: float) -> str:
    from normlab.analysis.verdicts import POWER

    return (
        f"About {needed:,.0f} would find it with {100 * POWER:g} % power in each. Give more, as in "
        f"'seed=range({needed:.0f})', or until=decided."
    )


def _counts(design: Design) -> tuple[int, int, int] | None:
    """Seeds per setting, questions and settings; None where nothing is asked, or seeds are not chosen beforehand."""
    seeds = min(len(cell.ended) for cell in design.grouped.cells)
    if len(design.grouped.cells) < 2 or seeds < 2 or _until(design):
        return None
    asked = family(design)
    return (seeds, len(asked.declared), len(asked.grouped.cells)) if asked.declared else None


def _spread(design: Design) -> Spread | None:
    return design.spread or (assumed(design.settings[0]) if design.settings else None)


def _until(design: Design) -> bool:
    return any(each.settings.until for each in design.settings)


def _reached(design: Design) -> Iterator[str]:
    answers, margin = design.answers, design.margin
    assert answers is not None
    halves, open_ = [], [each for each in answers.answers if each.decision.verdict == "undecided"]
    for each in open_ if margin is not None else ():
        if each.estimate is not None and each.about is answers.about:
            low, high = each.estimate.interval(0.95)
            halves.append(answers.about.factor * (high - low) / 2)
    halves = sorted(half for half in halves if half > (margin or 0))  # NaN is not above
    if halves:
        needed, unit = answers.seeds_needed, answers.about.unit
        enough = f" {needed:,.0f} seeds per setting would do." if math.isfinite(needed) else ""
        which = ", and" if len(halves) == len(open_) else f"; in {len(halves)} of them"
        yield (
            f"{len(open_)} of {len(answers.answers)} questions {'is' if len(open_) == 1 else 'are'} undecided{which} "
            f"the 95 % interval reaches {_span(halves)} {unit} to either side, more than the margin of {margin:g} "
            f"{unit}.{enough}"
        )


def _span(halves: Sequence[float]) -> str:
    low, high = f"{halves[0]:.2f}", f"{halves[-1]:.2f}"
    return low if low == high else f"{low} to {high}"
