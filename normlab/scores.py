"""Scores of predicted probabilities, from the log-probabilities that a run keeps of its test images."""

from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 15  # as in the source of `calibration_error`

Array = npt.NDArray[Any]


def prob_true_of_images(log_probs: Array, true: Array) -> Array:
    """Return each image's probability of its true class, (N,): log_probs (N, C), true (N,), whole numbers below C."""
    return np.asarray(_probabilities(log_probs)[np.arange(len(true)), true])


def brier_of_images(log_probs: Array, true: Array) -> Array:
    """Return Σ_k (p_k − [k = true])² of each image, (N,), from 0 (certain and right) to 2 (certain and wrong).

    Source: Brier 1950, "Verification of Forecasts Expressed in Terms of Probability", the sum over all classes.
    """
    probabilities = _probabilities(log_probs)
    probabilities[np.arange(len(true)), true] -= 1
    return np.asarray(np.square(probabilities).sum(1))


def calibration_error(log_probs: Array, true: Array) -> float:
    """Return the expected calibration error Σ_b n_b/N · |accuracy_b − confidence_b|, in [0, 1].

    confidence: the probability of the predicted class. Bin b of `BINS` holds the images with a confidence in
    (b/BINS, (b + 1)/BINS]. Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.
    """
    probabilities = _probabilities(log_probs)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == true
    bin_of = np.ceil(confidence * BINS).clip(1, BINS).astype(int) - 1
    gaps = np.bincount(bin_of, right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(true))


def scores(log_probs: Array, true: Array) -> dict[str, float]:
    """Return all of them by name, means over the images."""
    return {
        "prob_true": float(prob_true_of_images(log_probs, true).mean()),
        "brier": float(brier_of_images(log_probs, true).mean()),
        "calibration_error": calibration_error(log_probs, true),
    }


def _probabilities(log_probs: Array) -> Array:
    return np.exp(log_probs.astype(np.float64))
