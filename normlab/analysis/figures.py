"""Figures: arrays in, a matplotlib ``Figure`` out, on a white ground of its own, at 100 pixels an inch.

Nothing here touches pyplot, a backend or any other global state, so a figure can be made in a callback, a thread or a
report alike, and then given to ``writer.add_figure(tag, figure)`` or saved with ``figure.savefig(path)``.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from normlab.analysis.colours import ERRORS, FAINT, INK, MUTED, PAPER, QUIET, SIGNED, norm_colour, norm_marker
from normlab.analysis.drawing import (
    ACC_TICKS,
    CE_TICKS,
    DPI,
    MARGIN,
    SMALL,
    TEXT,
    TILE,
    TITLE,
    Array,
    apart,
    check,
    check_images,
    end_label,
    figure,
    frame,
    from_accuracy,
    quiet_bar,
    readable,
    say_where_they_end,
    settle,
    shape_of,
    sheet,
    tile,
    tiles,
    to_accuracy,
    widest,
    wrap,
)
from normlab.analysis.numbers import signed

__all__ = ["confusion", "curves", "filters", "gallery"]

SPLITS = {"val": "validation", "test": "test"}  # held-out data, in order of preference


def gallery(
    images: Array, true: Array, pred: Array, prob: Array, *, classes: Sequence[str], title: str, columns: int = 10
) -> Figure:
    """Draw misclassified images, each with ``true → predicted`` and the probability given to the prediction.

    images: uint8 (N, H, W), 0 is drawn white and 255 black, or in colour (N, H, W, 3); true, pred: int (N,), indices
    into ``classes``; prob: float (N,), in [0, 1]. N may be 0. Raises ValueError if a shape, the type or an index does
    not fit.
    """
    n = len(images)
    check_images(images)
    for name, array in {"true": true, "pred": pred, "prob": prob}.items():
        check(array.shape == (n,), f"{name} must be ({n},), a value an image, not {shape_of(array)}")
    for name, array in {"true": true, "pred": pred}.items():
        fits = array.dtype.kind in "iu" and (not n or 0 <= array.min() <= array.max() < len(classes))
        check(fits, f"{name} must index the {len(classes)} classes")
    check(columns > 0, f"columns must be at least 1, not {columns}")

    note = "true → predicted, and the probability given to the prediction" if n else ""
    names = [(classes[t], classes[p]) for t, p in zip(true, pred, strict=True)]
    return tiles(images, names, [_probability(p) for p in prob], title=title, note=note, columns=columns)


def confusion(counts: Array, *, classes: Sequence[str], title: str, compact: bool = False) -> Figure:
    """Draw a confusion matrix: counts, and below each its share of the true class in per cent. Colour is for errors.

    counts: int (K, K), row = true class, column = predicted class; a row may be empty. The diagonal is grey whatever
    its value; the colour scale of the rest ends at the largest share off the diagonal. ``compact`` draws smaller cells
    and leaves out the colour scale and the images of each class: to be read when it is shown small. Raises ValueError
    if counts is not int (K, K) for the K ``classes``.
    """
    k = len(classes)
    fits = counts.shape == (k, k) and k > 0 and counts.dtype.kind in "iu"
    check(fits, f"counts must be int ({k}, {k}), one row per class, not {shape_of(counts)}")
    total = counts.sum(axis=1)
    share = counts / np.maximum(total, 1)[:, None] * 100
    errors = np.ma.masked_array(share, np.eye(k, dtype=bool))
    largest = float(errors.max()) if k > 1 else 0.0

    cell = min(90, max(48, 640 / k)) if not compact else 46
    names = widest(classes, TEXT)
    slant: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if names > cell - 6 else {}
    beside = 100 if compact else 240
    fig = figure(max(cell * k + names + beside, 480), cell * k + 130 + (0.75 * names if slant else 0), title)
    ax = fig.add_subplot(facecolor=PAPER)
    cmap = LinearSegmentedColormap.from_list("errors", ERRORS).with_extremes(bad=MUTED)
    image = ax.imshow(errors, cmap, vmin=0, vmax=largest or 1.0)
    for i, j in zip(*np.nonzero(counts), strict=True):
        colour = QUIET if i == j else readable(cmap(image.norm(share[i, j])))
        ax.text(j, i + 0.06, f"{counts[i, j]:,}", size=TEXT, color=colour, ha="center", va="bottom")
        ax.text(j, i + 0.12, _share(share[i, j]), size=0.72 * TEXT, color=colour, ha="center", va="top")
    for i, images in enumerate(total if not compact else []):
        ax.text(k - 0.35, i, f"{images:,}", size=SMALL, color=QUIET, va="center")
    if not compact:
        ax.text(k - 0.35, -0.6, "images", size=SMALL, color=QUIET, va="bottom")
    for edge in np.arange(k + 1) - 0.5:
        ax.plot([edge, edge], [-0.5, k - 0.5], color=FAINT, linewidth=0.7, clip_on=False)
        ax.plot([-0.5, k - 0.5], [edge, edge], color=FAINT, linewidth=0.7, clip_on=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labelsize=TEXT, labelcolor=INK)
    ax.set_yticks(range(k), classes)
    ax.set_xticks(range(k), classes, **slant)
    ax.set_xlabel("predicted", size=TEXT, color=QUIET)
    ax.set_ylabel("true", size=TEXT, color=QUIET)
    if largest and not compact:
        shape = {"shrink": 0.5, "aspect": 22} if k > 5 else {"aspect": 12}
        bar = fig.colorbar(image, ax=ax, pad=0.02, anchor=(0, 1), **shape)
        quiet_bar(bar.ax, "errors, % of the true class")
    return fig


def filters(weights: Array, *, title: str, columns: int = 10) -> Figure:
    """Draw the filters of a first convolution, numbered from 1, on one diverging scale that is symmetric about 0.

    weights: float (C, 1, H, W). A weight that is not finite is drawn grey. Raises ValueError for any other shape.
    """
    fits = weights.ndim == 4 and weights.shape[1] == 1 and weights.size > 0
    check(fits, f"weights must be float (C, 1, H, W), not {shape_of(weights)}")
    check(columns > 0, f"columns must be at least 1, not {columns}")
    rows = -(-len(weights) // columns)
    across = -(-len(weights) // rows)
    pitch, step = TILE + 20, TILE + 36
    limit = float(np.abs(weights[np.isfinite(weights)]).max(initial=0)) or 1.0
    cmap = LinearSegmentedColormap.from_list("signed", SIGNED).with_extremes(bad=MUTED)
    width = 2 * MARGIN + max(across, 4) * pitch + 70
    fig, ax, top = sheet(width, rows * step - 16, title)
    for i, weight in enumerate(weights[:, 0]):
        x, y = MARGIN + i % across * pitch, top + i // across * step + 20
        ax.text(x + TILE / 2, y - 6, f"{i + 1}", size=SMALL, color=QUIET, ha="center", va="baseline")
        tile(ax, weight, x, y, cmap, -limit, limit)
        ax.add_patch(Rectangle((x, y), TILE, TILE, fill=False, edgecolor=FAINT, linewidth=0.8))
    height = fig.get_figheight() * DPI
    place = (MARGIN + across * pitch) / width, 1 - (top + 20 + TILE) / height, 12 / width, TILE / height
    scale = ScalarMappable(Normalize(-limit, limit), cmap)
    beside = FuncFormatter(lambda x, _: signed(x) if x else "0")
    bar = fig.colorbar(scale, cax=fig.add_axes(place), ticks=[-limit, 0, limit], format=beside)
    quiet_bar(bar.ax, "")
    return fig


def curves(runs: Mapping[str, Mapping[str, Array | None]], *, title: str) -> Figure:
    """Draw learning curves: accuracy in per cent and cross-entropy in nats, over epochs counted from 1.

    runs: label -> series, each float (E,) and NaN where nothing was measured: ``train_acc_running``, ``val_acc`` or
    ``test_acc`` in [0, 1], ``train_ce``, ``val_ce`` or ``test_ce``. Any may be missing or None; validation goes before
    test. A label starts with its norm ("bn", "ln l1=0.001"), which gives the colour, and stands at the end of its line
    with the last value. Raises ValueError if a series is not (E,) or the series of a run are not of one length.
    """
    for label, run in runs.items():
        shapes = sorted({np.shape(values) for values in run.values() if values is not None})
        fits = len(shapes) < 2 and all(len(shape) == 1 for shape in shapes)
        check(fits, f"{label!r}: the series must all be (E,) for one E, not {shapes}")
    width = 1140 + 2 * max(0, widest(runs, TEXT) - 130)
    fig = figure(width, max(470, 160 + 17 * len(runs)), title)
    panels = [(ax, *_panel(ax, kind, runs)) for ax, kind in zip(fig.subplots(1, 2), ("acc", "ce"), strict=True)]
    found = {word for _, _, words in panels for word in words}
    held = " or ".join(word for word in SPLITS.values() if word in found)
    blank = ", ".join(label for label, run in runs.items() if not any(_points(values).size for values in run.values()))
    key = [f"solid: {held}"] * bool(held) + ["dashed: training, running average"] * ("training" in found)
    notes = ["     ".join(key), *[wrap(f"no values: {blank}", SMALL, width - 2 * MARGIN)] * bool(blank)]
    fig.supxlabel("\n".join(notes), x=MARGIN / width, ha="left", size=SMALL, color=QUIET)
    settle(fig, {ax: labels for ax, labels, _ in panels})
    return fig


def _panel(ax: Axes, kind: str, runs: Mapping[str, Mapping[str, Array | None]]) -> tuple[list[Annotation], set[str]]:
    """Draw a panel of ``curves``; return the labels of the line ends, still at one height, and what the lines are."""
    factor, form, train_name = (100, ".2f", "train_acc_running") if kind == "acc" else (1, ".4f", "train_ce")
    labels, norms, found = [], set(), set()
    for label, run in runs.items():
        norm = (re.match(r"[\w.]+", label) or [""])[0]
        colour, face = norm_colour(norm), PAPER if norm in norms else norm_colour(norm)  # a norm's 2nd setting: hollow
        norms.add(norm)
        line = train = _points(run.get(train_name), factor)
        if train.size:
            found.add("training")
            lone = "." if train.shape[1] == 1 else None
            ax.plot(*train, color=colour, alpha=0.5, linewidth=1.2, linestyle=(0, (4, 2)), marker=lone)
        for split, word in SPLITS.items():
            if (held := _points(run.get(f"{split}_{kind}"), factor)).size:
                found.add(word)
                line, marker = held, norm_marker(norm)
                some = np.unique(np.linspace(0, held.shape[1] - 1, 8).astype(int)).tolist()
                ax.plot(*held, color=colour, linewidth=1.6, marker=marker, ms=5.5, mfc=face, markevery=some)
                break
        if line.size:
            text, (x, y) = f"{line[1, -1]:{form}}  {label}", line[:, -1].tolist()
            labels.append(end_label(ax, text, (x, y), colour, len(runs)))
    say_where_they_end(labels)
    _scale(ax, kind)
    return labels, found


def _scale(ax: Axes, kind: str) -> None:
    """Scale, ticks, frame and title of a panel of ``curves`` after its lines: logarithmic where that shows more."""
    xs = np.concatenate([[1.0], *(np.ravel(line.get_xdata()) for line in ax.lines)])
    ys = np.concatenate([[], *(np.ravel(line.get_ydata()) for line in ax.lines)])
    heading, ticks = "accuracy, %" if kind == "acc" else "cross-entropy, nats", []
    if not ys.size:
        ax.text(0.5, 0.5, "no values", size=TITLE, color=QUIET, ha="center", va="center", transform=ax.transAxes)
    elif kind == "acc" and ys.max() > 95:
        heading, ticks = f"{heading} – spaced by the logarithm of the error", ACC_TICKS
        ax.set_yscale("function", functions=(from_accuracy, to_accuracy))
    elif kind == "ce" and 0 < 4 * ys.min() < ys.max():
        heading, ticks = f"{heading} – logarithmic", CE_TICKS
        ax.set_yscale("log")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_locator(MaxNLocator(5) if ys.size else NullLocator())
    kept = apart(ticks, ax.yaxis)
    if len(kept) > 2:
        ax.yaxis.set_major_locator(FixedLocator(kept))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    pad = max(0.03 * (xs.max() - 1), 0.1)
    ax.set_xlim(1 - pad, xs.max() + pad)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    frame(ax, heading)
    ax.set_xlabel("epoch", size=TEXT, color=QUIET)
    if not ys.size:
        ax.set_xticks([])


def _points(values: Array | None, factor: float = 1) -> Array:
    """Epochs and finite values (times ``factor``) of a series: float (2, number of finite values)."""
    series = np.asarray([] if values is None else values, dtype=float)
    epochs = np.flatnonzero(np.isfinite(series))
    return np.stack([epochs + 1.0, factor * series[epochs]])


def _probability(p: float) -> str:
    return "> 99 %" if 0.995 <= p < 1 else f"{100 * p:.0f} %"


def _share(per_cent: float) -> str:
    return "< 0.1 %" if per_cent < 0.05 else f"{per_cent:.1f} %"
