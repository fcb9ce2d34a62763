"""Figures of probes: what was measured inside networks, settings side by side in small panels, as in ``figures``."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from normlab.analysis.colours import QUIET
from normlab.analysis.drawing import MARGIN, SMALL, TEXT, Array, apart, check, figure, frame, widest
from normlab.analysis.panels import Style, empty, finite, folded, looks

__all__ = ["Curve", "Panel", "bands_apart", "lines_together"]

Key = tuple[str, str]  # layer, quantity
Curve = tuple[Array, Array]  # epochs (X,), values (S, X)

WIDTH = 1140
LOG_TICKS = [m * 10.0**e for m in (1, 3) for e in range(-9, 7)]  # the first that fit are drawn
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

    curves: label -> (layer, quantity) -> epochs float (X,) and values float (S, X), one row per seed; a setting without
    one is left out of its panel, a value that is not finite out of the mean. Where a quantity's means are above 0 and
    span more than a decade its axis is logarithmic, and mean and deviation are those of the logarithms. Raises
    ValueError if shapes do not fit or a label has no norm.
    """
    look = looks(curves, norms)
    _check(curves)
    high = {1: 300, 2: 180}.get(len(table), 140)
    fig = figure(WIDTH, 110 + high * len(table) + 18 * -(-len(curves) // 4), title)
    panes = fig.subplots(len(table), len(table[0]), squeeze=False)
    axes = {what: Axis.of(curves, {what}) for what in {panel.quantity for panels in table for panel in panels}}
    for row, panels in enumerate(table):
        for column, panel in enumerate(panels):
            ax, axis = panes[row, column], axes[panel.quantity]
            key = panel.layer, panel.quantity
            drawn = {label: axis.summary(some[key]) for label, some in curves.items() if key in some}
            drawn = {label: curve for label, curve in drawn.items() if curve.size}
            _finish(ax, panel.heading, panel.label, axis if drawn else None)
            for i, (label, curve) in enumerate(drawn.items()):
                _line(ax, axis.edges(curve), look[label], i)
            alone = not column or panels[column - 1].quantity != panel.quantity
            _outside(ax, left=alone, below=row == len(table) - 1)
    _legend(fig, [look[label] for label in curves], _told(curves, any(axis.log for axis in axes.values())))
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
    _check(curves)
    blocks = [list(curves)[i : i + ACROSS] for i in range(0, len(curves), ACROSS)]
    rows = len(blocks) * len(quantities)
    fig = figure(WIDTH, 80 + 190 * max(rows, 1), title)
    panes = fig.subplots(max(rows, 1), min(max(len(curves), 1), ACROSS), squeeze=False)
    for i, (heading, lower, upper, line) in enumerate(quantities):
        axis = Axis.of(curves, {lower, upper})
        for b, block in enumerate(blocks):
            row = b * len(quantities) + i
            for ax in panes[row, len(block) :]:
                ax.set_axis_off()
            for column, label in enumerate(block):
                ax, some, colour = panes[row, column], curves[label], look[label].colour
                wanted = [some.get(("", what)) for what in (lower, upper, line)]
                low, high, middle = (np.zeros((3, 0)) if curve is None else axis.summary(curve) for curve in wanted)
                _finish(
                    ax, folded(label, 180) if i == 0 else "", heading if column == 0 else "", axis if low.size else None
                )
                if low.shape == high.shape:
                    ax.fill_between(low[0], low[1], high[1], color=colour, alpha=0.35, linewidth=0)
                ax.plot(*middle[:2], color=colour, linewidth=1.2)
                _outside(ax, left=column == 0, below=i == len(quantities) - 1)
    return fig


@dataclass(frozen=True)
class Axis:
    """The y axis that the panels of a quantity share, and the end of their epochs."""

    log: bool
    low: float
    high: float
    last: float

    @classmethod
    def of(cls, curves: Mapping[str, Mapping[Key, Curve]], quantities: set[str]) -> "Axis":
        """For these quantities, in whatever layer and setting."""
        some = [curve for of in curves.values() for (_, what), curve in of.items() if what in quantities]
        values = finite(np.concatenate([np.ravel(values) for _, values in some] or [np.zeros(0)]))
        if not values.size:
            return cls(False, 0.0, 1.0, 1.0)
        means = np.concatenate([cls(False, 0, 0, 0).summary(curve)[1] for curve in some])
        log = bool(means.min() > 0 and means.max() > 10 * means.min())
        last = max(float(epochs.max()) for epochs, of in some if np.isfinite(of).any())
        axis = cls(log, 0, 0, last)
        edges = np.concatenate([axis.edges(axis.summary(curve))[1:].ravel() for curve in some])
        low, high = float(edges.min()), float(edges.max())
        if log:
            return cls(log, low / 1.15, high * 1.15, last)
        low = max(low, 0.0) if values.min() >= 0 else low  # what is never negative needs no room below 0
        pad = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
        return cls(log, low - pad, high + pad, last)

    def summary(self, curve: Curve) -> Array:
        """Epoch, mean over the seeds with a value, their standard deviation (NaN for one): float (3, such epochs). On
        a logarithmic axis of the logarithms: the geometric mean, and the deviation in decades."""
        epochs, values = curve
        if self.log:
            values = np.log10(np.where(values > 0, values, np.nan))
        there = np.isfinite(values)
        count = there.sum(axis=0)
        mean = np.where(there, values, 0).sum(axis=0) / np.maximum(count, 1)
        square = (np.where(there, values - mean, 0) ** 2).sum(axis=0) / np.maximum(count - 1, 1)
        middle = 10**mean if self.log else mean
        return np.stack([epochs, middle, np.where(count > 1, np.sqrt(square), np.nan)])[:, count > 0]

    def edges(self, summary: Array) -> Array:
        """Epoch, mean, lower and upper edge of the band: float (4, X). One seed has the edges of its line."""
        epochs, mean, sd = summary[0], summary[1], np.nan_to_num(summary[2])
        low, high = (mean / 10**sd, mean * 10**sd) if self.log else (mean - sd, mean + sd)
        return np.stack([epochs, mean, low, high])


def _check(curves: Mapping[str, Mapping[Key, Curve]]) -> None:
    for label, some in curves.items():
        for epochs, values in some.values():
            fits = np.ndim(epochs) == 1 and np.ndim(values) == 2 and np.shape(values)[1] == len(epochs)
            shapes = f"{np.shape(epochs)} and {np.shape(values)}"
            check(fits, f"{label!r}: epochs must be (X,) and values (S, X), not {shapes}")


def _line(ax: Axes, curve: Array, style: Style, place: int) -> None:
    epochs, mean, low, high = curve
    if (high > low).any():
        ax.fill_between(epochs, low, high, color=style.colour, alpha=0.13, linewidth=0)
    every = max(len(epochs) // 4, 1)
    marked = list(range(place % every, len(epochs), every)) or [len(epochs) - 1]
    ax.plot(epochs, mean, color=style.colour, linestyle=style.line, linewidth=1.3, **style.mark(4.5), markevery=marked)


def _finish(ax: Axes, heading: str, label: str, axis: "Axis | None") -> None:
    """Words, scale and ticks of a panel."""
    frame(ax, heading)
    ax.set_ylabel(label, size=TEXT)
    if axis is None:
        empty(ax)
        return
    ax.set_yscale("log" if axis.log else "linear")
    ax.set_ylim(axis.low, axis.high)
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    if axis.log:
        ax.yaxis.set_major_locator(FixedLocator(sorted(apart(LOG_TICKS, ax.yaxis, 0.22))))
    ax.yaxis.set_major_formatter(FuncFormatter(_short))
    pad = max(0.03 * axis.last, 0.05)
    ax.set_xlim(-pad, axis.last + pad)
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))


def _short(value: float, _: int | None = None) -> str:
    return re.sub(r"e-0?", "e−", f"{value:g}").replace("-", "−")


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


def _told(curves: Mapping[str, Mapping[Key, Curve]], logarithmic: bool) -> str:
    counts = {len(values) for some in curves.values() for _, values in some.values()}
    if max(counts, default=1) == 1:
        return "one seed a setting"
    seeds = f"{min(counts)} to {max(counts)} seeds" if len(counts) > 1 else f"{max(counts)} seeds"
    of_logarithms = "; of the logarithms where an axis is logarithmic" if logarithmic else ""
    return f"line: mean over {seeds}, band: mean ± standard deviation{of_logarithms}"
