"""Figures of what a study's settings get wrong: arrays in and a matplotlib ``Figure`` out, laid out by matplotlib."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

from normlab.analysis.colours import ERRORS, FAINT, INK, MUTED, PAPER, QUIET
from normlab.analysis.numbers import percent

__all__ = ["confusions", "overlap", "persistent_gallery", "variance_shares"]

Array = npt.NDArray[Any]

TITLE, TEXT, SMALL = 13.0, 10.0, 8.5  # type sizes, points
SHARED = ["#FFFFFF", "#E3ECF5", "#BFD3E6", "#93B5D6", "#6E9BC8"]  # quiet: ink is readable on all of it
PARTS = [("seed", "#1F4E82", ""), ("test set", "#9DB9D6", ""), ("interaction of both", "#F4F4F4", "////")]
NUMBERED = 12  # classes with which a matrix still has room for its numbers


def persistent_gallery(
    images: Array,
    names: Sequence[tuple[str, str]],
    below: Sequence[str],
    *,
    title: str,
    note: str = "",
    columns: int = 10,
) -> Figure:
    """Draw images with ``true → predicted`` above each and a few short lines below.

    images: uint8 (M, H, W), 0 is drawn white and 255 black, or in colour (M, H, W, 3); names: (true, predicted) of
    each; below: what else is to be said of it. Raises ValueError for other images or another number of names.
    """
    shaped = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    if not (shaped and images.dtype == np.uint8):
        raise ValueError(f"images must be uint8 (M, H, W) or (M, H, W, 3), not {images.dtype} {images.shape}")
    if not len(images) == len(names) == len(below):
        raise ValueError("there must be a pair of names and a text below for each image")
    if not len(images):
        fig = _figure(4.4, 1.6, title)
        fig.text(0.5, 0.4, "No misclassified images", size=TITLE, color=QUIET, ha="center", va="center")
        return fig
    longest = max(len(line) for pair in names for line in pair)
    captions = [f"{true} → {pred}" if longest < 4 else f"{true}\n→ {pred}" for true, pred in names]
    wide = max(1.05, 0.075 * max(len(line) for text in [*captions, *below] for line in text.split("\n")) + 0.15)
    across = min(columns, max(len(images), 4), int(11.4 / wide))
    rows = -(-len(images) // across)
    lines = max(text.count("\n") + 1 for text in captions) + max(text.count("\n") + 1 for text in below)
    fig = _figure(across * wide + 0.3, rows * (1.0 + 0.18 * lines) + 0.5, title, note)
    grid = fig.subplots(rows, across, squeeze=False).flat
    for ax, image, above, text in zip(grid, images, captions, below, strict=False):
        ax.imshow(image, "gray_r", vmin=0, vmax=255, interpolation="none")
        ax.set_title(above, size=TEXT, color=INK, pad=3)
        ax.set_xlabel(text, size=SMALL, color=QUIET, labelpad=3)
    for at, ax in enumerate(fig.axes):
        _bare(ax)
        if at >= len(images):
            ax.set_visible(False)
    return fig


def confusions(errors: Mapping[str, Array], classes: Sequence[str], *, title: str, note: str = "") -> Figure:
    """Draw a confusion matrix per setting, side by side on one scale, without the diagonal.

    errors: label -> float (K, K), how many images of a true class (row) a run takes for another (column), for the K
    ``classes``. Raises ValueError for another shape.
    """
    k = len(classes)
    for label, matrix in errors.items():
        if matrix.shape != (k, k):
            raise ValueError(f"{label!r}: errors must be ({k}, {k}), one row per class, not {matrix.shape}")
    off = {label: np.where(np.eye(k, dtype=bool), np.nan, matrix) for label, matrix in errors.items()}
    most = max((float(np.nanmax(matrix, initial=0.0)) for matrix in off.values()), default=0.0) or 1.0
    across = min(3, len(off))
    rows = -(-len(off) // across)
    side = 3.7 if across == 3 else 4.6
    longest = max(map(len, classes), default=0)
    below = 0.09 * longest if longest > 3 else 0.0  # names that stand upright
    fig = _figure(across * side + 0.5, rows * (side + below - 0.1) + 0.6, title, note)
    grid = fig.subplots(rows, across, squeeze=False)
    cmap = LinearSegmentedColormap.from_list("errors", ERRORS).with_extremes(bad=MUTED)
    scale = Normalize(0, most)
    for ax, (label, matrix) in zip(grid.flat, off.items(), strict=False):
        ax.imshow(np.ma.masked_invalid(matrix), cmap, norm=scale)
        ax.grid(visible=False)
        ax.set_title(textwrap.fill(label, 44), size=TEXT, color=INK, loc="left")
        for i, j in zip(*np.nonzero(np.nan_to_num(matrix)), strict=True):
            if k <= NUMBERED:
                colour = PAPER if matrix[i, j] > 0.6 * most else INK
                text = f"{matrix[i, j]:.1f}" if matrix[i, j] < 9.95 else f"{matrix[i, j]:.0f}"
                ax.text(j, i, text, size=6.5, color=colour, ha="center", va="center")
        ax.set_xticks(range(k), classes, size=SMALL, rotation=90 if below else 0)
        ax.set_yticks(range(k), classes, size=SMALL)
        _quiet(ax)
    for ax in grid.flat[len(off) :]:
        ax.set_visible(False)
    for ax in grid[-1]:
        ax.set_xlabel("predicted", size=SMALL, color=QUIET)
    for ax in grid[:, 0]:
        ax.set_ylabel("true", size=SMALL, color=QUIET)
    return fig


def overlap(matrix: Array, labels: Sequence[str], *, title: str) -> Figure:
    """Draw which share of their errors two settings have in common, the darker the more; the diagonal is grey.

    matrix: float (K, K), in [0, 1], the Jaccard index: errors of both over errors of either. NaN, for settings without
    errors, stays empty. Raises ValueError if the shape is not (K, K) for the K ``labels`` or a value is not in [0, 1].
    """
    k = len(labels)
    if np.shape(matrix) != (k, k) or not k:
        raise ValueError(f"matrix must be ({k}, {k}), one row per label, not {np.shape(matrix)}")
    shares = np.array(matrix, dtype=float)
    if ((shares < 0) | (shares > 1)).any():
        raise ValueError("matrix must lie in [0, 1]")
    names = [textwrap.fill(label, 34) for label in labels]
    long = max(map(len, labels)) > 6  # numbers stand for long names
    side = 0.52 * k + 0.3
    fig = _figure(side + 0.1 * max(len(line) for name in names for line in name.split("\n")) + 0.9, side + 1.1, title)
    ax = fig.subplots()
    cmap = LinearSegmentedColormap.from_list("shared", SHARED).with_extremes(bad=PAPER)
    off = np.where(np.eye(k, dtype=bool), np.nan, shares)
    ax.imshow(np.ma.masked_invalid(off), cmap, vmin=0, vmax=np.nanmax(off, initial=0.5))
    ax.grid(visible=False)
    for i in range(k):
        ax.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 1, color=MUTED, linewidth=0))
    for i, j in zip(*np.nonzero(np.isfinite(off)), strict=True):
        ax.text(j, i, f"{off[i, j]:.2f}", size=TEXT, color=INK, ha="center", va="center")
    ax.set_yticks(range(k), [f"{name}  {i + 1}" if long else name for i, name in enumerate(names)], size=TEXT)
    ax.set_xticks(range(k), [f"{i + 1}" for i in range(k)] if long else names, size=TEXT)
    ax.xaxis.tick_top()
    _quiet(ax)
    ax.tick_params(labelcolor=INK)
    ax.set_xlabel("errors of both over errors of either (Jaccard index)", size=SMALL, color=QUIET)
    return fig


def variance_shares(shares: Mapping[str, tuple[float, float, float]], *, title: str) -> Figure:
    """Draw, one bar per setting, how much of a variance comes from the seed, the test set and the interaction of both.

    shares: label -> (seed, test_set, interaction), each in [0, 1] and together 1; any NaN leaves the row empty. Raises
    ValueError if shares are negative or do not add up to 1.
    """
    for label, parts in shares.items():
        if len(parts) != 3:
            raise ValueError(f"{label!r}: shares must be (seed, test_set, interaction), not {len(parts)}")
        if np.isfinite(parts).all() and (min(parts) < 0 or abs(sum(parts) - 1) > 0.005):
            raise ValueError(f"{label!r}: shares must be at least 0 and add up to 1, not {parts}")
    names = [textwrap.fill(label, 40) for label in shares]
    fig = _figure(8.0, 0.42 * max(len(names), 2) + 1.25, title)
    ax = fig.subplots()
    for row, parts in enumerate(shares.values()):
        if not np.isfinite(parts).all():
            ax.text(1, row, "no values", size=TEXT, color=QUIET, va="center")
            continue
        for (_, colour, hatch), share, left in zip(PARTS, parts, np.cumsum([0, *parts]), strict=False):
            edge = FAINT if hatch else PAPER
            ax.barh(row, 100 * share, 0.62, 100 * left, color=colour, hatch=hatch, edgecolor=edge, linewidth=0.8)
            if share >= 0.06:
                text = ax.text(100 * left + 50 * share, row, percent(share), size=TEXT, ha="center", va="center")
                text.set_color(PAPER if colour == PARTS[0][1] else INK)
                if hatch:
                    text.set_bbox({"facecolor": colour, "edgecolor": "none", "pad": 1.5})
    ax.set(xlim=(0, 100), ylim=(max(len(names), 2) - 0.5, -0.5))
    ax.set_yticks(range(len(names)), names, size=TEXT)
    ax.set_xlabel("share of the variance, %", size=TEXT, color=QUIET)
    _quiet(ax)
    ax.tick_params(axis="y", labelcolor=INK)
    keys = [Rectangle((0, 0), 1, 1, facecolor=colour, hatch=hatch, edgecolor=FAINT) for _, colour, hatch in PARTS]
    fig.legend(keys, [name for name, *_ in PARTS], loc="outside lower left", ncols=3, frameon=False, fontsize=SMALL)
    return fig


def _figure(width: float, height: float, title: str, note: str = "") -> Figure:
    """An empty figure of so many inches, its title at the upper left and a note below it."""
    width = max(width, 4.4)
    title, note = textwrap.fill(title, int(width * 10)), textwrap.fill(note, int(width * 15))
    height += 0.22 * title.count("\n") + (0.17 * (note.count("\n") + 1) if note else 0)
    fig = Figure((width, height), dpi=100, facecolor=PAPER, layout=ConstrainedLayoutEngine(w_pad=0.12, hspace=0.06))
    fig.suptitle(title, x=0.012, ha="left", size=TITLE, color=INK)
    if note:
        fig.supxlabel(note, x=0.012, ha="left", size=SMALL, color=QUIET)
    return fig


def _quiet(ax: Axes) -> None:
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labelcolor=QUIET)


def _bare(ax: Axes) -> None:
    _quiet(ax)
    ax.set_xticks([])
    ax.set_yticks([])
