"""Where batch norm's loss at small batches comes from: the rows of the probe `statistics`, by batch size."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from normlab.analysis.cells import Cell, Sorted, per_cent
from normlab.analysis.stats import Summary, difference_of, summarise

if TYPE_CHECKING:  # matplotlib takes half a second, which a report without figures saves
    from matplotlib.figure import Figure

__all__ = ["decomposition_pictures", "decomposition_table", "statistics_of"]

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
        for _, _, probe, layer, quantity, value in run.probes:
            if probe == "statistics":
                found.setdefault((layer, quantity), {})[run.record.seed] = value
    return found


def decomposition_table(found: Sorted) -> pd.DataFrame:
    """One row per setting that has the probe: accuracies in [0, 1]; differences in pp, paired by seed (95 % intervals).

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
                d = difference_of(a, b)
                row |= {f"{name}_pp": d.mean, f"{name}_low": d.low, f"{name}_high": d.high}
            for (layer, quantity), of in values.items():
                if quantity.startswith("error_"):
                    row[f"{layer.removesuffix('.norm')}_{quantity}"] = float(np.mean([*of.values()]))
            rows.append(row)
    return pd.DataFrame(rows)


def decomposition_pictures(found: Sorted) -> Iterator[tuple[str, str, "Figure"]]:
    """(file name, caption, figure): accuracies and errors against the batch size, three figures a kind of setting."""
    from normlab.analysis.factor_figure import factor_curve

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
        title = f"What normalizes a trained network, {told}{found.data}"
        labels = dict.fromkeys(scores, norm)
        figure = factor_curve(scores, labels, factor="batch_size", y_label="accuracy, %", title=title)
        yield f"statistics{name}", caption, figure
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
            title = f"Error of the running {words}, {told}{found.data}"
            labels = dict.fromkeys(errors, norm)
            figure = factor_curve(errors, labels, factor="batch_size", y_label=y_label, title=title, accuracy=False)
            yield f"statistics-{words}{name}", caption, figure


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


def _curve(points: list[tuple[float, Mapping[int, float]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    found: list[Summary] = [summarise(list(values.values())) for _, values in points]
    xs = np.array([x for x, _ in points])
    return xs, *(np.array([getattr(s, key) for s in found]) for key in ("mean", "low", "high"))  # type: ignore[return-value]


def _spread(values: Mapping[int, float]) -> dict[str, float]:
    s = summarise(list(values.values()))
    return {"mean": s.mean, "low": s.low, "high": s.high}
