"""What the probes of many runs measured, by setting, and the figures of it that a report has."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from normlab.analysis.cells import Cell, Sorted
from normlab.analysis.part import Part, Picture
from normlab.analysis.questions import Answers

__all__ = ["probed", "probes"]

Curve = tuple[Any, Any]  # epochs float (X,), values float (S, X)
Curves = Mapping[tuple[str, str], Curve]  # (layer, quantity) -> epochs, values

ACROSS = 7  # layers side by side: all convolutions of the small network


def probed(cell: Cell, probe: str) -> dict[tuple[str, str], Curve]:
    """What one probe measured in the completed runs of a setting: (layer, quantity) → epochs float (X,), values float
    (S, X), one row per seed that has the probe, NaN where it has no value at that epoch."""
    seeds = [[row for row in run.probes if row[2] == probe] for run in cell.completed]
    seeds = [rows for rows in seeds if rows]
    keys = dict.fromkeys((layer, quantity) for rows in seeds for _, _, _, layer, quantity, _ in rows)
    found = {}
    for key in keys:
        curves = [{row[0]: row[5] for row in rows if row[3:5] == key} for rows in seeds]
        epochs = sorted(set().union(*curves))
        values = np.array([[curve.get(epoch, np.nan) for epoch in epochs] for curve in curves])
        found[key] = (np.array(epochs), values)
    return found


def probes(answers: Answers) -> Part | None:
    if not any(probed(cell, probe) for cell in answers.found.cells for probe in ("layers", "landscape", "shift")):
        return None
    return Part("probes", "Inside the network", PROBES, draw=lambda _: _draw(answers.found), folded=True)


PROBES = "What the probes measured while the networks trained; docs/probes.md has the definitions."


def _draw(found: Sorted) -> Iterator[Picture]:
    """Every figure that the runs' probes.csv give."""
    from normlab.analysis.probe_figures import LAYERS, lines_together

    norms = {cell.label: cell.norm for cell in found.cells}
    layers, landscape, shift = (
        {cell.label: curves for cell in found.cells if (curves := probed(cell, probe))}
        for probe in ("layers", "landscape", "shift")
    )
    for name, (title, quantities, caption) in LAYERS.items():
        if some := _only(layers, quantities):
            chosen, shown = _layers(some, quantities)
            drawn = lines_together(some, norms, chosen, quantities, title=f"{title}, {found.data_title}")
            yield Picture(f"probe-{name}", caption + shown, drawn)
    if landscape:
        yield from _landscape(landscape, norms, found.data_title)
    if shift:
        quantities = {"l2": "‖G − G′‖", "cosine": "cosine(G, G′)"}
        chosen, shown = _layers(shift, quantities)
        caption = (
            "Internal covariate shift as Santurkar et al. (2018) define it: how far the gradient of a layer's "
            "convolution moves on the same batch because the step has moved the layers before it. No shift: 0, and a "
            "cosine of 1."
        )
        title = f"Internal covariate shift, {found.data_title}"
        yield Picture("probe-shift", caption + shown, lines_together(shift, norms, chosen, quantities, title=title))


def _layers(curves: Mapping[str, Curves], quantities: Mapping[str, str]) -> tuple[list[str], str]:
    """Return the layers that are shown, and what the caption says where those are not all."""
    layers = list(dict.fromkeys(layer for of in curves.values() for layer, what in of if what in quantities))
    count = min(len(layers), ACROSS)
    chosen = [layers[round(i * (len(layers) - 1) / max(count - 1, 1))] for i in range(count)]
    return chosen, f" {count} of {len(layers)} layers are shown." if count < len(layers) else ""


def _landscape(landscape: Mapping[str, Curves], norms: Mapping[str, str], data: str) -> Iterator[Picture]:
    from normlab.analysis.probe_figures import bands_apart, lines_together

    spread = {label: _with_spread(curves) for label, curves in landscape.items()}
    shown = {
        "spread": "spread of the loss",
        "change_max": "largest change of the gradient",
        "smoothness": "effective β-smoothness",
    }
    caption = (
        "Along the gradient, on the batch of a training step and over ½ to 4 times the learning rate: highest minus "
        "lowest loss, the largest change of the gradient, and its largest ratio to the distance (Santurkar et al. "
        "2018, figure 4). Lower is smoother."
    )
    drawn = lines_together(spread, norms, [""], shown, title=f"The loss along the gradient, {data}")
    yield Picture("probe-landscape", caption, drawn)
    quantities = [("loss", "loss_min", "loss_max", "loss"), ("change of gradient", "change_min", "change_max", "")]
    caption = (
        "The same, setting by setting: the band of losses met along the gradient, with the loss of the step as a line, "
        "and the band of changes of the gradient; means over seeds, of the logarithms where an axis is logarithmic."
    )
    drawn = bands_apart(landscape, norms, quantities, title=f"Bands along the gradient, {data}")
    yield Picture("probe-bands", caption, drawn)


def _with_spread(curves: Curves) -> dict[tuple[str, str], Curve]:
    epochs, high = curves["", "loss_max"]
    return {**curves, ("", "spread"): (epochs, high - curves["", "loss_min"][1])}


def _only(curves: Mapping[str, Curves], quantities: Sequence[str] | Mapping[str, str]) -> dict[str, Curves]:
    """What has one of these quantities; settings without any left out."""
    some = {label: {key: curve for key, curve in of.items() if key[1] in quantities} for label, of in curves.items()}
    return {label: of for label, of in some.items() if of}
