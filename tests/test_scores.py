"""Scores of probabilities against sums written out, and where their values are known."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss  # type: ignore[import-untyped, unused-ignore]

from normlab.scores import BINS, brier, calibration_error, prob_true, scores


def drawn(images: int = 4000, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and classes drawn by them: calibrated."""
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(classes, 0.3), images)
    true = np.array([rng.choice(classes, p=row) for row in probabilities])
    with np.errstate(divide="ignore"):
        return np.log(probabilities), true


def test_against_loops() -> None:
    log_probs, true = drawn(200)
    of_true, squares, held = [], [], {}
    for row, label in zip(np.exp(log_probs), true, strict=True):
        of_true.append(row[label])
        squares.append(sum((p - (k == label)) ** 2 for k, p in enumerate(row)))
        b = next(b for b in range(BINS) if row.max() <= (b + 1) / BINS)
        held.setdefault(b, []).append((row.argmax() == label, row.max()))
    gaps = [len(each) / 200 * abs(np.mean(each, axis=0) @ [1, -1]) for each in held.values()]
    assert prob_true(log_probs, true) == pytest.approx(np.mean(of_true))
    assert brier(log_probs, true) == pytest.approx(np.mean(squares))
    assert calibration_error(log_probs, true) == pytest.approx(sum(gaps))
    log_probs, true = drawn(100, 2)  # of two classes it is twice scikit-learn's
    assert brier(log_probs, true) == pytest.approx(2 * brier_score_loss(true, np.exp(log_probs[:, 1])))


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
