"""Which numbers share a statistic, drawn: every number of the batch on the ground of its set, with the set's letter."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from normlab.analysis.colours import INK, PAPER, QUIET, norm_colour
from normlab.analysis.drawing import DPI, SMALL, TEXT, TITLE, sheet, widest
from normlab.byhand import wording
from normlab.byhand.exact import Result, Statistic
from normlab.byhand.set_colours import set_colour
from normlab.byhand.wording import Window, blocks, window

__all__ = ["overview", "picture"]

MARGIN, GAP, LETTER, HEAD = (
    24,
    10,
    17,
    18,
)  # pixels: around all, between maps, for the letter above a map, for "channel 1" above all
KEYS = 24  # sets in a key


def picture(result: Result) -> Figure:
    """The sets of one norm after figure 2 of Wu & He 2018, "Group Normalization", over these very numbers.

    Images down, channels across; beside them each set's mean and variance.
    """
    part = window(result.batch)
    texts = blocks(result.batch.values, result.batch, part, places=None)
    cell = _cell(texts, 26)
    wide, high = _size(part, cell)
    left = MARGIN + _beside(part, SMALL)
    first = [s for s in result.statistics if not s.axes]
    shown = min(len(first), KEYS)
    keys = [f"{s.where}: {', '.join(_values(s))}" for s in first[:shown]]
    more = wording.more_rows(result, KEYS)
    note = f"{wording.facts(result)} {part.line}".strip()
    beside = 34 + MARGIN + 1.05 * max(room(keys, SMALL), room([more], SMALL))  # drawn letters are a little wider
    width = max(left + wide + 30 + beside, room([note], SMALL) + 2 * MARGIN + 8, 520)
    height = max(high, 20 * (shown + bool(more)) + HEAD + LETTER)
    fig, ax, top = sheet(width, height, wording.heading(result), note)
    _panel(ax, result, part, texts, left, top, cell, SMALL)
    x, y = left + wide + 30, top + HEAD + LETTER
    for k, key in enumerate(keys):
        ax.add_patch(Rectangle((x, y), 26, 16, facecolor=set_colour(k), linewidth=0))
        ax.text(
            x + 13, y + 8.5, result.statistics[k].letter, size=SMALL, color=INK, ha="center", va="center", weight="bold"
        )
        ax.text(x + 34, y + 8.5, key, size=SMALL, color=INK, va="center")
        y += 20
    if more:
        ax.text(x + 34, y + 8.5, more, size=SMALL, color=QUIET, va="center")
    return fig


def overview(results: Sequence[Result]) -> Figure:
    """The sets of several norms over the same numbers, two norms side by side."""
    batch = results[0].batch
    part = window(batch)
    texts = blocks(batch.values, batch, part, places=None)
    cell = _cell(texts, 21)
    wide, high = _size(part, cell)
    beside, above = _beside(part, SMALL), 42
    facts = [wording.facts(result) for result in results]
    step = max(
        beside + wide + 40, room(facts, SMALL) + 30, room([wording.heading(r) for r in results], TEXT) * 1.1 + 30
    )
    across = min(len(results), 2)
    down = -(-len(results) // across)
    title = "Which numbers share a statistic"
    width = max(2 * MARGIN + across * step - 30, room([title], TITLE) + 2 * MARGIN, room([part.line], SMALL) + 60)
    fig, ax, top = sheet(width, down * (high + above + 26) - 26, title, part.line)
    for i, result in enumerate(results):
        x, y = MARGIN + i % across * step, top + i // across * (high + above + 26)
        ax.text(
            x, y + 8, wording.heading(result), size=TEXT, color=norm_colour(result.norm), weight="bold", va="center"
        )
        ax.text(x, y + 26, facts[i], size=SMALL, color=QUIET, va="center")
        _panel(ax, result, part, texts, x + beside, y + above, cell, SMALL)
    return fig


def _panel(
    ax: Axes,
    result: Result,
    part: Window,
    texts: list[list[list[list[str]]]],
    left: float,
    top: float,
    cell: tuple[float, float],
    size: float,
) -> None:
    """Draws the window's maps from (left, top), labels of channels above and of images beside."""
    w, h = cell
    wide, high = part.columns * w, part.rows * h
    channels, area, across = result.batch.shape[1], result.batch.area, result.batch.shape[3]
    short = room([f"channel {part.channels}"], size) > wide + GAP - 4
    for j in range(part.channels):
        x = left + j * (wide + GAP)
        ax.text(x, top + HEAD / 2, f"{'ch' if short else 'channel'} {j + 1}", size=size, color=QUIET, va="center")
    for i in range(part.images):
        y = top + HEAD + i * (high + LETTER + GAP)
        ax.text(left - 8, y + LETTER + high / 2, f"image {i + 1}", size=size, color=QUIET, ha="right", va="center")
        for j in range(part.channels):
            x = left + j * (wide + GAP)
            owners = result.owner[(i * channels + j) * area :]
            # One ground for letter and numbers, and lines of paper between the numbers.
            ax.add_patch(Rectangle((x, y), wide, LETTER + high, facecolor=set_colour(owners[0]), linewidth=0))
            letter = wording.letters(result, i * channels + j)
            ax.text(x + 5, y + LETTER / 2 + 1, letter, size=size, color=INK, weight="bold", va="center")
            for r, s in np.ndindex(part.rows, part.columns):
                if (k := owners[r * across + s]) != owners[0]:
                    place = x + s * w, y + LETTER + r * h
                    ax.add_patch(Rectangle(place, w, h, facecolor=set_colour(k), linewidth=0))
            for r in range(part.rows):
                ax.plot([x, x + wide], [y + LETTER + r * h] * 2, color=PAPER, linewidth=0.8, solid_capstyle="butt")
                for s in range(part.columns):
                    place = (x + (s + 0.5) * w, y + LETTER + (r + 0.5) * h + 0.5)
                    ax.text(*place, texts[i][j][r][s], size=size, color=INK, ha="center", va="center")
            for s in range(1, part.columns):
                ax.plot([x + s * w] * 2, [y + LETTER, y + LETTER + high], color=PAPER, linewidth=0.8)


def _values(statistic: Statistic) -> list[str]:
    """ "μ = 11/2 = 5.5": what a set's numbers share, but for roots."""
    shown = {name: value for name, value in statistic.values.items() if name[0] not in "√u"}
    return [f"{name} {wording.equals(value)}" for name, value in shown.items()]


def _cell(texts: list[list[list[list[str]]]], least: float) -> tuple[float, float]:
    """Width and height of a number's cell."""
    longest = max((text for image in texts for channel in image for row in channel for text in row), key=len)
    return max(least, room([longest], SMALL) + 9), least - 4


def _size(part: Window, cell: tuple[float, float]) -> tuple[float, float]:
    wide = part.channels * (part.columns * cell[0] + GAP) - GAP
    return wide, HEAD + part.images * (part.rows * cell[1] + LETTER + GAP) - GAP


def _beside(part: Window, size: float) -> float:
    return room([f"image {part.images}"], size) + 10


def room(texts: Sequence[str], size: float) -> float:
    """Pixels that texts of so many points need, by the number of their letters."""
    return 0.62 * size * DPI / 72 * widest(texts)
