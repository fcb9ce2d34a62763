"""What the probes of many runs measured, by setting, and the figures of it that a report has."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from normlab import analysis
from normlab.analysis.cells import Cell, RunsBySetting
from normlab.analysis.layers import LAYERS
from normlab.analysis.part import Part, Picture
from normlab.analysis.questions import Answers

Curve = tuple[Any, Any]  # epochs float (X,), values float (S, X)
Curves = Mapping[tuple[str, str], Curve]  # (layer, quantity) -> epochs, values

ACROSS = 7  # layers side by side: all convolutions of the small network
INTRO = "What the probes measured while the networks trained; docs/probes.md has the definitions."
FIGURES = LAYERS | {
    "shift": (
        "Internal covariate shift",
        {"l2": "‖G − G′‖", "cosine": "cosine(G, G′)"},
        "Internal covariate shift as Santurkar et al. (2018) define it: how far the gradient of a layer's "
        "convolution moves on the same batch because the step has moved the layers before it. No shift: 0, and a "
        "cosine of 1.",
    ),
}
ALONG = {"spread": "spread of the loss", "change_max": "largest change of the gradient",
         "smoothness": "effective β-smoothness"}  # fmt: skip
BANDS = [("loss", "loss_min", "loss_max", "loss"), ("change of gradient", "change_min", "change_max", "")]


def probes(answers: Answers) -> Part:
    return Part("probes", "Inside the network", INTRO, pictures=lambda: _pictures(answers.grouped), folded=True)


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


def _pictures(found: RunsBySetting) -> Iterator[Picture]:
    """Every figure that the runs' probes.csv give."""
    norms = found.norms
    layers = {cell.label: probed(cell, "layers") | probed(cell, "shift") for cell in found.cells}
    for name, (title, quantities, caption) in FIGURES.items():
        every = ((label, {key: of[key] for key in of if key[1] in quantities}) for label, of in layers.items())
        if some := {label: of for label, of in every if of}:
            yield _by_layer(f"probe-{name}", caption, some, norms, quantities, f"{title}, {found.data_title}")
    landscape = {cell.label: curves for cell in found.cells if (curves := probed(cell, "landscape"))}
    if not landscape:
        return
    caption = (
        "Along the gradient, on the batch of a training step and over ½ to 4 times the learning rate: highest minus "
        "lowest loss, the largest change of the gradient, and its largest ratio to the distance (Santurkar et al. "
        "2018, figure 4). Lower is smoother."
    )
    spread = {label: _with_spread(curves) for label, curves in landscape.items()}
    yield Picture("probe-landscape", caption, lambda _: analysis.probe_figures.lines_together(
        spread, norms, [""], ALONG, title=f"The loss along the gradient, {found.data_title}",
    ))  # fmt: skip
    caption = (
        "The same, setting by setting: the band of losses met along the gradient, with the loss of the step as a line, "
        "and the band of changes of the gradient; means over seeds, of the logarithms where an axis is logarithmic."
    )
    title = f"Bands along the gradient, {found.data_title}"
    yield Picture(
        "probe-bands", caption, lambda _: analysis.probe_figures.bands_apart(landscape, norms, BANDS, title=title)
    )


def _by_layer(
    name: str, caption: str, curves: Mapping[str, Curves], norms: Mapping[str, str], quantities: Mapping[str, str],
    title: str,
) -> Picture:  # fmt: skip
    """A row of panels per quantity with a panel per layer; the caption says where not all are shown."""
    layers = list(dict.fromkeys(layer for of in curves.values() for layer, _ in of))
    count = min(len(layers), ACROSS)
    chosen = [layers[round(i * (len(layers) - 1) / max(count - 1, 1))] for i in range(count)]
    some = f" {count} of {len(layers)} layers are shown." if count < len(layers) else ""

    return Picture(name, caption + some, lambda _: analysis.probe_figures.lines_together(
        curves, norms, chosen, quantities, title=title
    ))  # fmt: skip


def _with_spread(curves: Curves) -> Curves:
    epochs, high = curves["", "loss_max"]
    return {**curves, ("", "spread"): (epochs, high - curves["", "loss_min"][1])}
