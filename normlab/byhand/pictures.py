"""Which numbers share a statistic, drawn: every number of the batch on the ground of its set, with the set's letter."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from normlab.analysis import drawing
from normlab.analysis.colours import INK, PAPER, QUIET, norm_colour
from normlab.analysis.drawing import DPI, SMALL, TEXT, TITLE
from normlab.byhand import wording
from normlab.byhand.exact import Result
from normlab.byhand.wording import set_colour
from normlab.output import counted

MARGIN, GAP = 24, 10  # pixels: around all, between maps
LETTER, HEAD = 17, 18  # pixels: for the letter above a map, for "channel 1" above all
KEYS = 24  # sets in a key


def files(results: Sequence[Result]) -> dict[str, bytes]:
    """A picture of each norm, and one of all where there are several, as PNG and as SVG, by the file's name."""
    with drawing.plain():
        figures = {"norms": overview(results)} if len(results) > 1 else {}
        figures |= {result.norm: picture(result) for result in results}
        made = {f"{title}.svg": drawing.svg(figure, f"normlab {title}") for title, figure in figures.items()}
        return made | {f"{title}.png": drawing.png(figure) for title, figure in figures.items()}


def picture(result: Result) -> Figure:
    """The sets of one norm after figure 2 of Wu & He 2018, "Group Normalization", over these very numbers.

    Images down, channels across; beside them each set's mean and variance.
    """
    panel = Panel(result, 26)
    left, keys = MARGIN + panel.beside, []
    first = [s for s in result.statistics if not s.axes]
    for s in first[:KEYS]:
        values = [f"{name} {wording.equals(value)}" for name, value in s.values.items() if name[0] not in "√u"]
        keys.append(f"{s.where}: {', '.join(values)}")
    if len(first) > KEYS:
        keys.append(f"… and {counted(len(first) - KEYS, 'more statistic')}.")
    note = f"{wording.facts(result)} {wording.shown_only(result.batch)}".strip()
    width = left + panel.wide + 64 + MARGIN + 1.05 * room(keys, SMALL)  # drawn letters are a little wider
    width = max(width, room([note], SMALL) + 2 * MARGIN + 8, 520)
    height = max(panel.high, 20 * len(keys) + HEAD + LETTER)
    fig, ax, top = drawing.sheet(width, height, wording.heading(result), note)
    panel.draw(ax, left, top)
    x, y = left + panel.wide + 30, top + HEAD + LETTER
    for k, key in enumerate(keys):
        if k < KEYS:
            ax.add_patch(Rectangle((x, y), 26, 16, facecolor=set_colour(k), linewidth=0))
            ax.text(x + 13, y + 8.5, first[k].letter, size=SMALL, color=INK, ha="center", va="center", weight="bold")
        ax.text(x + 34, y + 8.5, key, size=SMALL, color=INK if k < KEYS else QUIET, va="center")
        y += 20
    return fig


def overview(results: Sequence[Result]) -> Figure:
    """The sets of several norms over the same numbers, two norms side by side."""
    panels = [Panel(result, 21) for result in results]
    beside, wide, high, above = panels[0].beside, panels[0].wide, panels[0].high, 42
    facts = [wording.facts(result) for result in results]
    heads = [wording.heading(result) for result in results]
    step = max(beside + wide + 40, room(facts, SMALL) + 30, room(heads, TEXT) * 1.1 + 30)
    across = min(len(results), 2)
    down = -(-len(results) // across)
    title, note = "Which numbers share a statistic", wording.shown_only(results[0].batch)
    width = max(2 * MARGIN + across * step - 30, room([title], TITLE) + 2 * MARGIN, room([note], SMALL) + 60)
    fig, ax, top = drawing.sheet(width, down * (high + above + 26) - 26, title, note)
    for i, panel in enumerate(panels):
        x, y = MARGIN + i % across * step, top + i // across * (high + above + 26)
        colour = norm_colour(panel.result.norm)
        ax.text(x, y + 8, heads[i], size=TEXT, color=colour, weight="bold", va="center")
        ax.text(x, y + 26, facts[i], size=SMALL, color=QUIET, va="center")
        panel.draw(ax, x + beside, y + above)
    return fig


class Panel:
    """The maps in the window of a batch, with labels of channels above and of images beside.

    wide, high, beside: pixels, of all maps and of the labels at their left.
    """

    def __init__(self, result: Result, least: float) -> None:
        """least: the width of a number's cell, where no number needs more."""
        self.result = result
        self.texts = wording.blocks(result.batch.values, result.batch, exact=True)
        images, self.channels, self.rows, self.columns = wording.window(result.batch)
        longest = [text for image in self.texts for channel in image for row in channel for text in row]
        self.cell = max(least, room(longest, SMALL) + 9), least - 4
        self.map_wide, self.map_high = self.columns * self.cell[0], self.rows * self.cell[1]
        self.wide = self.channels * (self.map_wide + GAP) - GAP
        self.high = HEAD + images * (self.map_high + LETTER + GAP) - GAP
        self.beside = room([f"image {images}"], SMALL) + 10

    def draw(self, ax: Axes, left: float, top: float) -> None:
        """Draw it; left, top: where the maps begin."""
        short = room([f"channel {self.channels}"], SMALL) > self.map_wide + GAP - 4
        for j in range(self.channels):
            x, name = left + j * (self.map_wide + GAP), f"{'ch' if short else 'channel'} {j + 1}"
            ax.text(x, top + HEAD / 2, name, size=SMALL, color=QUIET, va="center")
        for i, image in enumerate(self.texts):
            y = top + HEAD + i * (self.map_high + LETTER + GAP)
            middle = y + LETTER + self.map_high / 2
            ax.text(left - 8, middle, f"image {i + 1}", size=SMALL, color=QUIET, ha="right", va="center")
            for j in range(self.channels):
                self._map(ax, i, j, left + j * (self.map_wide + GAP), y, image[j])

    def _map(self, ax: Axes, i: int, j: int, x: float, y: float, texts: list[list[str]]) -> None:
        w, h = self.cell
        ground = wording.owners(self.result, i, j, 0)[0]
        # One ground for letter and numbers, and lines of paper between the numbers.
        size = self.map_wide, LETTER + self.map_high
        ax.add_patch(Rectangle((x, y), *size, facecolor=set_colour(ground), linewidth=0))
        letters = wording.letters(self.result, i, j)
        ax.text(x + 5, y + LETTER / 2 + 1, letters, size=SMALL, color=INK, weight="bold", va="center")
        for r, row in enumerate(texts):
            below = y + LETTER + r * h
            for s, (k, number) in enumerate(zip(wording.owners(self.result, i, j, r), row, strict=False)):
                if k != ground:
                    ax.add_patch(Rectangle((x + s * w, below), w, h, facecolor=set_colour(k), linewidth=0))
                place = x + (s + 0.5) * w, below + 0.5 * h + 0.5
                ax.text(*place, number, size=SMALL, color=INK, ha="center", va="center")
            ax.plot([x, x + self.map_wide], [below] * 2, color=PAPER, linewidth=0.8, solid_capstyle="butt")
        for s in range(1, self.columns):
            ax.plot([x + s * w] * 2, [y + LETTER, y + LETTER + self.map_high], color=PAPER, linewidth=0.8)


def room(texts: Sequence[str], size: float) -> float:
    """Pixels that texts of so many points need, by the number of their letters."""
    return 0.62 * size * DPI / 72 * drawing.widest(texts)
