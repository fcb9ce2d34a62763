"""Pictures of one network for TensorBoard and the report: misclassified images, confusion, filters. Arrays in, a
``Figure`` out, on a white ground of its own.

Nothing here touches pyplot, a backend or any other global state, so a figure can be made in a callback, a thread or a
report alike, and then given to ``writer.add_figure(tag, figure)`` or saved with ``figure.savefig(path)``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from normlab.analysis.colours import ERRORS, FAINT, INK, MUTED, PAPER, QUIET, SIGNED
from normlab.analysis.drawing import SMALL, TEXT, Array, check, empty, figure, plain, widest
from normlab.analysis.numbers import signed

__all__ = ["confusion", "filters", "gallery", "montage", "readable", "tiles"]


def montage(
    ax: Axes, images: Array, captions: Sequence[str], columns: int, pitch: float = 1.2, **look: Any
) -> AxesImage:
    """Draw images, float or uint8 (N, H, W[, 3]), row by row as one, each with lines of text below.

    pitch: from one image to the next, in widths of an image, so that captions have room. look: of ``Axes.imshow``.
    """
    side, lines = images.shape[2], 1 + max((text.count("\n") for text in captions), default=0)
    wide, high = round(pitch * side), images.shape[1] + round((0.1 + 0.21 * lines) * side)
    rows = -(-len(images) // columns)
    shape = rows * high, min(columns, len(images)) * wide, *images.shape[3:]
    sheet = np.ma.masked_array(np.zeros(shape, images.dtype), mask=True)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        top, left = i // columns * high, i % columns * wide + (wide - side) // 2
        sheet[top : top + len(image), left : left + side] = image
        ax.text(
            left + side / 2 - 0.5,
            top + len(image) + 0.04 * side,
            caption,
            size=SMALL,
            ha="center",
            va="top",
            in_layout=False,
        )
    ax.set_axis_off()
    if images.ndim == 4:  # matplotlib does not leave out masked colours
        return ax.imshow(sheet.filled(255), interpolation="nearest")
    return ax.imshow(sheet, interpolation="nearest", **look)


def tiles(
    images: Array, names: Sequence[tuple[str, str]], below: Sequence[str], *, title: str, note: str, columns: int
) -> Figure:
    """Draw images, uint8 (N, H, W[, 3]), each with its true and predicted name and one more line below."""
    long = widest(f"{true} → {predicted}" for true, predicted in names) > 13
    captions = [
        f"{true}{chr(10) if long else ' '}→ {predicted}\n{line}"
        for (true, predicted), line in zip(names, below, strict=True)
    ]
    pitch = max(1.2, 0.09 * widest(captions))
    columns = max(1, min(columns, len(images), int(columns * 1.2 / pitch) + 1))
    rows = -(-len(images) // columns)
    high = 0.84 * rows * (1.1 + 0.21 * (3 if long else 2))
    fig = figure(title, max(high, 1.0) + 0.9, max(0.84 * columns * pitch + 0.3, 4.4))
    ax = fig.subplots()
    if len(images):
        montage(ax, images, captions, columns, pitch, cmap="gray_r", vmin=0, vmax=255)
        ax.set_title(note, size=SMALL, color=QUIET)
        ax.set_anchor("W")
    else:
        empty(ax, "No misclassified images")
        ax.set_axis_off()
    return fig


@plain()
def gallery(
    images: Array, true: Array, pred: Array, prob: Array, *, classes: Sequence[str], title: str, columns: int = 10
) -> Figure:
    """Draw misclassified images, each with ``true → predicted`` and the probability given to the prediction.

    images: uint8 (N, H, W), 0 is drawn white and 255 black, or in colour (N, H, W, 3); true, pred: int (N,), indices
    into ``classes``; prob: float (N,), in [0, 1]. N may be 0. Raise ValueError if a shape, the type or an index does
    not fit.
    """
    n = len(images)
    check_images(images)
    for name, array in {"true": true, "pred": pred, "prob": prob}.items():
        check(array.shape == (n,), f"{name} must be ({n},), one value per image, not {shape_of(array)}")
    for name, array in {"true": true, "pred": pred}.items():
        fits = array.dtype.kind in "iu" and (not n or 0 <= array.min() <= array.max() < len(classes))
        check(fits, f"{name} must index the {len(classes)} classes")
    check(columns > 0, f"columns must be at least 1, not {columns}")
    note = "true → predicted, and the probability given to the prediction" if n else ""
    names = [(classes[t], classes[p]) for t, p in zip(true, pred, strict=True)]
    return tiles(images, names, [_probability(p) for p in prob], title=title, note=note, columns=columns)


@plain()
def confusion(counts: Array, *, classes: Sequence[str], title: str, compact: bool = False) -> Figure:
    """Draw a confusion matrix: counts, and below each its share of the true class in per cent. Colour is for errors.

    counts: int (K, K), row = true class, column = predicted class; a row may be empty. The diagonal is grey whatever
    its value; the colour scale of the rest ends at the largest share off the diagonal. ``compact`` draws smaller cells
    and leaves out the colour scale and the images of each class: to be read when it is shown small. Raise ValueError
    if counts is not int (K, K) for the K ``classes``.
    """
    k = len(classes)
    fits = counts.shape == (k, k) and k > 0 and counts.dtype.kind in "iu"
    check(fits, f"counts must be int ({k}, {k}), one row per class, not {shape_of(counts)}")
    total = counts.sum(axis=1)
    share = counts / np.maximum(total, 1)[:, None] * 100
    errors = np.ma.masked_array(share, np.eye(k, dtype=bool))
    largest = float(errors.max()) if k > 1 else 0.0
    cell = 0.5 if compact else float(np.clip(6.4 / k, 0.5, 0.8))
    names = 0.085 * widest(classes)
    slant: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if names > cell else {}
    beside = 0.5 if compact else 1.7
    fig = figure(title, cell * k + 1.1 + (0.75 * names if slant else 0), max(cell * k + names + beside, 4.8))
    ax = fig.subplots()
    cmap = LinearSegmentedColormap.from_list("errors", ERRORS).with_extremes(bad=MUTED)
    image = ax.imshow(errors, cmap, vmin=0, vmax=largest or 1.0)
    for i, j in zip(*np.nonzero(counts), strict=True):
        colour = QUIET if i == j else readable(cmap(image.norm(share[i, j])))
        look: dict[str, Any] = {
            "color": colour,
            "ha": "center",
            "in_layout": False,
        }  # quicker: they lie within the axes
        ax.text(j, i + 0.06, f"{counts[i, j]:,}", va="bottom", **look)
        ax.text(j, i + 0.12, _share(share[i, j]), size=0.72 * TEXT, va="top", **look)
    ax.grid(visible=False)
    edges = np.arange(k + 1) - 0.5
    ax.hlines(edges, -0.5, k - 0.5, color=FAINT, linewidth=0.7, clip_on=False)
    ax.vlines(edges, -0.5, k - 0.5, color=FAINT, linewidth=0.7, clip_on=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labelsize=TEXT, labelcolor=INK)
    ax.set_yticks(range(k), classes)
    ax.set_xticks(range(k), classes, **slant)
    ax.set(xlabel="predicted", ylabel="true")
    if not compact:
        right = ax.secondary_yaxis("right")
        right.set_yticks(range(k), [f"{images:,}" for images in total])
        right.tick_params(length=0)
        right.spines["right"].set_visible(False)
        ax.set_title("images", loc="right", size=SMALL, color=QUIET)
        if largest:
            bar = fig.colorbar(image, ax=ax, shrink=0.5, aspect=22 if k > 5 else 12, anchor=(0, 1))
            bar.outline.set_visible(False)
            bar.set_label("errors, % of the true class", color=QUIET)
    return fig


@plain()
def filters(weights: Array, *, title: str, columns: int = 10) -> Figure:
    """Draw the filters of a first convolution, numbered from 1, on one diverging scale that is symmetric about 0.

    weights: float (C, 1, H, W). A weight that is not finite is drawn grey. Raise ValueError for any other shape.
    """
    fits = weights.ndim == 4 and weights.shape[1] == 1 and weights.size > 0
    check(fits, f"weights must be float (C, 1, H, W), not {shape_of(weights)}")
    check(columns > 0, f"columns must be at least 1, not {columns}")
    rows = -(-len(weights) // columns)
    across = -(-len(weights) // rows)
    limit = float(np.abs(weights[np.isfinite(weights)]).max(initial=0)) or 1.0
    cmap = LinearSegmentedColormap.from_list("signed", SIGNED).with_extremes(bad=MUTED)
    fig = figure(title, 1.1 * rows + 0.6, max(across, 4) * 1.05 + 1)
    panes = fig.subplots(rows, across, squeeze=False)
    for i, ax in enumerate(panes.flat):
        ax.grid(visible=False)
        ax.spines[:].set(visible=i < len(weights), color=FAINT)
        ax.set(xticks=[], yticks=[], facecolor=PAPER)
        if i < len(weights):
            image = ax.imshow(weights[i, 0], cmap, vmin=-limit, vmax=limit, interpolation="nearest")
            ax.set_title(f"{i + 1}", loc="center", size=SMALL, color=QUIET)
    bar = fig.colorbar(image, ax=panes, ticks=[-limit, 0, limit], shrink=0.7 if rows < 3 else 0.4)
    bar.set_ticklabels([signed(-limit), "0", signed(limit)])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    return fig


def readable(ground: Any) -> str:
    """Ink or paper, whichever has the more contrast on an RGB(A) ground."""
    luminance = float(np.dot([0.2126, 0.7152, 0.0722], np.asarray(ground)[:3] ** 2.2))
    return INK if (luminance + 0.05) ** 2 > 1.05 * 0.062 else PAPER  # 0.062: the luminance of INK, plus 0.05


def shape_of(array: Array) -> str:
    return f"{array.dtype} {array.shape}"


def check_images(images: Array) -> None:
    shaped = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    fits = shaped and images.dtype == np.uint8
    check(fits, f"images must be uint8 (N, H, W) or (N, H, W, 3), not {shape_of(images)}")


def _probability(p: float) -> str:
    return "> 99 %" if 0.995 <= p < 1 else f"{100 * p:.0f} %"


def _share(per_cent: float) -> str:
    return "< 0.1 %" if per_cent < 0.05 else f"{per_cent:.1f} %"
