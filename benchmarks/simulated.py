"""Thousands of studies at once: `normlab.analysis.inference` and `verdicts` in arrays whose first axis is the study.

`tests/test_verdicts.py` holds them to the package's own answers, study by study.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from normlab.analysis import verdicts
from normlab.analysis.declared import ALPHA
from normlab.analysis.inference import PAIRS, moderated
from normlab.analysis.outcomes import OUTCOMES, Outcome
from normlab.analysis.questions import Answers
from normlab.analysis.sequential import POWER, looks, sequential_p

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


# One model of each of R studies: groups G, at most M seeds


@dataclass
class Model:
    """As `inference.Model`, of R studies: float (R, G) each; without images, unless there is a `covariance` (G, G)."""

    means: Floats
    slope: Floats
    parts: Floats  # var(ȳ_g) by seeds
    df: Floats
    pooled: Floats  # (R,)
    logit: bool
    covariance: Floats | None = None

    def variances(self, c: Floats) -> tuple[Floats, Floats, Floats]:
        """Of contrasts c (K, G): their variances by seeds (R, K) and by images (K,), and what each setting brings."""
        images = np.zeros(len(c)) if self.covariance is None else np.einsum("kg,gh,kh->k", c, self.covariance, c)
        own = 0 if self.covariance is None else np.maximum(0, np.diag(self.covariance))
        return self.parts @ (c**2).T, np.maximum(0, images), self.parts + own

    def t(self, c: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """t at low, 0 and high, float (3, R, K), and the degrees of freedom (R, K), of contrasts c (K, G)."""
        seeds, images, weight = self.variances(c)
        df = np.minimum(seeds**2 / ((self.parts**2 / self.df) @ (c**4).T), self.pooled[:, None])
        df = (seeds + images) ** 2 / (seeds**2 / df + images**2 / 9_999)
        push = c * (weight / self.slope)[:, None]
        move = push / (push * c * self.slope[:, None]).sum(-1, keepdims=True)
        value, se = self.means @ c.T, np.sqrt(seeds + images)
        return np.stack([-self._solve(c, move, at, value) / se for at in (low, np.zeros_like(low), high)]), df

    def _solve(self, c: Floats, move: Floats, at: Floats, value: Floats) -> Floats:
        """The move after which the contrast is `at`, by Newton's method; 0 where `at` is not a number."""
        by = np.where(np.isfinite(at), at - value, 0.0)
        if not self.logit:
            return by
        x = special.logit(self.means)[:, None]
        for _ in range(40):
            h = special.expit(x + by[..., None] * move)
            off = np.where(np.isfinite(at), at - (c * h).sum(-1), 0.0)
            if np.abs(off).max() < 1e-13:
                break
            by = by + off / (c * move * h * (1 - h)).sum(-1)
        return by

    def joint(self, c: Floats) -> Floats:
        """p of "all of these contrasts are 0", (R,)."""
        takes_part = c.any(0)
        covariance = np.zeros((len(c), len(c))) if self.covariance is None else c @ not_below_0(self.covariance) @ c.T
        covariance = covariance + np.einsum("kg,rg,lg->rkl", c, self.parts, c)
        d = self.means @ c.T
        ratio = (d * np.linalg.solve(covariance, d[..., None])[..., 0]).sum(-1) / len(c)
        return np.asarray(special.fdtrc(len(c), self.df[:, takes_part].mean(1), ratio))


def fit(values: Floats, n: npt.NDArray[np.int64], step: float, logit: bool, covariance: Floats | None = None) -> Model:
    """values (R, G, M), of which the first n (R, G) count; step: the smallest of an outcome."""
    there = np.arange(values.shape[-1]) < n[..., None]
    means = np.where(there, values, 0).sum(-1) / n
    inside = np.clip(means, step / n / 2, 1 - step / n / 2) if logit else means
    slope = inside * (1 - inside) if logit else np.ones_like(means)
    rows = np.where(there, (values - means[..., None]) / slope[..., None], 0)
    least, settings = (step / slope) ** 2 / 12, n.shape[1]
    degrees = (n - 1).astype(float)
    # pairing, where all settings have as many seeds
    same, d = (n == n[:, :1]).all(1), degrees[:, 0]
    by_seed = rows.mean(1)
    rest = ((rows - by_seed[:, None]) ** 2).sum(-1)
    f = settings * (by_seed**2).sum(-1) / d / (rest.sum(-1) / (d * (settings - 1)))
    paired = same & (special.fdtrc(d, d * (settings - 1), f) < PAIRS)
    squares = np.where(paired[:, None], rest, (rows**2).sum(-1))
    degrees = np.where(paired[:, None], degrees * (settings - 1) / settings, degrees)
    each = zip(np.maximum(squares / degrees, least), degrees, strict=True)
    variance, df = (np.array(column) for column in zip(*itertools.starmap(moderated, each), strict=True))
    return Model(means, slope, variance * slope**2 / n, df, degrees.sum(1), logit, covariance)


def not_below_0(covariance: Floats) -> Floats:
    """The nearest covariance (G, G) without negative variances."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.maximum(values, 0)) @ vectors.T)


# A family of questions


@dataclass
class Family:
    """Rows of contrasts (K, G) and the questions that they belong to: one each, several of an interaction.

    outcome: of each row, its index among the outcomes. of_range: whether low to high is itself the claim. question: of
    each row, its index; joint: of each question, whether it is about an interaction.
    """

    c: Floats
    low: Floats
    high: Floats
    of_range: Bools
    outcome: npt.NDArray[np.int64]
    question: npt.NDArray[np.int64]
    joint: Bools

    @classmethod
    def of(cls, answers: Answers) -> "Family":
        """The family that a study declares, with groups in the order of its settings."""
        names, outcomes = [cell.label for cell in answers.cells], family_outcomes(answers)
        rows, joint = list[tuple[Any, ...]](), [each.kind == "interaction" for each in answers.declared]
        for at, each in enumerate(answers.declared):
            outcome = OUTCOMES[each.outcome]
            ends = each.low / outcome.factor, each.high / outcome.factor
            for contrast in each.contrasts:
                c = [contrast.get(name, 0.0) for name in names]
                rows.append((c, *ends, each.of_range, outcomes.index(outcome), at))
        return cls(*(np.array(column) for column in zip(*rows, strict=True)), np.array(joint))

    def sides(self, models: Sequence[Model]) -> tuple[Floats, Floats]:
        """One-sided p of "0" (or in range) and of "outside" (or out of it): below and above, or p of the F test twice;
        (R, Q, 4). Then the two-sided p of both hypotheses, (R, Q, 2)."""
        studies, count = len(models[0].means), len(self.joint)
        sides, p = np.empty((studies, count, 4)), np.empty((studies, count, 2))
        for index, model in enumerate(models):
            own = self.outcome == index
            (low, zero, high), df = model.t(self.c[own], self.low[own], self.high[own])
            of_range = self.of_range[own]
            below, above = np.where(of_range, low, zero), np.where(of_range, high, zero)
            rows = np.stack([special.stdtr(df, t) for t in (below, -above, -low, high)], axis=-1)
            rows[..., 2:] = np.where(np.isnan(self.low[own])[:, None], math.nan, rows[..., 2:])
            nearer = np.where(low < 0, low, -high)
            outside = np.minimum(1, special.stdtr(df, nearer) + special.stdtr(df, nearer - (low - high)))
            first = np.where(of_range, outside, 2 * np.minimum(rows[..., 0], rows[..., 1]))
            for question in np.unique(self.question[own]):
                at = self.question[own] == question
                if self.joint[question]:
                    f = model.joint(self.c[own][at])
                    within = rows[:, at, 2:].max((1, 2))
                    sides[:, question] = np.stack([f, f, within, within], axis=-1)
                    p[:, question] = np.stack([f, within], axis=-1)
                else:
                    sides[:, question] = rows[:, at][:, 0]
                    p[:, question] = np.stack([first[:, at][:, 0], rows[:, at, 2:].max(-1)[:, 0]], axis=-1)
        return sides, p

    def false(self, rejected: Bools, positive: Bools, truth: Sequence[Floats]) -> Bools:
        """Which verdicts are false, (R, Q), where the settings' true means by outcome are these."""
        true = np.array([self.c[k] @ truth[of] for k, of in enumerate(self.outcome)]).round(9)
        wrong = np.zeros(rejected.shape[:2], dtype=bool)
        for question, joint in enumerate(self.joint):
            at = self.question == question
            differs, same = rejected[:, question].T
            [d, low, high] = (x[at] for x in (true, self.low, self.high))
            if self.of_range[at].any():
                inside = bool(low[0] <= d[0] <= high[0])
                wrong[:, question] = np.where(same, not inside, differs & inside)
                continue
            wrong[:, question] |= same & bool((np.abs(d) >= high - 1e-9).any())
            wrong[:, question] |= differs & (bool((d == 0).all()) | (~joint & (positive[:, question] != (d[0] > 0))))
        return wrong


def holm(p: Floats) -> Floats:
    """As `verdicts.holm`, of each study: (R, Q, 2) → the same."""
    return np.array([verdicts.holm([tuple(own) for own in study]) for study in p.tolist()])


def positive(family: Family, models: Sequence[Model]) -> Bools:
    """Whether each question's contrast is above 0, (R, Q)."""
    first = np.array([np.flatnonzero(family.question == q)[0] for q in range(len(family.joint))])
    return np.stack([models[family.outcome[k]].means @ family.c[k] > 0 for k in first], axis=1)


def family_outcomes(answers: Answers) -> list[Outcome]:
    """What a study's questions are about, the primary outcome first."""
    return list(dict.fromkeys([answers.about, *(OUTCOMES[each.outcome] for each in answers.declared)]))


@dataclass
class Draws:
    """Draws of an outcome in R studies (R, G, M), and how it is modelled."""

    values: Floats
    step: float = 1e-4
    logit: bool = True
    covariance: Floats | None = None

    def fit(self, n: npt.NDArray[np.int64], some: Bools | slice = slice(None)) -> Model:
        return fit(self.values[some], n[some], self.step, self.logit, self.covariance)


def follow(
    family: Family,
    draws: Sequence[Draws],
    most: int,
    *,
    drop: bool = True,
    interactions: bool = False,
    rho: float = POWER,
) -> tuple[npt.NDArray[np.int64], Bools, Bools]:
    """`until=decided` in R studies: the seeds of each setting (R, G), what was rejected (R, Q, 2), and which contrasts
    are above 0.

    The options are what it might have been. drop: settings whose questions are decided get no more seeds. interactions:
    they ask for seeds as other questions do. rho: how the level is spent, see `normlab.analysis.sequential`.
    """
    studies, settings = draws[0].values.shape[:2]
    n = np.zeros((studies, settings), dtype=np.int64)
    wanted, running = np.ones((studies, settings), dtype=bool), np.ones(studies, dtype=bool)
    spent = np.full((studies, len(family.joint), 4), math.nan)
    rejected, above = (np.zeros((studies, len(family.joint), *shape), dtype=bool) for shape in ((2,), ()))
    takes = np.zeros((len(family.joint), settings), dtype=bool)
    for k, question in enumerate(family.question):
        takes[question] |= (family.c[k] != 0) & (interactions | ~family.joint[question])
    for look in looks(most):
        n = np.where(wanted & running[:, None], look, n)
        models = [each.fit(n, running) for each in draws]
        sides, _ = family.sides(models)
        spent[running] = np.fmin(spent[running], sequential_p(sides[None], [look], most, rho))
        now = spent[running]
        two_sided = np.where(family.joint, 1, 2) * now[..., :2].min(-1)
        p = np.stack([np.minimum(1, two_sided), now[..., 2:].max(-1)], axis=-1)
        rejected[running] = holm(p) <= ALPHA
        above[running] = positive(family, models)
        left = ~rejected[running].any(-1)
        wanted[running] &= (left[..., None] & takes).any(1) if drop else (left & takes.any(1)).any(1)[:, None]
        running &= wanted.any(1)
        if not running.any():
            break
    return n, rejected, above
