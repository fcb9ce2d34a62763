"""Which numbers share a mean and a variance: a cube of images, channels and positions for each norm."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure

from normlab.analysis.colours import INK, MUTED, PAPER, QUIET, norm_colour
from normlab.analysis.drawing import MARGIN, SMALL, TEXT, TITLE, check, sheet, widest, wrap

__all__ = ["SHARING", "Sharing", "axes"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Sets = Callable[[int, int, int, int], Ints]

PANEL, ROW, COLUMNS = 236, 304, 5  # pixels of a panel across and down, panels side by side
CUBE = 158  # pixels: the height that a cube may have
# A step along images, channels and positions, in units of a cell: x to the right, y down the page. Channels run
# towards the reader, images away from them, so the nearest corner is the last channel of the first image.
STEPS = np.array([[0.80, -0.42], [0.86, 0.34], [0.0, 0.92]])


@dataclass(frozen=True)
class Sharing:
    """How a norm divides an array (N, C, H·W) into sets with one statistic each.

    Attributes:
        title: the norm's name in words. over: what a mean is taken over, in words.
        count: how many statistics, as a formula in N, C, G and H · W; empty where there are none.
        kind: what a statistic is, and its plural.
        sets: (N, C, P, G) -> int (N, C, P), the number of the set that each element belongs to, counted from 0; -1
            throughout where a norm shares nothing.
    """

    title: str
    over: str
    count: str
    sets: Sets
    kind: tuple[str, str] = ("mean and variance", "means and variances")


def _nothing(n: int, c: int, p: int, _g: int) -> Ints:
    return np.full((n, c, p), -1)


def _batch(n: int, c: int, p: int, _g: int) -> Ints:
    return np.broadcast_to(np.arange(c)[None, :, None], (n, c, p))


def _ghost(n: int, c: int, p: int, g: int) -> Ints:
    """Two images a ghost batch."""
    return _layer(n, c, p, g) // 2 * c + np.arange(c)[None, :, None]


def _layer(n: int, c: int, p: int, _g: int) -> Ints:
    return np.broadcast_to(np.arange(n)[:, None, None], (n, c, p))


def _group(n: int, c: int, p: int, g: int) -> Ints:
    check(g > 0 and c % g == 0, f"groups={g} does not divide {c} channels")
    return _layer(n, c, p, g) * g + np.arange(c)[None, :, None] // (c // g)


def _instance(n: int, c: int, p: int, g: int) -> Ints:
    return _layer(n, c, p, g) * c + np.arange(c)[None, :, None]


def _pixel(n: int, c: int, p: int, g: int) -> Ints:
    return _layer(n, c, p, g) * p + np.arange(p)[None, None, :]


MEAN_SQUARE = "mean square", "mean squares"

# A norm that joins the registry joins here; a test compares each entry with what the layer itself depends on.
SHARING: dict[str, Sharing] = {
    "none": Sharing("no normalization", "nothing: y = x", "", _nothing),
    "bn": Sharing("batch norm", "N, H, W of one channel", "C", _batch),
    "gbn": Sharing("ghost batch norm", "2 images, H, W of a channel", "N / 2 · C", _ghost),
    "brn": Sharing("batch renorm", "N, H, W of one channel", "C", _batch),
    "ln": Sharing("layer norm", "C, H, W of one image", "N", _layer),
    "ln_elem": Sharing("γ, β by position", "C, H, W of one image", "N", _layer),
    "ln2d": Sharing("layer norm by pixel", "C of one pixel", "N · H · W", _pixel),
    "gn": Sharing("group norm", "C / G, H, W of one image", "N · G", _group),
    "in": Sharing("instance norm", "H, W of one map", "N · C", _instance),
    "rms": Sharing("root mean square", "C, H, W of one image", "N", _layer, MEAN_SQUARE),
    "frn": Sharing("filter response", "H, W of one map", "N · C", _instance, MEAN_SQUARE),
    "dyt": Sharing("dynamic tanh", "nothing: tanh of each x", "", _nothing),
}


def axes(
    names: Iterable[str] = ("bn", "ln", "gn", "in"),
    *,
    images: int = 4,
    channels: int = 6,
    positions: int = 4,
    groups: int = 2,
    sharing: Mapping[str, Sharing] = SHARING,
    title: str = "Which numbers share a mean and a variance",
) -> Figure:
    """Draw, a cube a norm, the elements of an array (images, channels, positions) that share one statistic.

    The set of the nearest element has the norm's colour; heavy lines part the other sets. Below stand what a mean is
    taken over and how many there are. ``positions`` are rows of the map drawn, for all of H·W. ``sharing`` tells how
    each norm divides the array; give it an entry more to draw a norm of your own. Raises ValueError if a norm has no
    entry, a size is below 1, or groups do not divide channels. After the idea of figure 2 of Wu & He 2018, "Group
    Normalization"; drawn anew, with every set shown.
    """
    names = list(names)
    missing = [name for name in names if name not in sharing]
    check(not missing, f"no entry in sharing for {', '.join(missing)}")
    check(min(images, channels, positions, groups) > 0, "images, channels, positions and groups must be at least 1")
    shape = images, channels, positions
    divided = {name: _divided(name, sharing[name], shape, groups) for name in names}
    counts = {name: _counted(sharing[name], found) for name, found in divided.items()}
    panel = max(PANEL, widest([*counts.values(), ""], TEXT) + 24)
    across = min(COLUMNS, max(len(names), 1))
    rows = -(-len(names) // across)
    note = f"N = {images} images, C = {channels} channels, H · W positions each; G = {groups} groups"
    width = max(2 * MARGIN + across * panel, widest([note], SMALL) + 2 * MARGIN + 8)
    said = "coloured: one set that shares a statistic; heavy lines: where one set ends and another begins"
    key = wrap(said, SMALL, width - 2 * MARGIN)
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
        entry, found, told = sharing[name], divided[name], counts[name]
        page.text(x, y + 14, name, size=TITLE, color=norm_colour(name), weight="bold")
        page.text(x + widest([name], TITLE) * 1.12 + 12, y + 14, entry.title, size=TEXT, color=INK)
        start = np.array([x + 26, y + 38]) - corners.min(axis=0) * cell
        _cube(page, found, norm_colour(name), start, cell)
        _edges(page, shape, start, cell)
        foot = y + 38 + size[1] * cell + 44
        page.text(x, foot, f"over {entry.over}" if entry.count else entry.over, size=TEXT, color=INK)
        page.text(x, foot + 19, told, size=TEXT, color=INK)
    page.text(MARGIN, top + high + 8, key, size=SMALL, color=QUIET, va="top")
    return fig


def _divided(name: str, entry: Sharing, shape: tuple[int, int, int], groups: int) -> Ints:
    found = np.asarray(entry.sets(*shape, groups))
    check(found.shape == shape, f"{name}: sets must be {shape}, not {found.shape}")
    return found


def _counted(entry: Sharing, found: Ints) -> str:
    """How many statistics there are, in words."""
    many = len(np.unique(found[found >= 0]))
    counted = f"{entry.count} = {many}" if entry.count != f"{many}" else entry.count
    return f"{counted} {entry.kind[many != 1]}" if many else "no statistics"


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
