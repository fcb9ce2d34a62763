"""Which numbers share a mean and a variance: a cube of images, channels and positions for each norm."""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure

from normlab.analysis.colours import INK, MUTED, PAPER, QUIET
from normlab.analysis.drawing import MARGIN, SMALL, TEXT, TITLE, check, sheet, widest, wrap
from normlab.norms import CATALOGUE, About

__all__ = ["axes"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

GHOST = 2  # images of a ghost batch, as drawn
PANEL, ROW, COLUMNS = 236, 304, 5  # pixels of a panel across and down, panels side by side
CUBE = 158  # pixels: the height that a cube may have
# A step along images, channels and positions, in units of a cell: x to the right, y down the page. Channels run
# towards the reader, images away from them, so the nearest corner is the last channel of the first image.
STEPS = np.array([[0.80, -0.42], [0.86, 0.34], [0.0, 0.92]])


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
    """Draw, a cube a norm, the elements of an array (images, channels, positions) that share one statistic.

    The set of the nearest element has the norm's colour; heavy lines part the other sets. Below are the axes that a
    mean is taken over and the number of statistics; of a norm with several statistics the first is drawn. ``positions``
    are rows of the map drawn, for all of H·W. ``catalogue`` describes each norm; give it one more entry to draw a norm
    of your own. Raises ValueError if a norm has no entry, a size is below 1, or groups do not divide channels. After
    the idea of figure 2 of Wu & He 2018, "Group Normalization"; drawn anew, with every set shown.
    """
    names = list(names)
    missing = [name for name in names if name not in catalogue]
    check(not missing, f"no entry in the catalogue for {', '.join(missing)}")
    check(min(images, channels, positions, groups) > 0, "images, channels, positions and groups must be at least 1")
    shape = images, channels, positions
    captions = {name: _caption(catalogue[name], shape, groups) for name in names}
    headings = {name: catalogue[name].title.partition(",")[0].replace("normalization", "norm") for name in names}
    tops = [widest([name], TITLE) * 1.12 + 12 + widest([headings[name]], TEXT) for name in names]
    panel = max(PANEL, widest([line for lines in captions.values() for line in lines] + [""], TEXT) + 24, *tops, 0) + 4
    across = min(COLUMNS, max(len(names), 1))
    rows = -(-len(names) // across)
    note = (
        f"N = {images} images, C = {channels} channels, H · W positions each; G = {groups} groups, V = {GHOST} images"
    )
    width = max(2 * MARGIN + across * panel, widest([note], SMALL) + 2 * MARGIN + 8)
    legend = "coloured: one set that shares a statistic; heavy lines: where one set ends and another begins"
    key = wrap(legend, SMALL, width - 2 * MARGIN)
    high = max(rows, 1) * ROW - 20
    fig, page, top = sheet(width, high + 18 * (key.count("\n") + 1) * bool(names), title, note)
    if not names:
        page.text(width / 2, top + high / 2, "no norms", size=TITLE, color=QUIET, ha="center")
        return fig
    corners = _project(np.array([(n, c, p) for n in (0, images) for c in (0, channels) for p in (0, positions)]))
    size = np.ptp(corners, axis=0)
    cell = min(CUBE / size[1], (panel - 62) / size[0])
    for i, name in enumerate(names):
        x, y = MARGIN + i % across * panel, top + i // across * ROW
        entry = catalogue[name]
        page.text(x, y + 14, name, size=TITLE, color=entry.colour, weight="bold")
        page.text(x + widest([name], TITLE) * 1.12 + 12, y + 14, headings[name], size=TEXT, color=INK)
        start = np.array([x + 26, y + 38]) - corners.min(axis=0) * cell
        _cube(page, entry.sets(*shape, groups, GHOST), entry.colour, start, cell)
        _edges(page, shape, start, cell)
        foot = y + 38 + size[1] * cell + 44
        for line, caption in enumerate(captions[name]):
            page.text(x, foot + 19 * line, caption, size=TEXT, color=INK)
    page.text(MARGIN, top + high + 8, key, size=SMALL, color=QUIET, va="top")
    return fig


def _caption(entry: About, shape: tuple[int, int, int], groups: int) -> tuple[str, str]:
    """The axes of a norm's statistics, and how many there are, in words."""
    if not entry.axes:
        return f"y = {entry.formula}", "no statistics"
    found = [entry.sets(*shape, groups, GHOST, index) for index in range(len(entry.axes))]
    many = sum(len(np.unique(sets)) for sets in found)
    counted = entry.counts if entry.counts == f"{many}" else f"{entry.counts} = {many}"
    return f"over {entry.over}", f"{counted} {entry.statistic[many != 1]}"


def _project(points: npt.NDArray[np.generic]) -> Floats:
    """Places on the page, x and y (down), in cells, of points (…, 3) along images, channels and positions."""
    return np.asarray(points @ STEPS, dtype=np.float64)


def _cube(page: Axes, sets: Ints, colour: str, start: Floats, cell: float) -> None:
    """Draw the three sides that are seen of a cube of ``sets`` (N, C, P): a tile an element, a line where sets part."""
    n, c, p = sets.shape
    # Each side: its elements, where it starts, and the two directions of its plane.
    sides = [
        (sets[0], (0, 0, 0), (1, 2)),  # the first image: channels and positions
        (sets[:, -1], (0, c, 0), (0, 2)),  # the last channel: images and positions
        (sets[:, :, 0], (0, 0, 0), (0, 1)),  # the first position: images and channels
    ]
    nearest = sets[0, -1, 0]
    tiles: list[Floats] = []
    fills, tints = [], []
    fine: list[Floats] = []
    heavy: list[Floats] = []
    for found, first, plane in sides:
        one, other = np.eye(3)[list(plane)]
        for i, j in np.ndindex(*found.shape):
            origin = np.array(first) + i * one + j * other
            tiles.append(_place([origin, origin + one, origin + one + other, origin + other], start, cell))
            fills.append(colour if found[i, j] == nearest >= 0 else PAPER if nearest >= 0 else MUTED)
            for beside, near in (((i + 1, j), one), ((i, j + 1), other)):
                if beside[0] < found.shape[0] and beside[1] < found.shape[1]:
                    line = _place([origin + near, origin + one + other], start, cell)
                    if found[i, j] != found[beside]:
                        heavy.append(line)
                    else:
                        fine.append(line)
                        tints.append(PAPER if found[i, j] == nearest >= 0 else QUIET)
    page.add_collection(PolyCollection(tiles, facecolors=fills, edgecolors="none"), autolim=False)
    page.add_collection(LineCollection(fine, colors=tints, linewidths=0.5, alpha=0.6), autolim=False)
    page.add_collection(LineCollection(heavy, colors=[INK], linewidths=1.5, capstyle="round"), autolim=False)
    rims = [[(0, 0, 0), (0, c, 0), (0, c, p), (0, 0, p), (0, 0, 0), (n, 0, 0), (n, c, 0), (n, c, p), (0, c, p)]]
    rims.append([(0, c, 0), (n, c, 0)])
    outline = [_place([np.array(point, dtype=float) for point in rim], start, cell) for rim in rims]
    page.add_collection(LineCollection(outline, colors=[INK], linewidths=1.5, joinstyle="round"), autolim=False)


def _edges(page: Axes, shape: tuple[int, int, int], start: Floats, cell: float) -> None:
    """Name the three directions along the edges of the cube."""
    n, c, p = shape
    for text, middle, (dx, dy), side in [
        ("N", (n / 2, c, p), (7, 9), "left"),
        ("C", (0, c / 2, p), (-6, 13), "right"),
        ("H · W", (0, 0, p / 2), (-6, 0), "right"),
    ]:
        x, y = _place([np.array(middle, dtype=float)], start, cell)[0]
        turn = 90 if text == "H · W" else 0
        page.text(x + dx, y + dy, text, size=SMALL, color=QUIET, ha=side, va="center", rotation=turn)


def _place(points: Iterable[Floats], start: Floats, cell: float) -> Floats:
    return start + cell * _project(np.array(list(points)))
