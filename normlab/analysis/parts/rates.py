"""Several learning rates: where each setting is stable, which rate suits it, and how settings compare at their own."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from normlab.analysis.cells import Cell, Sorted, at_chance, label, trained
from normlab.analysis.numbers import NONE, number
from normlab.analysis.part import Column, Part, Table, interval, p, text
from normlab.analysis.parts.effects import family_words, questions_frame
from normlab.analysis.questions import Answers

__all__ = ["at_own_best", "rates", "rates_frame"]

LEAST = 3  # rates that make a search


def rates(answers: Answers) -> Part:
    frame = rates_frame(answers.found)
    if frame.empty:
        return Part("rates", "Learning rates", tables=[Table("rates", frame), Table("best", frame)])
    by_setting = pd.DataFrame([_in_a_row(str(setting), of) for setting, of in frame.groupby("setting", sort=False)])
    headings = {
        "best": "best lr", "val": "its validation acc. %", "test": "its test acc. %", "largest": "largest stable lr",
        "lost": "runs lost", "at": "at lr",
    }  # fmt: skip
    columns = [text("setting"), *(Column(heading, lambda row, key=key: row[key]) for key, heading in headings.items())]  # type: ignore[misc]
    note = (
        "Best: by validation accuracy, of the rates at which every run trained. Stable: no run diverged or stayed at "
        "chance; lost: the runs that did."
    )
    tables = [Table("", by_setting, columns, note), Table("rates", frame)]
    best = at_own_best(answers)
    if best is not None:
        own = questions_frame(best)
        shown = [
            text("each at its best lr", "question"),
            text("verdict"),
            interval("difference (95 % interval)", "difference", unit="value"),
            p("p", "p_adjusted"),
        ]
        tables.append(Table("best", own, shown, family_words(best), "verdict"))
    return Part("rates", "Learning rates", RATES, tables)


RATES = "Where each setting is stable, which rate suits it, and how settings compare when each has its own."


def rates_frame(found: Sorted) -> pd.DataFrame:
    """One row per setting and learning rate, where lr has three values or more; accuracies in [0, 1].

    - diverged, chance: runs whose loss was not finite, and networks that never left chance.
    - stable: no run of this rate failed in either way.
    - best: of the stable rates the one with the highest validation accuracy, mean over seeds; the smaller of equal
      ones. Nothing is best where no images were held out: the test set chooses nothing.
    """
    rows = []
    for kind, cells in _kinds(found).items():
        best = _best(cells)
        for cell in cells:
            rows.append(
                {
                    "setting": kind,
                    "lr": cell.levels["lr"],
                    "runs": len(cell.ended),
                    "diverged": sum(run.record.status == "diverged" for run in cell.ended),
                    "chance": sum(at_chance(run) for run in cell.completed),
                    "stable": trained(cell),
                    "best": cell is best,
                    "val_acc_mean": cell.mean("val_acc"),
                    "test_acc_mean": cell.mean("test_acc"),
                }
            )
    return pd.DataFrame(rows)


def at_own_best(answers: Answers) -> Answers | None:
    """The questions about settings that are each at the learning rate its validation accuracy chose."""
    best = [cell for cells in _kinds(answers.found).values() if (cell := _best(cells)) is not None]
    if len(best) < 2:
        return None
    cells = [replace(cell, label=label(levels := _without_lr(cell)), levels=levels) for cell in best]
    factors = tuple(name for name in answers.found.factors if name != "lr")
    own = replace(answers.found, cells=tuple(cells), factors=factors)
    study = answers.study.model_copy(update={"claims": []}) if answers.study else None
    return Answers(own, study, answers.margin, answers.alpha)


def _in_a_row(setting: str, of: pd.DataFrame) -> dict[str, str]:
    stable, best = of[of["stable"]], of[of["best"]]
    first = best.iloc[0] if len(best) else None
    return {
        "setting": setting,
        "best": f"{first['lr']:g}" if first is not None else NONE,
        "val": number(100 * first["val_acc_mean"], 2) if first is not None else NONE,
        "test": number(100 * first["test_acc_mean"], 2) if first is not None else NONE,
        "largest": f"{stable['lr'].max():g}" if len(stable) else NONE,
        "lost": f"{int(of['diverged'].sum() + of['chance'].sum())} of {int(of['runs'].sum())}",
        "at": ", ".join(f"{lr:g}" for lr in of[~of["stable"]]["lr"]) or NONE,
    }


def _kinds(found: Sorted) -> dict[str, list[Cell]]:
    """Settings that differ in lr alone, by what they share; the rates upwards."""
    kinds: dict[str, list[Cell]] = {}
    for cell in found.cells:
        if "lr" in cell.levels:
            kinds.setdefault(label(_without_lr(cell)), []).append(cell)
    kinds = {kind: sorted(cells, key=lambda cell: float(cell.levels["lr"])) for kind, cells in kinds.items()}
    return {kind: cells for kind, cells in kinds.items() if len(cells) >= LEAST}


def _without_lr(cell: Cell) -> dict[str, object]:
    return {key: level for key, level in cell.levels.items() if key != "lr"}


def _best(cells: Sequence[Cell]) -> Cell | None:
    able = [cell for cell in cells if trained(cell) and cell.values("val_acc")]
    # of equal ones the first, the smallest rate
    return max(able, key=lambda cell: cell.mean("val_acc")) if able else None
