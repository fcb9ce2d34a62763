"""Which images a network gets wrong, in one run and over many: pure functions over predictions on one test set.

S runs (seeds) of one setting, N test images in file order.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats  # type: ignore[import-untyped, unused-ignore]

from normlab.analysis.inference import mean_squares

Bools = npt.NDArray[np.bool_]


def jaccard(a: Bools, b: Bools) -> float:
    """Overlap of two sets, |A ∩ B| / |A ∪ B| (Jaccard 1912), of bool (N,) and (N,): in [0, 1]; two empty ones agree:
    1."""
    either = int((a | b).sum())
    return int((a & b).sum()) / either if either else 1.0


def majority(pred: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the class that most runs predict for each image, uint (S, N) → (N,); a tie goes to the smallest class."""
    votes = np.stack([(pred == k).sum(axis=0) for k in range(int(pred.max(initial=0)) + 1)])
    return np.asarray(votes.argmax(axis=0), dtype=np.int64)


class McNemar(NamedTuple):
    """Images that only A got wrong, that only B got wrong, and the two-sided exact p of "either is as likely"."""

    only_a: int
    only_b: int
    p: float


def mcnemar(wrong_a: Bools, wrong_b: Bools) -> McNemar:
    """Exact McNemar test that two runs err equally often, on bool (N,) and (N,), the same images in the same order.

    Only the images that one run alone gets wrong count: of these b + c, b is Binomial(b + c, 1/2) if neither run is
    the better one (McNemar 1947, in its exact form). p is two-sided, and 1 if there is no such image. It is about these
    two runs on this kind of image; it knows nothing of other seeds.
    """
    only_a, only_b = int((wrong_a & ~wrong_b).sum()), int((wrong_b & ~wrong_a).sum())
    p = float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a, only_b, p)


class VarianceShares(NamedTuple):
    """Variance of one run's accuracy (in [0, 1]) in three parts: see `variance_shares`."""

    seed: float
    test_set: float
    interaction: float

    @property
    def sd(self) -> float:
        """Standard deviation of one run's accuracy on a fresh seed and fresh test images, in [0, 1]."""
        return math.sqrt(sum(self))

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of the total that are due to seed, test set and interaction; NaN if the total is 0."""
        return tuple(part / (sum(self) or math.nan) for part in self)


def variance_shares(correct: Bools) -> VarianceShares:
    """Where the variance of an accuracy comes from: bool (S, N), S seeds trained alike and scored on the same N images.

    Two-way random effects, one observation a cell: correct = μ + seed + image + interaction (which holds what is left,
    too). With mean squares MS over S - 1, N - 1 and (S - 1)(N - 1) degrees of freedom,

        σ²_seed = (MS_seed - MS_r) / N,    σ²_image = (MS_image - MS_r) / S,    σ²_r = MS_r,

    a negative estimate set to 0 (Brennan 2001, "Generalizability theory", the p × i design). A run's accuracy with a
    fresh seed on N fresh images then has variance σ²_seed + σ²_image/N + σ²_r/N; these three parts are returned. On one
    fixed test set only the first and the last show between seeds; that a comparison should count the second as well is
    argued by Bouthillier et al. (2021), "Accounting for variance in machine learning benchmarks". With few runs
    σ²_seed is rough: MS_seed has a relative standard deviation of about √(2 / (S - 1)), 47 % for 10 runs.

    All NaN if S < 2 or N < 2; all 0, with NaN shares, if every value is the same.
    """
    s, n = correct.shape
    if s < 2 or n < 2:
        return VarianceShares(math.nan, math.nan, math.nan)
    ms_seed, ms_image, ms_r = mean_squares(correct.astype(np.float64))
    return VarianceShares(max(0.0, ms_seed - ms_r) / n, max(0.0, ms_image - ms_r) / s / n, ms_r / n)
