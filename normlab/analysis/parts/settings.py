"""How good is each setting?"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from normlab.analysis.cells import Cell, at_chance, holds, trained
from normlab.analysis.numbers import NONE
from normlab.analysis.part import Column, Part, Picture, Row, Table, mean_sd, span, text
from normlab.analysis.questions import Answers
from normlab.analysis.verdicts import tiers

__all__ = ["LOST", "accuracies_of", "settings", "summary", "times"]

LOST = ("diverged", "failed", "unavailable", "interrupted")
SHOWN = (
    "test_acc",
    "train_acc",
    "train_acc_running",
    "val_acc",
    "test_ce",
    "train_ce",
    "test_prob_true",
    "test_brier",
    "test_calibration_error",
)


def settings(answers: Answers) -> Part:
    frame, timed = summary(answers), times(answers)
    seconds = timed.groupby("setting")["fit_s"].mean().dropna().to_dict()
    columns = [
        text("setting"),
        Column("n", _runs, "n"),
        mean_sd("test acc. %", "test_acc"),
        span("95 % interval", "test_acc"),
        text("tier"),
        mean_sd("train acc. %", "train_acc"),
        mean_sd("running train acc. %", "train_acc_running"),
        mean_sd("test ce", "test_ce", 4, 1),
        mean_sd("prob. of true class, %", "test_prob_true"),
        mean_sd("Brier", "test_brier", 4, 1),
        mean_sd("calibration error, %", "test_calibration_error"),
        Column("seconds per run", lambda row: f"{seconds[row['setting']]:,.0f}" if row["setting"] in seconds else NONE),
    ]
    measured = {column.heading: column for column in columns}
    for heading, name in (("running train acc. %", "train_acc_running"), ("prob. of true class, %", "test_prob_true"),
                          ("Brier", "test_brier"), ("calibration error, %", "test_calibration_error")):  # fmt: skip
        if not frame[f"{name}_mean"].notna().any():
            del measured[heading]
    about = (
        "new seeds and new test images"
        if answers.model(answers.primary).images is not None
        else "new seeds, on these test images"
    )
    note = (
        f"Mean ± standard deviation over n seeds; the interval is for the mean, over {about}. Settings that share a "
        "letter of a tier do not differ (simultaneous 95 % intervals of all pairs). Train accuracy is measured after "
        "training, in eval mode without augmentation; the running one while training, as it is usually published. ce: "
        "cross-entropy. Settings in which a run did not train are described by how many did and their median."
    )
    tables = [Table("summary", frame, list(measured.values()), note), Table("times", timed)]
    return Part("settings", "Settings", tables=tables, draw=lambda _: _draw(answers))


def summary(answers: Answers) -> pd.DataFrame:
    """One row per setting: its factors, runs by status, and of each outcome mean, sd and 95 % interval; NaN where
    nothing was measured. tier: letters, see `tiers`."""
    model = answers.model("test_acc")
    order = sorted(model.names, key=lambda name: -model.means[model.names.index(name)])
    letters = dict(zip(order, tiers(model, order), strict=True)) if len(order) > 1 and answers.several else {}
    rows = []
    for cell in answers.found.cells:
        row: dict[str, Any] = {"setting": cell.label, **cell.levels, "n": len(cell.completed)}
        row |= {status: sum(run.record.status == status for run in cell.ended) for status in LOST}
        row |= {"tier": letters.get(cell.label, ""), "trained": _trained(cell)}
        for name in SHOWN:
            row |= _spread(answers, cell, name)
        row["best_epoch_test_acc_mean"] = cell.best_epoch
        row["zeros_mean"] = cell.mean("zeros")
        row["parameters"] = next((run.record.parameters for run in cell.completed), None)
        rows.append(row)
    return pd.DataFrame(rows)


def _spread(answers: Answers, cell: Cell, name: str) -> dict[str, float]:
    values = pd.Series(cell.values(name), dtype=float)
    if not trained(cell):  # a mean of what trained and what did not is neither
        return dict.fromkeys((f"{name}_sd", f"{name}_low", f"{name}_high"), math.nan) | {
            f"{name}_mean": values.median()
        }
    low, high = math.nan, math.nan
    if estimate := answers.estimate({cell.label: 1.0}, name):
        low, high = estimate.interval(0.95)
    return {f"{name}_mean": values.mean(), f"{name}_sd": values.std(), f"{name}_low": low, f"{name}_high": high}


def times(answers: Answers) -> pd.DataFrame:
    """One row per run: what it took and where. Apart from the other tables, which are the same whenever a study is
    run."""
    rows = []
    for cell in answers.found.cells:
        for run in cell.ended:
            record = run.record
            row = {"setting": cell.label, "seed": record.seed, "status": record.status}
            row |= {key: record.time.get(key) for key in ("fit_s", "images_per_s", "epochs")}
            row |= {"device": record.device.get("name"), "threads": record.device.get("threads")}
            if "array" in record.device:  # so many runs trained as one computation; the times are each one's share
                row["array"] = record.device["array"]
            rows.append(row | {"torch": record.versions.get("torch"), "lightning": record.versions.get("lightning")})
    return pd.DataFrame(rows)


def _trained(cell: Cell) -> str:
    """ "2 of 3" where not all did; "" where all did."""
    if trained(cell):
        return ""
    able = sum(not at_chance(run) for run in cell.completed)
    return f"{able} of {len(cell.ended)}"


def _runs(row: Row) -> str:
    lost = [f"{row[status]} {status}" for status in LOST if row[status]]
    stuck = [f"{row['trained']} trained"] if row["trained"] and not lost else []
    return f"{row['n']}" + (f" ({', '.join(lost + stuck)})" if lost or stuck else "")


def accuracies_of(answers: Answers) -> tuple[dict[str, np.ndarray], dict[str, tuple[float, float, float]]]:
    """By setting, the test accuracies of its seeds, per cent, and their mean with its 95 % interval."""
    values, means = {}, {}
    for cell in answers.found.cells:
        if found := cell.values("test_acc"):
            values[cell.label] = 100 * np.array([*found.values()])
            row = _spread(answers, cell, "test_acc")
            mean, low, high = (100 * row[f"test_acc_{key}"] for key in ("mean", "low", "high"))
            means[cell.label] = mean, low, high
    return values, means


def _draw(answers: Answers) -> Iterator[Picture]:
    from normlab.analysis.row_figures import accuracies

    norms = {cell.label: cell.norm for cell in answers.found.cells}
    values, means = accuracies_of(answers)
    if values:
        published: dict[str, list[tuple[str, float]]] = {}
        for item in answers.study.published if answers.study else []:
            for cell in answers.found.cells:
                if cell.label in values and item.test_acc is not None and holds(cell, item.setting):
                    published.setdefault(cell.label, []).append((item.source, item.test_acc))
        title = f"Test accuracy on {answers.found.data_title}"
        caption = "Test accuracy of the last epoch: every seed, their mean and its 95 % interval."
        drawn = accuracies(values, means, norms, title=title, reference=published)
        yield Picture("accuracy", caption, drawn)
