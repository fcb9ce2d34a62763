"""Where batch norm's loss at small batches comes from: the rows of the probe `statistics`, by batch size."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from normlab.analysis.cells import Cell, RunsBySetting, alike, level
from normlab.analysis.inference import Group, Model
from normlab.analysis.part import Part, Picture, Table, interval, named, over_seeds, text, value
from normlab.analysis.parts.curves import Point, along
from normlab.analysis.questions import Answers

SCORES = {
    "test_running_acc": "test images, running averages",
    "test_precise_acc": "test images, precise statistics",
    "test_batch_acc": "test images, each batch's own",
    "train_batch_acc": "training images, each batch's own",
}
LEAST = 3  # batch sizes that make a curve
INTRO = "Batch norm's accuracy, taken apart: docs/probes.md has the definitions."
NOTE = (
    "Of trained networks. Lost in all: against the batch size that is best with precise statistics; by the running "
    "averages: what precise statistics, recomputed over training images, bring back; in training: what is lost "
    "with precise statistics too. Mean differences and 95 % t intervals; what is of one network is paired."
)


def statistics(answers: Answers) -> Part:
    columns = [
        text("setting"),
        value("n", "n"),
        *[value(f"{words}, acc. %", f"{quantity}_mean", 2, 100) for quantity, words in SCORES.items()],
        interval("lost in all, pp", "lost"),
        interval("by the running averages, pp", "recovered"),
        interval("in training, pp", "trained"),
    ]
    table = Table("statistics", statistics_frame(answers.grouped), columns, NOTE)
    return Part("statistics", "Which statistics", INTRO, [table], lambda: _pictures(answers.grouped))


Measured = Mapping[tuple[str, str], Mapping[int, float]]  # (layer, quantity) → seed → value


def statistics_of(cell: Cell) -> Measured:
    """What the completed runs that have the probe measured."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for run in cell.completed:
        for _, _, probe, layer, quantity, number in run.probes:
            if probe == "statistics":
                found.setdefault((layer, quantity), {})[run.record.seed] = number
    return found


def _groups(found: RunsBySetting) -> dict[str, list[tuple[Cell, Measured]]]:
    """Settings with the probe, those together that differ in the batch size alone, in its order."""
    measured = {cell.label: statistics_of(cell) for cell in found.cells}
    cells = [cell for cell in found.cells if ("", "test_running_acc") in measured[cell.label]]
    groups = alike(cells, "batch_size")
    return {kind: [(cell, measured[cell.label]) for cell in group] for kind, group in groups.items()}


def statistics_frame(found: RunsBySetting) -> pd.DataFrame:
    """One row per setting that has the probe: accuracies in [0, 1]; differences in pp with 95 % intervals.

    - `recovered_pp`: test accuracy with precise statistics minus that with running averages: what their error costs.
    - `lost_pp`: test accuracy with running averages of the setting of the same kind that is best with precise
      statistics, minus that of this one: what the batch size costs in all.
    - `trained_pp`: the same with precise statistics: what is lost in training itself; lost = trained + recovered, but
      for what is recovered at the best one too.
    """
    rows = []
    for group in _groups(found).values():
        _, best = max(group, key=lambda each: np.mean([*each[1]["", "test_precise_acc"].values()]))
        for cell, values in group:
            running, precise = values["", "test_running_acc"], values["", "test_precise_acc"]
            row = {"setting": cell.label, "batch_size": level(cell, "batch_size"), "n": len(running)}
            for quantity in SCORES:
                row |= over_seeds(quantity, values["", quantity].values(), link="logit")
            row |= _difference("recovered", precise, running)
            row |= _difference("lost", best["", "test_running_acc"], running)
            row |= _difference("trained", best["", "test_precise_acc"], precise)
            for (layer, quantity), of in values.items():
                if quantity.startswith("error_"):
                    row[f"{layer.removesuffix('.norm')}_{quantity}"] = float(np.mean([*of.values()]))
            rows.append(row)
    return pd.DataFrame(rows)


def _difference(name: str, a: Mapping[int, float], b: Mapping[int, float]) -> dict[str, float]:
    """a - b with its 95 % interval, in pp: by seed where both have the same, as of one network."""
    if a.keys() == b.keys():
        return over_seeds(name, [a[seed] - b[seed] for seed in a], "pp", 100)
    model = Model({key: Group(np.array([*side.values()]), tuple(side)) for key, side in (("a", a), ("b", b))})
    estimate = model.estimate({"a": 1.0, "b": -1.0})
    return named(name, 100, pp=estimate.value, **estimate.interval(0.95)._asdict())


ACCURACIES = (
    "Accuracy of the trained networks by what normalizes them: their running averages, precise statistics recomputed "
    "over training images, or the statistics of batches as small as in training. Means over seeds and their 95 % "
    "intervals."
)
ERRORS = {
    "means": ("error_mean", "rms error of running means, in sd"),
    "variances": ("error_log_var", "rms error of log running variances"),
}


def _pictures(found: RunsBySetting) -> Iterator[Picture]:
    """Accuracies and errors against the batch size, three figures per kind of setting."""
    groups = _groups(found)
    for kind, group in groups.items():
        if len(group) < LEAST:
            continue
        (cell, first), *_ = group
        file, told = (f"-{kind}".replace(" ", "-"), kind) if len(groups) > 1 else ("", cell.norm)
        keys = {words: ("", quantity) for quantity, words in SCORES.items()}
        figures = [("", "What normalizes a trained network", "accuracy, %", ACCURACIES, keys)]
        for words, (quantity, y_label) in ERRORS.items():
            caption = (
                f"How far the running {words} are from precise statistics, layer by layer: root mean square over "
                "channels; means over seeds and their 95 % intervals."
            )
            keys = {layer.removesuffix(".norm"): (layer, quantity) for layer, what in first if what == quantity}
            figures.append((f"-{words}", f"Error of the running {words}", y_label, caption, keys))
        for name, title, y_label, caption, keys in figures:
            accuracy = y_label == "accuracy, %"
            lines = {words: [_point(*each, key, accuracy) for each in group] for words, key in keys.items()}
            options = {"title": f"{title}, {told}, {found.data_title}", "x_label": "batch size", "y_label": y_label}
            if lines:  # a norm that averages nothing has no errors
                yield along(f"statistics{name}{file}", caption, lines, cell.norm, accuracy=accuracy, **options)


def _point(cell: Cell, measured: Measured, key: tuple[str, str], accuracy: bool) -> Point:
    return Point.of(dict.fromkeys(measured[key], level(cell, "batch_size")), measured[key], accuracy=accuracy)
