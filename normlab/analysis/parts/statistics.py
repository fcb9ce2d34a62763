"""Where batch norm's loss at small batches comes from: the rows of the probe `statistics`, by batch size."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from normlab.analysis.cells import Cell, Sorted, per_cent
from normlab.analysis.inference import Group, Model, mean_interval
from normlab.analysis.part import Part, Picture, Table, interval, text, value
from normlab.analysis.questions import Answers

if TYPE_CHECKING:  # matplotlib takes half a second, which a report without figures saves
    from normlab.analysis.line_figures import Along

__all__ = ["statistics", "statistics_frame", "statistics_of"]

SCORES = {
    "test_running_acc": "test images, running averages",
    "test_precise_acc": "test images, precise statistics",
    "test_batch_acc": "test images, each batch's own",
    "train_batch_acc": "training images, each batch's own",
}
LEAST = 3  # batch sizes that make a curve


def statistics_of(cell: Cell) -> dict[tuple[str, str], dict[int, float]]:
    """(layer, quantity) → seed → value, of the completed runs that have the probe."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for run in cell.completed:
        for _, _, probe, layer, quantity, number in run.probes:
            if probe == "statistics":
                found.setdefault((layer, quantity), {})[run.record.seed] = number
    return found


def statistics(answers: Answers) -> Part:
    frame = statistics_frame(answers.found)
    columns = [
        text("setting"),
        value("n", "n", 0),
        *[value(f"{words}, acc. %", f"{quantity}_mean", 2, 100) for quantity, words in SCORES.items()],
        interval("lost in all, pp", "lost"),
        interval("by the running averages, pp", "recovered"),
        interval("in training, pp", "trained"),
    ]
    note = (
        "Of trained networks. Lost in all: against the batch size that is best with precise statistics; by the running "
        "averages: what precise statistics, recomputed over training images, bring back; in training: what is lost "
        "with precise statistics too. Mean differences and 95 % t intervals; what is of one network is paired."
    )
    intro = "Batch norm's accuracy, taken apart: docs/probes.md has the definitions."
    tables = [Table("statistics", frame, columns, note)]
    return Part("statistics", "Which statistics", intro, tables, lambda _: _draw(answers.found) if len(frame) else [])


def statistics_frame(found: Sorted) -> pd.DataFrame:
    """One row per setting that has the probe: accuracies in [0, 1]; differences in pp with 95 % intervals.

    - `recovered_pp`: test accuracy with precise statistics minus that with running averages: what their error costs.
    - `lost_pp`: test accuracy with running averages of the setting of the same kind that is best with precise
      statistics, minus that of this one: what the batch size costs in all.
    - `trained_pp`: the same with precise statistics: what is lost in training itself; lost = trained + recovered, but
      for what is recovered at the best one too.
    """
    rows = []
    for group in _groups(found).values():
        some = {cell.label: statistics_of(cell) for cell in group}
        best = max(some.values(), key=lambda values: np.mean([*values["", "test_precise_acc"].values()]))
        for cell in group:
            values = some[cell.label]
            row = {"setting": cell.label, "batch_size": _batch_size(cell), "n": len(values["", "test_running_acc"])}
            for quantity in SCORES:
                row |= {f"{quantity}_{key}": number for key, number in _spread(values["", quantity]).items()}
            running, precise = (per_cent(values["", f"test_{kind}_acc"]) for kind in ("running", "precise"))
            at_best = {kind: per_cent(best["", f"test_{kind}_acc"]) for kind in ("running", "precise")}
            differences = {
                "recovered": (precise, running),
                "lost": (at_best["running"], running),
                "trained": (at_best["precise"], precise),
            }
            for name, (a, b) in differences.items():
                row |= dict(zip((f"{name}_pp", f"{name}_low", f"{name}_high"), _difference(a, b), strict=True))
            for (layer, quantity), of in values.items():
                if quantity.startswith("error_"):
                    row[f"{layer.removesuffix('.norm')}_{quantity}"] = float(np.mean([*of.values()]))
            rows.append(row)
    return pd.DataFrame(rows)


def _difference(a: Mapping[int, float], b: Mapping[int, float]) -> tuple[float, float, float]:
    """a - b with its 95 % interval: by seed where both have the same, as of one network."""
    if a.keys() == b.keys():
        return mean_interval([a[seed] - b[seed] for seed in a])
    model = Model({name: Group(np.array([*side.values()]), tuple(side)) for name, side in (("a", a), ("b", b))})
    estimate = model.estimate({"a": 1.0, "b": -1.0})
    return estimate.value, *estimate.interval(0.95)


def _draw(found: Sorted) -> list[Picture]:
    """Accuracies and errors against the batch size, three figures per kind of setting."""
    from normlab.analysis.drawing import in_sequence
    from normlab.analysis.line_figures import along

    drawn = []
    for kind, group in _groups(found).items():
        if len({_batch_size(cell) for cell in group}) < LEAST:
            continue
        norm = group[0].norm
        name, told = (f"-{kind}".replace(" ", "-"), f"{kind}, ") if len(_groups(found)) > 1 else ("", f"{norm}, ")
        some = [(float(_batch_size(cell)), statistics_of(cell)) for cell in group]
        scores = {
            words: _curve([(x, per_cent(values["", quantity])) for x, values in some])
            for quantity, words in SCORES.items()
        }
        caption = (
            "Accuracy of the trained networks by what normalizes them: their running averages, precise statistics "
            "recomputed over training images, or the statistics of batches as small as in training. Means over seeds "
            "and their 95 % intervals."
        )
        title = f"What normalizes a trained network, {told}{found.data_title}"
        looks = in_sequence(list(scores), norm)
        figure = along(scores, looks, x_label="batch size", y_label="accuracy, %", title=title)
        drawn.append(Picture(f"statistics{name}", caption, figure))
        for quantity, words, y_label in (
            ("error_mean", "means", "rms error of the running means, standard deviations"),
            ("error_log_var", "variances", "rms error of the running variances, of their logarithm"),
        ):
            layers = [layer for layer, what in some[0][1] if what == quantity]
            if not layers:  # a norm that averages nothing
                continue
            errors = {
                layer.removesuffix(".norm"): _curve([(x, values[layer, quantity]) for x, values in some])
                for layer in layers
            }
            caption = (
                f"How far the running {words} are from precise statistics, layer by layer: root mean square over "
                "channels; means over seeds and their 95 % intervals."
            )
            title = f"Error of the running {words}, {told}{found.data_title}"
            looks = in_sequence(list(errors), norm)
            figure = along(errors, looks, x_label="batch size", y_label=y_label, title=title, accuracy=False)
            drawn.append(Picture(f"statistics-{words}{name}", caption, figure))
    return drawn


def _groups(found: Sorted) -> dict[str, list[Cell]]:
    """Settings with the probe, those together that differ in the batch size alone, in its order."""
    groups: dict[str, list[Cell]] = {}
    for cell in found.cells:
        if ("", "test_running_acc") in statistics_of(cell):
            rest = [f"{key}={level}" for key, level in cell.levels.items() if key not in ("norm", "batch_size")]
            groups.setdefault(" ".join([cell.norm, *rest]), []).append(cell)
    return {kind: sorted(group, key=_batch_size) for kind, group in groups.items()}


def _batch_size(cell: Cell) -> int:
    return int(cell.completed[0].config["batch_size"])


def _curve(points: list[tuple[float, Mapping[int, float]]]) -> "Along":
    from normlab.analysis.line_figures import Along

    seeds = [(x, value) for x, values in points for value in values.values()]
    return Along.of([(x, *mean_interval([*values.values()])) for x, values in points], seeds)


def _spread(values: Mapping[int, float]) -> dict[str, float]:
    return dict(zip(("mean", "low", "high"), mean_interval([*values.values()]), strict=True))
