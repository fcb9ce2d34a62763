"""How much of its accuracy does each setting keep on corrupted test images?"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from normlab.analysis.cells import Cell, trained
from normlab.analysis.inference import Group, Interval, Link, Model
from normlab.analysis.numbers import NONE
from normlab.analysis.part import Column, Part, Picture, Table, interval, mean_sd, slug, span, text, value
from normlab.analysis.questions import Answers
from normlab.settings.corruptions import CORRUPTIONS, STRENGTHS

__all__ = ["robustness", "robustness_frame", "strengths_frame"]

SCORES = ("acc", "ce", "prob_true", "brier", "calibration_error")
MODES = {"eval": "running", "adapted": "of these images"}  # that a layer with running averages normalizes by
ALL = "all kinds"
TITLES: dict[str, str] = {kind: of.title for kind, of in CORRUPTIONS.items()}
MOST = 12  # lines that a panel can hold; of more, each norm has a figure of its own

Values = Mapping[str, Mapping[int, float]]  # by setting and seed


def robustness(answers: Answers) -> Part | None:
    frame = robustness_frame(answers)
    if frame.empty:
        return None
    columns = [
        Column("test images", lambda row: TITLES.get(row["kind"], ALL), number=False),
        text("setting"),
        Column("n", lambda row: f"{row['n']}", "n"),
        mean_sd("accuracy, %", "acc"),
        span("95 % interval", "acc"),
        interval("against clean, pp", "change"),
        value("prob. of true class, %", "prob_true_mean", 2, 100),
        value("calibration error, %", "calibration_error_mean", 2, 100),
    ]
    adapted = set(frame.loc[frame["mode"] == "adapted", "setting"])
    if adapted:
        columns.insert(2, Column("statistics", lambda row: MODES[row["mode"]] if row["setting"] in adapted else NONE,
                                 number=False))  # fmt: skip
    tables = [
        Table("robustness", frame, columns, _note(frame, adapted=bool(adapted))),
        Table("robustness_strengths", strengths_frame(answers)),
    ]
    return Part("robustness", "Corrupted test images", INTRO, tables, lambda _: _draw(answers))


INTRO = "Accuracy of the trained networks on test images that they were not trained for."


def _note(frame: pd.DataFrame, *, adapted: bool) -> str:
    kinds = "; ".join(
        f"{of.words} {', '.join(f'{amount:g}' for amount in of.amounts)}"
        for kind, of in CORRUPTIONS.items()
        if kind in set(frame["kind"])
    )
    note = (
        f"Means over five strengths ({kinds}), the same images for every network. Intervals are for new seeds on these "
        "images. Estimates, not verdicts: a study that names shifted_acc, rotated_acc, noised_acc, contrast_acc or "
        "robust_acc as its primary outcome, or in a claim, has them tested."
    )
    if adapted:
        note += (
            " Statistics: a trained layer that has running averages normalizes by those, or, in a second row, by the "
            "mean and variance of 500 of the corrupted images; that row is compared with clean images in the same mode."
        )
    return note


def robustness_frame(answers: Answers) -> pd.DataFrame:
    """One row per kind of corruption (the last: all of them), setting and mode: mean, sd and 95 % interval of accuracy,
    its difference from that on clean images in the same mode (pp, with interval), and means of the other scores."""
    rows = []
    measured = [kind for kind in CORRUPTIONS if any(_values(answers.found.cells, [kind]).values())]
    groups = {kind: [kind] for kind in measured} | ({ALL: measured} if len(measured) > 1 else {})
    for kind, kinds in groups.items():
        of_mode: dict[str, list[dict[str, Any]]] = {}
        for mode in MODES:
            acc, clean = (_values(answers.found.cells, some, mode=mode) for some in (kinds, ["clean"]))
            change = {label: {seed: x - clean[label][seed] for seed, x in some.items()} for label, some in acc.items()}
            means, changes = _intervals(answers, acc, "logit"), _intervals(answers, change, "identity")
            for label, some in acc.items():
                if not some:
                    continue
                row: dict[str, Any] = {"kind": kind, "setting": label, "mode": mode, "n": len(some)}
                row |= {"acc_mean": np.mean([*some.values()]), "acc_sd": pd.Series(some).std()}
                row |= dict(zip(("acc_low", "acc_high"), means[label], strict=True))
                row["change_pp"] = 100 * np.mean([*change[label].values()])
                row |= {f"change_{end}": 100 * x for end, x in zip(("low", "high"), changes[label], strict=True)}
                for score in SCORES[1:]:
                    scored = _values(answers.found.cells, kinds, score, mode)[label]
                    row[f"{score}_mean"] = np.mean([*scored.values()])
                of_mode.setdefault(label, []).append(row)
        rows += [row for some in of_mode.values() for row in some]
    return pd.DataFrame(rows)


def strengths_frame(answers: Answers) -> pd.DataFrame:
    """One row per setting, mode, kind and strength (0: clean): the amount of corruption, and accuracy with its 95 %
    interval."""
    rows = []
    for kind, of in CORRUPTIONS.items():
        for mode in MODES:
            if not any(_values(answers.found.cells, [kind], mode=mode).values()):
                continue
            for strength in (0, *STRENGTHS):
                values = {
                    cell.label: {
                        run.record.seed: row.acc
                        for run in cell.completed
                        for row in run.robustness
                        if row[:3] == (kind if strength else "clean", strength, mode)
                    }
                    for cell in answers.found.cells
                }
                ends = _intervals(answers, values, "logit")
                for label, some in values.items():
                    if some:
                        row = {"setting": label, "mode": mode, "kind": kind, "strength": strength}
                        row |= {"amount": of.amounts[strength - 1] if strength else of.clean, "n": len(some)}
                        row |= {"acc_mean": np.mean([*some.values()])}
                        rows.append(row | dict(zip(("acc_low", "acc_high"), ends[label], strict=True)))
    return pd.DataFrame(rows)


def _values(cells: Sequence[Cell], kinds: Sequence[str], score: str = "acc", mode: str = "eval") -> Values:
    found = {}
    for cell in cells:
        own = {run.record.seed: run.corrupted(kinds, score, mode) for run in cell.completed}
        found[cell.label] = {seed: x for seed, x in own.items() if x is not None}
    return found


def _intervals(answers: Answers, values: Values, link: Link) -> dict[str, Interval]:
    """The 95 % interval of each setting's mean, from one model of all settings that trained."""
    able = {cell.label for cell in answers.found.cells if trained(cell)}
    groups = {
        label: Group(np.array([*some.values()]), tuple(some))
        for label, some in values.items()
        if some and label in able
    }
    model, nothing = Model(groups, link, resolution=1e-4), Interval(np.nan, np.nan)
    return {label: model.estimate({label: 1.0}).interval(0.95) if label in groups else nothing for label in values}


def _draw(answers: Answers) -> Iterator[Picture]:
    from normlab.analysis.line_figures import strengths

    frame = strengths_frame(answers)
    norms = {cell.label: cell.norm for cell in answers.found.cells}
    by_norm: dict[str, list[str]] = {}
    for label in dict.fromkeys(frame["setting"]):
        by_norm.setdefault(norms[label], []).append(label)
    labels = [label for some in by_norm.values() for label in some]
    groups = {"": labels} if len(labels) <= MOST else by_norm
    for norm, some in groups.items():
        title = f"Accuracy on corrupted test images, {norm + ', ' if norm else ''}{answers.found.data_title}"
        caption = (
            "Accuracy against the strength of a corruption, from clean images at the left: mean over seeds and its "
            "95 % interval. Broken lines: with the statistics of these images in the place of running averages."
        )
        figure = strengths(frame[frame["setting"].isin(some)], norms, title=title)
        yield Picture(f"robustness{slug('-' + norm) if norm else ''}", caption, figure)
