"""Which images a network gets wrong, in one run and over many: pure functions over predictions on one test set.

S runs (seeds) of one setting, N test images in file order; ``wrong`` is the opposite of ``correct``.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats  # type: ignore[import-untyped, unused-ignore]

from normlab.analysis.inference import mean_squares

__all__ = [
    "McNemar",
    "VarianceShares",
    "jaccard",
    "majority",
    "mcnemar",
    "persistent",
    "times_wrong",
    "variance_shares",
]

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class McNemar:
    """Images that only A got wrong, that only B got wrong, and the two-sided exact p of "either is as likely"."""

    only_a: int
    only_b: int
    p: float


@dataclass(frozen=True)
class VarianceShares:
    """Variance of one run's accuracy (in [0, 1]) in three parts: see ``variance_shares``."""

    seed: float
    test_set: float
    interaction: float

    @property
    def total(self) -> float:
        return self.seed + self.test_set + self.interaction

    @property
    def sd(self) -> float:
        """Standard deviation of one run's accuracy on a fresh seed and fresh test images, in [0, 1]."""
        return math.sqrt(self.total)

    @property
    def sds(self) -> tuple[float, float, float]:
        """Standard deviations of accuracy in [0, 1] by seed, test set and interaction; their squares add up."""
        return math.sqrt(self.seed), math.sqrt(self.test_set), math.sqrt(self.interaction)

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of the total that are due to seed, test set and interaction; NaN if the total is 0."""
        whole = self.total or math.nan
        return self.seed / whole, self.test_set / whole, self.interaction / whole


def times_wrong(wrong: Bools) -> Ints:
    """How many of the S runs get each image wrong: bool (S, N) → int (N,). Raises ValueError for any other array."""
    _check_matrix("wrong", wrong)
    return np.asarray(wrong.sum(axis=0, dtype=np.int64))


def persistent(wrong: Bools, share: float = 0.5) -> Ints:
    """Indices of the images that more than ``share`` of the runs get wrong, bool (S, N) → int (images,).

    The most persistent first, ties in file order. Exactly ``share`` of the runs is not more. Raises ValueError if wrong
    is not bool (S, N) with S ≥ 1 or share not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1], not {share}")
    counts = times_wrong(wrong)
    order = np.argsort(-counts, kind="stable")
    return order[counts[order] / len(wrong) > share]


def jaccard(wrong_a: Bools, wrong_b: Bools) -> float:
    """Overlap of two sets of errors, |A ∩ B| / |A ∪ B| (Jaccard 1912), of bool (N,) and (N,): in [0, 1].

    Two runs without any error agree: 1. Raises ValueError if the arrays are not bool (N,) of one length.
    """
    _check_vectors(wrong_a, wrong_b)
    either = int((wrong_a | wrong_b).sum())
    return int((wrong_a & wrong_b).sum()) / either if either else 1.0


def majority(pred: Array) -> Ints:
    """Return the class that most runs predict for each image, int (S, N) → (N,); a tie goes to the smallest class.

    Raises ValueError if pred is not an integer array (S, N) with S ≥ 1, or holds a negative number.
    """
    if pred.ndim != 2 or pred.dtype.kind not in "iu" or not len(pred):
        raise ValueError(f"pred must be int (S, N), one row per run, not {pred.dtype} {pred.shape}")
    if pred.size and pred.min() < 0:
        raise ValueError("pred must hold classes, from 0")
    votes = np.stack([(pred == k).sum(axis=0) for k in range(int(pred.max(initial=0)) + 1)])
    return np.asarray(votes.argmax(axis=0), dtype=np.int64)


def mcnemar(wrong_a: Bools, wrong_b: Bools) -> McNemar:
    """Exact McNemar test that two runs err equally often, on bool (N,) and (N,), the same images in the same order.

    Only the images that one run alone gets wrong count: of these b + c, b is Binomial(b + c, 1/2) if neither run is
    the better one (McNemar 1947, in its exact form). p is two-sided, and 1 if there is no such image. It is about these
    two runs on this kind of image; it knows nothing of other seeds. Raises ValueError if the arrays are not bool (N,)
    of one length.
    """
    _check_vectors(wrong_a, wrong_b)
    only_a, only_b = int((wrong_a & ~wrong_b).sum()), int((wrong_b & ~wrong_a).sum())
    p = float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a, only_b, p)


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

    All NaN if S < 2 or N < 2; all 0, with NaN shares, if every value is the same. Raises ValueError if correct is not
    bool (S, N) with S ≥ 1.
    """
    _check_matrix("correct", correct)
    s, n = correct.shape
    if s < 2 or n < 2:
        return VarianceShares(math.nan, math.nan, math.nan)
    ms_seed, ms_image, ms_r = mean_squares(correct.astype(np.float64))
    return VarianceShares(max(0.0, ms_seed - ms_r) / n, max(0.0, ms_image - ms_r) / s / n, ms_r / n)


def _check_matrix(name: str, array: Bools) -> None:
    if array.ndim != 2 or array.dtype != np.bool_ or not len(array):
        raise ValueError(f"{name} must be bool (S, N), one row per run, not {array.dtype} {array.shape}")


def _check_vectors(a: Bools, b: Bools) -> None:
    if a.ndim != 1 or a.dtype != np.bool_ or b.dtype != np.bool_ or a.shape != b.shape:
        raise ValueError(f"errors must be bool (N,) twice, not {a.dtype} {a.shape} and {b.dtype} {b.shape}")
