"""What the figures share: an empty figure, a sheet of pixels, tiles, the look of a panel, labels that keep apart."""

import functools
import io
import itertools
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context, rcdefaults
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Annotation
from matplotlib.textpath import TextPath
from matplotlib.transforms import ScaledTranslation

from normlab.analysis.colours import FAINT, INK, PAPER, QUIET
from normlab.analysis.part import Picture
from normlab.files import write_atomically

Array = npt.NDArray[Any]

DPI = 100  # lengths below are pixels of 1/100 inch
TITLE, TEXT, SMALL = 13.0, 10.0, 8.5  # type sizes, points
MARGIN, TILE = 24, 84  # 84 pixels: 3 for each of 28, or 28 for each of 3
ACC_TICKS = [99, 90, 50, 98, 95, 99.5, 100, 0, 97, 80, 99.8, 20, 96, 99.2, 98.5, 94, 92, 99.4, 99.6, 99.3, 99.9]
CE_TICKS = [m * 10.0**e for m in (1, 3, 2, 5, 1.5, 7) for e in range(-6, 4)]  # both: the first that fit are drawn


@contextmanager
def plain() -> Iterator[None]:
    """While it is open, matplotlib has its own defaults, whatever its user's matplotlibrc or style says: figures are
    drawn, and written, in it."""
    with rc_context():
        rcdefaults()
        yield


def figure(width: float, height: float, title: str) -> Figure:
    """An empty figure of so many pixels, with its title at the upper left."""
    layout = ConstrainedLayoutEngine(w_pad=MARGIN / DPI, h_pad=0.12)
    fig = Figure((width / DPI, height / DPI), dpi=DPI, facecolor=PAPER, layout=layout)
    wrapped = wrap(title, TITLE, width - 2 * MARGIN)
    fig.suptitle(wrapped, x=MARGIN / width, ha="left", size=TITLE, color=INK)
    return fig


def sheet(width: float, height: float, title: str, note: str = "") -> tuple[Figure, Axes, float]:
    """A figure whose one set of axes counts pixels from its upper left corner, and where below its title it is free."""
    wrapped = wrap(title, TITLE, width - 2 * MARGIN)
    below = MARGIN + 21 * (wrapped.count("\n") + 1)
    top = below + (32 if note else 16)
    fig = Figure((width / DPI, (top + height + MARGIN) / DPI), dpi=DPI, facecolor=PAPER)
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(top + height + MARGIN, 0))
    ax.set_axis_off()
    ax.text(MARGIN, MARGIN - 4, wrapped, size=TITLE, color=INK, va="top")
    ax.text(MARGIN, below, note, size=SMALL, color=QUIET, va="top")
    return fig, ax, top


def tiles(
    images: Array, names: Sequence[tuple[str, str]], below: Sequence[str], *, title: str, note: str, columns: int
) -> Figure:
    """Draw images, uint8 (N, H, W[, 3]), row by row, each with its true and predicted name and one more line below."""
    n = len(images)
    captions = [[f"{true} → {pred}"] for true, pred in names]
    size, lines, pitch = TEXT, 1, TILE + 24
    if widest(itertools.chain(*captions), TEXT) > pitch - 8:  # long names: two lines in smaller type, or a wider grid
        captions = [[true, f"→ {pred}"] for true, pred in names]
        size, lines = SMALL, 2
        pitch = max(pitch, int(widest(itertools.chain(*captions), SMALL)) + 14)
    across = min(columns, max(n, 5), max(columns * (TILE + 24) // pitch, 1))
    left = MARGIN + (pitch - TILE - 24) // 2
    width = max(2 * MARGIN + across * pitch - 24, 440, widest([note], SMALL) + 2 * MARGIN + 8)
    step = TILE + 44 + 14 * lines
    fig, ax, top = sheet(width, -(-n // across) * step - 18 if n else 96, title, note)
    if not n:
        ax.text(width / 2, top + 40, "No misclassified images", size=TITLE, color=QUIET, ha="center", va="center")
    for i, caption in enumerate(captions):
        x, y = left + i % across * pitch, top + i // across * step
        tile(ax, images[i], x, y, "gray_r", 0, 255)
        x, y = x + TILE // 2, y + TILE + 16
        for line in caption:
            ax.text(x, y, line, size=size, color=INK, ha="center")
            y += 14
        ax.text(x, y + 2, below[i], size=SMALL, color=QUIET, ha="center")
    return fig


def tile(ax: Axes, image: Array, x: float, y: float, cmap: str | Colormap, low: float, high: float) -> None:
    """Draw ``image`` into the square of a sheet whose upper left corner is (x, y)."""
    box = (x, x + TILE, y + TILE, y)
    ax.imshow(image, cmap, vmin=low, vmax=high, aspect="auto", interpolation="nearest", extent=box)


def from_accuracy(per_cent: Array) -> Array:
    """Height of an accuracy on an axis that is spaced by the logarithm of the error; 100 % stays finite."""
    return -np.log10(np.maximum(100.05 - per_cent, 1e-9))


def to_accuracy(height: Array) -> Array:
    return 100.05 - 10.0**-height


def frame(ax: Axes, heading: str, grid: Literal["x", "y"] = "y") -> None:
    """The quiet look of a panel: a heading at the upper left, hairlines across, no box."""
    ax.set_facecolor(PAPER)
    ax.grid(axis=grid, color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["left", "right", "top"]].set_visible(False)
    ax.spines["bottom"].set_color(FAINT)
    ax.tick_params(length=0, labelsize=SMALL, labelcolor=QUIET)
    ax.set_title(heading, loc="left", size=TEXT, color=INK)


def end_label(ax: Axes, text: str, end: tuple[float, float], colour: str, many: int, room: float = 0) -> Annotation:
    """Label a line right of the panel, led to its ``end`` (data); one of ``many``, level only after ``settle``.

    room: pixels that stay free between the leader and the text.
    """
    leader = {"color": colour, "alpha": 0.5, "lw": 0.7, "arrowstyle": "-", "relpos": (0, 0.5), "shrinkB": 4}
    if room:
        leader["shrinkA"] = (room + 3) * 72 / DPI
    note = ax.annotate(text, end, color=colour, size=TEXT, va="center", arrowprops=leader)
    beside = ScaledTranslation(room / DPI, 0, cast(Figure, ax.figure).dpi_scale_trans)
    note.set(anncoords=ax.transAxes + beside if room else "axes fraction", position=(1.05 + 0.003 * many, 0.5))
    return note


def say_where_they_end(labels: Sequence[Annotation]) -> None:
    """Add the last epoch to the labels of lines that end before the others."""
    last = max((note.xy[0] for note in labels), default=1)
    for note in labels:
        if note.xy[0] < last and note.arrow_patch:
            note.set_text(f"{note.get_text()}, to epoch {note.xy[0]:.0f}")
            note.arrow_patch.set_linestyle(":")


def settle(fig: Figure, panels: Mapping[Axes, Sequence[Annotation]]) -> None:
    """Put the end labels of each panel level with their lines, or as near as their lines of text allow."""
    fig.draw_without_rendering()  # runs the layout, which gives the panels their height
    for ax, labels in panels.items():
        wanted = [ax.transAxes.inverted().transform(ax.transData.transform(note.xy))[1] for note in labels]
        high = np.array([label_height(note.get_text()) for note in labels]) / ax.bbox.height
        for note, y in zip(labels, spread(np.array(wanted), high), strict=True):
            note.xyann = (note.xyann[0], y)


def label_height(text: str) -> float:
    """Pixels that an end label needs."""
    return 17.0 * text.count("\n") + 16


def apart(candidates: Iterable[float], axis: Axis, share: float = 0.07) -> list[float]:
    """The candidates that are in view and, with those before them kept, at least a ``share`` of the axis apart."""
    height = axis.get_transform().transform
    low, high = (float(end) for end in axis.get_view_interval())
    near = share * (height(high) - height(low))
    kept: list[float] = []
    for tick in candidates:
        clear = low < tick <= high and height(tick) > height(low) + near / 3  # of the line at the foot
        if clear and all(abs(height(tick) - height(other)) >= near for other in kept):
            kept.append(tick)
    return kept


def spread(wanted: Array, size: Array) -> Array:
    """Positions in [0, 1] of things of such ``size``, clear of each other and ordered like ``wanted``, moved little."""
    places = np.empty(len(wanted))
    order = np.argsort(wanted, kind="stable")
    half = size[order] / 2
    offset = np.cumsum(np.r_[0.0, half[:-1] + half[1:]][: len(half)])
    blocks: list[tuple[float, int]] = []  # pools of neighbours that touch: the mean of their free positions, how many
    for free in wanted[order] - offset:
        mean, count = float(free), 1
        while blocks and blocks[-1][0] > mean:
            before, many = blocks.pop()
            mean, count = (before * many + mean * count) / (many + count), many + count
        blocks.append((mean, count))
    pooled = np.repeat([mean for mean, _ in blocks], [count for _, count in blocks])
    if len(wanted):
        places[order] = np.clip(pooled, half[0], 1 - half[-1] - offset[-1]) + offset
    return places


def quiet_bar(ax: Axes, label: str) -> None:
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.tick_params(length=0, labelsize=SMALL, labelcolor=QUIET)
    ax.set_ylabel(label, size=SMALL, color=QUIET)


def widest(texts: Iterable[str], size: float) -> float:
    """Width of the widest line of ``texts`` in pixels."""
    lines = {line for text in texts for line in text.split("\n") if line.strip()}
    return max((_width(line, size) for line in lines), default=0.0)


@functools.lru_cache(maxsize=4096)  # outlines are slow to measure, and labels come again and again
def _width(line: str, size: float) -> float:
    return float(TextPath((0, 0), line, size=size).get_extents().width) * DPI / 72


def wrap(text: str, size: float, width: float) -> str:
    """Break ``text`` into lines that are no wider than ``width`` pixels, by the width of its mean letter."""
    letters = int(len(text) * width / max(widest([text], size), 1))
    return text if letters >= len(text) else textwrap.fill(text, max(letters - 2, 8))


def readable(ground: npt.ArrayLike) -> str:
    """Ink or paper, whichever has the more contrast on an RGB(A) ground."""
    luminance = float(np.dot([0.2126, 0.7152, 0.0722], np.asarray(ground)[:3] ** 2.2))
    return INK if (luminance + 0.05) ** 2 > 1.05 * 0.062 else PAPER  # 0.062: the luminance of INK, plus 0.05


def svg(fig: Figure, description: str | None = None) -> bytes:
    """The figure as SVG, letters as outlines. A fixed salt and no date: the same figure gives the same bytes."""
    with rc_context({"svg.hashsalt": "normlab", "svg.fonttype": "path"}):
        return _saved(fig, "svg", {"Date": None, "Description": description})


def png(fig: Figure) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    return _saved(fig, "png", {"Software": None})


def _saved(fig: Figure, form: str, metadata: dict[str, str | None]) -> bytes:
    stream = io.BytesIO()
    fig.savefig(stream, format=form, metadata=metadata)
    return stream.getvalue()


def save(picture: Picture, folder: Path) -> bytes | None:
    """Write a picture as PNG and SVG; return the SVG. Where it could not be drawn here, files that show the same thing
    are kept; return None where there are none."""
    at, mark = folder / f"{picture.name}.svg", f"normlab {picture.digest}".encode()
    if picture.figure is None:
        content = at.read_bytes() if at.exists() else b""
        return content if mark in content else None
    folder.mkdir(parents=True, exist_ok=True)
    content = svg(picture.figure, mark.decode())
    write_atomically(at, content)
    write_atomically(at.with_suffix(".png"), png(picture.figure))
    return content


def shape_of(array: Array) -> str:
    return f"{array.dtype} {array.shape}"


def check(fits: bool, message: str) -> None:
    if not fits:
        raise ValueError(message)


def check_images(images: Array) -> None:
    shaped = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    fits = shaped and images.dtype == np.uint8
    check(fits, f"images must be uint8 (N, H, W) or (N, H, W, 3), not {shape_of(images)}")
