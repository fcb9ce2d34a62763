"""Which classes does each setting get right, and in which do settings differ?"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from normlab.analysis.inference import Group, Model
from normlab.analysis.part import Part, Table, interval, mean_sd, named, p, span, text, value
from normlab.analysis.questions import Answers
from normlab.analysis.verdicts import holm

MOST = 20  # classes of which the page has every row
NOTE = "Test accuracy of each class: mean ± standard deviation over seeds, 95 % interval for new seeds and images."
APART = (
    "Those first in which settings lie farthest apart. The interval of best minus worst is not adjusted for having "
    "picked the two; p is that of all settings being alike in this class (F test), adjusted for the number of "
    "classes (Holm)."
)


def classes(answers: Answers) -> Part:
    frame = classes_frame(answers)
    known, difference = value("class", "class"), interval("best minus worst, pp", "difference")
    differ = [known, text("best"), text("worst"), difference, p("p that all are alike", "p_adjusted")]
    columns = [
        known, text("setting"), value("images", "images"), mean_sd("accuracy, %", "acc"), span("95 % interval", "acc"),
    ]  # fmt: skip
    many = len(frame) and frame["class"].nunique() > MOST
    tables = [
        Table("classes_apart", apart_frame(answers), differ, APART),
        Table("classes", frame, () if many else columns, NOTE),
    ]
    return Part("classes", "Accuracy by class", tables=tables, folded=True)


def classes_frame(answers: Answers) -> pd.DataFrame:
    """One row per class and setting: test images, and mean, sd and 95 % interval of the accuracy on them."""
    rows = []
    for known, size, model in _models(answers):
        for label, group in model.groups.items():
            ends = model.estimate({label: 1.0}).interval(0.95)._asdict()
            values = pd.Series(group.values)
            row = {"class": known, "setting": label, "n": len(values), "images": size}
            rows.append(row | named("acc", mean=values.mean(), sd=values.std(), **ends))
    return pd.DataFrame(rows)


def apart_frame(answers: Answers) -> pd.DataFrame:
    """One row per class, by how far settings lie apart in it: the best and the worst one with their difference in pp,
    and p of all settings being alike."""
    rows = []
    for known, _, model in _models(answers):
        first, *others = model.names
        if not others:
            return pd.DataFrame()
        best, worst = model.names[int(model.means.argmax())], model.names[int(model.means.argmin())]
        if best == worst:
            best, worst = first, others[0]
        estimate = model.estimate({best: 1.0, worst: -1.0})
        difference = named("difference", 100, pp=estimate.value, **estimate.interval(0.95)._asdict())
        _, _, alike = model.joint([{other: 1.0, first: -1.0} for other in others])
        rows.append({"class": known, "best": best, "worst": worst, **difference, "p": alike})
    frame = pd.DataFrame(rows)
    if len(frame):
        frame["p_adjusted"] = [adjusted for (adjusted,) in holm([(p,) for p in frame["p"]])]
        frame = frame.sort_values("difference_pp", ascending=False, kind="stable", ignore_index=True)
    return frame


def _models(answers: Answers) -> Iterator[tuple[int, int, Model]]:
    """Each class with the number of its test images and the model of the accuracies on them. Seeds are paired where
    they are in the accuracy over all classes: among many classes, some would be by chance."""
    whole = answers.model("test_acc")
    if whole.images is None:
        return
    true = next(cell.predicted[1] for cell in answers.grouped.cells if cell.predicted)
    for known in np.unique(true):
        where = true == known
        groups = {}
        for place, (label, group) in enumerate(whole.groups.items()):
            assert group.scores is not None
            scores = group.scores[:, where]
            seeds = group.seeds if whole.share < 1 else tuple(range(place, place + len(scores)))  # no two alike
            groups[label] = Group(scores.mean(1), seeds, scores)
        yield int(known), int(where.sum()), Model(groups, "logit", resolution=1 / int(where.sum()))
