"""Several learning rates: where each setting is stable, which rate suits it, and how settings compare at their own."""

from typing import Any

import numpy as np
import pandas as pd

from normlab.analysis.cells import Cell, RunsBySetting, alike, at_chance, best, trained
from normlab.analysis.numbers import NONE
from normlab.analysis.part import Column, Part, Table, interval, p, text, value
from normlab.analysis.parts.effects import methods, questions_frame
from normlab.analysis.questions import Answers

LEAST = 3  # rates that make a search
INTRO = "Where each setting is stable, which rate suits it, and how settings compare when each has its own."
NOTE = (
    "Best: by validation accuracy, of the rates at which every run trained; one lr for all: so chosen for the mean "
    "over settings. Stable: no run diverged or stayed at chance; lost: the runs that did."
)


def rates(answers: Answers) -> Part:
    frame = rates_frame(answers.grouped_all)
    one = _for_all(frame)
    groups = frame.groupby("setting", sort=False) if len(frame) else ()
    by_setting = [{"setting": setting} | _summed(of, one) for setting, of in groups]
    columns = [
        text("setting"), Column("best lr", lambda row: _lr(row["best"])),
        value("its validation acc. %", "val", 2, 100), value("its test acc. %", "test", 2, 100),
        value(f"test acc. % at lr {_lr(one)} for all", "at_one", 2, 100),
        Column("largest stable lr", lambda row: _lr(row["largest"])),
        Column("runs lost", lambda row: f"{row['lost']} of {row['runs']}"), Column("at lr", lambda row: row["at"]),
    ]  # fmt: skip
    own = at_own_best(answers)
    lines = methods(own) if own else {}
    shown = [
        text("each at its best lr", "question"), text("verdict", verdict=True),
        interval("difference (95 % interval)", "difference", middle="value"), p("p", "p_adjusted"),
    ]  # fmt: skip
    note = " ".join(f"{heading.capitalize()}: {line.rstrip('.')}." for heading, line in lines.items())
    tables = [
        Table("", pd.DataFrame(by_setting), columns, NOTE),
        Table("rates", frame),
        Table("best", questions_frame(own) if own else pd.DataFrame(), shown, note),
    ]
    return Part("rates", "Learning rates", INTRO, tables)


def rates_frame(found: RunsBySetting) -> pd.DataFrame:
    """One row per setting and learning rate, where lr has three values or more; accuracies in [0, 1].

    - diverged, chance: runs whose loss was not finite, and networks that never left chance; accuracies are of all runs
      that did not diverge.
    - stable: no run of this rate failed in either way.
    - best: of the stable rates the one with the highest validation accuracy, mean over seeds; the smaller of equal
      ones. Nothing is best where no images were held out: the test set chooses nothing.
    """
    rows = []
    for kind, cells in _kinds(found).items():
        own = best(cells)
        for cell in cells:
            row: dict[str, Any] = {"setting": kind, "lr": cell.levels["lr"], "runs": len(cell.ended)}
            row["diverged"] = sum(run.record.status == "diverged" for run in cell.ended)
            row["chance"] = sum(at_chance(run) for run in cell.completed)
            row |= {"stable": trained(cell), "best": cell is own}
            row |= {f"{name}_mean": cell.mean(name) for name in ("val_acc", "test_acc")}
            accs = [*cell.values("test_acc").values()]
            rows.append(row | {"test_acc_median": float(np.median(accs)) if accs else np.nan})
    return pd.DataFrame(rows)


def at_own_best(answers: Answers) -> Answers | None:
    """The questions about settings that are each at the learning rate its validation accuracy chose; None where the
    study asks them itself."""
    if answers.tune == "lr" or sum(best(cells) is not None for cells in _kinds(answers.grouped_all).values()) < 2:
        return None
    study = answers.asked.model_copy(update={"claims": [], "tune": "lr"})
    return Answers(answers.grouped_all, study, answers.margin, answers.alpha)


def _for_all(frame: pd.DataFrame) -> float:
    """The rate of the highest validation accuracy, mean over settings, of those at which most settings are stable."""
    if not len(frame):
        return float("nan")
    by = frame.groupby("lr").agg(stable=("stable", "sum"), val=("val_acc_mean", "mean")).reset_index()
    return float(by.sort_values(["stable", "val"])["lr"].iloc[-1])


def _summed(of: pd.DataFrame, one: float) -> dict[str, Any]:
    """A row of the page, from those of a setting; one: the rate that is best for all."""
    best = of[of["best"]].mean(numeric_only=True)  # NaN where none is
    unstable = of[~of["stable"]]
    return {
        "best": best["lr"],
        "val": best["val_acc_mean"],
        "test": best["test_acc_mean"],
        "at_one": of.loc[of["lr"] == one, "test_acc_mean"].mean(),
        "largest": of.loc[of["stable"], "lr"].max(),
        "lost": int(of["diverged"].sum() + of["chance"].sum()),
        "runs": int(of["runs"].sum()),
        "at": ", ".join(map(_lr, unstable["lr"])) or NONE,
    }


def _lr(rate: float) -> str:
    return f"{rate:g}" if np.isfinite(rate) else NONE


def _kinds(found: RunsBySetting) -> dict[str, list[Cell]]:
    """Settings that differ in lr alone, by what they share; the rates upwards."""
    kinds = alike(found.cells, "lr") if "lr" in found.factors else {}
    return {kind: cells for kind, cells in kinds.items() if len(cells) >= LEAST}
