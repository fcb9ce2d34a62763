"""Scores of predicted probabilities, from the log-probabilities that a run keeps of its test images."""

from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 15  # as in the source of `calibration_error`

Array = npt.NDArray[Any]


def prob_true_of_images(log_probs: Array, true: Array) -> Array:
    """Return each image's probability of its true class, (N,): log_probs (N, C), true (N,), whole numbers below C."""
    return np.asarray(_probabilities(log_probs)[np.arange(len(true)), true])


def prob_true(log_probs: Array, true: Array) -> float:
    """Return the mean of `prob_true_of_images`."""
    return float(prob_true_of_images(log_probs, true).mean())


def brier_of_images(log_probs: Array, true: Array) -> Array:
    """Return Σ_k (p_k − [k = true])² of each image, (N,), from 0 (certain and right) to 2 (certain and wrong).

    Source: Brier 1950, "Verification of Forecasts Expressed in Terms of Probability", the sum over all classes.
    """
    probabilities = _probabilities(log_probs)
    probabilities[np.arange(len(true)), true] -= 1
    return np.asarray(np.square(probabilities).sum(1))


def brier(log_probs: Array, true: Array) -> float:
    """Return the mean of `brier_of_images`."""
    return float(brier_of_images(log_probs, true).mean())


def calibration_error(log_probs: Array, true: Array, bins: int = BINS) -> float:
    """Return the expected calibration error Σ_b n_b/N · |accuracy_b − confidence_b|, in [0, 1].

    confidence: the probability of the predicted class. Bin b of `bins` holds the images with a confidence in
    (b/bins, (b + 1)/bins]. Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.
    """
    probabilities = _probabilities(log_probs)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == true
    bin_of = np.ceil(confidence * bins).clip(1, bins).astype(int) - 1
    gaps = np.bincount(bin_of, right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(true))


def scores(log_probs: Array, true: Array) -> dict[str, float]:
    """Return all of them by name."""
    return {each.__name__: each(log_probs, true) for each in (prob_true, brier, calibration_error)}


def _probabilities(log_probs: Array) -> Array:
    return np.exp(log_probs.astype(np.float64))
