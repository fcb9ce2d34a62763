"""Errors on the test set: which persist, which two runs share, and where the variance of an accuracy comes from; scores
of probabilities against sums written out, and where their values are known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import brier_score_loss  # type: ignore[import-untyped, unused-ignore]

from normlab.analysis.forensics import Bools, jaccard, majority, mcnemar, variance_shares
from normlab.scores import BINS, calibration_error, scores

tables = arrays(bool, st.tuples(st.integers(2, 6), st.integers(2, 9)))


def errors(*sizes: int) -> tuple[Bools, Bools]:
    """Two runs with so many images that both, only A, only B and neither get wrong, in this order."""
    a, b = np.array([1, 1, 0, 0], dtype=bool), np.array([1, 0, 1, 0], dtype=bool)
    return np.repeat(a, sizes), np.repeat(b, sizes)


# jaccard, mcnemar


def test_overlap_by_hand() -> None:
    assert jaccard(*errors(2, 1, 5, 9)) == 2 / 8
    assert jaccard(*errors(0, 1, 5, 9)) == 0
    assert jaccard(*errors(3, 0, 0, 9)) == 1
    assert jaccard(*errors(0, 0, 0, 9)) == 1  # no errors at all: they agree


@pytest.mark.parametrize(
    ("sizes", "p"),
    [
        ((1, 1, 7, 12), 18 / 256),  # Bentur et al. 2009, in Fagerland et al. 2013: exact p = 0.0703
        ((59, 6, 16, 80), 0.0525),  # Cavo et al. 2012, ibid.: p = 0.0525
    ],
)
def test_exact_mcnemar_as_published(sizes: tuple[int, ...], p: float) -> None:
    a, b = errors(*sizes)
    found = mcnemar(a, b)
    assert (found.only_a, found.only_b) == sizes[1:3]
    assert found.p == pytest.approx(p, abs=5e-5)
    back = mcnemar(b, a)
    assert (back.only_a, back.only_b, back.p) == (found.only_b, found.only_a, found.p)


@given(only_a=st.integers(0, 40), only_b=st.integers(0, 40))
@settings(deadline=None, max_examples=50)
def test_mcnemar_is_twice_a_binomial_tail(only_a: int, only_b: int) -> None:
    n = only_a + only_b
    tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n
    assert mcnemar(*errors(1, only_a, only_b, 2)).p == pytest.approx(min(1, 2 * tail))


# majority


def test_majority_counts_past_255() -> None:
    pred = np.concatenate([np.full((257, 1), 4), np.full((100, 1), 2)]).astype(np.uint8)
    assert majority(pred).tolist() == [4]
    assert majority(np.array([[255], [255]], dtype=np.uint8)).tolist() == [255]
    assert majority(np.array([[299], [7], [299]], dtype=np.uint16)).tolist() == [299]


@given(pred=arrays(np.uint8, st.tuples(st.integers(1, 7), st.integers(0, 6)), elements=st.integers(0, 3)))
@settings(deadline=None, max_examples=50)
def test_majority_is_the_commonest_and_of_ties_the_smallest(pred: np.ndarray) -> None:
    expected = [min(range(4), key=lambda k: (-votes.count(k), k)) for votes in pred.T.tolist()]
    assert majority(pred).tolist() == expected


# variance_shares


def anova(x: Bools) -> tuple[float, float, float]:
    """The three parts by textbook: residuals as floats, mean squares, expected mean squares solved."""
    s, n = x.shape
    y = x.astype(float)
    rows, columns = y.mean(axis=1, keepdims=True), y.mean(axis=0, keepdims=True)
    ms_seed = n * ((rows - y.mean()) ** 2).sum() / (s - 1)
    ms_image = s * ((columns - y.mean()) ** 2).sum() / (n - 1)
    ms_r = ((y - rows - columns + y.mean()) ** 2).sum() / ((s - 1) * (n - 1))
    return max(0, ms_seed - ms_r) / n, max(0, ms_image - ms_r) / s / n, ms_r / n


@given(correct=tables)
@settings(deadline=None, max_examples=100)
def test_variance_shares_are_the_textbooks(correct: Bools) -> None:
    found = variance_shares(correct)
    assert (found.seed, found.test_set, found.interaction) == pytest.approx(anova(correct), abs=1e-12)
    assert found.sd**2 == pytest.approx(sum(found))
    if sum(found):
        assert found.shares == pytest.approx([part / sum(found) for part in found])


def test_one_source_alone() -> None:
    """Every run the same: the test set. Every image the same within a run: the seed."""
    images = np.array([1, 1, 1, 0], dtype=bool)
    found = variance_shares(np.tile(images, (5, 1)))
    assert found.shares == (0, 1, 0)
    assert found.test_set == pytest.approx(images.var(ddof=1) / 4)  # the binomial standard error, squared
    found = variance_shares(np.tile(images[:, None], 7))
    assert found.shares == (1, 0, 0)
    assert found.seed == pytest.approx(images.var(ddof=1))


def simulated(rng: np.random.Generator, s: int, n: int) -> Bools:
    """P(correct) = 0.7 + seed + image, uniform in ±0.1 and ±0.2."""
    seed, image = rng.uniform(-0.1, 0.1, (s, 1)), rng.uniform(-0.2, 0.2, (1, n))
    return rng.random((s, n)) < 0.7 + seed + image


def test_known_components_come_back() -> None:
    """σ² of a uniform ±h is h²/3; what is left of p(1 - p) is the interaction. Means of 1,000 estimates, then the
    variance of the accuracy of fresh runs on fresh images, which is what the parts are to add up to."""
    rng, n = np.random.default_rng(1), 100
    seed, image = 0.01 / 3, 0.04 / 3
    expected = seed, image / n, (0.7 * 0.3 - seed - image) / n
    found = [variance_shares(simulated(rng, 10, n)) for _ in range(1000)]
    mean = np.mean([[part.seed, part.test_set, part.interaction] for part in found], axis=0)
    assert mean == pytest.approx(expected, rel=0.05)

    fresh = np.array([simulated(rng, 1, n).mean() for _ in range(10_000)])
    assert fresh.var() == pytest.approx(sum(expected), rel=0.05)


def test_no_variance_and_too_few_runs() -> None:
    for value in (True, False):
        found = variance_shares(np.full((3, 5), value))
        assert (found.seed, found.test_set, found.interaction, found.sd) == (0, 0, 0, 0)
        assert np.isnan(found.shares).all()
    for shape in ((1, 5), (5, 1)):
        found = variance_shares(np.random.default_rng(0).random(shape) < 0.5)
        assert np.isnan([found.seed, found.test_set, found.interaction, found.sd, *found.shares]).all()


def test_a_large_test_set_does_not_overflow() -> None:
    """60 runs x 10,000 images, 99.5 % right: products reach 10^11 and more."""
    correct = np.random.default_rng(2).random((60, 10_000)) < 0.995
    found = variance_shares(correct)
    assert (found.seed, found.test_set, found.interaction) == pytest.approx(anova(correct), rel=1e-9, abs=1e-15)


# Scores


def drawn(images: int = 4000, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and classes drawn by them: calibrated."""
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(classes, 0.3), images)
    true = np.array([rng.choice(classes, p=row) for row in probabilities])
    with np.errstate(divide="ignore"):
        return np.log(probabilities), true


def test_scores_are_those_of_loops() -> None:
    log_probs, true = drawn(200)
    of_true, squares, held = [], [], {}
    for row, label in zip(np.exp(log_probs), true, strict=True):
        of_true.append(row[label])
        squares.append(sum((p - (k == label)) ** 2 for k, p in enumerate(row)))
        b = next(b for b in range(BINS) if row.max() <= (b + 1) / BINS)
        held.setdefault(b, []).append((row.argmax() == label, row.max()))
    gaps = [len(each) / 200 * abs(np.mean(each, axis=0) @ [1, -1]) for each in held.values()]
    assert scores(log_probs, true)["prob_true"] == pytest.approx(np.mean(of_true))
    assert scores(log_probs, true)["brier"] == pytest.approx(np.mean(squares))
    assert calibration_error(log_probs, true) == pytest.approx(sum(gaps))
    log_probs, true = drawn(100, 2)  # of two classes it is twice scikit-learn's
    assert scores(log_probs, true)["brier"] == pytest.approx(2 * brier_score_loss(true, np.exp(log_probs[:, 1])))


def test_probabilities_that_hold_are_calibrated_and_sharper_ones_are_not() -> None:
    log_probs, true = drawn()
    assert calibration_error(log_probs, true) < 0.03
    sharp = 3 * log_probs
    sharp -= np.log(np.exp(sharp).sum(1, keepdims=True))
    assert calibration_error(sharp, true) > 0.1


@pytest.mark.parametrize(("label", "expected"), [(0, (1, 0, 0)), (1, (0, 2, 1))])
def test_certainty(label: int, expected: tuple[float, float, float]) -> None:
    log_probs = np.array([[0.0, -np.inf, -np.inf]], dtype=np.float16)
    assert tuple(scores(log_probs, np.array([label])).values()) == expected
