"""Figures of probes: what was measured inside networks, settings side by side in small panels, as in ``figures``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from normlab.analysis.colours import QUIET
from normlab.analysis.drawing import CE_TICKS, MARGIN, SMALL, TEXT, Array, apart, check, figure, frame, widest
from normlab.analysis.panels import Style, empty, looks

__all__ = ["Curve", "Panel", "bands_apart", "lines_together"]

Key = tuple[str, str]  # layer, quantity
Curve = tuple[Array, Array]  # epochs (X,), values (S, X)

WIDTH = 1140
ACROSS = 5  # settings in a row where each has a panel of its own


@dataclass(frozen=True)
class Panel:
    """One panel: what it shows, a heading above it and a label at its left. Panels of one quantity share an axis."""

    layer: str
    quantity: str
    heading: str = ""
    label: str = ""


def lines_together(
    curves: Mapping[str, Mapping[Key, Curve]], norms: Mapping[str, str], table: Sequence[Sequence[Panel]], *, title: str
) -> Figure:
    """Draw panels in rows, in each a line a setting: the mean over seeds, with a band of ± one standard deviation.

    curves: label -> (layer, quantity) -> epochs float (X,) and values float (S, X), a row a seed; a setting that lacks
    one is left out of its panel, a value that is not finite out of the mean. An axis is logarithmic where its means are
    above 0 and span more than a decade. Raises ValueError if shapes do not fit or a label has no norm.
    """
    look = looks(curves, norms)
    found = {label: {key: _summary(*curve, label) for key, curve in some.items()} for label, some in curves.items()}
    high = 300 if len(table) == 1 else 140
    fig = figure(WIDTH, 110 + high * len(table) + 18 * -(-len(curves) // 4), title)
    axes = fig.subplots(len(table), len(table[0]), squeeze=False)
    for row, panels in enumerate(table):
        for column, panel in enumerate(panels):
            ax, key = axes[row, column], (panel.layer, panel.quantity)
            drawn = {label: some[key] for label, some in found.items() if key in some and some[key].shape[1]}
            for i, (label, curve) in enumerate(drawn.items()):
                _line(ax, curve, look[label], i)
            shared = [c for some in found.values() for (_, what), c in some.items() if what == panel.quantity]
            _finish(ax, panel, shared if drawn else [])
            alone = not column or panels[column - 1].quantity != panel.quantity
            _outside(ax, left=alone, below=row == len(table) - 1)
    _legend(fig, [look[label] for label in curves], _told(curves))
    return fig


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
    look = looks(curves, norms)
    found = {
        label: {what: _summary(*curve, label) for (layer, what), curve in some.items() if not layer}
        for label, some in curves.items()
    }
    blocks = [list(curves)[i : i + ACROSS] for i in range(0, len(curves), ACROSS)]
    rows = len(blocks) * len(quantities)
    fig = figure(WIDTH, 80 + 190 * max(rows, 1), title)
    axes = fig.subplots(max(rows, 1), min(max(len(curves), 1), ACROSS), squeeze=False)
    for i, (heading, lower, upper, line) in enumerate(quantities):
        shared = [c for some in found.values() for what, c in some.items() if what in (lower, upper)]
        for b, block in enumerate(blocks):
            row = b * len(quantities) + i
            for column, ax in enumerate(axes[row]):
                if column >= len(block):
                    ax.set_axis_off()
                    continue
                label, some = block[column], found[block[column]]
                if lower in some and upper in some:
                    epochs, low, high = some[lower][0], some[lower][1], some[upper][1]
                    ax.fill_between(epochs, low, high, color=look[label].colour, alpha=0.35, linewidth=0)
                if line and line in some:
                    ax.plot(*some[line][:2], color=look[label].colour, linewidth=1.2)
                panel = Panel("", upper, label if i == 0 else "", heading if column == 0 else "")
                _finish(ax, panel, shared)
                _outside(ax, left=column == 0, below=i == len(quantities) - 1)
    return fig


def _summary(epochs: Array, values: Array, label: str) -> Array:
    """Epoch, mean, standard deviation (NaN for one seed): float (3, epochs with a value)."""
    fits = np.ndim(epochs) == 1 and np.ndim(values) == 2 and np.shape(values)[1] == len(epochs)
    check(fits, f"{label!r}: epochs must be (X,) and values (S, X), not {np.shape(epochs)} and {np.shape(values)}")
    there = np.isfinite(values)
    count = there.sum(axis=0)
    mean = np.where(there, values, 0).sum(axis=0) / np.maximum(count, 1)
    square = (np.where(there, values - mean, 0) ** 2).sum(axis=0) / np.maximum(count - 1, 1)
    return np.stack([epochs, mean, np.where(count > 1, np.sqrt(square), np.nan)])[:, count > 0]


def _line(ax: Axes, curve: Array, style: Style, place: int) -> None:
    epochs, mean, sd = curve
    if np.isfinite(sd).any():
        ax.fill_between(epochs, mean - sd, mean + sd, color=style.colour, alpha=0.13, linewidth=0)
    every = max(len(epochs) // 4, 1)
    marked = list(range(place % every, len(epochs), every)) or [len(epochs) - 1]
    ax.plot(epochs, mean, color=style.colour, linestyle=style.line, linewidth=1.3, **style.mark(4.5), markevery=marked)


def _finish(ax: Axes, panel: Panel, shared: Sequence[Array]) -> None:
    """Scale, ticks and words of a panel; `shared`: the curves whose axis it has."""
    means = np.concatenate([curve[1] for curve in shared] or [np.zeros(0)])
    frame(ax, panel.heading)
    ax.set_ylabel(panel.label, size=TEXT)
    if not means.size:
        empty(ax)
        return
    edges = np.concatenate([curve[1] + side * np.nan_to_num(curve[2]) for curve in shared for side in (-1, 1)])
    low, high = float(min(means.min(), edges.min())), float(max(means.max(), edges.max()))
    logarithmic = means.min() > 0 and means.max() > 10 * means.min()
    if logarithmic:
        low = max(low, float(means.min()) / 2)
        ax.set_yscale("log")
        ax.set_ylim(low / 1.15, high * 1.15)
    else:
        pad = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
        ax.set_ylim(low - pad, high + pad)
    ax.yaxis.set_minor_locator(NullLocator())
    if logarithmic and len(kept := apart(CE_TICKS, ax.yaxis, 0.22)) > 1:
        ax.set_yticks(sorted(kept))
    elif not logarithmic:
        ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    last = max(float(curve[0].max()) for curve in shared if curve.shape[1])
    ax.set_xlim(-0.03 * last, 1.03 * last)
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))


def _outside(ax: Axes, *, left: bool, below: bool) -> None:
    """Numbers along the outer panels only."""
    if not left:
        ax.tick_params(labelleft=False)
    if below:
        ax.set_xlabel("epoch", size=SMALL, color=QUIET)
    else:
        ax.tick_params(labelbottom=False)


def _legend(fig: Figure, styles: Sequence[Style], told: str) -> None:
    samples = [Line2D([], [], color=s.colour, linestyle=s.line, linewidth=1.6, **s.mark(5.5)) for s in styles]
    names = [style.label for style in styles]
    across = max(1, min(len(names), int((WIDTH - 2 * MARGIN) // (widest(names, TEXT) + 70)))) if names else 1
    legend = fig.legend(
        samples, names, loc="outside lower left", ncols=across, frameon=False, fontsize=TEXT, title=told
    )
    legend.set_alignment("left")
    legend.get_title().set(size=SMALL, color=QUIET)


def _told(curves: Mapping[str, Mapping[Key, Curve]]) -> str:
    counts = {len(values) for some in curves.values() for _, values in some.values()}
    if max(counts, default=1) == 1:
        return "one seed a setting"
    seeds = f"{min(counts)} to {max(counts)} seeds" if len(counts) > 1 else f"{max(counts)} seeds"
    return f"line: mean over {seeds}, band: mean ± standard deviation"
