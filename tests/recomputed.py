"""The replication's numbers once more, from its files by numpy, pandas and scipy alone."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import optimize, special, stats


def read(folder: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Settings; outcomes (settings, seeds); right answers (settings, seeds, images)."""
    found: dict[str, list[tuple[int, float, np.ndarray]]] = {}
    for file in sorted(folder.glob("*/result.json")):
        record, arrays = json.loads(file.read_text()), np.load(file.with_name("predictions.npz"))
        l1 = record["setting"]["l1"]
        name = record["setting"]["norm"] + (f" l1={l1:g}" if l1 else "")
        right = (arrays["pred"] == arrays["true"]).astype(float)
        found.setdefault(name, []).append((record["seed"], record["metrics"]["test_acc"], right))
    ordered = {name: sorted(runs, key=lambda run: run[0]) for name, runs in found.items()}
    values = np.array([[run[1] for run in runs] for runs in ordered.values()])
    return list(ordered), values, np.array([[run[2] for run in runs] for runs in ordered.values()])


def shrunk(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Variances of logits (by the delta method), moderated, and their degrees of freedom."""
    mean, d = values.mean(1), values.shape[1] - 1
    s = np.maximum(values.var(1, ddof=1), 1e-8 / 12) / (mean * (1 - mean)) ** 2
    z = np.log(s) - special.digamma(d / 2) + np.log(d / 2)
    extra = z.var(ddof=1) - special.polygamma(1, d / 2)
    if extra <= 0:
        return np.full_like(s, s.mean()), len(s) * d
    prior = 2 * optimize.brentq(lambda x: special.polygamma(1, x) - extra, 1e-3, 1e6)
    common = np.exp(z.mean() + special.digamma(prior / 2) - np.log(prior / 2))
    return (prior * common + d * s) / (prior + d), min(prior + d, len(s) * d)


def contrast(c: np.ndarray, values: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """A contrast of accuracies: value, standard error for new seeds and images, degrees of freedom, 95 % interval."""
    mean, (settings, seeds) = values.mean(1), values.shape
    slope = mean * (1 - mean)
    variance, d = shrunk(values)
    of_seeds = c**2 * variance * slope**2 / seeds
    df_seeds = min(of_seeds.sum() ** 2 / (of_seeds**2 / d).sum(), settings * (seeds - 1))
    images = right.shape[2]
    rest = [_rest(some) for some in right]
    covariance = np.cov(right.mean(1)) / images - np.diag(rest) / (seeds * images)
    of_images = max(0.0, float(c @ covariance @ c))
    whole = of_seeds.sum() + of_images
    df = whole**2 / (of_seeds.sum() ** 2 / df_seeds + of_images**2 / (images - 1))
    weight = variance * slope**2 / seeds + np.maximum(0, np.diag(covariance))
    move = c * weight / slope / ((c * slope) @ (c * weight / slope))
    far = stats.t.ppf(0.975, df) * np.sqrt(whole)
    low, high = (c @ special.expit(special.logit(mean) + side * far * move) for side in (-1, 1))
    return {"value": c @ mean, "low": low, "high": high, "se": np.sqrt(whole), "df": df}


def _rest(right: np.ndarray) -> float:
    """The mean square that neither seed nor image explains."""
    frame = pd.DataFrame(right)
    left = frame.sub(frame.mean(axis=1), axis=0).sub(frame.mean(axis=0), axis=1) + frame.to_numpy().mean()
    return float((left.to_numpy() ** 2).sum() / ((len(frame) - 1) * (frame.shape[1] - 1)))
