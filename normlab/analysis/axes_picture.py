"""Which numbers share a mean and a variance: a cube of images, channels and positions for each norm."""

import textwrap
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure

from normlab.analysis.colours import INK, MUTED, PAPER, QUIET
from normlab.analysis.drawing import SMALL, TITLE, check, empty, figure, key, plain
from normlab.norms import CATALOGUE, About

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

GHOST = 2  # images of a ghost batch, as drawn
COLUMNS = 4  # cubes side by side
# A step along images, channels and positions, in units of a cell: x to the right, y down the page. Channels run
# towards the reader, images away from them, so the nearest corner is the last channel of the first image.
STEPS = np.array([[0.80, -0.42], [0.86, 0.34], [0.0, 0.92]])


@plain()
def axes(
    names: Iterable[str] = ("bn", "ln", "gn", "in"),
    *,
    images: int = 4,
    channels: int = 6,
    positions: int = 4,
    groups: int = 2,
    catalogue: Mapping[str, About] = CATALOGUE,
    title: str = "Which numbers share a mean and a variance",
) -> Figure:
    """Draw, one cube per norm, the elements of an array (images, channels, positions) that share one statistic.

    The set of the nearest element has the norm's colour; heavy lines part the other sets. Below are the axes that a
    mean is taken over and the number of statistics; of a norm with several statistics the first is drawn. ``positions``
    are rows of the map drawn, for all of H·W. ``catalogue`` describes each norm; give it one more entry to draw a norm
    of your own. Raise ValueError if a norm has no entry, a size is below 1, or groups do not divide channels. After
    the idea of figure 2 of Wu & He 2018, "Group Normalization"; drawn anew, with every set shown.
    """
    names = list(names)
    missing = [name for name in names if name not in catalogue]
    check(not missing, f"no entry in the catalogue for {', '.join(missing)}")
    check(min(images, channels, positions, groups) > 0, "images, channels, positions and groups must be at least 1")
    shape = images, channels, positions
    across = min(COLUMNS, max(len(names), 1))
    rows = -(-max(len(names), 1) // across)
    fig = figure(title, 2.9 * rows + 1.0, max(2.45 * across, 5.0))
    panes = fig.subplots(rows, across, squeeze=False)
    for ax in panes.flat:
        ax.set_axis_off()
    for ax, name in zip(panes.flat, names, strict=False):
        entry = catalogue[name]
        ax.set_title(name, size=TITLE, color=entry.colour, weight="bold")
        cube(ax, entry.sets(*shape, groups, GHOST), entry.colour)
        lines = "\n".join(textwrap.fill(line, 34) for line in (entry.short, *_caption(entry, shape, groups)))
        ax.text(0, -0.04, lines, va="top", linespacing=1.35, transform=ax.transAxes)
    if not names:
        empty(panes[0, 0], "no norms")
    used = set("".join("".join(catalogue[name].axes) for name in names))
    note = f"N = {images} images, C = {channels} channels, H · W positions each"
    note += f", G = {groups} groups" * ("G" in used) + f", ghost batches of V = {GHOST} images" * ("V" in used)
    note += ". Coloured: one set that shares a statistic; heavy lines: where one set ends and another begins."
    key(fig, note=note if names else "")
    return fig


def _caption(entry: About, shape: tuple[int, int, int], groups: int) -> tuple[str, str]:
    """The axes of a norm's statistics, and how many there are, in words."""
    if not entry.axes:
        return f"y = {entry.formula}", "no statistics"
    found = [entry.sets(*shape, groups, GHOST, index) for index in range(len(entry.axes))]
    many = sum(len(np.unique(sets)) for sets in found)
    counted = entry.counts if entry.counts == f"{many}" else f"{entry.counts} = {many}"
    return f"over {entry.over}", f"{counted} {entry.statistic[many != 1]}"


def cube(ax: Axes, sets: Ints, colour: str) -> None:
    """Draw the three sides that are seen of a cube of ``sets`` (N, C, P): a tile per element, a line where sets part.

    The set of the nearest element has the colour.
    """
    n, c, p = sets.shape
    nearest = sets[0, -1, 0]
    tiles: list[Floats] = []
    lines: dict[str, list[Floats]] = {INK: [], PAPER: [], QUIET: []}  # between sets, within the coloured one, others
    fills = []
    for found, first, plane in [
        (sets[0], (0, 0, 0), (1, 2)),  # the first image: channels and positions
        (sets[:, -1], (0, c, 0), (0, 2)),  # the last channel: images and positions
        (sets[:, :, 0], (0, 0, 0), (0, 1)),  # the first position: images and channels
    ]:
        one, other = np.eye(3)[list(plane)]
        for i, j in np.ndindex(*found.shape):
            origin, inside = np.array(first) + i * one + j * other, found[i, j] == nearest >= 0
            tiles.append(_place([origin, origin + one, origin + one + other, origin + other]))
            fills.append(colour if inside else PAPER if nearest >= 0 else MUTED)
            for beside, near in ((found[i + 1 :, j], one), (found[i, j + 1 :], other)):
                if beside.size:
                    kind = INK if found[i, j] != beside[0] else PAPER if inside else QUIET
                    lines[kind].append(_place([origin + near, origin + one + other]))
    rims = [
        [(0, 0, 0), (0, c, 0), (0, c, p), (0, 0, p), (0, 0, 0), (n, 0, 0), (n, c, 0), (n, c, p), (0, c, p)],
        [(0, c, 0), (n, c, 0)],
    ]
    outline = [_place(np.array(rim, dtype=float)) for rim in rims]
    ax.add_collection(PolyCollection(tiles, facecolors=fills, edgecolors="none"))
    for kind in (PAPER, QUIET):
        ax.add_collection(LineCollection(lines[kind], colors=[kind], linewidths=0.5, alpha=0.6))
    ax.add_collection(LineCollection([*lines[INK], *outline], colors=[INK], linewidths=1.5, capstyle="round"))
    for text, middle, (dx, dy), side in [
        ("N", (n / 2, c, p), (0.25, 0.35), "left"),
        ("C", (0, c / 2, p), (-0.2, 0.5), "right"),
        ("H · W", (0, 0, p / 2), (-0.25, 0), "right"),
    ]:
        [(x, y)] = _place([np.array(middle, dtype=float)])
        turn = 90 if text == "H · W" else 0
        ax.text(x + dx, y + dy, text, rotation=turn, size=SMALL, color=QUIET, ha=side, va="center")
    edge = np.concatenate(outline)
    ax.set_xlim(edge[:, 0].min() - 0.9, edge[:, 0].max() + 0.1)
    ax.set_ylim(edge[:, 1].max() + 0.3, edge[:, 1].min() - 0.1)
    ax.set(aspect="equal", anchor="W")


def _place(points: Iterable[npt.NDArray[np.generic]]) -> Floats:
    """Places on the page, x and y (down), in cells, of points (…, 3) along images, channels and positions."""
    return np.asarray(np.array(list(points)) @ STEPS, dtype=np.float64)
