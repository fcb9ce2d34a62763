"""Accuracy along a factor: settings as curves, arrays in and a matplotlib ``Figure`` out."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from normlab.analysis.colours import PAPER, QUIET
from normlab.analysis.drawing import (
    CE_TICKS,
    DPI,
    SMALL,
    TEXT,
    Array,
    apart,
    check,
    end_label,
    figure,
    frame,
    label_height,
    settle,
    widest,
)
from normlab.analysis.panels import (
    SAMPLE,
    SUFFIX,
    empty,
    finite,
    folded,
    interval_bar,
    looks,
    samples,
    scaled,
    view,
)
from normlab.analysis.sheets import LABEL, put_note

__all__ = ["factor_curve"]


def factor_curve(
    series: Mapping[str, tuple[Array, Array, Array, Array]],
    norms: Mapping[str, str],
    *,
    factor: str,
    y_label: str,
    title: str,
    log_x: bool | None = None,
    accuracy: bool = True,
) -> Figure:
    """Draw a result against a numeric factor (batch_size, l1, lr): a line a setting, with interval bars.

    series: label -> (x, mean, low, high), each float (K,); a mean that is not finite is left out, bounds that are not
    are not drawn. ``log_x``: None takes the logarithm of x where its values are not negative and span more than a
    decade; 0 then stands at the left, beyond a break of the axis. ``accuracy``: as in ``intervals``. Raises ValueError
    if the four differ in shape, a label has no norm, or log_x is asked for negative values.
    """
    look = looks(series, norms)
    found: dict[str, Array] = {}
    for label, four in series.items():
        shapes = [np.shape(part) for part in four]
        check(
            len(set(shapes)) == 1 and len(shapes[0]) == 1, f"{label!r}: x, mean, low, high must be (K,), not {shapes}"
        )
        table = np.array(four, dtype=float)
        table = table[:, np.isfinite(table[:2]).all(axis=0)]
        found[label] = table[:, np.argsort(table[0], kind="stable")]
    tables = [table for table in found.values() if table.size]
    tested = np.unique(np.concatenate([table[0] for table in tables])) if tables else np.array([])
    check(not log_x or not (tested < 0).any(), f"log_x: {factor} has negative values")
    positive = tested[tested > 0]
    if log_x is None:
        log_x = bool(positive.size and tested[0] >= 0 and positive[-1] > 10 * positive[0])
    log_x = bool(log_x and positive.size)

    names = {label: folded(label, LABEL) for label in series}
    tall = max(290, sum(label_height(name) + 1 for name in names.values()))
    fig = figure(700 + widest(names.values(), TEXT), tall + 150, title)
    ax = fig.add_subplot()
    points, ends = (np.concatenate([finite(t[rows]) for t in tables] or [np.array([])]) for rows in (1, slice(2, 4)))
    low, high, kind = view(points, ends, accuracy)
    frame(ax, y_label + SUFFIX[kind])
    scaled(ax, "y", low, high, kind)
    _factor_axis(ax, tested, log_x)
    labels = []
    spread = min(5.0, 24 / max(len(tables) - 1, 1))  # pixels between the settings at one x
    drawn = [label for label, table in found.items() if table.size]
    for i, label in enumerate(drawn):
        style, (x, mean, least, most) = look[label], found[label]
        beside = ScaledTranslation((i - (len(drawn) - 1) / 2) * spread / DPI, 0, fig.dpi_scale_trans)
        for at, bottom, top in zip(x, least, most, strict=True):
            interval_bar(ax, bottom, top, at, style.colour, upright=True, shift=beside)
        line = {"color": style.colour, "linestyle": style.line, "linewidth": 1.6}
        ax.plot(x, mean, **line, **style.mark(6.5), transform=ax.transData + beside)
        end = float(x[-1]), float(mean[-1])
        labels.append(end_label(ax, names[label], end, style.colour, len(drawn), SAMPLE + 6))
        labels[-1].set_gid(label)
    ax.set_xlabel(factor, size=TEXT, color=QUIET)
    blank = [label for label in series if label not in drawn]
    bars = ["bar: 95 % interval"] if finite(ends).size else []
    put_note(fig, [*bars, *[f"no values: {', '.join(blank)}"] * bool(blank)])
    settle(fig, {ax: labels})
    samples(ax, labels, look)
    return fig


def _factor_axis(ax: Axes, tested: Array, log_x: bool) -> None:
    """Scale and ticks of the x axis of ``factor_curve``: the tested values where they are few, 0 beyond a break."""
    if not tested.size:
        empty(ax)
        return
    first = float(tested[tested > 0][0]) if log_x else 0.0
    step = 0.0
    if log_x:
        inner = np.log10(tested[tested > 0])
        step = float(np.clip(np.ptp(inner) / max(len(inner) - 1, 1), 0.3, 1.0))

        def forward(x: Array) -> Array:
            x = np.asarray(x, dtype=float)
            return np.where(x < first, np.log10(first) - step * (1 - x / first), np.log10(np.maximum(x, first)))

        def inverse(height: Array) -> Array:
            below = (np.asarray(height, dtype=float) - np.log10(first)) / step
            return np.where(below < 0, first * (1 + below), 10.0 ** np.maximum(height, np.log10(first)))

        ax.set_xscale("function", functions=(forward, inverse))
    axis = ax.xaxis.get_transform()
    edges = axis.transform(tested[[0, -1]])
    pad = 0.06 * (edges[1] - edges[0]) or 0.5
    ax.set_xlim(*axis.inverted().transform(edges + np.array([-pad, pad])).tolist())
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ticks = tested.tolist()
    if len(ticks) > 10 and log_x:
        ticks = apart([0.0, *CE_TICKS, *(m * 10.0**e for m in (1, 3) for e in range(4, 9))], ax.xaxis, 0.1)
    if len(ticks) > 10:
        ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    else:
        room = (widest([f"{tick:g}" for tick in ticks], SMALL) + 8) / 520  # a panel is at least 520 pixels wide
        named = apart([ticks[0], ticks[-1], *ticks[1:-1]], ax.xaxis, room)
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_major_formatter(FixedFormatter([f"{tick:g}" if tick in named else "" for tick in ticks]))
    ax.tick_params(axis="x", length=4, color=QUIET)
    if log_x and tested[0] == 0:
        at = float(axis.inverted().transform(axis.transform(first) - step / 2))
        foot = ax.get_xaxis_transform()
        mark = ax.text(at, 0, "//", size=TEXT, color=QUIET, ha="center", va="center", transform=foot)
        mark.set_bbox({"facecolor": PAPER, "edgecolor": "none", "pad": 0.5})
