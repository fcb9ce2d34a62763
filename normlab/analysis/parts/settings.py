"""How good is each setting?"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from normlab import analysis
from normlab.analysis.cells import Cell, at_chance, holds, level, trained
from normlab.analysis.numbers import number
from normlab.analysis.part import Column, Part, Picture, Row, Table, mean_sd, named, span, text
from normlab.analysis.questions import Answers
from normlab.analysis.verdicts import tiers
from normlab.record import STATUSES
from normlab.settings.conf import spell

LOST = STATUSES[1:]
SHOWN = (
    "test_acc", "train_acc", "train_acc_running", "val_acc", "test_ce", "train_ce", "test_prob_true", "test_brier",
    "test_calibration_error",
)  # fmt: skip


def settings(answers: Answers) -> Part:
    timed = times(answers)
    seconds = timed.groupby("setting")["fit_s"].mean().to_dict()
    columns = [
        text("setting"),
        *([Column(f"its {answers.tune}", lambda row: spell(row[answers.tune]))] if answers.tune else []),
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
        Column("seconds per run", lambda row: number(seconds.get(row["setting"]), 0)),
    ]
    note = (
        f"Mean ± standard deviation over n seeds; the interval is for the mean, over {answers.random}. Settings that "
        "share a letter of a tier are not told apart (simultaneous 95 % intervals of all pairs, beside the family of "
        "verdicts). Train accuracy is measured "
        "after training, in eval mode without augmentation; the running one while training, as it is usually "
        "published. ce: cross-entropy. Settings in which a run did not train are described by how many did and their "
        "median."
    )
    tables = [Table("summary", summary(answers), columns, note, first=True), Table("times", timed)]
    return Part("settings", "Settings", tables=tables, pictures=lambda: _pictures(answers))


def summary(answers: Answers) -> pd.DataFrame:
    """One row per setting: its factors, runs by status, and of each outcome mean, sd and 95 % interval; NaN where
    nothing was measured. tier: letters, see `tiers`."""
    model = answers.model("test_acc")
    order = sorted(model.names, key=lambda name: -model.means[model.names.index(name)])
    letters = dict(zip(order, tiers(model, order), strict=True)) if len(order) > 1 and answers.several else {}
    rows = []
    for cell in answers.grouped.cells:
        row: dict[str, Any] = {"setting": cell.label, **cell.levels, "n": len(cell.completed)}
        if answers.tune:
            row[answers.tune] = level(cell, answers.tune)
        row |= {status: sum(run.record.status == status for run in cell.ended) for status in LOST}
        able = sum(not at_chance(run) for run in cell.completed)
        row |= {"tier": letters.get(cell.label, ""), "trained": "" if trained(cell) else f"{able} of {len(cell.ended)}"}
        for name in SHOWN:
            row |= named(name, **_spread(answers, cell, name))
        row |= {"best_epoch_test_acc_mean": cell.best_epoch, "zeros_mean": cell.mean("zeros")}
        row["parameters"] = next((run.record.parameters for run in cell.completed), None)
        rows.append(row)
    return pd.DataFrame(rows)


def _spread(answers: Answers, cell: Cell, name: str) -> dict[str, float]:
    values = pd.Series(cell.values(name), dtype=float)
    numbers = dict.fromkeys(("mean", "sd", "low", "high"), math.nan)
    if not trained(cell):  # a mean of what trained and what did not is neither
        return numbers | {"mean": values.median()}
    estimate = answers.estimate({cell.label: 1.0}, name)
    numbers |= {"mean": values.mean(), "sd": values.std()}
    return numbers | (estimate.interval(0.95)._asdict() if estimate else {})


def times(answers: Answers) -> pd.DataFrame:
    """One row per run: what it took and where. Apart from the other tables, which are the same whenever a study is
    run."""
    rows = []
    for cell in answers.grouped.cells:
        for record in (run.record for run in cell.ended):
            row = {"setting": cell.label, "seed": record.seed, "status": record.status}
            row |= {key: record.time.get(key) for key in ("fit_s", "images_per_s", "epochs")}
            row |= {"device": record.device.get("name"), "threads": record.device.get("threads")}
            if "array" in record.device:  # so many runs trained as one computation; the times are each one's share
                row["array"] = record.device["array"]
            rows.append(row | {key: record.versions.get(key) for key in ("torch", "lightning")})
    return pd.DataFrame(rows)


def _runs(row: Row) -> str:
    lost = [f"{row[status]} {status}" for status in LOST if row[status]]
    lost = lost or [f"{row['trained']} trained"] * bool(row["trained"])
    return f"{row['n']}" + (f" ({', '.join(lost)})" if lost else "")


def accuracies_of(answers: Answers) -> tuple[dict[str, np.ndarray], dict[str, tuple[float, float, float]]]:
    """By setting, the test accuracies of its seeds, per cent, and their mean with its 95 % interval."""
    cells = [cell for cell in answers.grouped.cells if cell.values("test_acc")]
    spreads = {cell.label: _spread(answers, cell, "test_acc") for cell in cells}
    means = {label: (100 * of["mean"], 100 * of["low"], 100 * of["high"]) for label, of in spreads.items()}
    return {cell.label: 100 * np.array([*cell.values("test_acc").values()]) for cell in cells}, means


def _pictures(answers: Answers) -> Iterator[Picture]:
    values, means = accuracies_of(answers)
    published: dict[str, list[tuple[str, float]]] = {}
    for item in answers.asked.published:
        for cell in answers.grouped.cells:
            if cell.label in values and item.test_acc is not None and holds(cell, item.setting):
                published.setdefault(cell.label, []).append((item.source, item.test_acc))
    title = f"Test accuracy on {answers.grouped.data_title}"
    caption = "Test accuracy of the last epoch: every seed, their mean and its 95 % interval."
    if values:
        yield Picture("accuracy", caption, lambda _: analysis.row_figures.accuracies(
            values, means, answers.grouped.norms, title=title, reference=published
        ))  # fmt: skip
