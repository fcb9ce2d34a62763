"""Figures of probes: what was measured inside networks, in small panels, as in ``line_figures``."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from normlab.analysis import drawing
from normlab.analysis.drawing import Array, figure, key, plain, styles
from normlab.analysis.line_figures import mean_curve, seeds_and_mean, seeds_words

Key = tuple[str, str]  # layer, quantity
Curve = tuple[Array, Array]  # epochs (X,), values (S, X)
WIDE = 10.5  # inches
NONE = np.zeros(0), np.zeros((1, 0))  # a curve that was not measured


@plain()
def lines_together(
    curves: Mapping[str, Mapping[Key, Curve]],
    norms: Mapping[str, str],
    layers: Sequence[str],
    quantities: Mapping[str, str],
    *,
    title: str,
) -> Figure:
    """Draw a row of panels per quantity, one per layer; of one layer, a panel per quantity side by side. In each, every
    seed of each setting is a thin line and their mean a thick one.

    curves: label -> (layer, quantity) -> epochs float (X,) and values float (S, X), one row per seed; a setting without
    one is left out of its panel, a value that is not finite out of the mean. quantities: with their words. Where a
    quantity's values are above 0 and its means span more than a decade, its axes are logarithmic.
    """
    looks, alone = styles(norms), len(layers) == 1
    rows, columns = (1, len(quantities)) if alone else (len(quantities), len(layers))
    high = {1: 2.6, 2: 1.7}.get(rows, 1.35)
    fig = figure(title, 1.2 + high * rows + 0.2 * -(-len(curves) // 4), WIDE)
    panes = fig.subplots(rows, columns, squeeze=False, sharex=True)
    for row, (quantity, words) in enumerate(quantities.items()):
        axes = [*panes[0, row : row + 1]] if alone else [*panes[row]]
        for ax, layer in zip(axes, layers, strict=True):
            for place, (label, some) in enumerate(curves.items()):
                if curve := some.get((layer, quantity)):
                    seeds_and_mean(ax, *curve, looks[label], place)
            ax.set_title(words if alone else "" if row else layer)
            ax.tick_params(labelleft=ax is axes[0])
        axes[0].set_ylabel("" if alone else words)
        finish(axes, curves, {quantity})
    for ax in panes[-1]:
        ax.set_xlabel("epoch")
    note = seeds_words(values for some in curves.values() for _, values in some.values())
    key(fig, [looks[label].handle for label in curves], note)
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
    looks = styles(norms)
    blocks = -(-len(curves) // 5)
    fig = figure(title, 0.8 + 1.6 * blocks * len(quantities), WIDE)
    headings = [heading for heading, *_ in quantities]
    table, _ = drawing.facets(fig, max(len(curves), 1), headings, "epoch", across=5)
    for axes, (_, lower, upper, line) in zip(table, quantities, strict=True):
        for ax, (label, some) in zip(axes, curves.items(), strict=False):
            low, high, middle = (mean_curve(*some.get(("", what), NONE)) for what in (lower, upper, line))
            if low[0].shape == high[0].shape:
                ax.fill_between(low[0], low[1], high[1], color=looks[label].colour, alpha=0.3, linewidth=0)
            ax.plot(*middle, color=looks[label].colour, linewidth=1.2)
            if axes is table[0]:
                ax.set_title(drawing.folded(label))
        finish(axes, curves, {lower, upper})
    return fig


def finish(axes: Sequence[Axes], curves: Mapping[str, Mapping[Key, Curve]], quantities: set[str]) -> None:
    """Scale and ticks of the panels that share an axis."""
    some = [curve for of in curves.values() for (_, what), curve in of.items() if what in quantities]
    values = drawing.finite(*(values for _, values in some))
    means = drawing.finite(*(mean_curve(*curve)[1] for curve in some))
    drawing.level(axes, log=bool(values.size and values.min() > 0 and means.max() > 10 * means.min()))
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
        if not values.size:
            drawing.empty(ax)
