"""How much of its accuracy does each setting keep on corrupted test images?"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from normlab import analysis
from normlab.analysis.cells import trained
from normlab.analysis.inference import Group, Interval, Link, Model
from normlab.analysis.numbers import NONE
from normlab.analysis.part import Column, Part, Picture, Table, interval, mean_sd, named, slug, span, text, value
from normlab.analysis.questions import Answers
from normlab.record import Robustness
from normlab.settings.corruptions import CORRUPTIONS, IMAGES_ADAPTED_TO, STRENGTHS

SCORES = Robustness._fields[3:]
MODES = {"eval": "running", "adapted": "of these images"}  # that a layer with running averages normalizes by
ALL = "all kinds"
TITLES: dict[str, str] = {kind: of.title for kind, of in CORRUPTIONS.items()}
MOST = 12  # lines that a panel can hold; of more, each norm has a figure of its own
INTRO = "Accuracy of the trained networks on test images that they were not trained for."

Values = Mapping[str, Mapping[int, float]]  # by setting and seed


def robustness(answers: Answers) -> Part:
    frame = robustness_frame(answers)
    adapted = {row["setting"] for row in frame.to_dict("records") if row["mode"] == "adapted"}
    columns = [
        Column("test images", lambda row: TITLES.get(row["kind"], ALL), number=False),
        text("setting"),
        Column("statistics", lambda row: MODES[row["mode"]] if row["setting"] in adapted else NONE, number=False),
        value("n", "n"),
        mean_sd("accuracy, %", "acc"),
        span("95 % interval", "acc"),
        interval("against clean, pp", "change"),
        value("prob. of true class, %", "prob_true_mean", 2, 100),
        value("calibration error, %", "calibration_error_mean", 2, 100),
    ]
    kinds = "; ".join(
        f"{of.words} {', '.join(f'{amount:g}' for amount in of.amounts)}"
        for kind, of in CORRUPTIONS.items()
        if kind in {*frame.get("kind", ())}
    )
    note = (
        f"Means over five strengths ({kinds}), the same images for every network. Intervals are for new seeds on these "
        "images. Estimates, not verdicts: a study that names shifted_acc, rotated_acc, noised_acc, contrast_acc or "
        "robust_acc as its primary outcome, or in a claim, has them tested."
    )
    if adapted:
        note += (
            " Statistics: a trained layer that has running averages normalizes by those, or, in a second row, by the "
            f"mean and variance of {IMAGES_ADAPTED_TO} of the corrupted images; that row is compared with clean images "
            "in the same mode."
        )
    strengths = strengths_frame(answers)
    tables = [Table("robustness", frame, columns, note), Table("robustness_strengths", strengths)]
    return Part("robustness", "Corrupted test images", INTRO, tables, lambda: _pictures(answers, strengths))


def robustness_frame(answers: Answers) -> pd.DataFrame:
    """One row per kind of corruption (the last: all of them), setting and mode: mean, sd and 95 % interval of accuracy,
    its difference from that on clean images in the same mode (pp, with interval), and means of the other scores."""
    rows = []
    labels = [cell.label for cell in answers.grouped.cells]
    measured = [kind for kind in CORRUPTIONS if any(_values(answers, [kind]).values())]
    groups = {kind: [kind] for kind in measured} | ({ALL: measured} if len(measured) > 1 else {})
    for kind, kinds in groups.items():
        own = []
        for mode in MODES:
            scores = {score: _values(answers, kinds, mode, score) for score in SCORES}
            clean = _values(answers, ["clean"], mode)
            means = _means(answers, scores["acc"], "logit")
            accs = {label: scores["acc"][label].items() for label in means}
            change = {label: {seed: x - clean[label][seed] for seed, x in some} for label, some in accs.items()}
            changes = _means(answers, change, "identity")
            for label, numbers in means.items():
                row: dict[str, Any] = {"kind": kind, "setting": label, "mode": mode, "n": len(change[label])}
                row |= named("acc", **numbers)
                row |= named("change", 100, pp=changes[label]["mean"], **_ends(changes[label]))
                row |= {f"{score}_mean": np.mean([*scores[score][label].values()]) for score in SCORES[1:]}
                own.append(row)
        rows += sorted(own, key=lambda row: labels.index(row["setting"]))
    return pd.DataFrame(rows)


def strengths_frame(answers: Answers) -> pd.DataFrame:
    """One row per setting, mode, kind and strength (0: clean): the amount of corruption, and accuracy with its 95 %
    interval."""
    rows = []
    for kind, mode in itertools.product(CORRUPTIONS, MODES):
        if not any(_values(answers, [kind], mode).values()):
            continue
        for strength, amount in enumerate((CORRUPTIONS[kind].clean, *CORRUPTIONS[kind].amounts)):
            values = _values(answers, [kind if strength else "clean"], mode, strengths=[strength])
            for label, numbers in _means(answers, values, "logit").items():
                row = {"setting": label, "mode": mode, "kind": kind, "strength": strength, "amount": amount}
                rows.append(row | {"n": len(values[label])} | named("acc", mean=numbers["mean"], **_ends(numbers)))
    return pd.DataFrame(rows)


def _values(
    answers: Answers, kinds: Sequence[str], mode: str = "eval", score: str = "acc", strengths: Sequence[int] = STRENGTHS
) -> Values:
    found = {}
    for cell in answers.grouped.cells:
        own = {run.record.seed: run.corrupted(kinds, score, mode, strengths) for run in cell.completed}
        found[cell.label] = {seed: x for seed, x in own.items() if x is not None}
    return found


def _means(answers: Answers, values: Values, link: Link) -> dict[str, dict[str, float]]:
    """Mean, sd and 95 % interval of each setting that has values, from one model of all settings that trained."""
    some = {label: Group(np.array([*of.values()]), tuple(of)) for label, of in values.items() if of}
    able = {cell.label for cell in answers.grouped.cells if trained(cell)}
    model = Model({label: group for label, group in some.items() if label in able}, link, resolution=1e-4)
    found = {}
    for label, group in some.items():
        ends = model.estimate({label: 1.0}).interval(0.95) if label in able else Interval(math.nan, math.nan)
        found[label] = {"mean": group.values.mean(), "sd": pd.Series(group.values).std(), **ends._asdict()}
    return found


def _ends(numbers: Mapping[str, float]) -> dict[str, float]:
    return {key: numbers[key] for key in ("low", "high")}


def _pictures(answers: Answers, frame: pd.DataFrame) -> Iterator[Picture]:
    norms = answers.grouped.norms
    labels = [*frame.get("setting", ())]
    few = len(set(labels)) <= MOST
    for norm in dict.fromkeys("" if few else norms[label] for label in labels):
        title = f"Accuracy on corrupted test images, {norm + ', ' if norm else ''}{answers.grouped.data_title}"
        caption = (
            "Accuracy against the strength of a corruption, from clean images at the left: mean over seeds and its "
            "95 % interval. Broken lines: with the statistics of these images in the place of running averages."
        )
        own = frame[[not norm or norms[label] == norm for label in labels]]
        draw = lambda _, own=own, title=title: analysis.line_figures.strengths(own, norms, title=title)  # noqa: E731
        yield Picture(f"robustness{slug('-' + norm) if norm else ''}", caption, draw)
