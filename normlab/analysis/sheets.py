"""Sheets that figures of a study share: rows with labels and numbers beside them, a panel at a place, a note below."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import ScaledTranslation

from normlab.analysis.colours import FAINT, INK, QUIET
from normlab.analysis.drawing import (
    DPI,
    MARGIN,
    SMALL,
    TEXT,
    frame,
    sheet,
    widest,
    wrap,
)
from normlab.analysis.panels import (
    folded,
)

__all__ = ["LABEL", "panel_at", "put_note", "sheet_of_rows"]

OWN = ("text", "bar", "patch", "hatch")  # keys of a key that are not matplotlib's
LABEL, PANEL = 250, 460  # pixels: the widest line of a label, the panel beside it


def sheet_of_rows(
    labels: Iterable[str],
    title: str,
    heading: str,
    numbers: Sequence[str],
    pitch: float,
    keys: Sequence[Mapping[str, Any]],
    note: str,
    room: float = LABEL,
) -> tuple[Figure, Axes]:
    """A figure of rows, counted from 0 at the top, with labels at the left, numbers at the right and a key below.

    numbers: a tab splits one into two columns. room: width of the widest label in pixels before it is broken.
    """
    names = [folded(label, room) for label in labels]
    pitch = max(pitch, 8 + 17 * max((name.count("\n") + 1 for name in names), default=1))
    left = MARGIN + widest(names, TEXT) + 20
    column = widest([number.partition("\t")[0] for number in numbers], TEXT)
    second = [number.partition("\t")[2] for number in numbers]
    right = 16 + column + (12 + widest(second, TEXT) if any(second) else 0) + 6 + MARGIN
    width = max(left + PANEL + right, 680)
    heading, note = (wrap(text, size, width - x) for text, size, x in [(heading, TEXT, left + 30), (note, SMALL, 60)])
    above = 18 * (heading.count("\n") + 1) + (18 if len(names) > 20 else 4)  # 20: ticks at the top, too
    high = pitch * (len(names) or 2)
    lines = note.count("\n") + 1 if note else 0
    keys = [{**key, "text": wrap(key["text"], SMALL, width - 100)} for key in keys]
    below = 40 + 15 * lines + sum(16 * key["text"].count("\n") + 19 for key in keys)
    fig, page, top = sheet(width, above + high + below - 12, title)
    ax = panel_at(fig, left, top + above, width - left - right, high)
    frame(ax, "", "x")
    page.text(left, top, heading, size=TEXT, color=INK, va="top")
    y = top + above + high + 40
    page.text(MARGIN, y, note, size=SMALL, color=QUIET, va="top")
    y += 15 * lines + 9
    for key in keys:
        look = {"color": QUIET, "ms": 6, **{name: value for name, value in key.items() if name not in OWN}}
        if "patch" in key:
            swatch = Rectangle((MARGIN, y - 6), 22, 12, facecolor=key["patch"], edgecolor=FAINT, hatch=key["hatch"])
            page.add_patch(swatch)
        else:
            page.plot([MARGIN, MARGIN + 22], [y, y], color=QUIET, linewidth=1.6 if key.get("bar") else 0)
            page.plot([MARGIN + 11], [y], linestyle="", **look)
        page.text(MARGIN + 32, y - 6, key["text"], size=SMALL, color=QUIET, va="top")
        y += 16 * key["text"].count("\n") + 19
    ax.set_ylim((len(names) or 2) - 0.5, -0.5)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(axis="y", labelsize=TEXT, labelcolor=INK, pad=8)
    for edge in np.arange(1, len(names)) - 0.5:
        ax.axhline(edge, color=FAINT, linewidth=0.6, zorder=0.5)
    for row, number in enumerate(numbers):
        for i, text in enumerate(number.split("\t")):
            two = "\t" in number
            x = 16 + (column if two else 0) + 12 * i
            place = ax.get_yaxis_transform() + ScaledTranslation(x / DPI, 0, fig.dpi_scale_trans)
            side = "right" if two and not i else "left"
            ax.text(1, row, text, size=TEXT, color=INK, ha=side, va="center", transform=place)
    return fig, ax


def panel_at(fig: Figure, x: float, y: float, wide: float, high: float) -> Axes:
    """Axes at so many pixels from the upper left corner of a figure."""
    width, height = fig.bbox.width, fig.bbox.height
    return fig.add_axes((x / width, 1 - (y + high) / height, wide / width, high / height))


def put_note(fig: Figure, notes: Sequence[str]) -> None:
    width = fig.get_figwidth() * DPI
    lines = [wrap(note, SMALL, width - 2 * MARGIN) for note in dict.fromkeys(notes)]
    fig.supxlabel("\n".join(lines), x=MARGIN / width, ha="left", size=SMALL, color=QUIET)
