"""A path of L1: what each λ leaves of a network, by method and scope, and how much the seeds agree on it."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from normlab.analysis.cells import Cell, RunsBySetting, alike, without
from normlab.analysis.forensics import jaccard
from normlab.analysis.part import Part, Picture, Table, interval, over_seeds, text, value
from normlab.analysis.parts.curves import Point, along
from normlab.analysis.questions import Answers

LEAST = 3  # λ that make a path
SHARES = {
    "zeros": "zero weights, %",
    "small": "near zero, %",
    "zero_filters": "zero filters, %",
    "zero_scales": "zero scales γ, %",
}
INTRO = (
    "A path of λ: exact zeros, what is left after training on without the penalty, whether seeds keep the same weights."
)
NOTE = (
    "Zeros are exact; near zero: at most 1 % of the largest weight of its filter. Effective lr: lr / ‖w‖², by that "
    "of the setting without L1: a norm makes the scale of the filters before it meaningless, and L1 then changes "
    "how far a step turns them. Agreement: Jaccard index of the weights that are left, over pairs of seeds; by "
    "chance: of random ones of the same number."
)


def path(answers: Answers) -> Part:
    columns = [
        text("setting"),
        value("n", "n"),
        value("test acc. %", "test_acc_mean", 2, 100),
        *[value(words, name, 1, 100) for name, words in SHARES.items()],
        value("‖w‖₂", "weight_norm", 2),
        value("effective lr, x", "step_ratio", 2),
        interval("gained by the refit, pp", "refit_gain"),
        value("agreement", "agreement", 2),
        value("by chance", "chance", 2),
    ]
    frame = path_frame(answers.grouped)
    table = Table("path", frame, columns, NOTE)
    return Part("path", "What L1 removes", INTRO, [table], lambda: _pictures(answers.grouped) if len(frame) else ())


def path_frame(found: RunsBySetting) -> pd.DataFrame:
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
    rows, plain = [], _plain(found)
    for cell in (cell for cell in found.cells if cell.completed):
        row: dict[str, Any] = {"setting": cell.label, "l1": cell.levels["l1"], "n": len(cell.completed)}
        before, after, norm = cell.values("test_acc"), cell.values("refit_test_acc"), cell.mean("weight_norm")
        row |= over_seeds("test_acc", before.values(), link="logit")
        row |= {name: cell.mean(name) for name in (*SHARES, "weight_norm")}
        start = plain.get(without(cell, "l1", "penalty"))
        row["step_ratio"] = (start.mean("weight_norm") / norm) ** 2 if start and norm else np.nan
        if after:
            row |= over_seeds("refit_test_acc", after.values(), link="logit")
            row |= over_seeds("refit_gain", [acc - before[seed] for seed, acc in after.items()], "pp", 100)
        row["agreement"], row["chance"] = jaccard_of_supports([run.support for run in cell.completed])
        rows.append(row)
    return pd.DataFrame(rows)


def _plain(found: RunsBySetting) -> dict[str, Cell]:
    """The settings without a penalty, by what they share with those that have one."""
    return {without(cell, "l1", "penalty"): cell for cell in found.cells if not cell.levels["l1"]}


def jaccard_of_supports(supports: list[np.ndarray | None]) -> tuple[float, float]:
    """Mean Jaccard index over all pairs, each bool (P,), and that of random ones of the same sizes; NaN for no pair."""
    there = [support for support in supports if support is not None]
    pairs = [(a, b) for a, b in itertools.combinations(there, 2) if (a | b).any()]
    if not pairs:
        return float("nan"), float("nan")
    found = [jaccard(a, b) for a, b in pairs]
    return float(np.mean(found)), float(np.mean([chance(a.mean(), b.mean()) for a, b in pairs]))


def chance(a: float, b: float) -> float:
    """The Jaccard index of two large random sets that hold shares a and b of everything: ab / (a + b - ab)."""
    return float(a * b / (a + b - a * b))


def _pictures(found: RunsBySetting) -> Iterator[Picture]:
    """Accuracy against exact zeros, before and after the refit; a setting without a penalty is the start of every path
    of its norm."""
    plain, paths = _plain(found), {}
    for label, cells in alike([cell for cell in found.cells if cell.levels["l1"]], "l1").items():
        start = plain.get(without(cells[0], "l1", "penalty"))
        line = [start, *cells] if start else cells
        if any(cell.mean("zeros") > 0 for cell in line):
            paths[label] = line
    norms = {label: cells[0].norm for label, cells in paths.items()}
    caption = (
        "Accuracy against the share of weights that are exactly 0, λ rising along each line: every seed, means and "
        "their 95 % intervals. Settings without any exact zero are left out."
    )
    for metric, name, y_label in (
        ("test_acc", "path", "test accuracy, %"),
        ("refit_test_acc", "path-refit", "test accuracy after the refit, %"),
    ):
        lines = {
            label: [_point(cell, metric) for cell in cells if cell.values(metric)] for label, cells in paths.items()
        }
        lines = {label: points for label, points in lines.items() if points}
        labels = {"x_label": "exact zeros, % of the weights", "y_label": y_label, "chosen": False}
        if lines:
            yield along(name, caption, lines, norms, title=f"What can be removed, {found.data_title}", **labels)


def _point(cell: Cell, metric: str) -> Point:
    zeros = {seed: 100 * share for seed, share in cell.values("zeros").items()}
    return Point.of(zeros, cell.values(metric), accuracy=True)
