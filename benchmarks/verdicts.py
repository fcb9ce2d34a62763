"""How often a study says something false, what it finds, what `until=decided` saves: `python -m benchmarks.verdicts`.

Thousands of studies at once, by the formulas of `normlab.analysis.inference` and `verdicts` in arrays whose first axis
is the study; `tests/test_verdicts.py` holds them to the package's own answers, study by study. Writes
docs/verdicts.csv.
"""

import argparse
import csv
import functools
import io
import itertools
import math
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from normlab.analysis.cells import sort
from normlab.analysis.declared import ALPHA
from normlab.analysis.inference import PAIRS
from normlab.analysis.outcomes import OUTCOMES, Outcome
from normlab.analysis.questions import Answers
from normlab.analysis.sequential import POWER, looks, sequential_p
from normlab.analysis.table import runs
from normlab.files import write_atomically
from normlab.settings import Study

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

ROOT = Path(__file__).resolve().parents[1]
NORMS, L1 = ("bn", "ln", "gn"), (0, 1e-3)
MARGIN, SD, BASE = 0.001, 0.0005, 0.994  # of accuracy on MNIST; SD as in lightning_logs/replication


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
        covariance = np.zeros((len(c), len(c))) if self.covariance is None else c @ _positive(self.covariance) @ c.T
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
    variance, df = moderated(np.maximum(squares / degrees, least), degrees)
    return Model(means, slope, variance * slope**2 / n, df, degrees.sum(1), logit, covariance)


def moderated(s: Floats, d: Floats) -> tuple[Floats, Floats]:
    """As `inference.moderated`, of (R, G) at once."""
    total = d.sum(1, keepdims=True)
    logs = np.log(s) - special.digamma(d / 2) + np.log(d / 2)
    centre = logs.mean(1, keepdims=True)
    extra = logs.var(1, ddof=1, keepdims=True) - special.polygamma(1, d / 2).mean(1, keepdims=True)
    own = np.maximum(extra, 1e-8)
    y = 0.5 + 1 / own  # trigamma's inverse by Newton's method (Smyth 2004, appendix)
    for _ in range(8):
        tri = special.polygamma(1, y)
        y = y + tri * (1 - tri / own) / special.polygamma(2, y)
    prior = 2 * y
    common = np.exp(centre + special.digamma(prior / 2) - np.log(prior / 2))
    shrunk, df = (prior * common + d * s) / (prior + d), np.minimum(prior + d, total)
    pooled, fewer = extra <= 0, caution(d)[:, None]
    return np.where(pooled, (d * s).sum(1, keepdims=True) / total, shrunk), np.where(pooled, total, df) * fewer


def caution(d: Floats) -> Floats:
    """As `inference.caution`, (R, G) → (R,)."""
    return np.asarray(d.mean(1) / (d.mean(1) + 2))


def _positive(covariance: Floats) -> Floats:
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
            mine = self.outcome == index
            (low, zero, high), df = model.t(self.c[mine], self.low[mine], self.high[mine])
            of_range = self.of_range[mine]
            below, above = np.where(of_range, low, zero), np.where(of_range, high, zero)
            rows = np.stack([special.stdtr(df, t) for t in (below, -above, -low, high)], axis=-1)
            rows[..., 2:] = np.where(np.isnan(self.low[mine])[:, None], math.nan, rows[..., 2:])
            nearer = np.where(low < 0, low, -high)
            outside = np.minimum(1, special.stdtr(df, nearer) + special.stdtr(df, nearer - (low - high)))
            first = np.where(of_range, outside, 2 * np.minimum(rows[..., 0], rows[..., 1]))
            for question in np.unique(self.question[mine]):
                at = self.question[mine] == question
                if self.joint[question]:
                    f = model.joint(self.c[mine][at])
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

    def in_reach(self, models: Sequence[Model], share: Floats, level: Floats) -> Floats:
        """The predictive probability (R, Q) that a question is decided at the last look, by what is known at a share
        (R, G) of the seeds, at a level (R,)."""
        found = np.empty((len(level), len(self.joint)))
        for index, model in enumerate(models):
            mine = self.outcome == index
            c, half = self.c[mine], np.where(np.isnan(self.high[mine]), 0, (self.high - self.low)[mine] / 2)
            middle = np.where(self.of_range[mine], (self.high + self.low)[mine] / 2, 0)
            d = np.abs(model.means @ c.T - middle)
            now, images, _ = model.variances(c)
            last = (model.parts * share) @ (c**2).T
            spread = np.sqrt(np.maximum(now - last, 1e-30))
            one, two = (-special.ndtri(level / sides)[:, None] * np.sqrt(last + images) for sides in (1, 2))
            outer = np.where(self.of_range[mine], half, 0)
            differs = special.ndtr((d - outer - two) / spread)
            within = np.maximum(0, special.ndtr((half - one - d) / spread) - special.ndtr((one - half - d) / spread))
            for question in np.unique(self.question[mine]):
                at = self.question[mine] == question
                found[:, question] = np.maximum(differs[:, at].max(1), within[:, at].min(1))
        return found


def holm(p: Floats) -> Floats:
    """As `verdicts.holm`, (R, Q, 2) → the same."""
    flat = p.reshape(len(p), -1)
    order, rows = np.argsort(flat, axis=1), np.arange(len(p))
    left = np.isfinite(p).sum(-1)
    adjusted, most = np.full_like(flat, math.nan), np.zeros(len(p))
    for at in order.T:
        value, question = flat[rows, at], at // 2
        counts = np.isfinite(value)
        most = np.where(counts, np.maximum(most, np.minimum(1, value * (left > 0).sum(1))), most)
        adjusted[rows, at] = np.where(counts, most, math.nan)
        left[rows, question] -= counts
    return adjusted.reshape(p.shape)


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
    least: float = 0.0,
    rho: float = POWER,
) -> tuple[npt.NDArray[np.int64], Bools, Bools]:
    """`until=decided` in R studies: the seeds of each setting (R, G), what was rejected (R, Q, 2), and which contrasts
    are above 0.

    The options are what it might have been. drop: settings whose questions are decided get no more seeds. interactions:
    they ask for seeds as other questions do. least: a question does, if it is decided in the end with this probability.
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
        if least:
            share = n[running] / np.where(wanted[running], most, n[running])
            left &= family.in_reach(models, share, ALPHA / np.maximum(1, left.sum(1))) >= least
        wanted[running] &= (left[..., None] & takes).any(1) if drop else (left & takes.any(1)).any(1)[:, None]
        running &= wanted.any(1)
        if not running.any():
            break
    return n, rejected, above


# What is simulated

REAL = ROOT / "lightning_logs" / "replication"
CELLS = {"bn": 0, "bn l1=0.001": 1, "ln": 2, "ln l1=0.001": 3, "gn": 4, "gn l1=0.001": 5}
TRUTHS = {  # of the six settings in that order, in margins
    "all equal": (0, 0, 0, 0, 0, 0),
    "all at the margin": (0, -1, 1, 0, -1, -2),
    "mixed": (0, -3, 0, -3, 1, -3),
    "nothing or twice the margin": (0, -2, 0, -2, 2, 0),
}
EFFECTS = (0, 0.5, 1, 1.5, 2, 3)  # margins
SEEDS = (3, 5, 10)
MOST = (10, 14, 20)


@functools.cache
def real(claims: bool) -> tuple[Answers, Family]:
    """The committed runs of `replication` and the family of their study, with its claims or without."""
    study = Study.named("replication")
    study = study if claims else study.model_copy(update={"claims": []})
    answers = Answers(sort(runs(REAL), study.factors), study, study.margin)
    assert [cell.label for cell in answers.cells] == list(CELLS)
    return answers, Family.of(answers)


@functools.cache
def residuals() -> Floats:
    """Of the 30 real test accuracies around their settings' means, to a variance of 1."""
    rows = [group.values - group.values.mean() for group in real(False)[0].model("test_acc").groups.values()]
    return np.concatenate([row / np.sqrt(np.mean(np.square(rows))) for row in rows])


KINDS: Mapping[str, Callable[[np.random.Generator, tuple[int, ...]], Floats]] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "t, 3 degrees": lambda rng, size: rng.standard_t(3, size=size) / math.sqrt(3),
    "skewed": lambda rng, size: 1 - rng.exponential(size=size),
    "rounded to 0.01 points": lambda rng, size: rng.normal(size=size),
    "unequal variances": lambda rng, size: rng.normal(size=size) * np.geomspace(0.5, 2, size[1])[:, None],
    "resampled": lambda rng, size: rng.choice(residuals(), size=size),
}


def accuracies(rng: np.random.Generator, kind: str, truth: Sequence[float], studies: int, seeds: int) -> Floats:
    """(studies, settings, seeds)."""
    noise = SD * KINDS[kind](rng, (studies, len(truth), seeds))
    values = np.clip(BASE + MARGIN * np.array(truth)[:, None] + noise, 0, 1)
    return values.round(4) if kind == "rounded to 0.01 points" else values


def share(found: Bools) -> dict[str, float]:
    """A share of studies, with its 95 % interval (Clopper & Pearson 1934)."""
    hits, n = int(found.sum()), found.size
    low, high = special.betaincinv(hits, n - hits + 1, 0.025), special.betaincinv(hits + 1, n - hits, 0.975)
    return {"value": hits / n, "low": low if hits else 0.0, "high": high if hits < n else 1.0}


def fixed(family: Family, draws: Sequence[Draws]) -> tuple[Bools, Bools]:
    """What all seeds reject, (R, Q, 2), and which contrasts are above 0."""
    found = []
    for some in _chunks(draws):
        n = np.full(some[0].values.shape[:2], some[0].values.shape[-1])
        models = [each.fit(n) for each in some]
        found.append((holm(family.sides(models)[1]) <= ALPHA, positive(family, models)))
    rejected, above = (np.concatenate(each) for each in zip(*found, strict=True))
    return rejected, above


def _chunks(draws: Sequence[Draws]) -> Iterator[list[Draws]]:
    for start in range(0, len(draws[0].values), CHUNK):
        yield [replace(each, values=each.values[start : start + CHUNK]) for each in draws]


def errors(rng: np.random.Generator, studies: int, kind: str, truth: str, seeds: int) -> Iterator[dict[str, Any]]:
    """How often a study of six settings has a false verdict, of any kind."""
    family = real(False)[1]
    rejected, above = fixed(family, [Draws(accuracies(rng, kind, TRUTHS[truth], studies, seeds))])
    means = [BASE + MARGIN * np.array(TRUTHS[truth])]
    yield {"measure": "any false verdict", **share(family.false(rejected, above, means).any(1))}


def power(rng: np.random.Generator, studies: int, effect: float, seeds: int) -> Iterator[dict[str, Any]]:
    """What is found of an effect of so many margins that `ln` has with L1 and without, in the whole family."""
    answers, family = real(False)
    rejected, above = fixed(family, [Draws(accuracies(rng, "normal", (0, 0, effect, effect, 0, 0), studies, seeds))])
    for label in ("ln − bn", "ln − bn, mean of 2 settings"):
        [at] = [i for i, each in enumerate(answers.declared) if each.label == label]
        differs, same = rejected[:, at].T
        yield {"measure": f"{label}: better", **share(differs & above[:, at])}
        yield {"measure": f"{label}: equivalent", **share(same & ~differs)}


def like_replication(
    rng: np.random.Generator, truth: str, studies: int, seeds: int
) -> tuple[list[Draws], list[Floats]]:
    """Draws like the committed runs in every outcome of the family, and the true means.

    truth: "as observed" has their means, standard deviations and image effects. Otherwise accuracies have those means,
    one standard deviation, and image effects that differ between settings by half the variance, as effects do.
    """
    answers, draws, means = real(True)[0], list[Draws](), list[Floats]()
    for outcome in family_outcomes(answers):
        [name] = [name for name, each in OUTCOMES.items() if each is outcome]
        model = answers.model(name)
        sd = np.array([group.values.std(ddof=1) for group in model.groups.values()])
        mean, covariance = model.means, model.images[0] if model.images else None
        if name == answers.primary and truth != "as observed":
            mean, sd = BASE + MARGIN * np.array(TRUTHS[truth]), np.full_like(sd, np.sqrt(np.mean(sd**2)))
            common = np.full((len(sd), len(sd)), 1 / len(sd))
            half = common + math.sqrt(0.5) * (np.eye(len(sd)) - common)
            covariance = half @ covariance @ half
        values = mean[:, None] + sd[:, None] * rng.normal(size=(studies, len(sd), seeds))
        if covariance is not None:
            values = values + rng.multivariate_normal(np.zeros(len(sd)), _positive(covariance), size=studies)[..., None]
        logit = model.link == "logit"
        draws.append(Draws(np.clip(values, 0, 1) if logit else values, model.resolution, logit, covariance))
        means.append(mean)
    return draws, means


DESIGNS: Mapping[str, Mapping[str, Any]] = {
    "as it is": {},
    "interactions ask for seeds": {"interactions": True},
    "settings are not dropped": {"drop": False},
    "what is out of reach asks for none": {"least": 0.2},
    "spends evenly (ρ = 1)": {"rho": 1.0},
    "spends late (ρ = 3)": {"rho": 3.0},
}


def study(rng: np.random.Generator, studies: int, truth: str, design: str, most: int) -> Iterator[dict[str, Any]]:
    """A study like `replication` with at most so many seeds per setting; design: "fixed" has all of them."""
    family = real(True)[1]
    draws, means = like_replication(rng, truth, studies, most)
    if design == "fixed":
        n, (rejected, above) = np.full((studies, 6), most), fixed(family, draws)
    else:
        parts = [follow(family, some, most, **DESIGNS[design]) for some in _chunks(draws)]
        n, rejected, above = (np.concatenate(each) for each in zip(*parts, strict=True))
    decided = rejected.any(-1)
    yield {"measure": "any false verdict", **share(family.false(rejected, above, means).any(1))}
    mean, se = n.mean(), n.mean(1).std() / math.sqrt(studies)
    yield {"measure": "seeds per setting", "value": mean, "low": mean - 1.96 * se, "high": mean + 1.96 * se}
    for measure, some in (("questions decided", slice(None)), (DECIDED, ~family.joint)):
        of = decided[:, some].mean(1)
        se = of.std() / math.sqrt(studies)
        yield {"measure": measure, "value": of.mean(), "low": of.mean() - 1.96 * se, "high": of.mean() + 1.96 * se}


LEVEL = ALPHA / 15


def fixed_power(n: int, effect: float) -> float:
    """Of a t test of two settings with n seeds each, whose difference is so many standard deviations."""
    df = 2 * (n - 1)
    return float(1 - special.nctdtr(df, effect * math.sqrt(n / 2), special.stdtrit(df, 1 - LEVEL / 2)))


@functools.cache
def followed_pair(most: int, effect: float, studies: int, seed: int) -> tuple[Floats, Bools]:
    """Seeds per setting that two settings take until they are told apart, and whether they are, with the right sign."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(effect, 1, (studies, most)), rng.normal(0, 1, (studies, most))
    seeds, found = np.full(studies, float(most)), np.zeros(studies, dtype=bool)
    for n in looks(most):
        se = np.sqrt((a[:, :n].var(1, ddof=1) + b[:, :n].var(1, ddof=1)) / n)
        p = special.stdtr(2 * (n - 1), -(a[:, :n].mean(1) - b[:, :n].mean(1)) / se)
        now = ~found & (sequential_p(p[None], [n], most) <= LEVEL / 2)
        seeds[now], found[now] = n, True
    return seeds, found


def pair(rng: np.random.Generator, studies: int, effect: float) -> Iterator[dict[str, Any]]:
    """Two settings whose runs scatter by a margin, at the level that a family of 15 leaves them: the fixed design that
    finds a difference of one margin with a power of 0.8, and a sequential one that does as well; what each takes where
    the difference is `effect` margins."""
    n = next(n for n in itertools.count(3) if fixed_power(n, 1.0) >= 0.8)
    most = next(most for most in itertools.count(n) if followed_pair(most, 1.0, 20_000, seed=1)[1].mean() >= 0.8)
    seeds, found = followed_pair(most, effect, studies, seed=int(rng.integers(2**31)))
    yield {"measure": "seeds of the fixed design", "value": n, "low": n, "high": n}
    yield {"measure": "most seeds", "value": most, "low": most, "high": most}
    mean, se = seeds.mean() / n, seeds.std() / n / math.sqrt(studies)
    yield {"measure": "share of its seeds", "value": mean, "low": mean - 1.96 * se, "high": mean + 1.96 * se}
    yield {"measure": "found", **share(found)}
    yield {"measure": "found by the fixed design", "value": fixed_power(n, effect), "low": math.nan, "high": math.nan}


STUDIES = ("as observed", "nothing or twice the margin")
# table: what makes it, studies, cases
TABLES: Mapping[str, tuple[Callable[..., Iterator[dict[str, Any]]], int, list[tuple[Any, ...]]]] = {
    "errors": (errors, 5_000, list(itertools.product(KINDS, list(TRUTHS)[:3], SEEDS))),
    "power": (power, 4_000, list(itertools.product(EFFECTS, SEEDS))),
    "pair": (pair, 20_000, [(0,), (1,), (2,)]),
    "fixed": (study, 3_000, [(truth, "fixed", n) for truth in STUDIES for n in (*range(6, 16), 18, 20, 25, 30)]),
    "until=decided": (study, 6_000, [(truth, "as it is", 20) for truth in STUDIES]),
    "until=decided, errors": (study, 1_000, [(truth, "as it is", 20) for truth in list(TRUTHS)[:3]]),
    "designs": (study, 200, [*itertools.product(STUDIES[1:], DESIGNS, MOST), (STUDIES[1], "as it is", 30)]),
}


CHUNK = 1000  # studies at once: more do not fit a cache
DECIDED = "decided, without interactions"
COLUMNS = ("table", "case", "studies", "measure", "value", "low", "high")
Rows = list[dict[str, Any]]


def _words(case: tuple[Any, ...]) -> str:
    return ", ".join(map(str, case))


def _do(job: tuple[str, tuple[Any, ...]]) -> tuple[tuple[str, str], Rows]:
    """One case of a table, from a random stream of its own."""
    table, case = job
    function, studies, _ = TABLES[table]
    key = (table, _words(case))
    rng = np.random.default_rng(list("".join(key).encode()))
    rows = function(rng, studies, *case)
    return key, [dict(zip(COLUMNS, (*key, studies), strict=False)) | row for row in rows]


def read(file: Path) -> dict[tuple[str, str], Rows]:
    """The rows of a table that was made before, by table and case."""
    known: dict[tuple[str, str], Rows] = {}
    with file.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            known.setdefault((row["table"], row["case"]), []).append(row)
    return known


def _text(known: Mapping[tuple[str, str], Rows]) -> str:
    order = [(table, _words(case)) for table, (_, _, cases) in TABLES.items() for case in cases]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for key in (key for key in order if key in known):
        for row in known[key]:
            writer.writerow(row | {end: f"{float(row[end]):.5g}" for end in ("value", "low", "high")})
    return stream.getvalue()


def tables(known: Mapping[tuple[str, str], Rows]) -> list[str]:
    """The lines of docs/inference.md's tables."""

    def number(table: str, case: Sequence[Any], measure: str) -> float:
        [row] = [row for row in known[table, _words(tuple(case))] if row["measure"] == measure]
        return float(row["value"])

    def percent(value: float, digits: int = 0) -> str:
        return f"{100 * value:.{digits}f} %"

    def as_many(truth: str, decided: float) -> float:
        """The seeds of a fixed design that decides as much."""
        sizes = [case[2] for case in TABLES["fixed"][2] if case[0] == truth]
        return float(np.interp(decided, [number("fixed", (truth, "fixed", n), DECIDED) for n in sizes], sizes))

    def until(table: str, truth: str, design: str, most: int) -> list[str]:
        case = (truth, design, most)
        seeds, decided = number(table, case, "seeds per setting"), number(table, case, DECIDED)
        same = as_many(truth, decided)
        false = percent(number(table, case, "any false verdict"), 1)
        return [f"{seeds:.1f}", percent(decided, 1), f"{same:.1f}", percent(seeds / same), false]

    rows = [["data", "truth", *(f"{n} seeds" for n in SEEDS)]]
    for kind, truth in itertools.product(KINDS, list(TRUTHS)[:3]):
        rows.append(
            [kind, truth, *(percent(number("errors", (kind, truth, n), "any false verdict"), 1) for n in SEEDS)]
        )
    lines = _markdown(rows)
    rows = [["effect, margins", *(f"{what}, {n} seeds" for what in ("pair", "mean of 2") for n in SEEDS)]]
    for effect in EFFECTS:
        row = [f"{effect:g}"]
        for label, n in itertools.product(("ln − bn", "ln − bn, mean of 2 settings"), SEEDS):
            better, same = (number("power", (effect, n), f"{label}: {what}") for what in ("better", "equivalent"))
            row.append(f"{percent(better)}, {percent(same)}")
        rows.append(row)
    lines += _markdown(rows)
    rows = [
        [
            "difference, margins",
            "seeds of the fixed design",
            "most seeds",
            "seeds taken, share",
            "told apart",
            "by the fixed design",
        ]
    ]
    for (effect,) in TABLES["pair"][2]:
        n, most, seeds, found, fixed_ = (
            number("pair", (effect,), measure)
            for measure in (
                "seeds of the fixed design",
                "most seeds",
                "share of its seeds",
                "found",
                "found by the fixed design",
            )
        )
        rows.append([f"{effect}", f"{n:.0f}", f"{most:.0f}", percent(seeds, 1), percent(found, 1), percent(fixed_, 1)])
    lines += _markdown(rows)
    heads = [
        "seeds taken",
        "questions decided",
        "seeds of a fixed design that decides as many",
        "share",
        "any false verdict",
    ]
    rows = [["truth", *heads]]
    rows += [[truth, *until("until=decided", truth, "as it is", 20)] for truth in STUDIES]
    for truth in list(TRUTHS)[:3]:
        case = (truth, "as it is", 20)
        seeds, decided, false = (
            number("until=decided, errors", case, measure)
            for measure in ("seeds per setting", DECIDED, "any false verdict")
        )
        rows.append([truth, f"{seeds:.1f}", percent(decided, 1), "", "", percent(false, 1)])
    lines += _markdown(rows)
    rows = [["design", "most seeds", *heads]]
    for truth, design, most in TABLES["designs"][2]:
        rows.append([design, str(most), *until("designs", truth, design, most)])
    return lines + _markdown(rows)


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return [head, f"|{'---|' * len(rows[0])}", *body]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", nargs="*", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "verdicts.csv")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="also what the file has")
    args = parser.parse_args()
    known = {} if args.again or not args.out.is_file() else read(args.out)
    jobs = [(table, case) for table in args.tables for case in TABLES[table][2] if (table, _words(case)) not in known]
    with multiprocessing.Pool(args.processes) as pool:
        for done, (key, rows) in enumerate(pool.imap(_do, jobs), start=1):
            known[key] = rows
            write_atomically(args.out, _text(known).encode())
            numbers = "; ".join(f"{row['measure']} {row['value']:.4g}" for row in rows)
            print(f"{done} of {len(jobs)}: {': '.join(key)}: {numbers}", flush=True)
    if set(args.tables) == set(TABLES):
        print("", *tables(known), sep="\n")


if __name__ == "__main__":
    main()
