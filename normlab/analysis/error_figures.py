"""Figures of what a study's settings get wrong: arrays in and a matplotlib ``Figure`` out, as in ``figures``."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter

from normlab.analysis.colours import FAINT, INK, MUTED, PAPER
from normlab.analysis.drawing import (
    MARGIN,
    SMALL,
    TEXT,
    Array,
    check,
    check_images,
    readable,
    shape_of,
    sheet,
    tiles,
    widest,
)
from normlab.analysis.numbers import percent
from normlab.analysis.panels import (
    folded,
)
from normlab.analysis.sheets import LABEL, panel_at, sheet_of_rows

__all__ = ["overlap", "persistent_gallery", "variance_shares"]

SHARED = ["#FFFFFF", "#E3ECF5", "#BFD3E6", "#93B5D6", "#6E9BC8"]  # quiet: ink is readable on all of it
PARTS = [("seed", "#1F4E82", ""), ("test set", "#9DB9D6", ""), ("interaction of both", "#F4F4F4", "////")]


def persistent_gallery(
    images: Array,
    true: Array,
    pred: Array,
    count: Array,
    seeds: int,
    *,
    classes: Sequence[str],
    title: str,
    columns: int = 10,
    unit: str = "seeds",
) -> Figure:
    """Draw the images that one setting misclassifies, those that most of its seeds misclassify first.

    images: uint8 (M, H, W), 0 is drawn white and 255 black, or in colour (M, H, W, 3); true, pred: int (M,), indices
    into ``classes``, pred the most frequent wrong prediction; count: int (M,), how many of ``seeds`` misclassify the
    image, at least 1. Equal counts keep their order. M may be 0. unit: what is counted, such as "runs" for those
    of several settings. Raises ValueError if a shape, a type or a value does not fit.
    """
    m = len(images)
    check_images(images)
    for name, array, least, most in [
        ("true", true, 0, len(classes) - 1),
        ("pred", pred, 0, len(classes) - 1),
        ("count", count, 1, seeds),
    ]:
        check(array.shape == (m,) and array.dtype.kind in "iu", f"{name} must be int ({m},), not {shape_of(array)}")
        check(not m or least <= array.min() <= array.max() <= most, f"{name} must lie in {least} to {most}")
    check(columns > 0, f"columns must be at least 1, not {columns}")
    order = np.argsort(-count.astype(int), kind="stable")
    names = [(classes[true[i]], classes[pred[i]]) for i in order]
    below = [f"{count[i]} of {seeds} {unit}" for i in order]
    note = f"true → most frequent wrong prediction, and how many {unit} misclassify the image" if m else ""
    return tiles(images[order], names, below, title=title, note=note, columns=columns)


def overlap(matrix: Array, labels: Sequence[str], *, title: str) -> Figure:
    """Draw which share of their errors two settings have in common, the darker the more; the diagonal is grey.

    matrix: float (K, K), in [0, 1], the Jaccard index: errors of both over errors of either. NaN, for settings without
    errors, stays empty. Raises ValueError if the shape is not (K, K) for the K ``labels`` or a value is not in [0, 1].
    """
    k = len(labels)
    check(np.shape(matrix) == (k, k) and k > 0, f"matrix must be ({k}, {k}), one row per label, not {np.shape(matrix)}")
    shares = np.array(matrix, dtype=float)
    check(not ((shares < 0) | (shares > 1)).any(), "matrix must lie in [0, 1]")
    names, cell = [folded(label, LABEL) for label in labels], 46
    plain = widest(names, TEXT) < cell - 8 and all("\n" not in name for name in names)
    left = MARGIN + widest(names, TEXT) + (14 if plain else 40)  # long names: numbers stand for them
    note = "errors of both settings over errors of either (Jaccard index)"
    width = max(left + cell * k + MARGIN, widest([note], SMALL) + 2 * MARGIN + 8, 440)
    fig, _, top = sheet(width, cell * k + 26, title, note)
    ax = panel_at(fig, left, top + 26, cell * k, cell * k)
    cmap = LinearSegmentedColormap.from_list("shared", SHARED).with_extremes(bad=PAPER)
    off = np.where(np.eye(k, dtype=bool), np.nan, shares)
    ax.imshow(np.ma.masked_invalid(off), cmap, vmin=0, vmax=np.nanmax(off, initial=0.5), aspect="auto")
    for i in range(k):
        ax.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 1, color=MUTED, linewidth=0))
    for i, j in zip(*np.nonzero(np.isfinite(off)), strict=True):
        ax.text(j, i, f"{off[i, j]:.2f}", size=TEXT, color=INK, ha="center", va="center")
    for edge in np.arange(k + 1) - 0.5:
        ax.plot([edge, edge], [-0.5, k - 0.5], color=PAPER, linewidth=1.5)
        ax.plot([-0.5, k - 0.5], [edge, edge], color=PAPER, linewidth=1.5)
    ax.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5))
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labelsize=TEXT, labelcolor=INK, labeltop=True, labelbottom=False)
    ax.set_yticks(range(k), names)
    ax.set_xticks(range(k), names if plain else [f"{i + 1}" for i in range(k)])
    if not plain:
        ax.tick_params(axis="y", pad=26)
        for i in range(k):
            ax.text(-0.62, i, f"{i + 1}", size=TEXT, color=INK, ha="right", va="center")
    return fig


def variance_shares(shares: Mapping[str, tuple[float, float, float]], *, title: str) -> Figure:
    """Draw, a bar a setting, how much of a variance comes from the seed, the test set and the interaction of both.

    shares: label -> (seed, test_set, interaction), each in [0, 1] and together 1; any NaN leaves the row empty. Parts
    too narrow for their number have it at the right. Raises ValueError if shares are negative or do not add up to 1.
    """
    beside = []
    for label, parts in shares.items():
        check(len(parts) == 3, f"{label!r}: shares must be (seed, test_set, interaction), not {len(parts)}")
        bad = np.isfinite(parts).all() and (min(parts) < 0 or abs(sum(parts) - 1) > 0.005)
        check(not bad, f"{label!r}: shares must be at least 0 and add up to 1, not {parts}")
        narrow = [(part, share) for (part, *_), share in zip(PARTS, parts, strict=True) if share < 0.09]
        said = ", ".join(f"{part.split()[0]} {percent(share)}" for part, share in narrow)
        beside.append(said.replace("test", "test set") if np.isfinite(parts).all() else "no values")
    keys = [{"patch": colour, "hatch": hatch, "text": part} for part, colour, hatch in PARTS]
    fig, ax = sheet_of_rows(shares, title, "share of the variance, %", beside, 38, keys if shares else [], "")
    ax.set_xlim(0, 100)
    ax.xaxis.set_major_locator(FixedLocator([0, 25, 50, 75, 100]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    for y, parts in enumerate(shares.values()):
        left = 0.0
        for (_, colour, hatch), share in zip(PARTS, parts if np.isfinite(parts).all() else (), strict=False):
            bar = Rectangle((left, y - 0.3), 100 * share, 0.6, facecolor=colour, hatch=hatch, linewidth=0.8)
            bar.set(edgecolor=FAINT if hatch else PAPER)
            ax.add_patch(bar)
            if share >= 0.09:
                text = ax.text(left + 50 * share, y, percent(share), size=TEXT, ha="center", va="center")
                text.set(color=readable(bar.get_facecolor()))
                if hatch:
                    text.set_bbox({"facecolor": colour, "edgecolor": "none", "pad": 1.5})
            left += 100 * share
    return fig
