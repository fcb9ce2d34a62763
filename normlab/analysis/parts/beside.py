"""Two folders of runs beside each other: does a study that was run again come to the same?"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from normlab.analysis.cells import Cell, Sorted, factors_of, label, sort, trained, word
from normlab.analysis.declared import ALPHA
from normlab.analysis.numbers import signed
from normlab.analysis.outcomes import OUTCOMES, model_of
from normlab.analysis.part import Column, Part, Table, interval, p, text
from normlab.analysis.parts.effects import numbers_of
from normlab.analysis.table import Run
from normlab.analysis.verdicts import Question, decide
from normlab.errors import NormlabError

__all__ = ["beside", "beside_findings", "beside_frame", "both"]


def both(folders: Sequence[Sequence[Run]], names: Sequence[str], factors: Sequence[str] = ()) -> list[Sorted]:
    """Sort the runs of each folder into settings that are called alike in all: by what varies within one of them.

    Raise `NormlabError` where data sets differ.
    """
    data = {name: {str(run.config["data"]) for run in some} for name, some in zip(names, folders, strict=True)}
    if len(set().union(*data.values())) > 1:
        each = "; ".join(f"{name}: {', '.join(sorted(have))}" for name, have in data.items())
        raise NormlabError(f"the folders are of different data sets ({each}), so they cannot be compared")
    keys = tuple(dict.fromkeys(key for some in folders for key in factors_of([run.config for run in some], factors)))
    found = []
    for some in folders:
        alone = sort(some, factors)
        cells = []
        for cell in alone.cells:
            levels = {key: cell.ended[0].config.get(key) for key in keys}
            cells.append(replace(cell, label=label(levels), levels=levels))
        found.append(replace(alone, cells=tuple(cells), factors=keys))
    return found


def beside_frame(found: Sequence[Sorted], names: Sequence[str], outcome: str, margin: float) -> pd.DataFrame:
    """One row per setting and folder after the first that both have: the outcome in each (mean over seeds), and the
    later one minus the first with its 95 % interval, in the outcome's unit; verdicts of one family."""
    about = OUTCOMES[outcome]
    rows: list[dict[str, Any]] = []
    questions = []
    for other in range(1, len(found)):
        first, second = (
            {
                cell.label: replace(cell, label=f"{at} {cell.label}")
                for cell in found[at].cells
                if _counts(cell, outcome)
            }
            for at in (0, other)
        )
        common = [name for name in first if name in second]
        model = model_of([side[name] for side in (first, second) for name in common], outcome)
        for name in common:
            of, against = second[name], first[name]
            estimate = model.estimate({of.label: 1.0, against.label: -1.0})
            half = margin / about.factor
            questions.append(Question(estimate, -half, half, higher_is_better=about.higher_is_better))
            row: dict[str, Any] = {"setting": name, "first": names[0], "second": names[other]}
            row |= {"n_first": len(against.values(outcome)), "n_second": len(of.values(outcome))}
            row |= {"first_mean": about.factor * against.mean(outcome), "second_mean": about.factor * of.mean(outcome)}
            rows.append(row | numbers_of(estimate, about.factor))
    for row, decision in zip(rows, decide(questions), strict=True):
        row |= {"p_adjusted": decision.adjusted[0], "p_equivalence_adjusted": decision.adjusted[1]}
        row["verdict"] = decision.verdict
    return pd.DataFrame(rows)


def beside(frame: pd.DataFrame, outcome: str, margin: float, several: bool) -> Part:
    about = OUTCOMES[outcome]
    unit = "%" if about.unit == "pp" else about.unit
    digits = 2 if about.unit == "pp" else 4
    columns = [
        text("setting"),
        *([text("folder", "second")] if several else []),
        text("verdict"),
        interval(f"difference, {about.unit} (95 % interval)", "difference", f".{digits}f", unit="value"),
        Column(f"first, {unit} (n)", lambda row: f"{row['first_mean']:.{digits}f} ({row['n_first']})", "first_mean"),
        Column(
            f"second, {unit} (n)", lambda row: f"{row['second_mean']:.{digits}f} ({row['n_second']})", "second_mean"
        ),
        p("p", "p_adjusted"),
        p("p of equivalence", "p_equivalence_adjusted"),
    ]
    note = (
        f"{about.words.capitalize()}: the second folder minus the first, means over n seeds each. One family: p is "
        f"adjusted for all rows (Holm, Shaffer); the chance of any false verdict is at most {100 * ALPHA:g} %. "
        f"Equivalent: within ± {margin:g} {about.unit}."
    )
    return Part("beside", "Setting by setting", tables=[Table("beside", frame, columns, note, "verdict")])


def beside_findings(found: Sequence[Sorted], names: Sequence[str], frame: pd.DataFrame, outcome: str) -> list[str]:
    """Return what agrees, the largest difference, and which settings only one folder has."""
    told = []
    if not frame.empty:
        counts = frame["verdict"].value_counts()
        words = {"better": "better in the second", "worse": "worse in the second"}
        words |= {"less than the margin": "different by less than the margin"}
        each = ", ".join(f"{count} {words.get(str(verdict), verdict)}" for verdict, count in counts.items())
        told.append(f"Of {len(frame)} settings that both have, {each}.")
        row = max(frame.to_dict("records"), key=lambda row: abs(row["difference_value"]))
        unit = {"pp": "points"}.get(OUTCOMES[outcome].unit, OUTCOMES[outcome].unit)
        form = ".2f" if unit == "points" else ".4f"
        span = ""
        if math.isfinite(row["difference_low"]):
            span = f" ({signed(row['difference_low'], form)} to {signed(row['difference_high'], form)})"
        told.append(
            f"The largest difference: {row['setting']}, {signed(row['difference_value'], form)} {unit}{span} of "
            f"{OUTCOMES[outcome].words}, {row['second']} minus {row['first']}."
        )
    if differ := _apart(found):
        told.append(f"The folders also differ in {', '.join(differ)}.")
    for at, name in enumerate(names):
        others = set().union(*({cell.label for cell in some.cells} for i, some in enumerate(found) if i != at))
        alone = [cell.label for cell in found[at].cells if cell.label not in others]
        if alone:
            told.append(f"Only {name} has {', '.join(alone)}.")
    return told


def _apart(found: Sequence[Sorted]) -> list[str]:
    """What is one thing in all runs of a folder and another in those of the next; a setting that one of them does not
    know, since its version had no such thing, is none."""
    levels = [[run.config for cell in some.cells for run in cell.ended] for some in found]
    differ = []
    for key in levels[0][0]:
        values = [{word(config[key]) for config in configs if key in config} for configs in levels]
        if (
            key not in (*found[0].factors, "seed")
            and all(len(have) == 1 for have in values)
            and len(set().union(*values)) > 1
        ):
            differ.append(f"{key} ({'; '.join(have.pop() for have in values)})")
    return differ


def _counts(cell: Cell, outcome: str) -> bool:
    return trained(cell) and bool(cell.values(outcome))
