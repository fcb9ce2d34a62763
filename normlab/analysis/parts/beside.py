"""Two folders of runs beside each other: does a study that was run again come to the same?"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from normlab.analysis.cells import Cell, RunsBySetting, factors_of, group_runs, trained
from normlab.analysis.numbers import with_interval
from normlab.analysis.outcomes import OUTCOMES, model_of
from normlab.analysis.part import Column, Part, Table, interval, p, text
from normlab.analysis.parts.effects import numbers_of
from normlab.analysis.table import Run
from normlab.analysis.verdicts import ALPHA, Question, decide
from normlab.errors import NormlabError
from normlab.settings.conf import spell


def both(
    folders: Sequence[Sequence[Run]], names: Sequence[str], factors: Sequence[str], left_out: Sequence[Sequence[str]]
) -> list[RunsBySetting]:
    """Sort the runs of each folder into settings that are called alike in all: by what varies within one of them.

    Raise `NormlabError` where data sets differ.
    """
    data = {name: {str(run.config["data"]) for run in some} for name, some in zip(names, folders, strict=True)}
    if len(set().union(*data.values())) > 1:
        each = "; ".join(f"{name}: {', '.join(sorted(have))}" for name, have in data.items())
        raise NormlabError(f"the folders are of different data sets ({each}), so they cannot be compared")
    keys = tuple(dict.fromkeys(key for some in folders for key in factors_of([run.config for run in some], factors)))
    return [group_runs(some, factors, notes, keys) for some, notes in zip(folders, left_out, strict=True)]


def beside_frame(found: Sequence[RunsBySetting], names: Sequence[str], outcome: str, margin: float) -> pd.DataFrame:
    """One row per setting and folder after the first that both have: the outcome in each (mean over seeds), and the
    later one minus the first with its 95 % interval, in the outcome's unit; verdicts of one family."""
    about = OUTCOMES[outcome]
    half = margin / about.factor
    rows: list[dict[str, Any]] = []
    questions = []
    for name, other in zip(names[1:], found[1:], strict=True):
        first, second = (_able(each, outcome) for each in (found[0], other))
        common = [label for label in first if label in second]
        sides = [
            [replace(side[label], label=f"{at} {label}") for label in common] for at, side in ((0, first), (1, second))
        ]
        model = model_of([*sides[0], *sides[1]], outcome)
        for label, against, of in zip(common, *sides, strict=True):
            estimate = model.estimate({of.label: 1.0, against.label: -1.0})
            questions.append(Question(estimate, -half, half, higher_is_better=about.higher_is_better))
            row: dict[str, Any] = {"setting": label, "first": names[0], "second": name}
            row |= {"n_first": len(against.values(outcome)), "n_second": len(of.values(outcome))}
            row |= {"first_mean": about.factor * against.mean(outcome), "second_mean": about.factor * of.mean(outcome)}
            rows.append(row | numbers_of(estimate, about.factor))
    for row, decision in zip(rows, decide(questions), strict=True):
        row |= {"p_adjusted": decision.adjusted[0], "p_equivalence_adjusted": decision.adjusted[1]}
        row["verdict"] = decision.verdict
    return pd.DataFrame(rows)


def _able(found: RunsBySetting, outcome: str) -> dict[str, Cell]:
    """By label, the settings of which every run trained and that have the outcome."""
    return {cell.label: cell for cell in found.cells if trained(cell) and cell.values(outcome)}


def beside(frame: pd.DataFrame, outcome: str, margin: float, several: bool) -> Part:
    about = OUTCOMES[outcome]

    def side(name: str) -> Column:
        heading, digits = f"{name}, {about.own_unit} (n)", about.digits
        return Column(heading, lambda row: f"{row[f'{name}_mean']:.{digits}f} ({row[f'n_{name}']})", f"{name}_mean")

    columns = [
        text("setting"), *([text("folder", "second")] if several else []), text("verdict", verdict=True),
        interval(f"difference, {about.unit} (95 % interval)", "difference", about.digits, "value"),
        side("first"), side("second"), p("p", "p_adjusted"), p("p of equivalence", "p_equivalence_adjusted"),
    ]  # fmt: skip
    note = (
        f"{about.words.capitalize()}: the second folder minus the first, means over n seeds each. One family: p is "
        f"adjusted for all rows (Holm, Shaffer); the chance of any false verdict is at most {100 * ALPHA:g} %. "
        f"Equivalent: within ± {margin:g} {about.unit}."
    )
    return Part("beside", "Setting by setting", tables=[Table("beside", frame, columns, note, first=True)])


def beside_findings(
    found: Sequence[RunsBySetting], names: Sequence[str], frame: pd.DataFrame, outcome: str
) -> list[str]:
    """Return what agrees, the largest difference, and which settings only one folder has."""
    told, about = [], OUTCOMES[outcome]
    if not frame.empty:
        counts = frame["verdict"].value_counts()
        words = {"better": "better in the second", "worse": "worse in the second"}
        words |= {"less than the margin": "different by less than the margin"}
        each = ", ".join(f"{count} {words.get(str(verdict), verdict)}" for verdict, count in counts.items())
        told.append(f"Of {len(frame)} settings that both have, {each}.")
        row = max(frame.to_dict("records"), key=lambda row: abs(row["difference_value"]))
        numbers = [row[f"difference_{key}"] for key in ("value", "low", "high")]
        largest = with_interval(numbers, about.digits, about.points)
        told.append(
            f"The largest difference: {row['setting']}, {largest} of {about.words}, {row['second']} minus "
            f"{row['first']}."
        )
    if differ := _apart(found):
        told.append(f"The folders also differ in {', '.join(differ)}.")
    for at, name in enumerate(names):
        others = {cell.label for some in (*found[:at], *found[at + 1 :]) for cell in some.cells}
        if alone := [cell.label for cell in found[at].cells if cell.label not in others]:
            told.append(f"Only {name} has {', '.join(alone)}.")
    return told


def _apart(found: Sequence[RunsBySetting]) -> list[str]:
    """What is one thing in all runs of a folder and another in those of the next; a setting that one of them does not
    know, since its version had no such thing, is none."""
    levels = [[run.config for run in some.ended] for some in found]
    differ = []
    for key in (key for key in levels[0][0] if key not in (*found[0].factors, "seed")):
        values = [{spell(config[key]) for config in configs if key in config} for configs in levels]
        if all(len(have) == 1 for have in values) and len(set().union(*values)) > 1:
            differ.append(f"{key} ({'; '.join(have.pop() for have in values)})")
    return differ
