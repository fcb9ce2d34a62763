"""What the figures share: their one style, an empty figure, how a setting looks, axes of errors, keys, files."""

import io
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from normlab.analysis.colours import FAINT, INK, PAPER, QUIET, norm_colour, norm_marker

Array = npt.NDArray[Any]

DPI, WIDTH = 100, 8.4  # inches: a figure is as wide as the column of the page, which then shows it in its own size
TITLE, TEXT, SMALL = 12.5, 9.5, 8.5  # type sizes, points
LINES: list[Any] = ["-", (0, (5, 2)), (0, (1.2, 1.3)), (0, (7, 2, 1.2, 2))]
FILLS = ["full", "none", "bottom", "left"]
SEQUENCE = "osD^vPXp<>"  # markers of what has an order and no norm of its own, such as layers
STYLE = {
    "figure.dpi": DPI,
    "figure.facecolor": PAPER,
    "figure.titlesize": TITLE,
    "savefig.dpi": "figure",
    "font.size": TEXT,
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # which is as wide: an SVG's reader may have either
    "text.color": INK,
    "axes.facecolor": PAPER,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": TEXT,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    **{f"axes.spines.{side}": False for side in ("left", "right", "top")},
    "axes.formatter.useoffset": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    **{
        f"{axis}tick.{of}": x
        for axis in "xy"
        for of, x in {"labelsize": SMALL, "labelcolor": QUIET, "color": FAINT}.items()
    },
    **dict.fromkeys(["xtick.minor.size", "ytick.minor.size", "ytick.major.size"], 0),
    "legend.frameon": False,
    "legend.title_fontsize": SMALL,
    "legend.handlelength": 2.6,
    "svg.fonttype": "none",  # text stays text: to be searched, read aloud, and a tenth of the size
    "svg.hashsalt": "normlab",  # with no date: the same figure gives the same bytes
}
# While it is open, matplotlib has this style, whatever its user's matplotlibrc or style says: figures are drawn, and
# written, in it. Also a decorator: `@plain()`.
plain = partial(style.context, STYLE, after_reset=True)


def figure(title: str, height: float, width: float = WIDTH) -> Figure:
    """An empty figure, in inches, and more for a title of several lines; constrained layout places everything."""
    title = textwrap.fill(title, int(width * 8.5))
    fig = Figure((width, height + 0.2 * title.count("\n")), layout="constrained")
    fig.suptitle(title, x=0.01, ha="left")
    fig.get_layout_engine().set(w_pad=0.1, h_pad=0.07, wspace=0.02, hspace=0.02)  # type: ignore[union-attr, call-arg]
    return fig


def key(fig: Figure, handles: Sequence[Artist] = (), note: str = "", columns: int = 0) -> None:
    """Put a note and what the labelled handles mean below everything. columns: of the key; as many as fit unless
    given."""
    if not (handles or note):
        return
    width = fig.get_figwidth()
    labels, across = _in_key([str(handle.get_label()) for handle in handles], width, columns)
    legend = fig.legend(
        handles, labels, loc="outside lower left", ncols=across, fontsize=TEXT,
        title=textwrap.fill(note, int(width * 13.4)),
    )  # fmt: skip
    legend.set_alignment("left")
    legend.get_title().set(color=QUIET)


def key_height(labels: Sequence[str], columns: int = 0, width: float = WIDTH) -> float:
    """Inches that the labels of a key need."""
    lines, across = _in_key(labels, width, columns)
    return 0.2 * max((label.count("\n") + 1 for label in lines), default=0) * -(-len(lines) // across)


def _in_key(labels: Sequence[str], width: float, columns: int) -> tuple[list[str], int]:
    """Labels in lines that fit, and in how many columns they stand."""
    lines = [textwrap.fill(label, int(width * 8)) for label in labels]
    fit = int(width * 72 / (5.8 * widest(lines) + 46)) if lines else 1
    return lines, max(1, min(columns or fit, fit, len(lines)))


def widest(texts: Iterable[str]) -> int:
    """Letters of the longest line of all texts."""
    return max((len(line) for text in texts for line in text.split("\n")), default=0)


def folded(label: str, letters: int = 26) -> str:
    """A label in lines of about so many letters, broken at spaces, and within a word only where it is longer."""
    if len(label) <= letters:
        return label
    return "\n".join(textwrap.fill(part, letters) for part in label.replace(" − ", " −\n").split("\n"))


# How a setting looks


@dataclass(frozen=True)
class Style:
    """How a setting looks: colour and marker are its norm's; shade, fill and line tell settings of one norm apart."""

    label: str
    norm: str
    colour: Any
    marker: str
    fill: str
    line: Any

    def mark(self, size: float = 6.0) -> dict[str, Any]:
        """Keywords of ``Axes.plot`` for its marker, ``size`` in points."""
        face = PAPER if self.fill == "none" else self.colour
        fill = "full" if self.fill == "none" else self.fill  # matplotlib's own "none" lets lines shine through
        look = {"marker": self.marker, "markersize": size, "markeredgecolor": self.colour, "markeredgewidth": 1.1}
        return look | {"markerfacecolor": face, "markerfacecoloralt": PAPER, "fillstyle": fill}

    def line_of(self, size: float = 5.0) -> dict[str, Any]:
        """Keywords of ``Axes.plot`` for a line with markers."""
        return {"color": self.colour, "linestyle": self.line, "linewidth": 1.6, **self.mark(size)}

    @property
    def handle(self) -> Line2D:
        """Its piece of a key."""
        return Line2D([], [], label=self.label, **self.line_of())


def styles(norms: Mapping[str, str]) -> dict[str, Style]:
    """A style for each label -> norm. The first setting of a norm is filled and solid, the second hollow and dashed;
    of more than two, the colour becomes lighter. Give every figure of a report all settings in one order: then
    a setting looks the same throughout, also where others are left out."""
    alike: dict[tuple[str, str], list[str]] = {}
    for label, norm in norms.items():
        alike.setdefault((norm_colour(norm), norm_marker(norm)), []).append(label)
    found = {}
    for (colour, marker), labels in alike.items():
        for i, label in enumerate(labels):
            fill, line = FILLS[(i + i // 4) % 4], LINES[i % 4]
            found[label] = Style(label, norms[label], shade(colour, i, len(labels)), marker, fill, line)
    return {label: found[label] for label in norms}


def in_sequence(labels: Sequence[str], norm: str) -> dict[str, Style]:
    """A style for each of several lines that belong to one norm and have an order, such as its layers: its colour,
    lighter and lighter, and a marker each."""
    return {
        label: Style(label, norm, shade(norm_colour(norm), i, max(len(labels), 3)), SEQUENCE[i % 10], "full", "-")
        for i, label in enumerate(labels)
    }


def shade(colour: str, i: int, count: int) -> Any:
    """The i-th of ``count`` shades of a colour, from itself to a lighter one; of one or two, the colour itself."""
    if count < 3:
        return colour
    at = 0.5 * i / (count - 1)
    return tuple(((1 - at) * np.array(to_rgb(colour)) + at * np.array(to_rgb(PAPER))).tolist())


# Axes


def log_ticks(axis: Axis, zero: float = 0.0) -> None:
    """Make an axis logarithmic, with plain numbers at powers of ten or, over few decades, between them.

    zero: where values of 0 are drawn (`zero_place`), if there are any: the tick there says 0.
    """
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})  # type: ignore[attr-defined]  # "x" or "y"
    low, high = sorted(axis.get_view_interval())
    choices: list[list[float]] = [[1], [1, 3], [1, 2, 5], [*range(1, 10)]]
    for subs in choices:
        ticks = np.asarray(LogLocator(subs=subs, numticks=20).tick_values(low, high))
        ticks = ticks[(ticks >= low) & (ticks <= high) & (ticks > 1.6 * zero)]
        if len(ticks) > 2:
            break
    else:
        ticks = np.asarray(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
        ticks = ticks[(ticks >= low) & (ticks <= high)]
    names = [short(tick) for tick in ticks]
    axis.set_minor_locator(NullLocator())
    axis.set_ticks([zero, *ticks] if zero else ticks, labels=["0", *names] if zero else names)


def zero_place(*values: npt.ArrayLike) -> float:
    """Where a logarithmic axis shows 0: at half of the smallest positive value. 0 where none of the values is 0."""
    given = finite(*values)
    positive = given[given > 0]
    return float(positive.min(initial=1.0)) / 2 if len(positive) < len(given) else 0.0


def short(value: float) -> str:
    """A tick's number: 0.05, 3, 1e−4."""
    plain, power = f"{value:g}", f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e+")
    use = power if len(power) < len(plain) and float(power) == float(plain) else plain
    return use.replace("-", "−")


def empty(ax: Axes, text: str = "no values") -> None:
    ax.text(0.5, 0.5, text, size=TITLE, color=QUIET, ha="center", va="center", transform=ax.transAxes)
    ax.set(xticks=[], yticks=[])


def facets(
    fig: Figure, count: int, y_labels: Sequence[str], x_label: str, across: int = 4
) -> tuple[list[list[Axes]], int]:
    """``count`` columns of axes, in even blocks of at most ``across`` columns, a row per y label; return a list of axes
    per row, and how many columns stand side by side."""
    rows, blocks = len(y_labels), -(-count // across)
    across = -(-count // blocks)
    panes = fig.subplots(blocks * rows, across, squeeze=False, sharex=True, sharey="row")
    table = [[panes[i // across * rows + row, i % across] for i in range(count)] for row in range(rows)]
    for ax in {*panes.flat} - {ax for row in table for ax in row}:
        ax.set_axis_off()
    for axes, label in zip(table, y_labels, strict=True):
        for ax in axes[::across]:
            ax.set_ylabel(label)
    for ax in table[-1][-across:]:  # also where the block below has fewer columns
        ax.tick_params(labelbottom=True)
        ax.set_xlabel(x_label)
    return table, across


def level(axes: Sequence[Axes], *, log: bool = False, zero: float = 0.0) -> None:
    """Give axes that show one quantity the same y limits and ticks. zero: as of `log_ticks`."""
    for ax in axes:
        ax.set_yscale("log" if log else "linear")
    ends = np.array([ax.get_ylim() for ax in axes if ax.has_data()] or [(1.0, 2.0)])
    for ax in axes:
        ax.set_ylim(ends.min(), ends.max())
        if log:
            log_ticks(ax.yaxis, zero)
        else:
            ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def bars(
    ax: Axes, at: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike, colour: Any, *, upright: bool = False
) -> None:
    """Draw intervals with caps, after the limits of ``ax`` are set: where one leaves them, an arrowhead stands for the
    cap. ``at``: across, ``low`` and ``high`` along, float (K,); what is not finite is not drawn."""
    table = np.stack(np.broadcast_arrays(*map(np.atleast_1d, (at, low, high))))
    places, lows, highs = table[:, np.isfinite(table).all(axis=0)]
    limits = ax.get_ylim() if upright else ax.get_xlim()
    least, most = sorted(limits)
    heads = ("v^" if upright else "<>")[:: 1 if limits[0] < limits[1] else -1]
    ends = np.clip([lows, highs], least, most)
    (ax.vlines if upright else ax.hlines)(places, *ends, color=colour, linewidth=1.4)
    for end, out, head in zip(ends, (lows < least, highs > most), heads, strict=True):
        for some, marker, size in ((out, head, 5), (~out, "_" if upright else "|", 7)):
            place = (places[some], end[some]) if upright else (end[some], places[some])
            if some.any():  # matplotlib's layout takes a line without points to lie in the corner of the figure
                ax.plot(*place, marker, ms=size, mew=1.3, color=colour, clip_on=False, label="_")


def room_for(ax: Axes, which: str, points: Array, ends: Array, *, log: bool = False) -> None:
    """Set limits that show all points, and as much of their intervals as leaves the points half of the room."""
    points, ends = finite(points), finite(ends)
    if not points.size:
        return
    to, back = (np.log10, lambda height: 10.0**height) if log else (np.asarray, np.asarray)
    low, high = float(to(points.min())), float(to(points.max()))
    span = max(high - low, 0.15 if log else 0.004 * abs(high), 1e-9)
    if ends.size:
        if log:
            ends = np.maximum(ends, points.min() / 100)
        ends = np.clip(to(ends), low - span / 2, high + span / 2)
    low, high = float(np.min([low, *ends])), float(np.max([high, *ends]))
    pad = max(0.05 * (high - low), 0.02 * span, (span - (high - low)) / 2)
    ax.set(**{f"{which}lim": (float(back(low - pad)), float(back(high + pad)))})


def sheet(width: float, height: float, title: str, note: str = "") -> tuple[Figure, Axes, float]:
    """A diagram's figure, whose one set of axes counts pixels of 1/100 inch from its upper left corner, and where below
    its title it is free."""
    wrapped = textwrap.fill(title, int((width - 40) / 11))
    below = 24 + 21 * (wrapped.count("\n") + 1)
    top = below + (32 if note else 16)
    fig = Figure((width / DPI, (top + height + 24) / DPI), dpi=DPI, facecolor=PAPER)
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(top + height + 24, 0))
    ax.set_axis_off()
    ax.text(24, 20, wrapped, size=TITLE, color=INK, va="top")
    ax.text(24, below, note, size=SMALL, color=QUIET, va="top")
    return fig, ax, top


# Numbers and files


def finite(*values: npt.ArrayLike) -> Array:
    """What is finite of all values, flat."""
    flat: Array = np.concatenate([np.zeros(0), *(np.ravel(np.asarray(of, dtype=float)) for of in values)])
    return flat[np.isfinite(flat)]


def as_errors(points: Array, factor: float) -> bool:
    """Whether accuracies in per cent are drawn as errors on a logarithmic axis: where they come near 100, and their
    errors differ by more than a factor."""
    return bool(points.size and points.max() > 95 and 100 - points.min() > factor * (100 - points.max()))


def check(fits: bool, message: str) -> None:
    if not fits:
        raise ValueError(message)


def svg(fig: Figure, description: str | None = None) -> bytes:
    """The figure as SVG. Lengths in paths have two decimals, of points: matplotlib's six would double the size."""
    with plain():
        drawn = _saved(fig, "svg", {"Date": None, "Description": description})
    return re.sub(rb'(?<= d=")[^"]+', lambda path: re.sub(rb"(\.\d\d)\d+", rb"\1", path[0]), drawn)


def png(fig: Figure) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    return _saved(fig, "png", {"Software": None})


def _saved(fig: Figure, form: str, metadata: dict[str, str | None]) -> bytes:
    stream = io.BytesIO()
    fig.savefig(stream, format=form, metadata=metadata)
    return stream.getvalue()
