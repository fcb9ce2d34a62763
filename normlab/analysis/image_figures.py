"""Figures of images and matrices: what is misclassified and for what, filters. Arrays in, a ``Figure`` out.

Nothing here touches pyplot, a backend or other global state: a callback, a thread or a report can draw, and then call
``writer.add_figure(tag, figure)`` or ``figure.savefig(path)``.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from normlab.analysis.colours import ERRORS, FAINT, INK, MUTED, PAPER, QUIET, SIGNED
from normlab.analysis.drawing import SMALL, TEXT, Array, check, empty, figure, key, plain, widest
from normlab.analysis.numbers import signed

SIDE = 0.84  # inches: of an image of 28 pixels
LINE = 0.21  # of a side: a line of text below an image
SHARED = ["#FFFFFF", "#E3ECF5", "#BFD3E6", "#93B5D6", "#6E9BC8"]  # quiet: ink is readable on all of it


def montage(
    ax: Axes, images: Array, captions: Sequence[str], columns: int, *, frame: str = "none", **look: Any
) -> AxesImage:
    """Draw images, float or uint8 (N, H, W[, 3]), row by row as one, each with lines of text below. N > 0.

    frame: its colour around each. look: of ``Axes.imshow``.
    """
    high, side = images.shape[1:3]
    across, down = round(pitch(captions) * side), high + round((0.1 + LINE * lines(captions)) * side)
    shape = -(-len(images) // columns) * down, min(columns, len(images)) * across, *images.shape[3:]
    sheet = np.ma.masked_array(np.zeros(shape, images.dtype), mask=True)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        top, left = i // columns * down, i % columns * across + (across - side) // 2
        sheet[top : top + high, left : left + side] = image
        ax.add_patch(Rectangle((left - 0.5, top - 0.5), side, high, fill=False, edgecolor=frame))
        below = left + side / 2 - 0.5, top + high + 0.04 * side
        ax.text(*below, caption, size=SMALL, ha="center", va="top", in_layout=False)
    ax.set_axis_off()
    ax.set_anchor("NW")
    if images.ndim == 4:  # matplotlib does not leave out masked colours
        return ax.imshow(sheet.filled(255), interpolation="nearest")
    return ax.imshow(sheet, interpolation="nearest", **look)


def pitch(captions: Sequence[str]) -> float:
    """From one image of a montage to the next, in widths of an image."""
    return max(1.2, 0.09 * widest(captions))


def lines(captions: Sequence[str]) -> int:
    return 1 + max((text.count("\n") for text in captions), default=0)


def sheet_of(
    images: Array, captions: Sequence[str], columns: int, title: str, note: str = "", **look: Any
) -> tuple[Figure, AxesImage]:
    """Return a figure as large as its images need, with a note below them."""
    columns = min(columns, len(images), int(columns * 1.2 / pitch(captions)) + 1)
    each = images.shape[1] / images.shape[2] + 0.1 + LINE * lines(captions)
    width = max(SIDE * columns * pitch(captions) + 0.3, 4.4)
    height = SIDE * each * -(-len(images) // columns) + 0.6 + 0.17 * -(-len(note) // int(width * 13))
    fig = figure(title, height, width)
    key(fig, note=note)
    return fig, montage(fig.subplots(), images, captions, columns, **look)


@plain()
def gallery(
    images: Array,
    names: Sequence[tuple[str, str]],
    below: Sequence[str],
    *,
    title: str,
    note: str = "",
    columns: int = 10,
) -> Figure:
    """Draw misclassified images, each with ``true → predicted`` and further lines below it.

    images: uint8 (N, H, W), 0 is drawn white and 255 black, or in colour (N, H, W, 3); N may be 0. names: (true,
    predicted) of each. below: what else is to be said of each. Raise ValueError for other images, or where there are
    not as many names and texts.
    """
    check_images(images)
    check(len(images) == len(names) == len(below), "there must be a pair of names and a text below for each image")
    if not len(images):
        fig = figure(title, 1.6, 4.4)
        empty(ax := fig.subplots(), "No misclassified images")
        ax.set_axis_off()
        return fig
    apart = "\n" if widest(f"{true} → {predicted}" for true, predicted in names) > 13 else " "
    captions = [f"{true}{apart}→ {taken}\n{text}" for (true, taken), text in zip(names, below, strict=True)]
    fig, _ = sheet_of(images, captions, columns, title, note, cmap="gray_r", vmin=0, vmax=255)
    return fig


@plain()
def filters(weights: Array, *, title: str, columns: int = 10) -> Figure:
    """Draw the filters of a first convolution, numbered from 1, on one diverging scale that is symmetric about 0.

    weights: float (C, H, W). A weight that is not finite is drawn grey. Raise ValueError for any other shape.
    """
    check(weights.ndim == 3 and weights.size > 0, f"weights must be float (C, H, W), not {shape_of(weights)}")
    limit = float(np.abs(weights[np.isfinite(weights)]).max(initial=0)) or 1.0
    cmap = LinearSegmentedColormap.from_list("signed", SIGNED).with_extremes(over=MUTED)
    zoom = -(-28 // weights.shape[2])  # room for gaps and numbers, which are of whole pixels
    drawn = np.where(np.isfinite(weights), weights, np.inf).repeat(zoom, axis=1).repeat(zoom, axis=2)
    numbers = [f"{i + 1}" for i in range(len(weights))]
    look: dict[str, Any] = {"cmap": cmap, "vmin": -limit, "vmax": limit}
    fig, image = sheet_of(drawn, numbers, columns, title, frame=FAINT, **look)  # weights near 0 are almost white
    bar = fig.colorbar(image, ax=image.axes, ticks=[-limit, 0, limit], shrink=0.7, aspect=12, panchor=False)
    bar.set_ticklabels([signed(-limit), "0", signed(limit)])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    return fig


@plain()
def confusions(
    matrices: Mapping[str, Array], classes: Sequence[str], *, title: str, note: str = "", shares: bool = False
) -> Figure:
    """Draw a confusion matrix per label, side by side. Colour is for errors, on one scale: the diagonal is grey.

    matrices: label -> numbers of images (K, K), of one run or the mean of several; row = true class, column =
    predicted class. shares: write below each number its share of the true class in per cent, and colour by that. Cells
    of 0 are empty, and all are where there are too many classes. Raise ValueError for another shape.
    """
    k = len(classes)
    for label, matrix in matrices.items():
        check(matrix.shape == (k, k), f"{label!r}: must be ({k}, {k}), one row per class, not {shape_of(matrix)}")
    parts = {label: 100 * (m / np.maximum(m.sum(axis=1, keepdims=True), 1)) for label, m in matrices.items()}
    coloured = parts if shares else matrices
    errors = {label: np.where(np.eye(k, dtype=bool), np.nan, each) for label, each in coloured.items()}
    most = max((float(np.nanmax(each, initial=0)) for each in errors.values()), default=0) or 1.0
    cell, numbered = (0.5, 26) if shares else (0.34, 12)  # inches; the most classes with room for numbers
    across, side = min(3, max(len(matrices), 1)), max(cell * min(k, numbered), 2.0)
    rows = -(-max(len(matrices), 1) // across)
    names = 0.085 * widest(classes)
    slant: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if names > side / k else {}
    room = names * (0.75 if slant else 0)  # of names below and left of the first column
    headings = [textwrap.fill(label, int(side * 12)) for label in matrices]
    height = rows * (side + room + 0.4 + 0.2 * lines(headings)) + 0.6 + 0.2 * bool(note)
    fig = figure(title, height, max(across * (side + names + 0.2) + room + 0.4, 4.4))
    panes = fig.subplots(rows, across, squeeze=False)
    for ax, heading, (label, matrix) in zip(panes.flat, headings, matrices.items(), strict=False):
        texts = {}
        for i, j in np.argwhere(matrix) if k <= numbered else []:
            texts[i, j] = [_count(matrix[i, j])] + [_share(parts[label][i, j])] * shares
        cells(ax, errors[label], ERRORS, most, texts, TEXT if shares else 0.75 * TEXT)
        ax.set_title(heading)
        ax.set_yticks(range(k), classes)
        ax.set_xticks(range(k), classes, **slant)
    for ax in panes.flat[len(matrices) :]:
        ax.set_axis_off()
    for ax in panes[-1]:
        ax.set_xlabel("predicted")
    for ax in panes[:, 0]:
        ax.set_ylabel("true")
    key(fig, note=note)
    if slant:  # room for slanted names is found when the figure is laid out for the second time
        fig.draw_without_rendering()
    return fig


@plain()
def overlap(matrix: Array, labels: Sequence[str], *, title: str) -> Figure:
    """Draw which share of their errors two settings have in common, the darker the more.

    matrix: float (K, K), in [0, 1], the Jaccard index: errors of both over errors of either. The diagonal, and NaN of
    settings without errors, are grey. Raise ValueError if the shape is not (K, K) for the K ``labels`` or a value is
    not in [0, 1].
    """
    k = len(labels)
    check(np.shape(matrix) == (k, k) and k > 0, f"matrix must be ({k}, {k}), one row per label, not {np.shape(matrix)}")
    check(not ((matrix < 0) | (matrix > 1)).any(), "matrix must lie in [0, 1]")
    off = np.where(np.eye(k, dtype=bool), np.nan, matrix)
    names = [textwrap.fill(label, 34) for label in labels]
    long = widest(labels) > 6  # numbers stand for long names
    side = 0.52 * k + 0.3
    fig = figure(title, side + 1.3, max(side + 0.1 * widest(names) + 0.9, 4.4))
    ax = fig.subplots()
    texts = {(i, j): [f"{off[i, j]:.2f}"] for i, j in np.argwhere(np.isfinite(off))}
    cells(ax, off, SHARED, float(np.nanmax(off, initial=0.5)), texts, TEXT)
    ax.set_yticks(range(k), [f"{name}  {i + 1}" if long else name for i, name in enumerate(names)])
    ax.set_xticks(range(k), [f"{i + 1}" for i in range(k)] if long else names)
    ax.xaxis.tick_top()
    ax.tick_params(labelsize=TEXT)
    key(fig, note="errors of both over errors of either (Jaccard index)")
    return fig


def cells(
    ax: Axes, values: Array, colours: list[str], most: float, texts: Mapping[tuple[int, int], list[str]], size: float
) -> None:
    """Draw a matrix, float (K, K), by colours from 0 to ``most``, NaN in grey, with a line or two of text in cells."""
    cmap = LinearSegmentedColormap.from_list("", colours).with_extremes(bad=MUTED)
    image = ax.imshow(np.ma.masked_invalid(values), cmap, vmin=0, vmax=most)
    for (i, j), (first, *second) in texts.items():
        colour = QUIET if i == j else readable(cmap(image.norm(values[i, j])))
        look: dict[str, Any] = {"color": colour, "ha": "center", "in_layout": False}  # quicker: it lies within the axes
        ax.text(j, i + (0.06 if second else 0), first, size=size, va="bottom" if second else "center", **look)
        for line in second:
            ax.text(j, i + 0.12, line, size=0.72 * size, va="top", **look)
    edges = np.arange(len(values) + 1) - 0.5
    for rules in (ax.hlines, ax.vlines):
        rules(edges, -0.5, len(values) - 0.5, color=FAINT, linewidth=0.7, clip_on=False)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labelcolor=INK)


def readable(ground: Any) -> str:
    """Ink or paper, whichever has the more contrast on an RGB(A) ground."""
    luminance = float(np.dot([0.2126, 0.7152, 0.0722], np.asarray(ground)[:3] ** 2.2))
    return INK if (luminance + 0.05) ** 2 > 1.05 * 0.062 else PAPER  # 0.062: the luminance of INK, plus 0.05


def check_images(images: Array) -> None:
    fits = images.dtype == np.uint8 and (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3))
    check(fits, f"images must be uint8 (N, H, W) or (N, H, W, 3), not {shape_of(images)}")


def shape_of(array: Array) -> str:
    return f"{array.dtype} {array.shape}"


def _count(images: Any) -> str:
    digits = 1 if images < 9.95 else 0
    return f"{images:,}" if isinstance(images, np.integer) else f"{images:.{digits}f}"


def _share(per_cent: float) -> str:
    return "< 0.1 %" if per_cent < 0.05 else f"{per_cent:.1f} %"
