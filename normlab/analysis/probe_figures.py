"""Figures of probes: what was measured inside networks, in small panels, as in ``line_figures``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from normlab.analysis.drawing import (
    Array,
    check,
    empty,
    facets,
    figure,
    finite,
    folded,
    key,
    level,
    looks_of,
    plain,
    styles,
)
from normlab.analysis.line_figures import seeds_and_mean

__all__ = ["Curve", "Panel", "bands_apart", "lines_together"]

Key = tuple[str, str]  # layer, quantity
Curve = tuple[Array, Array]  # epochs (X,), values (S, X)
WIDE = 10.5  # inches


@dataclass(frozen=True)
class Panel:
    """One panel: what it shows, a heading above it and a label at its left. Panels of one quantity share an axis."""

    layer: str
    quantity: str
    heading: str = ""
    label: str = ""


@plain()
def lines_together(
    curves: Mapping[str, Mapping[Key, Curve]], norms: Mapping[str, str], table: Sequence[Sequence[Panel]], *, title: str
) -> Figure:
    """Draw panels in rows, in each every seed of each setting as a thin line and their mean as a thick one.

    curves: label -> (layer, quantity) -> epochs float (X,) and values float (S, X), one row per seed; a setting without
    one is left out of its panel, a value that is not finite out of the mean. Where a quantity's values are above 0 and
    its means span more than a decade its axis is logarithmic. Raise ValueError if shapes do not fit or a label has no
    norm.
    """
    looks = looks_of(curves, styles(norms))
    check_curves(curves)
    high = {1: 2.6, 2: 1.7}.get(len(table), 1.35)
    fig = figure(title, 1.2 + high * len(table) + 0.2 * -(-len(curves) // 4), WIDE)
    panes = fig.subplots(len(table), len(table[0]), squeeze=False, sharex=True)
    of_quantity: dict[str, list[Axes]] = {}
    for row, panels in zip(panes, table, strict=True):
        for column, (ax, panel) in enumerate(zip(row, panels, strict=True)):
            for place, (label, some) in enumerate(curves.items()):
                if curve := some.get((panel.layer, panel.quantity)):
                    seeds_and_mean(ax, *curve, looks[label], place)
            ax.set_title(panel.heading)
            ax.set_ylabel(panel.label)
            alone = not column or panels[column - 1].quantity != panel.quantity
            ax.tick_params(labelleft=alone)
            of_quantity.setdefault(panel.quantity, []).append(ax)
    for quantity, axes in of_quantity.items():
        finish(axes, curves, {quantity})
    for ax in panes[-1]:
        ax.set_xlabel("epoch")
    key(fig, [looks[label].handle for label in curves], words_on_seeds(curves))
    return fig


@plain()
def bands_apart(
    curves: Mapping[str, Mapping[Key, Curve]],
    norms: Mapping[str, str],
    quantities: Sequence[tuple[str, str, str, str]],
    *,
    title: str,
) -> Figure:
    """Draw a panel for each setting and band, in the manner of Santurkar et al. 2018, figure 4.

    curves: as in `lines_together`. quantities: (heading, lower, upper, line): the quantities of the network as a whole
    between whose means over seeds the band lies, and the one that is drawn as a line in it ("": none).
    """
    looks = looks_of(curves, styles(norms))
    check_curves(curves)
    blocks = -(-len(curves) // 5)
    fig = figure(title, 0.8 + 1.6 * blocks * len(quantities), WIDE)
    headings = [heading for heading, *_ in quantities]
    table, _ = facets(fig, max(len(curves), 1), headings, "epoch", across=5)
    for axes, (_, lower, upper, line) in zip(table, quantities, strict=True):
        for ax, (label, some) in zip(axes, curves.items(), strict=False):
            low, high, middle = (mean_curve(some.get(("", what))) for what in (lower, upper, line))
            if low[0].shape == high[0].shape:
                ax.fill_between(low[0], low[1], high[1], color=looks[label].colour, alpha=0.3, linewidth=0)
            ax.plot(*middle, color=looks[label].colour, linewidth=1.2)
            if axes is table[0]:
                ax.set_title(folded(label, 24))
        finish(axes, curves, {lower, upper})
    return fig


def finish(axes: Sequence[Axes], curves: Mapping[str, Mapping[Key, Curve]], quantities: set[str]) -> None:
    """Scale and ticks of the panels that share an axis."""
    some = [curve for of in curves.values() for (_, what), curve in of.items() if what in quantities]
    values = finite(np.concatenate([np.ravel(values) for _, values in some] or [np.zeros(0)]))
    means = finite(np.concatenate([mean_curve(curve)[1] for curve in some] or [np.zeros(0)]))
    log = bool(values.size and values.min() > 0 and means.max() > 10 * means.min())
    level(axes, "log" if log else "linear")
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
        if not values.size:
            empty(ax)


def mean_curve(curve: Curve | None) -> tuple[Array, Array]:
    """Epochs and means over the seeds that have a finite value there."""
    if curve is None:
        return np.zeros(0), np.zeros(0)
    there = np.isfinite(curve[1]).any(axis=0)
    return curve[0][there], np.nanmean(np.where(np.isfinite(curve[1]), curve[1], np.nan)[:, there], axis=0)


def check_curves(curves: Mapping[str, Mapping[Key, Curve]]) -> None:
    for label, some in curves.items():
        for epochs, values in some.values():
            fits = np.ndim(epochs) == 1 and np.ndim(values) == 2 and np.shape(values)[1] == len(epochs)
            shapes = f"{np.shape(epochs)} and {np.shape(values)}"
            check(fits, f"{label!r}: epochs must be (X,) and values (S, X), not {shapes}")


def words_on_seeds(curves: Mapping[str, Mapping[Key, Curve]]) -> str:
    counts = sorted({len(values) for some in curves.values() for _, values in some.values()})
    if not counts or counts[-1] == 1:
        return "One seed per setting."
    return f"Thick: mean over {' to '.join(map(str, dict.fromkeys([counts[0], counts[-1]])))} seeds. Thin: one seed."
