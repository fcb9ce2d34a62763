"""What differs between settings, and how sure one may be: pure functions from a value a seed to intervals and verdicts.

Values have any one unit, and every mean, interval and margin has it too; reports pass accuracy in per cent, so that a
difference is in percentage points (pp). p, confidence, alpha and power are probabilities in [0, 1]. NaN says that a
number is undefined. What draws at random takes a ``numpy.random.Generator``; nothing here has any other state.

The private functions (``_one_sample`` … ``_flip_p``) hold the formulas. They work along the last axis, so that a
simulation can run the code that is shipped a hundred thousand times.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special, stats  # type: ignore[import-untyped, unused-ignore]

__all__ = [
    "Comparison",
    "Difference",
    "SignFlip",
    "Summary",
    "compare",
    "difference_of",
    "holm",
    "paired",
    "probability_of_improvement",
    "seeds_needed",
    "sign_flip",
    "summarise",
    "tost",
    "welch",
]

Floats = npt.NDArray[np.float64]
Method = Literal["paired", "welch"]
Verdict = Literal["better", "worse", "equivalent", "undecided"]

NOISE = 1e-9  # less than this, relative to max(1, |values|), is rounding: 0.9945 - 0.9939 is not always the same number


@dataclass(frozen=True)
class Summary:
    """The values of one setting: sd has the divisor n - 1, [low, high] is an interval for the mean."""

    n: int
    mean: float
    sd: float  # NaN for n = 1, as low and high
    low: float
    high: float
    iqm: float  # interquartile mean


@dataclass(frozen=True)
class Difference:
    """A mean difference A - B with its interval [low, high] and the two-sided p of "the true mean is 0"."""

    mean: float
    sds: tuple[float, ...]  # paired: of the differences; welch: of A and of B; divisor n - 1
    se: float  # standard error of the mean difference
    df: float  # degrees of freedom of t
    low: float
    high: float
    p: float
    method: Method
    n: int | tuple[int, int]  # seeds: pairs, or those of A and those of B

    @property
    def sd(self) -> float:
        """Standard deviation of one difference: of a pair (paired), of a run of A and another of B, √(s_A² + s_B²)."""
        return math.hypot(*self.sds)


@dataclass(frozen=True)
class SignFlip:
    """p of a sign-flip test; exact if it is over all 2^n flips, else over so many drawn at random."""

    p: float
    exact: bool
    flips: int


@dataclass(frozen=True)
class Comparison:
    """One pair of settings within a family of comparisons: see ``compare``."""

    difference: Difference
    sign_flip: SignFlip | None  # None where the seeds are not paired
    p_holm: float  # of difference.p, over the family
    p_equivalence: float
    p_equivalence_holm: float
    improvement: float  # probability that a run of A is the better one of two, ties counted half
    verdict: Verdict  # on A, against B
    seeds_needed: int | None  # seeds of each setting, where undecided; None also where nothing can be said


# One setting, two settings


def summarise(values: npt.ArrayLike, confidence: float = 0.95) -> Summary:
    """Summarise float (n,): mean, sd, the t interval mean ± t_{df}·sd/√n with df = n - 1, and the interquartile mean.

    The interquartile mean leaves out the ⌊n/4⌋ smallest and as many largest values (so none for n < 4): near the mean
    in precision, near the median in robustness (Agarwal et al. 2021, "Deep reinforcement learning at the edge of the
    statistical precipice", and its library rliable). For n = 1 sd and interval are NaN. Raises ValueError if values
    are not one-dimensional, none at all, or not finite.
    """
    x = _vector("values", values)
    iqm = float(stats.trim_mean(x, 0.25))
    if x.size < 2:
        return Summary(x.size, float(x.mean()), math.nan, math.nan, math.nan, iqm)
    mean, se, df = _one_sample(x)
    low, high = _interval(mean, se, df, confidence)
    return Summary(x.size, float(mean), float(_sd(x)), float(low), float(high), iqm)


def paired(differences: npt.ArrayLike, confidence: float = 0.95) -> Difference:
    """Student's paired t test on float (n,), a difference a seed: t = mean / (sd/√n), df = n - 1 (Student 1908).

    Zero spread happens, as an accuracy is a multiple of 1 / (number of test images). An sd below 1e-9·max(1, |values|)
    counts as 0; t is then undefined, and the interval shrinks to [mean, mean]. All differences 0: mean 0, p = 1. All
    equal and not 0: p is that of the sign flips, 2 / 2^n. For n = 1 all but the mean is NaN. Raises ValueError if
    differences are not one-dimensional, none at all, or not finite.
    """
    d = _vector("differences", differences)
    if d.size < 2:
        return _mean_only("paired", d.size, d.mean())
    return _difference("paired", d.size, (float(_sd(d)),), _one_sample(d), confidence)


def welch(a: npt.ArrayLike, b: npt.ArrayLike, confidence: float = 0.95) -> Difference:
    """Welch's t test of float (n,) against (m,), for seeds that do not pair and spreads that need not be equal.

    t = (mean_a - mean_b) / se with se² = v_a + v_b, v = sd²/n, and df = se⁴ / (v_a²/(n-1) + v_b²/(m-1)) (Welch 1947).
    If neither side has any spread (see ``paired``): p = 1 if the means are equal, else 2 / C(n+m, n), twice the chance
    that seeds dealt out at random fall just so; the interval is [mean, mean] and df NaN. If a side has one seed, all
    but the mean is NaN. Raises ValueError if a side is not one-dimensional, empty, or not finite.
    """
    x, y = _vector("a", a), _vector("b", b)
    if min(x.size, y.size) < 2:
        return _mean_only("welch", (x.size, y.size), x.mean() - y.mean())
    sds = float(_sd(x)), float(_sd(y))
    return _difference("welch", (x.size, y.size), sds, _two_samples(x, y), confidence)


def difference_of(a: Mapping[int, float], b: Mapping[int, float], confidence: float = 0.95) -> Difference:
    """The difference A - B of two settings, seed → value each: ``paired`` over the seeds that both have if these are at
    least 2, ``welch`` over all seeds otherwise. Raises ValueError if a side is empty or a value not finite."""
    x, y = _matched(a, b)
    return paired(x - y, confidence) if len(a.keys() & b.keys()) >= 2 else welch(x, y, confidence)


def sign_flip(
    differences: npt.ArrayLike, rng: np.random.Generator, limit: int = 2**16, draws: int = 2**16 - 1
) -> SignFlip:
    """Permutation test of "the differences lie symmetrically about 0" on float (n,), a difference a seed; two-sided.

    p is the share of sign patterns under which |Σ ±d| is at least |Σ d| (Fisher 1935, "The design of experiments",
    section 21). All 2^n are tried if they are no more than ``limit``; else ``draws`` random ones, and
    p = (hits + 1) / (draws + 1), which is never 0 (Phipson & Smyth 2010). No normal distribution is assumed, but no p
    can be below 2 / 2^n: 0.0625 for 5 seeds, 0.031 for 6. Raises ValueError if differences are not one-dimensional,
    none at all, or not finite, or if draws < 1.
    """
    d = _vector("differences", differences)
    if 2**d.size <= limit:
        return SignFlip(float(_flip_p(d)), True, 2**d.size)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, not {draws}")
    signs = rng.integers(0, 2, (draws, d.size), dtype=np.int8)
    hits = int(_as_far(2 * (signs @ d) - d.sum(), d).sum())  # signs 0, 1 → -1, 1
    return SignFlip((hits + 1) / (draws + 1), False, draws)


def tost(difference: Difference, margin: float) -> float:
    """p of equivalence, by two one-sided t tests: the larger p of "true mean ≤ -margin" and of "≥ +margin".

    p = 1 - F_df((margin - |mean|) / se), F_df the distribution function of t (Schuirmann 1987). p < α exactly where
    the 1 - 2α interval lies within ±margin. Zero spread (see ``paired``): t is undefined, and p is the one-sided p of
    the sign flips, 1 / 2^n (welch: 1 / C(n+m, n)), if the mean lies within ±margin, else 1. NaN where the difference
    has no standard error. Raises ValueError unless margin is positive and finite.
    """
    _check_margin(margin)
    if difference.se == 0:
        return 1 / _arrangements(difference.n) if _within(difference.mean, margin) else 1.0
    return float(_tost_p(difference.mean, difference.se, difference.df, margin))


def probability_of_improvement(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """P(A > B) + P(A = B)/2 over all pairs of a value of float (n,) and one of (m,): 0.5 if neither tends to be larger.

    Mann and Whitney's U / (n·m) (1947), as Agarwal et al. (2021) report it. It takes no notice of which seeds pair, nor
    of how much larger. Raises ValueError if a side is not one-dimensional, empty, or not finite.
    """
    x, y = _vector("a", a)[:, None], _vector("b", b)
    return float((x > y).mean() + (x == y).mean() / 2)


# Families of tests


def holm(p: npt.ArrayLike) -> Floats:
    """Holm's adjusted p, float (…, m) → (…, m), over families along the last axis (Holm 1979, step-down).

    With p sorted upwards, adjusted p_(i) = min(1, max over j ≤ i of (m - j + 1)·p_(j)). To reject where it is below α
    keeps the chance of any false rejection at most α, however the tests depend on each other. A NaN stays NaN and does
    not count in m. Raises ValueError if a p lies outside [0, 1].
    """
    p = np.asarray(p, dtype=float)
    if (p < 0).any() or (p > 1).any():
        raise ValueError("p must lie in [0, 1]")
    order = np.argsort(p, axis=-1)  # NaN last, where nothing after it can be spoilt
    tests = np.sum(~np.isnan(p), axis=-1, keepdims=True)
    scaled = np.take_along_axis(p, order, axis=-1) * (tests - np.arange(p.shape[-1]))
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(1, np.maximum.accumulate(scaled, axis=-1)), axis=-1)
    return adjusted


def seeds_needed(
    difference: Difference, margin: float, alpha: float, power: float = 0.8, limit: int = 10_000
) -> int | None:
    """Seeds of each setting (pairs, if paired) that would settle a difference, with so much power: the smallest n at
    which one of two tests at level alpha has it, if the observed mean and sds are the truth.

    With se = sd/√n and df = n - 1 (welch: se = √((s_A² + s_B²)/n), df = (n-1)·(s_A² + s_B²)² / (s_A⁴ + s_B⁴)), and T(δ)
    noncentral t with df degrees of freedom and noncentrality δ:

    - difference, two-sided t test, found on the side where it was seen: P(T(|mean|/se) > t_{1-α/2});
    - equivalence, TOST, if |mean| < margin: at least P₁ + P₂ - 1 with P = P(T((margin ± mean)/se) > t_{1-α}), a lower
      bound as both of the tests must reject (Phillips 1990 has the exact power).

    Where there is no spread, the n at which the sign flips' p falls below alpha (see ``paired``, ``tost``). None if n
    would exceed limit, or if there is no standard error to start from. A rough figure: over few seeds mean and sd are
    themselves uncertain (the 95 % interval of an sd from 5 seeds runs from 0.6 to 2.9 times its value), and n goes with
    the square of their ratio. Raises ValueError unless margin is positive and finite and alpha and power lie in (0, 1).
    """
    _check_margin(margin)
    if not (0 < alpha < 1 and 0 < power < 1):
        raise ValueError(f"alpha and power must lie between 0 and 1, not {alpha} and {power}")
    if math.isnan(difference.se):
        return None
    sizes = range(2, limit + 1)
    at = bisect_left(sizes, True, key=lambda n: _settles(difference, n, margin, alpha, power))  # power grows with n
    return sizes[at] if at < len(sizes) else None


def compare(
    pairs: Sequence[tuple[Mapping[int, float], Mapping[int, float]]],
    *,
    margin: float,
    alpha: float = 0.05,
    rng: np.random.Generator,
    higher_is_better: bool = True,
) -> list[Comparison]:
    """Compare settings A and B for each of the pairs, together one family; each side maps seed → value.

    Differences are A - B: paired over the seeds that both sides have if these are at least 2, and all else that is
    reported then rests on these seeds too; otherwise ``welch`` over all seeds. Intervals have confidence 1 - alpha, not
    adjusted. Holm's adjustment runs over the family of t tests, and apart from it over the family of TOSTs: the chance
    of any false claim of a difference is at most alpha, and so is that of any false claim of equivalence, as far as
    values are normal enough for t.

    Verdict on A: "equivalent" if the adjusted p of TOST is below alpha (a difference inside the margin is of no
    practical matter, even one that is not zero); else "better" or "worse" if the adjusted p of the t test is; else
    "undecided", with the seeds needed at level alpha / (number of pairs), Bonferroni's, which is cautious for Holm's.
    It rests on the t test since no sign-flip p falls below 0.0625 with 5 seeds or fewer: that p, which assumes less,
    is there to be read beside it. A side with one seed and no two shared ones gives NaN and "undecided".

    rng is drawn from only where pairs have too many seeds for all flips. Raises ValueError if a side is empty or a
    value not finite (leave out runs that diverged), margin not positive, or alpha outside (0, 1).
    """
    _check_margin(margin)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    found: list[tuple[Difference, SignFlip | None, float]] = []
    for a, b in pairs:
        difference = difference_of(a, b, 1 - alpha)
        x, y = _matched(a, b)
        flips = sign_flip(x - y, rng) if difference.method == "paired" else None
        better, other = (x, y) if higher_is_better else (y, x)
        found.append((difference, flips, probability_of_improvement(better, other)))

    equivalence = [tost(difference, margin) for difference, _, _ in found]
    p_holm = holm([difference.p for difference, _, _ in found]).tolist()
    equivalence_holm = holm(equivalence).tolist()
    comparisons = []
    for (difference, flips, improvement), p, p_eq, p_eq_holm in zip(
        found, p_holm, equivalence, equivalence_holm, strict=True
    ):
        verdict = _verdict(difference.mean, p, p_eq_holm, alpha, higher_is_better)
        needed = seeds_needed(difference, margin, alpha / len(found)) if verdict == "undecided" else None
        comparisons.append(Comparison(difference, flips, p, p_eq, p_eq_holm, improvement, verdict, needed))
    return comparisons


def _matched(a: Mapping[int, float], b: Mapping[int, float]) -> tuple[Floats, Floats]:
    """The values that a comparison rests on: of shared seeds, in one order, if there are at least 2; else of all."""
    shared = sorted(a.keys() & b.keys())
    sides = (shared, shared) if len(shared) >= 2 else (sorted(a), sorted(b))
    x, y = (_vector("values", [side[seed] for seed in seeds]) for side, seeds in zip((a, b), sides, strict=True))
    return x, y


# Formulas, along the last axis


def _sd(x: Floats) -> Floats:
    """Standard deviations (…,) of (…, n), divisor n - 1; exactly 0 where they are but rounding."""
    sd = x.std(axis=-1, ddof=1)
    return np.where(sd < NOISE * np.maximum(1, np.abs(x).max(axis=-1)), 0.0, sd)


def _one_sample(x: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean, its standard error and degrees of freedom, each (…,), of x (…, n)."""
    n = x.shape[-1]
    mean = x.mean(axis=-1)
    return mean, _sd(x) / math.sqrt(n), np.full_like(mean, n - 1)


def _two_samples(x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """The same of mean(x) - mean(y), for x (…, n) and y (…, m), by Welch's formulas; df NaN where all spread is 0."""
    n, m = x.shape[-1], y.shape[-1]
    v, w = _sd(x) ** 2 / n, _sd(y) ** 2 / m
    with np.errstate(invalid="ignore"):
        df = (v + w) ** 2 / (v**2 / (n - 1) + w**2 / (m - 1))
    return x.mean(axis=-1) - y.mean(axis=-1), np.sqrt(v + w), df


def _interval(mean: Floats, se: Floats, df: Floats, confidence: float) -> tuple[Floats, Floats]:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    half = stats.t.isf((1 - confidence) / 2, df) * se
    return mean - half, mean + half


def _two_sided_p(mean: Floats, se: Floats, df: Floats) -> Floats:
    return np.asarray(2 * stats.t.sf(np.abs(mean) / se, df))


def _tost_p(mean: Floats | float, se: Floats | float, df: Floats | float, margin: float) -> Floats:
    """The larger of the two one-sided p is that of the bound that the mean is nearer to."""
    return np.asarray(stats.t.sf((margin - np.abs(mean)) / se, df))


def _flip_p(d: Floats) -> Floats:
    """Exact two-sided sign-flip p (…,) of d (…, n), in O(2^n).

    scipy.stats.permutation_test takes a third of a second for n = 16, and its tolerance for ties is relative to the
    observed sum, hence none where that is 0 but for rounding.
    """
    sums = np.zeros((*d.shape[:-1], 1))
    for i in range(d.shape[-1]):
        step = d[..., i : i + 1]
        sums = np.concatenate([sums - step, sums + step], axis=-1)
    return np.asarray(_as_far(sums, d).mean(axis=-1))


def _as_far(sums: Floats, d: Floats) -> npt.NDArray[np.bool_]:
    """Whether sums (…, k) of flipped d lie at least as far from 0 as Σd, d (…, n); ties count, rounded or not."""
    slack = NOISE * np.abs(d).sum(axis=-1, keepdims=True)
    return np.asarray(np.abs(sums) >= np.abs(d.sum(axis=-1, keepdims=True)) - slack)


# Parts


def _difference(
    method: Method,
    n: int | tuple[int, int],
    sds: tuple[float, ...],
    moments: tuple[Floats, Floats, Floats],
    confidence: float,
) -> Difference:
    mean, se, df = (float(moment) for moment in moments)
    if se == 0:
        mean = 0.0 if abs(mean) < NOISE else mean
        p = 2 / _arrangements(n) if mean else 1.0
        return Difference(mean, sds, se, df, mean, mean, p, method, n)
    low, high = _interval(*moments, confidence)
    return Difference(mean, sds, se, df, float(low), float(high), float(_two_sided_p(*moments)), method, n)


def _mean_only(method: Method, n: int | tuple[int, int], mean: float) -> Difference:
    nan = math.nan
    return Difference(float(mean), (nan,) if method == "paired" else (nan, nan), nan, nan, nan, nan, nan, method, n)


def _arrangements(n: int | tuple[int, int]) -> int:
    """Equally likely outcomes if A and B are the same: signs of n differences, or ways to deal n + m values out."""
    return 2**n if isinstance(n, int) else math.comb(sum(n), n[0])


def _within(mean: float, margin: float) -> bool:
    return abs(mean) < margin - NOISE  # 99.50 - 99.45 is a little less than 0.05, and not within it


def _settles(difference: Difference, n: int, margin: float, alpha: float, power: float) -> bool:
    """Whether n seeds of each setting would do: see ``seeds_needed``."""
    mean, variances = abs(difference.mean), np.square(difference.sds)
    if difference.se == 0:
        p = 1 / _arrangements(n if difference.method == "paired" else (n, n))
        return bool(mean and 2 * p < alpha) or (_within(mean, margin) and p < alpha)
    se = math.sqrt(variances.sum() / n)
    df = (n - 1) * variances.sum() ** 2 / np.square(variances).sum()
    if _exceeds(mean / se, df, alpha / 2) >= power:
        return True
    if mean >= margin:
        return False
    return _exceeds((margin - mean) / se, df, alpha) + _exceeds((margin + mean) / se, df, alpha) - 1 >= power


def _exceeds(noncentrality: float, df: float, alpha: float) -> float:
    """P(T > t_{1-α}) of noncentral t. By symmetry P(-T < t_α): that is near 1 where 1 - P(T ≤ …) would underflow."""
    noncentrality = min(noncentrality, 1e6)  # nctdtr gives NaN from 1e7 (scipy 1.14) or 1e10 on; it is 1 before
    return float(special.nctdtr(df, -noncentrality, special.stdtrit(df, alpha)))


def _verdict(mean: float, p: float, p_equivalence: float, alpha: float, higher_is_better: bool) -> Verdict:
    if p_equivalence < alpha:
        return "equivalent"
    if p < alpha:
        return "better" if (mean > 0) == higher_is_better else "worse"
    return "undecided"


def _vector(name: str, values: npt.ArrayLike) -> Floats:
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or not x.size or not np.isfinite(x).all():
        raise ValueError(f"{name} must be one or more finite numbers in one dimension, not {x.dtype} {x.shape}: {x}")
    return x


def _check_margin(margin: float) -> None:
    if not 0 < margin < math.inf:
        raise ValueError(f"margin must be positive and finite, not {margin}")
