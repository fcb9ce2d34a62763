"""A path of L1: what each λ leaves of a network, by method and scope, and how much the seeds agree on it."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from normlab.analysis.cells import Cell, Sorted
from normlab.analysis.inference import mean_interval
from normlab.analysis.part import Part, Picture, Table, interval, text, value
from normlab.analysis.questions import Answers

__all__ = ["chance", "jaccard_of_supports", "path", "path_frame"]

LEAST = 3  # λ that make a path
SHARES = {
    "zeros": "zero weights, %",
    "small": "near zero, %",
    "zero_filters": "zero filters, %",
    "zero_scales": "zero scales γ, %",
}


def path(answers: Answers) -> Part:
    frame = path_frame(answers.found)
    columns = [
        text("setting"),
        value("n", "n", 0),
        value("test acc. %", "test_acc_mean", 2, 100),
        *[value(words, name, 1, 100) for name, words in SHARES.items()],
        value("‖w‖₂", "weight_norm", 2),
        value("effective lr, x", "step_ratio", 2),
        *[interval("gained by the refit, pp", "refit_gain")] * ("refit_gain_pp" in frame),
        value("agreement", "agreement", 2),
        value("by chance", "chance", 2),
    ]
    note = (
        "Zeros are exact; near zero: at most 1 % of the largest weight of its filter. Effective lr: lr / ‖w‖², by that "
        "of the setting without L1: a norm makes the scale of the filters before it meaningless, and L1 then changes "
        "how far a step turns them. Agreement: Jaccard index of the weights that are left, over pairs of seeds; by "
        "chance: of random ones of the same number."
    )
    return Part(
        "path",
        "What L1 removes",
        PATH,
        [Table("path", frame, columns, note)],
        lambda _: _draw(answers.found) if len(frame) else [],
    )


PATH = (
    "A path of λ: exact zeros, what is left after training on without the penalty, whether seeds keep the same weights."
)


def path_frame(found: Sorted) -> pd.DataFrame:
    """One row per setting, where l1 has three values or more; shares and accuracies in [0, 1], differences in pp.

    - zeros, zero_filters, zero_scales: exact zeros among the weights of convolutions, whole filters, and scales γ.
      small: weights of at most 1 % of the largest of their filter, which is what subgradient steps leave instead.
    - weight_norm: ‖w‖₂ of the convolutions. Where a norm follows, the network computes the same with other scales of w,
      and a step of size lr turns w as one of lr / ‖w‖² would turn a vector of length 1: the effective learning rate
      (van Laarhoven 2017, "L2 Regularization versus Batch and Weight Normalization"). `step_ratio` is ‖w‖⁻² by that
      of the same setting without L1.
    - refit_test_acc, and refit_gain_pp with its 95 % t interval, paired by seed: after training on without the penalty.
    - agreement: mean Jaccard index of the weights that are left, over pairs of seeds; chance: what it would be if the
      same shares were left at random.
    """
    if len({cell.levels.get("l1") for cell in found.cells}) < LEAST:
        return pd.DataFrame()
    rows = []
    plain = {_unpenalised(cell): cell.mean("weight_norm") for cell in found.cells if not cell.levels["l1"]}
    for cell in found.cells:
        if not cell.completed:
            continue
        row: dict[str, Any] = {"setting": cell.label, "l1": cell.levels["l1"], "n": len(cell.completed)}
        row |= _spread("test_acc", cell.values("test_acc"))
        row |= {name: cell.mean(name) for name in (*SHARES, "weight_norm")}
        norm = row["weight_norm"]
        row["step_ratio"] = (plain.get(_unpenalised(cell), np.nan) / norm) ** 2 if norm else np.nan
        after = cell.values("refit_test_acc")
        if after:
            row |= _spread("refit_test_acc", after)
            before = cell.values("test_acc")
            gain, low, high = mean_interval([100 * (acc - before[seed]) for seed, acc in after.items()])
            row |= {"refit_gain_pp": gain, "refit_gain_low": low, "refit_gain_high": high}
        row["agreement"], row["chance"] = jaccard_of_supports([run.support for run in cell.completed])
        rows.append(row)
    return pd.DataFrame(rows)


def jaccard_of_supports(supports: list[np.ndarray | None]) -> tuple[float, float]:
    """Mean Jaccard index over all pairs, each bool (P,), and that of random ones of the same sizes; NaN for no pair."""
    pairs = [(a, b) for a, b in itertools.combinations(supports, 2) if a is not None and b is not None]
    pairs = [(a, b) for a, b in pairs if (a | b).any()]
    if not pairs:
        return float("nan"), float("nan")
    found = [float((a & b).sum() / (a | b).sum()) for a, b in pairs]
    return float(np.mean(found)), float(np.mean([chance(a.mean(), b.mean()) for a, b in pairs]))


def chance(a: float, b: float) -> float:
    """The Jaccard index of two large random sets that hold shares a and b of everything: ab / (a + b - ab)."""
    return float(a * b / (a + b - a * b))


def _draw(found: Sorted) -> list[Picture]:
    """Accuracy against exact zeros, before and after the refit."""
    from normlab.analysis.drawing import styles
    from normlab.analysis.line_figures import Along, along

    drawn = []
    for metric, name, words in (
        ("test_acc", "path", "test accuracy, %"),
        ("refit_test_acc", "path-refit", "test accuracy after the refit, %"),
    ):
        lines: dict[str, list[tuple[float, ...]]] = {}
        seeds: dict[str, list[tuple[float, float]]] = {}
        norms: dict[str, str] = {}
        for label, path in _paths(found).items():
            if not any(cell.values("zeros") and cell.mean("zeros") > 0 for cell in path):
                continue
            for cell in path:
                if values := cell.values(metric):
                    ends = mean_interval([100 * value for value in values.values()])
                    lines.setdefault(label, []).append((100 * cell.mean("zeros"), *ends))
                    zeros = cell.values("zeros")
                    seeds.setdefault(label, []).extend((100 * zeros[s], 100 * acc) for s, acc in values.items())
                    norms[label] = cell.norm
        if lines:
            curves = {label: Along.of(points, seeds[label]) for label, points in lines.items()}
            caption = (
                "Accuracy against the share of weights that are exactly 0, λ rising along each line: every seed, means "
                "and their 95 % intervals. Settings without any exact zero are left out."
            )
            title = f"What can be removed, {found.data_title}"
            figure = along(
                curves,
                styles(norms),
                x_label="exact zeros, % of the weights",
                y_label=words,
                title=title,
                log_x=False,
            )
            drawn.append(Picture(name, caption, figure))
    return drawn


def _paths(found: Sorted) -> dict[str, list[Cell]]:
    """The settings along each path, λ rising; the one without a penalty is the start of every path of its norm."""
    starts = {_unpenalised(cell): cell for cell in found.cells if not cell.levels["l1"]}
    paths: dict[str, list[Cell]] = {}
    for cell in found.cells:
        if cell.levels["l1"]:
            start = starts.get(_unpenalised(cell))
            paths.setdefault(_rest(cell), [start] if start else []).append(cell)
    return paths


def _rest(cell: Cell) -> str:
    """A setting without its λ."""
    rest = [f"{key}={level}" for key, level in cell.levels.items() if key not in ("norm", "l1")]
    return " ".join([cell.norm, *rest])


def _unpenalised(cell: Cell) -> str:
    """A setting without its penalty."""
    keys = [key for key in cell.levels if key not in ("norm", "l1") and not key.startswith("penalty.")]
    return " ".join([cell.norm, *[f"{key}={cell.levels[key]}" for key in keys]])


def _spread(name: str, values: Mapping[int, float]) -> dict[str, float]:
    if not values:
        return {f"{name}_mean": float("nan"), f"{name}_low": float("nan"), f"{name}_high": float("nan")}
    mean, low, high = mean_interval([*values.values()])
    return {f"{name}_mean": mean, f"{name}_low": low, f"{name}_high": high}
