"""What somebody said about two settings, tested on the runs at hand."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from normlab.analysis.cells import Cell, Sorted, holds
from normlab.analysis.numbers import signed
from normlab.analysis.stats import Difference, difference_of, holm, tost
from normlab.settings import Claim, Study

__all__ = ["Judged", "judge", "unit"]

Ruling = Literal["supported", "refuted", "undecided", "untested"]


@dataclass(frozen=True)
class Judged:
    """A claim about one pair of settings, and what the runs say to it.

    Attributes:
        of, against: the settings' labels; empty where there are no such runs.
        difference: of - against, in percentage points (nats for a ce); None where untested.
        p: of the test that the claim stands for, Holm's adjustment over all claims about a direction included.
        why: what the ruling rests on, in a line.
    """

    claim: Claim
    of: str
    against: str
    difference: Difference | None
    p: float
    ruling: Ruling
    why: str


def unit(measure: str) -> str:
    """What a measure is counted in, here and in every table: percentage points, or nats for a cross-entropy."""
    return "nats" if measure.endswith("_ce") else "pp"


def judge(study: Study, found: Sorted, alpha: float = 0.05) -> list[Judged]:
    """Tests every claim of a study on every pair of settings that it speaks of.

    - higher, lower: a t test, paired by seed where seeds match; p by Holm's method over all such claims. Supported or
      refuted by the sign of a difference with p < alpha; refuted too where TOST shows equivalence within the study's
      margin.
    - by how much: supported where TOST puts the difference within `give` of the claimed size; refuted where the
      1 - alpha interval has no value in common with that range.
    - similar: supported where TOST puts the difference within the margin; refuted where the 1 - alpha interval lies
      outside it.

    What is neither is undecided; what has no runs is untested.
    """
    open_: list[tuple[Claim, Cell | None, Cell | None, Difference | None]] = []
    for claim in study.claims:
        pairs = _pairs(claim, found.cells)
        open_ += [(claim, of, against, _difference(claim, of, against)) for of, against in pairs] or [
            (claim, None, None, None)
        ]
    directed = [claim.expect != "similar" and claim.by is None for claim, *_ in open_]
    adjusted = holm(
        [d.p if d is not None and points else math.nan for (*_, d), points in zip(open_, directed, strict=True)]
    ).tolist()
    tested = []
    for (claim, of, against, difference), p in zip(open_, adjusted, strict=True):
        if difference is None or of is None or against is None:
            told = "no runs of these settings" if of is None else "these runs have not measured it"
            names = (of.label if of else "", against.label if against else "")
            tested.append(Judged(claim, *names, None, math.nan, "untested", told))
            continue
        p, ruling, why = _rule(claim, difference, p, study.margin, alpha)
        tested.append(Judged(claim, of.label, against.label, difference, p, ruling, why))
    return tested


def _rule(claim: Claim, d: Difference, p: float, margin: float, alpha: float) -> tuple[float, Ruling, str]:
    what, low, high = unit(claim.measure), d.low, d.high
    if math.isnan(d.se):
        return p, "undecided", "one seed has no interval"
    if claim.expect == "similar" or claim.by is not None:
        sign = -1 if claim.expect == "lower" else 1
        middle, half = (sign * claim.by, claim.give or 0.0) if claim.by else (0.0, claim.margin or margin)
        p = tost(_moved(d, -middle), half)
        span = f"{signed(middle - half)} to {signed(middle + half)} {what}"
        if p < alpha:
            return p, "supported", f"the difference lies within {span}"
        if high < middle - half or low > middle + half:
            return p, "refuted", f"the interval lies outside {span}"
        if d.se == 0:
            return p, "undecided", "too few seeds to rule out chance"
        return p, "undecided", f"the interval reaches both into and out of {span}"
    if p < alpha:
        seen = "higher" if d.mean > 0 else "lower"
        return p, "supported" if seen == claim.expect else "refuted", f"it is {seen}"
    if what == "pp" and claim.measure != "unevenness" and tost(d, margin) < alpha:
        return p, "refuted", f"they are equivalent within {margin:g} pp"
    return p, "undecided", "the interval covers 0" if low <= 0 <= high else "not after Holm's adjustment"


def _difference(claim: Claim, of: Cell, against: Cell) -> Difference | None:
    factor = 1 if unit(claim.measure) == "nats" else 100
    a, b = ({seed: factor * x for seed, x in cell.values(claim.measure).items()} for cell in (of, against))
    if not a or not b:
        return None
    return difference_of(a, b)


def _moved(d: Difference, by: float) -> Difference:
    return Difference(d.mean + by, d.sds, d.se, d.df, d.low + by, d.high + by, math.nan, d.method, d.n)


def _pairs(claim: Claim, cells: Sequence[Cell]) -> list[tuple[Cell, Cell]]:
    """Settings that hold what the claim names and agree in every other factor."""
    named = claim.of.keys() | claim.against.keys()
    return [
        (of, against)
        for of in cells
        for against in cells
        if holds(of, claim.of)
        and holds(against, claim.against)
        and all(level == against.levels.get(key) for key, level in of.levels.items() if key not in named)
    ]
