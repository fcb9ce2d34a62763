"""Verdicts over a family of declared questions, with one chance of error for all of them.

Each question about a contrast D with a margin m has two hypotheses of which at most one is true: "D is 0" and "D is at
least m away from 0". Rejecting the first says better or worse, the second equivalent, both that there is a difference
which is less than the margin. A claim about a range ("within 0.5 points", "1 to 2 points") asks whether D lies in it:
"it does not", and "it does".
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from scipy import optimize, special, stats  # type: ignore[import-untyped, unused-ignore]

from normlab.analysis.inference import Estimate, Model

ALPHA = 0.05  # the chance of any false verdict in a report
POWER = 0.8  # that studies are planned for

Verdict = Literal["better", "worse", "equivalent", "less than the margin", "holds", "fails", "depends", "undecided"]


@dataclass(frozen=True)
class Question:
    """A contrast and what is asked about it.

    Attributes:
        low, high: the range in which it "is the same" (±margin) or as it was claimed.
        of_range: whether the range itself is the claim; 0 then has no part in it.
        higher_is_better: what a positive contrast says.
    """

    estimate: Estimate
    low: float
    high: float
    of_range: bool = False
    higher_is_better: bool = True

    @cached_property
    def t(self) -> tuple[float, float, float]:
        """Of "it is at the low end", "it is 0" and "it is at the high end" of the range; NaN of no ends."""
        low, high = (math.nan if math.isnan(end) else self.estimate.t(end) for end in (self.low, self.high))
        return low, self.estimate.t(), high

    @cached_property
    def sides(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The one-sided p behind each of the two of `p`: either of a pair rejects the first hypothesis (each at half
        its level), both reject the second (two one-sided tests: Schuirmann 1987)."""
        low, zero, high = self.t
        below, above = (low, high) if self.of_range else (zero, zero)
        return (self._p(below), self._p(-above)), (self._p(-low), self._p(high))

    @property
    def p(self) -> tuple[float, float]:
        """p of two hypotheses that cannot both be true: "it is 0" (for a claim of a range: "it lies in it") and "it
        lies outside the range".

        That of a range is two-sided, at the nearer end: P(T ≤ t) + P(T ≤ t - w) with w the width in standard errors.
        """
        first, second = self.sides
        if not self.of_range:
            return 2 * min(first), max(second)
        low, _, high = self.t
        nearer = low if low < 0 else -high
        width = low - high if math.isfinite(low) and math.isfinite(high) else math.inf
        return min(1.0, self._p(nearer) + self._p(nearer - width)), max(second)

    def _p(self, t: float) -> float:
        """P(T ≤ t)."""
        return float(special.stdtr(self.estimate.df, t))

    def verdict(self, rejected: Sequence[bool]) -> Verdict:
        """What follows from rejecting these two."""
        differs, same = rejected
        if self.of_range:
            return "holds" if same else "fails" if differs else "undecided"
        if differs and same:
            return "less than the margin"
        if differs:
            return "better" if (self.estimate.value > 0) == self.higher_is_better else "worse"
        return "equivalent" if same else "undecided"


class Joint(NamedTuple):
    """Whether several contrasts are all 0, by an F test (see `Model.joint`), or all within the margin.

    parts: a question about each. "One of them is at least the margin" is rejected where it is for each (Berger 1982,
    "Multiparameter hypothesis testing and acceptance sampling"); it and "all are 0" cannot both be true.
    """

    f: float
    df: tuple[float, float]
    p_value: float
    parts: tuple[Question, ...] = ()

    @property
    def p(self) -> tuple[float, float]:
        return self.p_value, max((part.p[1] for part in self.parts), default=math.nan)

    def verdict(self, rejected: Sequence[bool]) -> Verdict:
        differs, same = rejected
        if differs:
            return "less than the margin" if same else "depends"
        return "equivalent" if same else "undecided"


class Decision(NamedTuple):
    """p: of a question's hypotheses; adjusted: the same over the family; verdict: on the first setting."""

    p: tuple[float, ...]
    adjusted: tuple[float, ...]
    verdict: Verdict


def decide(
    questions: Sequence[Question | Joint], alpha: float = ALPHA, p: Sequence[tuple[float, ...]] = ()
) -> list[Decision]:
    """Decide a family of questions; the chance of one false verdict or more is at most alpha.

    p, the questions' own unless given, are adjusted by `holm`. A hypothesis is rejected where its adjusted p is at most
    alpha.
    """
    p = p or [question.p for question in questions]
    return [
        Decision(own, adjusted, question.verdict([each <= alpha for each in adjusted]))
        for question, own, adjusted in zip(questions, p, holm(p), strict=True)
    ]


def holm(p: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Adjust the p of hypotheses that come in groups of which at most one is true, by Holm's method as Shaffer sharpens
    it (1986, "Modified sequentially rejective multiple test procedures").

    In the order of p, each is multiplied by the number of groups in which a hypothesis is left: so many can be true at
    most. The chance of rejecting a true one at an adjusted p ≤ α is at most α, however the tests depend on each other.
    NaN stays NaN and does not count.
    """
    flat = [(value, group, at) for group, own in enumerate(p) for at, value in enumerate(own) if not math.isnan(value)]
    left = Counter(group for _, group, _ in flat)
    found = [[math.nan] * len(own) for own in p]
    most = 0.0
    for value, group, at in sorted(flat):
        most = max(most, min(1.0, value * len(left)))
        found[group][at] = most
        left[group] -= 1
        if not left[group]:
            del left[group]
    return [tuple(own) for own in found]


def seeds_needed(model: Model, margin: float, questions: int, alpha: float = ALPHA) -> float:
    """The seeds per setting with which two settings that differ by the margin are told apart with 80 % power, at level
    alpha / questions, by the pooled standard deviation of this model's runs.

    The images are taken as those of the study. What they add to the variance of a difference does not fall with seeds,
    and grows with the difference: it is taken in proportion to it, over all pairs of settings. Infinite where that is
    too much for the margin; NaN without a standard deviation.
    """
    sd, of_images, size = spread(model)
    if math.isnan(sd):
        return math.nan
    return enough_seeds(sd, margin, len(model.names), alpha / questions, margin * of_images, size)


def spread(model: Model) -> tuple[float, float, float]:
    """The pooled standard deviation of a model's runs, the variance that the images bring to a pair of settings per
    unit that they differ by, and the number of images."""
    if model.images is None or len(model.names) < 2:
        return model.sd(), 0.0, math.inf
    covariance, size = model.images
    one, other = np.triu_indices(len(covariance), 1)
    added = np.maximum(0.0, covariance[one, one] + covariance[other, other] - 2 * covariance[one, other]).sum()
    apart = np.abs(model.means[one] - model.means[other]).sum()
    return model.sd(), float(added / apart) if apart > 0 else 0.0, size


def enough_seeds(
    sd: float, margin: float, settings: int, level: float, of_images: float = 0.0, images: float = math.inf
) -> float:
    """The same of so many settings whose runs have a standard deviation, at a level. of_images: the variance that the
    images bring to a pair."""

    def power_of(n: float) -> float:
        seeds = 2 * sd**2 / n
        df_seeds = max(settings, 2) * (n - 1) ** 2 / (n + 1)  # see `caution`
        df = (seeds + of_images) ** 2 / (seeds**2 / df_seeds + of_images**2 / (images - 1))
        shift = min(margin / math.sqrt(seeds + of_images), 1e6)  # nctdtr gives NaN far beyond
        return float(special.nctdtr(df, -shift, special.stdtrit(df, level / 2)))

    most = 1e6
    if power_of(most) < POWER:
        return math.inf
    return math.ceil(optimize.brentq(lambda n: power_of(n) - POWER, 1.5, most)) if power_of(2) < POWER else 2.0


def tiers(model: Model, names: Sequence[str]) -> list[str]:
    """Letters for settings: two share one where their simultaneous 95 % interval covers 0 (Tukey's studentized range,
    with the standard error and the degrees of freedom of each pair: Games & Howell 1976).

    The letters are Piepho's (2004, "An algorithm for a letter-based representation of all-pairwise comparisons"), the
    first for the settings that come first in `names`.
    """
    differ = []
    for i, first in enumerate(names):
        for j in range(i + 1, len(names)):
            estimate = model.estimate({first: 1.0, names[j]: -1.0})
            q = math.sqrt(2) * abs(estimate.t())  # NaN without a standard error: then p is, and below nothing
            if stats.studentized_range.sf(q, len(names), estimate.df) < ALPHA:
                differ.append((i, j))
    columns = [set(range(len(names)))]
    for i, j in differ:
        for column in [column for column in columns if {i, j} <= column]:
            columns.remove(column)
            for smaller in (column - {i}, column - {j}):
                if not any(smaller <= other for other in columns):
                    columns.append(smaller)
    columns.sort(key=lambda column: sorted(column))
    letters = [chr(ord("a") + at) if at < 26 else f"z{at}" for at in range(len(columns))]
    return [
        "".join(letter for letter, column in zip(letters, columns, strict=True) if at in column)
        for at in range(len(names))
    ]
