"""A path of L1: what each λ leaves of a network, by method and scope, and how much the seeds agree on it."""

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from normlab.analysis.cells import Cell, Sorted, per_cent
from normlab.analysis.stats import difference_of, summarise

if TYPE_CHECKING:  # matplotlib takes half a second, which a report without figures saves
    from matplotlib.figure import Figure

__all__ = ["chance", "jaccard_of_supports", "path_pictures", "path_table"]

LEAST = 3  # λ that make a path
SHARES = ("zeros", "small", "zero_filters", "zero_scales", "weight_norm")


def path_table(found: Sorted) -> pd.DataFrame:
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
        row |= {name: cell.mean(name) for name in SHARES}
        norm = row["weight_norm"]
        row["step_ratio"] = (plain.get(_unpenalised(cell), np.nan) / norm) ** 2 if norm else np.nan
        after = cell.values("refit_test_acc")
        if after:
            row |= _spread("refit_test_acc", after)
            before = {seed: value for seed, value in cell.values("test_acc").items() if seed in after}
            d = difference_of(per_cent(after), per_cent(before))
            row |= {"refit_gain_pp": d.mean, "refit_gain_low": d.low, "refit_gain_high": d.high}
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


def path_pictures(found: Sorted) -> Iterator[tuple[str, str, "Figure"]]:
    """(file name, caption, figure): accuracy against exact zeros, before and after the refit."""
    from normlab.analysis.factor_figure import factor_curve

    if len({cell.levels.get("l1") for cell in found.cells}) < LEAST:
        return
    for metric, name, words in (
        ("test_acc", "path", "test accuracy, %"),
        ("refit_test_acc", "path-refit", "test accuracy after the refit, %"),
    ):
        lines: dict[str, list[tuple[float, ...]]] = {}
        norms: dict[str, str] = {}
        for label, path in _paths(found).items():
            if not any(cell.values("zeros") and cell.mean("zeros") > 0 for cell in path):
                continue
            for cell in path:
                if values := cell.values(metric):
                    s = summarise([100 * value for value in values.values()])
                    lines.setdefault(label, []).append((round(100 * cell.mean("zeros"), 1), s.mean, s.low, s.high))
                    norms[label] = cell.norm
        if lines:
            curves: Mapping[str, Any] = {label: tuple(np.array(points).T) for label, points in lines.items()}
            caption = (
                "Accuracy against the share of weights that are exactly 0, λ rising along each line: means over seeds "
                "and 95 % intervals. Settings without any exact zero are left out."
            )
            title = f"What can be removed, {found.data}"
            figure = factor_curve(
                curves,
                norms,
                factor="exact zeros, % of the convolutions' weights",
                y_label=words,
                title=title,
                log_x=False,
            )
            yield name, caption, figure


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
    s = summarise([*values.values()])
    return {f"{name}_mean": s.mean, f"{name}_low": s.low, f"{name}_high": s.high}
