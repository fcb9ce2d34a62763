"""Panels that figures of a study are made of: how a setting looks, scales, bands, rows with intervals."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from normlab.analysis.colours import INK, MUTED, PAPER, QUIET, norm_colour, norm_marker
from normlab.analysis.drawing import (
    ACC_TICKS,
    CE_TICKS,
    SMALL,
    TEXT,
    TITLE,
    Array,
    apart,
    check,
    end_label,
    frame,
    from_accuracy,
    say_where_they_end,
    to_accuracy,
    widest,
    wrap,
)
from normlab.analysis.numbers import signed

__all__ = [
    "SAMPLE",
    "SUFFIX",
    "VERDICTS",
    "Row",
    "Style",
    "band_panel",
    "difference_rows",
    "difference_view",
    "empty",
    "finite",
    "first_word",
    "folded",
    "interval_bar",
    "interval_rows",
    "looks",
    "mean_of",
    "mean_sd",
    "samples",
    "scaled",
    "size_of",
    "styles",
    "view",
]

LINES: list[Any] = ["-", (0, (5, 2)), (0, (1.2, 1.3)), (0, (7, 2, 1.2, 2))]
FILLS = ["full", "none", "bottom", "left"]
VERDICTS = {  # colour, marker, filled
    "better": ("#0B6E75", ">", True),
    "worse": ("#B0470A", "<", True),
    "equivalent": (INK, "s", True),
    "less": (INK, "D", True),  # than the margin
    "undecided": (QUIET, "o", False),
}
SPLITS = {"test_acc": "test", "val_acc": "validation", "train_acc_running": "training"}
SPLITS |= {"test_ce": "test", "val_ce": "validation", "train_ce": "training"}  # both in order of preference
SUFFIX = {"linear": "", "log": " – logarithmic", "error": " – spaced by the logarithm of the error"}
SCALES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {  # to a height on the axis, and back
    "linear": (np.asarray, np.asarray),
    "log": (np.log10, lambda height: 10.0**height),
    "error": (from_accuracy, to_accuracy),
}
FINE = [99.7, 98.8, 97.5, 99.45, 99.55, 99.35, 99.25, 99.65, 93, 85, 70]  # where ACC_TICKS leaves room
SAMPLE = 26  # pixels: a piece of a line before its label


@dataclass(frozen=True)
class Style:
    """How a setting looks: colour and marker are its norm's; fill and line tell settings of one norm apart."""

    label: str
    norm: str
    colour: str
    marker: str
    fill: str
    line: Any

    def mark(self, size: float = 6.0) -> dict[str, Any]:
        """Keywords of ``Axes.plot`` for its marker, ``size`` in points."""
        face = PAPER if self.fill == "none" else self.colour
        fill = "full" if self.fill == "none" else self.fill  # matplotlib's own "none" lets lines shine through
        look = {"marker": self.marker, "markersize": size, "markeredgecolor": self.colour, "markeredgewidth": 1.1}
        return look | {"markerfacecolor": face, "markerfacecoloralt": PAPER, "fillstyle": fill}


def styles(settings: Iterable[tuple[str, str]]) -> dict[str, Style]:
    """A style for each (label, norm), by its place among the settings that share colour and marker.

    The first is filled and solid, the second hollow and dashed, up to 16 in all. Raises ValueError for a label that
    comes twice.
    """
    found: dict[str, Style] = {}
    seen: dict[tuple[str, str], int] = {}
    for label, norm in settings:
        check(label not in found, f"{label!r} comes twice")
        look = norm_colour(norm), norm_marker(norm)
        i = seen[look] = seen.get(look, -1) + 1
        found[label] = Style(label, norm, *look, FILLS[(i + i // 4) % 4], LINES[i % 4])
    return found


def looks(labels: Iterable[str], norms: Mapping[str, str]) -> dict[str, Style]:
    missing = [label for label in labels if label not in norms]
    check(not missing, f"no norm is given for {', '.join(missing)}")
    return styles(norms.items())


def band_panel(
    ax: Axes,
    kind: str,
    settings: Mapping[str, Mapping[str, Array | None]],
    names: Mapping[str, str],
    look: Mapping[str, Style],
) -> tuple[list[Annotation], list[tuple[str, str]]]:
    """Draw a panel of ``bands``; return the labels of the line ends, still at one height, and what is to be noted."""
    factor, form, word, unit = (100, ".2f", "accuracy", "%") if kind == "acc" else (1, ".4f", "cross-entropy", "nats")
    found = {
        series: {label: band for label, run in settings.items() if (band := _band(run.get(series), factor)).size}
        for series in SPLITS
        if f"_{kind}" in series
    }
    first, second, training = found  # training only for want of both others
    series = max((first, second), key=lambda name: len(found[name]))  # the first of equals
    series = series if found[series] else training
    drawn, word = found[series], f"{SPLITS[series]} {word}" if found[series] else word
    notes = [(f"no {SPLITS[series]} values", label) for label in settings if label not in drawn and drawn]
    for label, (_, _, _, count) in drawn.items():
        if count[-1] < count.max():
            notes.append(("fewer seeds at the last epoch", f"{label} ({count[-1]:.0f} of {count.max():.0f})"))
    last = max((band[0, -1] for band in drawn.values()), default=1.0)
    table = np.concatenate(
        [np.stack([band[0], *_edges(band)]) for band in drawn.values()] or [np.zeros((4, 0))], axis=1
    )
    if kind == "acc":
        table[1:] = np.minimum(table[1:], 100)  # mean + sd may be more, and the logarithm of the error has no end
    ys = table[1:]
    scale = "linear"
    if kind == "acc" and ys.size and np.nanmax(ys[0]) > 95:
        scale = "error"
    elif kind == "ce" and ys.size and 0 < 4 * np.nanmin(ys[0]) < np.nanmax(ys[0]):
        scale = "log"
    if ys.size:
        low, high = _late(table, last, scale)
        scaled(ax, "y", low, high, scale)
        out = [float(end) for end in (ys[0].min(), ys[0].max()) if not low - 1e-9 <= end <= high + 1e-9]
        notes += [("first epochs outside the picture", f"from {end:{form}} {unit}") for end in out]
    else:
        empty(ax)
    frame(ax, f"{word}, {unit}{SUFFIX[scale]}")
    pad = max(0.03 * (last - 1), 0.1)
    ax.set_xlim(1 - pad, last + pad)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    ax.set_xlabel("epoch", size=TEXT, color=QUIET)
    labels = []
    every = max(2, -(-int(last) // 7))
    for i, (label, band) in enumerate(drawn.items()):
        style, (epochs, mean, _, _) = look[label], band
        _, bottom, top = _edges(band)
        if len(epochs) > 1 and (top > bottom).any():
            ax.fill_between(epochs, bottom, top, color=style.colour, alpha=0.13, linewidth=0)
        elif top[0] > bottom[0]:
            interval_bar(ax, bottom[0], top[0], epochs[0], style.colour, upright=True)
        marked = [at for at in range(len(epochs)) if at % every == i % every] or [len(epochs) - 1]
        line = {"color": style.colour, "linestyle": style.line, "linewidth": 1.6}
        ax.plot(epochs, mean, **line, **style.mark(6.5), markevery=marked)
        text = f"{mean[-1]:{form}}  {names[label]}"
        note = end_label(ax, text, (float(epochs[-1]), float(mean[-1])), style.colour, len(drawn), SAMPLE + 6)
        note.set_gid(label)
        labels.append(note)
    say_where_they_end(labels)
    return labels, notes


def _band(values: Array | None, factor: float) -> Array:
    """Epoch, mean, standard deviation (NaN for one seed), number of seeds: float (4, epochs with a value)."""
    runs = factor * np.asarray(np.zeros((0, 0)) if values is None else values, dtype=float)
    there = np.isfinite(runs)
    count = there.sum(axis=0)
    mean = np.where(there, runs, 0).sum(axis=0) / np.maximum(count, 1)
    square = (np.where(there, runs - mean, 0) ** 2).sum(axis=0) / np.maximum(count - 1, 1)
    band = np.stack([np.arange(1.0, len(count) + 1), mean, np.where(count > 1, np.sqrt(square), np.nan), count])
    return band[:, count > 0]


def _edges(band: Array) -> tuple[Array, Array, Array]:
    """Mean, lower and upper edge of a band; one seed has the edges of its line."""
    sd = np.nan_to_num(band[2])
    return band[1], band[1] - sd, band[1] + sd


def _late(table: Array, last: float, kind: str) -> tuple[float, float]:
    """Low and high end of a picture in which the first fifth of the epochs does not squeeze the others."""
    to, back = SCALES[kind]
    positive = np.where(table[1:] > 0, table[1:], table[1]) if kind == "log" else table[1:]
    heights = to(positive)
    late = heights[:, table[0] > 0.2 * last]
    low, high = late.min(), late.max()
    grow = max(0.0, 0.25 - (high - low)) if kind != "linear" else 0.0  # a flat line is no reason to magnify its noise
    low, high = (low - grow, high) if kind == "error" else (low, high + grow)
    if np.ptp(heights) < 1.25 * (high - low) or high == low:
        low, high = heights.min(), heights.max()
    return float(back(low)), float(back(high))


def view(points: Array, ends: Array, accuracy: bool) -> tuple[float, float, str]:
    """Ends and scale of an axis that shows all points, and as much of their intervals as leaves the points room."""
    if not points.size:
        return 0.0, 1.0, "linear"
    low, high = float(points.min()), float(points.max())
    kind = "linear"
    if accuracy and high > 95 and 100.05 - low > 3 * (100.05 - high):
        kind = "error"
    elif not accuracy and 0 < 4 * low < high:
        kind = "log"
    to, back = SCALES[kind]
    ends = to(np.maximum(ends, low / 4) if kind == "log" else ends)
    low, high = float(to(low)), float(to(high))
    least = {"error": 0.2, "log": 0.2}.get(kind, 0.1 if accuracy else 0.1 * abs(high) or 1.0)
    span = max(high - low, least)
    grow = (span - (high - low)) / 2
    seen = np.concatenate([np.clip(ends, low - span / 2, high + span / 2), [low - grow, high + grow]])
    return float(back(seen.min())), float(back(seen.max())), kind


def scaled(ax: Axes, which: Literal["x", "y"], low: float, high: float, kind: str) -> None:
    """Scale, limits (4 % beyond low and high) and ticks of an axis; ``kind`` is one of ``SCALES``."""
    to, back = SCALES[kind]
    scale = {"linear": "linear", "log": "log", "error": "function"}[kind]
    ax.set(**{f"{which}scale": scale} if kind != "error" else {})
    if kind == "error":
        (ax.set_xscale if which == "x" else ax.set_yscale)("function", functions=(from_accuracy, to_accuracy))
    axis, edges = (ax.xaxis if which == "x" else ax.yaxis), np.array([to(low), to(high)])
    pad = 0.04 * (edges[1] - edges[0]) or 0.5
    ax.set(**{f"{which}lim": (float(back(edges[0] - pad)), float(back(edges[1] + pad)))})
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    kept = apart(
        {"linear": [], "error": [*ACC_TICKS, *FINE], "log": CE_TICKS}[kind], axis, 0.1 if which == "x" else 0.07
    )
    if len(kept) > 2:
        axis.set_major_locator(FixedLocator(sorted(kept)))


def interval_bar(
    ax: Axes, low: float, high: float, at: float, colour: str, *, upright: bool = False, shift: Any = None
) -> None:
    """Draw an interval with end caps; where it leaves the picture an arrow head stands for the cap."""
    if not np.isfinite([low, high]).all():
        return
    least, most = ax.get_ylim() if upright else ax.get_xlim()
    ends = [max(low, least), min(high, most)]
    place = {"transform": ax.transData + shift} if shift is not None else {}

    def draw(along: Sequence[float], **look: Any) -> None:
        across = [at] * len(along)
        ax.plot(*((across, along) if upright else (along, across)), color=colour, **look, **place)

    draw(ends, linewidth=1.5, solid_capstyle="butt")
    for end, out, cap, head in zip(
        ends, (low < least, high > most), "__" if upright else "||", "v^" if upright else "<>", strict=True
    ):
        draw([end], marker=head if out else cap, ms=5 if out else 7, mew=1.3, linestyle="", clip_on=False)


def samples(ax: Axes, labels: Sequence[Annotation], look: Mapping[str, Style]) -> None:
    """Draw a piece of its line before each end label: where lines meet, leaders alone do not say which is whose."""
    fig, unit = cast(Figure, ax.figure), 1 / ax.bbox.width
    for note in labels:
        style, (x, y) = look[str(note.get_gid())], note.xyann
        ends, line = [x, x + SAMPLE * unit], {"color": style.colour, "linestyle": style.line, "linewidth": 1.6}
        fig.add_artist(Line2D(ends, [y, y], transform=ax.transAxes, **line))
        fig.add_artist(Line2D([x + SAMPLE / 2 * unit], [y], transform=ax.transAxes, linestyle="", **style.mark(6.5)))


def empty(ax: Axes) -> None:
    ax.text(0.5, 0.5, "no values", size=TITLE, color=QUIET, ha="center", va="center", transform=ax.transAxes)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(NullLocator())


def folded(label: str, width: float) -> str:
    """A label in lines of at most ``width`` pixels, broken at its spaces, and within a word only where it is longer."""
    if widest([label], TEXT) <= width:
        return label
    lines = [""]
    for word in label.replace("\n", " \n ").split(" "):
        if word == "\n":
            lines.append("")
        elif lines[-1] and widest([f"{lines[-1]} {word}"], TEXT) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(wrap(line, TEXT, width) for line in lines)


def finite(values: npt.ArrayLike) -> Array:
    flat: Array = np.ravel(np.asarray(values, dtype=float))
    finite: Array = flat[np.isfinite(flat)]
    return finite


def size_of(marker: str) -> float:
    return 9 if marker in "1234" else 6


def mean_of(values: Array) -> float:
    return float(values.mean()) if values.size else np.nan


def mean_sd(values: Array, form: str) -> str:
    n = len(values)
    sd = f" ± {values.std(ddof=1):{form}}" if n > 1 else ""
    return f"{values.mean():{form}}{sd} (n = {n})" if n else "no values"


def first_word(verdict: str) -> str:
    return (re.match(r"\w*", verdict) or [""])[0]


def interval_rows(
    ax: Axes, seeds: Mapping[str, Array], means: Mapping[str, tuple[float, float, float]], look: Mapping[str, Style]
) -> None:
    """Draw, one row per setting from 0 downwards, every seed and above them the mean with its interval (low, high)."""
    for y, (label, found) in enumerate(seeds.items()):
        style, (mean, least, most) = look[label], means[label]
        lane = y + 0.28 + 0.05 * (np.arange(len(found)) % 3 - 1)  # below the mean, in three tracks
        ax.plot(found, lane, "o", ms=4.5, color=style.colour, alpha=0.6, mew=0)
        interval_bar(ax, least, most, y, style.colour)
        ax.plot([mean], [y], linestyle="", **style.mark(8))


Row = tuple[str, float, float, float, str]  # label, mean, low, high, verdict


def difference_view(rows: Sequence[Row], margin: float) -> tuple[float, float, bool]:
    """Ends of an axis for differences, and whether it has to be logarithmic beyond ± 2 margins."""
    means = finite([mean for _, mean, *_ in rows])
    ends = finite([end for _, _, *bounds, _ in rows for end in bounds])
    far = 3 * max(np.abs(means).max(initial=0), 2 * margin)  # a bar of two seeds may be 100 times its difference
    shown = np.concatenate([means, np.clip(ends, -far, far), [-1.6 * margin, 1.6 * margin]])
    low, high = float(shown.min()), float(shown.max())
    return low, high, max(-low, high) > 10 * margin


def difference_rows(ax: Axes, rows: Sequence[Row], margin: float, low: float, high: float, bent: bool) -> None:
    """Draw differences with their intervals, a row each from 0 downwards, around the band of equivalence."""
    if bent:
        ax.set_xscale("symlog", linthresh=2 * margin, linscale=1.1)
    axis = ax.xaxis.get_transform()
    edges = axis.transform(np.array([low, high]))
    ax.set_xlim(*axis.inverted().transform(edges + 0.04 * np.ptp(edges) * np.array([-1, 1])).tolist())
    steps = [m * 10.0**e for e in range(2, -7, -1) for m in (1, 5, 2)]
    steps = (
        steps
        if bent
        else sorted({abs(float(step)) for step in MaxNLocator(7, steps=[1, 2, 5, 10]).tick_values(low, high) if step})
    )
    ticks = [0, *(sign * step for step in (margin, *steps) if step >= margin for sign in (1, -1))]
    room = widest([signed(tick, "g") for tick in apart(ticks, ax.xaxis)], SMALL) + 6
    ax.xaxis.set_major_locator(FixedLocator(sorted(apart(ticks, ax.xaxis, room / ax.bbox.width))))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: signed(x, "g")))
    if rows:
        ax.axvspan(-margin, margin, color=MUTED, zorder=0.2, linewidth=0)
        ax.axvline(0, color=QUIET, linewidth=1, zorder=0.9)
    else:
        empty(ax)
    for y, (_, mean, least, most, verdict) in enumerate(rows):
        colour, marker, filled = VERDICTS[first_word(verdict)]
        interval_bar(ax, least, most, y, colour)
        ax.plot([mean], [y], marker=marker, ms=6.5, color=colour, mfc=colour if filled else PAPER, linestyle="")
