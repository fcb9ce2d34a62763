"""Figures: arrays in, a matplotlib ``Figure`` out, on a white ground of its own, at 100 pixels an inch.

Nothing here touches pyplot, a backend or any other global state, so a figure can be made in a callback, a thread or a
report alike, and then given to ``writer.add_figure(tag, figure)`` or saved with ``figure.savefig(path)``.
"""

import itertools
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation
from matplotlib.textpath import TextPath
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from normlab.analysis.colours import ERRORS, FAINT, INK, MUTED, PAPER, QUIET, SIGNED, norm_colour, norm_marker

__all__ = ["confusion", "curves", "filters", "gallery"]

Array = npt.NDArray[Any]

DPI = 100  # lengths below are pixels of 1/100 inch
TITLE, TEXT, SMALL = 13.0, 10.0, 8.5  # type sizes, points
SPLITS = {"val": "validation", "test": "test"}  # held-out data, in order of preference
MARGIN, TILE = 24, 84  # 84 pixels: 3 for each of 28, or 28 for each of 3
ACC_TICKS = [99, 90, 50, 98, 95, 99.5, 100, 0, 97, 80, 99.8, 20, 96, 99.2, 98.5, 94, 92, 99.4, 99.6, 99.3, 99.9]
CE_TICKS = [m * 10.0**e for m in (1, 3, 2, 5, 1.5, 7) for e in range(-6, 4)]  # both: the first that fit are drawn


def gallery(
    images: Array, true: Array, pred: Array, prob: Array, *, classes: Sequence[str], title: str, columns: int = 10
) -> Figure:
    """Draw misclassified images, each with ``true → predicted`` and the probability given to the prediction.

    images: uint8 (N, H, W), 0 is drawn white and 255 black; true, pred: int (N,), indices into ``classes``;
    prob: float (N,), in [0, 1]. N may be 0. Raises ValueError if a shape, the type or an index does not fit.
    """
    n = len(images)
    _check(images.ndim == 3 and images.dtype == np.uint8, f"images must be uint8 (N, H, W), not {_shape(images)}")
    for name, array in {"true": true, "pred": pred, "prob": prob}.items():
        _check(array.shape == (n,), f"{name} must be ({n},), a value an image, not {_shape(array)}")
    for name, array in {"true": true, "pred": pred}.items():
        fits = array.dtype.kind in "iu" and (not n or 0 <= array.min() <= array.max() < len(classes))
        _check(fits, f"{name} must index the {len(classes)} classes")
    _check(columns > 0, f"columns must be at least 1, not {columns}")

    captions = [[f"{classes[t]} → {classes[p]}"] for t, p in zip(true, pred, strict=True)]
    size, lines, pitch = TEXT, 1, TILE + 24
    if _widest(itertools.chain(*captions), TEXT) > pitch - 8:  # long names: two lines in smaller type, or a wider grid
        captions = [[classes[t], f"→ {classes[p]}"] for t, p in zip(true, pred, strict=True)]
        size, lines = SMALL, 2
        pitch = max(pitch, int(_widest(itertools.chain(*captions), SMALL)) + 14)
    across = min(columns, max(n, 5), max(columns * (TILE + 24) // pitch, 1))
    left = MARGIN + (pitch - TILE - 24) // 2
    width = max(2 * MARGIN + across * pitch - 24, 440)  # 440: room for the note below the title
    step = TILE + 44 + 14 * lines
    note = "true → predicted, and the probability given to the prediction" if n else ""
    fig, ax, top = _sheet(width, -(-n // across) * step - 18 if n else 96, title, note)
    if not n:
        ax.text(width / 2, top + 40, "No misclassified images", size=TITLE, color=QUIET, ha="center", va="center")
    for i, caption in enumerate(captions):
        x, y = left + i % across * pitch, top + i // across * step
        _tile(ax, images[i], x, y, "gray_r", 0, 255)
        x, y = x + TILE // 2, y + TILE + 16
        for line in caption:
            ax.text(x, y, line, size=size, color=INK, ha="center")
            y += 14
        ax.text(x, y + 2, _probability(prob[i]), size=SMALL, color=QUIET, ha="center")
    return fig


def confusion(counts: Array, *, classes: Sequence[str], title: str, compact: bool = False) -> Figure:
    """Draw a confusion matrix: counts, and below each its share of the true class in per cent. Colour is for errors.

    counts: int (K, K), row = true class, column = predicted class; a row may be empty. The diagonal is grey whatever
    its value; the colour scale of the rest ends at the largest share off the diagonal. ``compact`` draws smaller cells
    and leaves out the colour scale and the images of each class: to be read when it is shown small. Raises ValueError
    if counts is not int (K, K) for the K ``classes``.
    """
    k = len(classes)
    fits = counts.shape == (k, k) and k > 0 and counts.dtype.kind in "iu"
    _check(fits, f"counts must be int ({k}, {k}), a row a class, not {_shape(counts)}")
    total = counts.sum(axis=1)
    share = counts / np.maximum(total, 1)[:, None] * 100
    errors = np.ma.masked_array(share, np.eye(k, dtype=bool))
    largest = float(errors.max()) if k > 1 else 0.0

    cell = min(90, max(48, 640 / k)) if not compact else 46
    names = _widest(classes, TEXT)
    slant: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if names > cell - 6 else {}
    beside = 100 if compact else 240
    fig = _figure(max(cell * k + names + beside, 480), cell * k + 130 + (0.75 * names if slant else 0), title)
    ax = fig.add_subplot(facecolor=PAPER)
    cmap = LinearSegmentedColormap.from_list("errors", ERRORS).with_extremes(bad=MUTED)
    image = ax.imshow(errors, cmap, vmin=0, vmax=largest or 1.0)
    for i, j in zip(*np.nonzero(counts), strict=True):
        colour = QUIET if i == j else _readable(cmap(image.norm(share[i, j])))
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
        _quiet_bar(bar.ax, "errors, % of the true class")
    return fig


def filters(weights: Array, *, title: str, columns: int = 10) -> Figure:
    """Draw the filters of a first convolution, numbered from 1, on one diverging scale that is symmetric about 0.

    weights: float (C, 1, H, W). A weight that is not finite is drawn grey. Raises ValueError for any other shape.
    """
    fits = weights.ndim == 4 and weights.shape[1] == 1 and weights.size > 0
    _check(fits, f"weights must be float (C, 1, H, W), not {_shape(weights)}")
    _check(columns > 0, f"columns must be at least 1, not {columns}")
    rows = -(-len(weights) // columns)
    across = -(-len(weights) // rows)
    pitch, step = TILE + 20, TILE + 36
    limit = float(np.abs(weights[np.isfinite(weights)]).max(initial=0)) or 1.0
    cmap = LinearSegmentedColormap.from_list("signed", SIGNED).with_extremes(bad=MUTED)
    width = 2 * MARGIN + max(across, 4) * pitch + 70
    fig, ax, top = _sheet(width, rows * step - 16, title)
    for i, weight in enumerate(weights[:, 0]):
        x, y = MARGIN + i % across * pitch, top + i // across * step + 20
        ax.text(x + TILE / 2, y - 6, f"{i + 1}", size=SMALL, color=QUIET, ha="center", va="baseline")
        _tile(ax, weight, x, y, cmap, -limit, limit)
        ax.add_patch(Rectangle((x, y), TILE, TILE, fill=False, edgecolor=FAINT, linewidth=0.8))
    height = fig.get_figheight() * DPI
    place = (MARGIN + across * pitch) / width, 1 - (top + 20 + TILE) / height, 12 / width, TILE / height
    scale = ScalarMappable(Normalize(-limit, limit), cmap)
    bar = fig.colorbar(scale, cax=fig.add_axes(place), ticks=[-limit, 0, limit], format=FuncFormatter(_signed))
    _quiet_bar(bar.ax, "")
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
        _check(fits, f"{label!r}: the series must all be (E,) for one E, not {shapes}")
    width = 1140 + 2 * max(0, _widest(runs, TEXT) - 130)
    fig = _figure(width, max(470, 160 + 17 * len(runs)), title)
    panels = [(ax, *_panel(ax, kind, runs)) for ax, kind in zip(fig.subplots(1, 2), ("acc", "ce"), strict=True)]
    found = {word for _, _, words in panels for word in words}
    held = " or ".join(word for word in SPLITS.values() if word in found)
    blank = ", ".join(label for label, run in runs.items() if not any(_points(values).size for values in run.values()))
    key = [f"solid: {held}"] * bool(held) + ["dashed: training, running average"] * ("training" in found)
    notes = ["     ".join(key), *[_wrap(f"no values: {blank}", SMALL, width - 2 * MARGIN)] * bool(blank)]
    fig.supxlabel("\n".join(notes), x=MARGIN / width, ha="left", size=SMALL, color=QUIET)
    fig.draw_without_rendering()  # runs the layout, which gives the panels their height
    for ax, labels, _ in panels:
        wanted = [ax.transAxes.inverted().transform(ax.transData.transform(note.xy))[1] for note in labels]
        for note, y in zip(labels, _spread(np.array(wanted), 16 / ax.bbox.height), strict=True):
            note.xyann = (note.xyann[0], y)
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
            leader = {"color": colour, "alpha": 0.5, "lw": 0.7, "arrowstyle": "-", "relpos": (0, 0.5), "shrinkB": 4}
            note = ax.annotate(text, (x, y), color=colour, size=TEXT, va="center", arrowprops=leader)
            note.set(anncoords="axes fraction", position=(1.05 + 0.003 * len(runs), 0.5))
            labels.append(note)
    last = max((note.xy[0] for note in labels), default=1)
    for note in labels:
        if note.xy[0] < last and note.arrow_patch:
            note.set_text(f"{note.get_text()}, to epoch {note.xy[0]:.0f}")
            note.arrow_patch.set_linestyle(":")
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
        ax.set_yscale("function", functions=(_from_accuracy, _to_accuracy))
    elif kind == "ce" and 0 < 4 * ys.min() < ys.max():
        heading, ticks = f"{heading} – logarithmic", CE_TICKS
        ax.set_yscale("log")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_locator(MaxNLocator(5) if ys.size else NullLocator())
    kept = _apart(ticks, ax.yaxis)
    if len(kept) > 2:
        ax.yaxis.set_major_locator(FixedLocator(kept))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    pad = max(0.03 * (xs.max() - 1), 0.1)
    ax.set_xlim(1 - pad, xs.max() + pad)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    ax.set_facecolor(PAPER)
    ax.grid(axis="y", color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["left", "right", "top"]].set_visible(False)
    ax.spines["bottom"].set_color(FAINT)
    ax.tick_params(length=0, labelsize=SMALL, labelcolor=QUIET)
    ax.set_xlabel("epoch", size=TEXT, color=QUIET)
    ax.set_title(heading, loc="left", size=TEXT, color=INK)
    if not ys.size:
        ax.set_xticks([])


def _from_accuracy(per_cent: Array) -> Array:
    """Height of an accuracy on an axis that is spaced by the logarithm of the error; 100 % stays finite."""
    return -np.log10(np.maximum(100.05 - per_cent, 1e-9))


def _to_accuracy(height: Array) -> Array:
    return 100.05 - 10.0**-height


def _apart(candidates: Iterable[float], axis: Axis) -> list[float]:
    """The candidates that are in view and, with those before them kept, at least 7 % of the axis apart."""
    height = axis.get_transform().transform
    low, high = (float(end) for end in axis.get_view_interval())
    near = 0.07 * (height(high) - height(low))
    kept: list[float] = []
    for tick in candidates:
        clear = low < tick <= high and height(tick) > height(low) + near / 3  # of the line at the foot
        if clear and all(abs(height(tick) - height(other)) >= near for other in kept):
            kept.append(tick)
    return kept


def _spread(wanted: Array, gap: float) -> Array:
    """Positions in [0, 1], at least ``gap`` apart and ordered like ``wanted``, moved as little as can be."""
    order = np.argsort(wanted, kind="stable")
    blocks: list[tuple[float, int]] = []  # pools of neighbours that touch: the mean of their free positions, how many
    for free in wanted[order] - gap * np.arange(len(wanted)):
        mean, count = float(free), 1
        while blocks and blocks[-1][0] > mean:
            before, many = blocks.pop()
            mean, count = (before * many + mean * count) / (many + count), many + count
        blocks.append((mean, count))
    pooled = np.repeat([mean for mean, _ in blocks], [count for _, count in blocks])
    places = np.empty(len(wanted))
    places[order] = np.clip(pooled, gap / 2, 1 - gap * (len(wanted) - 0.5)) + gap * np.arange(len(wanted))
    return places


def _points(values: Array | None, factor: float = 1) -> Array:
    """Epochs and finite values (times ``factor``) of a series: float (2, number of finite values)."""
    series = np.asarray([] if values is None else values, dtype=float)
    epochs = np.flatnonzero(np.isfinite(series))
    return np.stack([epochs + 1.0, factor * series[epochs]])


def _figure(width: float, height: float, title: str) -> Figure:
    """An empty figure of so many pixels, with its title at the upper left."""
    layout = ConstrainedLayoutEngine(w_pad=MARGIN / DPI, h_pad=0.12)
    fig = Figure((width / DPI, height / DPI), dpi=DPI, facecolor=PAPER, layout=layout)
    wrapped = _wrap(title, TITLE, width - 2 * MARGIN)
    fig.suptitle(wrapped, x=MARGIN / width, ha="left", size=TITLE, color=INK)
    return fig


def _sheet(width: float, height: float, title: str, note: str = "") -> tuple[Figure, Axes, float]:
    """A figure whose one set of axes counts pixels from its upper left corner, and where below its title it is free."""
    wrapped = _wrap(title, TITLE, width - 2 * MARGIN)
    below = MARGIN + 21 * (wrapped.count("\n") + 1)
    top = below + (32 if note else 16)
    fig = Figure((width / DPI, (top + height + MARGIN) / DPI), dpi=DPI, facecolor=PAPER)
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(top + height + MARGIN, 0))
    ax.set_axis_off()
    ax.text(MARGIN, MARGIN - 4, wrapped, size=TITLE, color=INK, va="top")
    ax.text(MARGIN, below, note, size=SMALL, color=QUIET, va="top")
    return fig, ax, top


def _tile(ax: Axes, image: Array, x: float, y: float, cmap: str | Colormap, low: float, high: float) -> None:
    """Draw ``image`` into the square of a sheet whose upper left corner is (x, y)."""
    box = (x, x + TILE, y + TILE, y)
    ax.imshow(image, cmap, vmin=low, vmax=high, aspect="auto", interpolation="nearest", extent=box)


def _quiet_bar(ax: Axes, label: str) -> None:
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.tick_params(length=0, labelsize=SMALL, labelcolor=QUIET)
    ax.set_ylabel(label, size=SMALL, color=QUIET)


def _widest(texts: Iterable[str], size: float) -> float:
    """Width of the widest line of ``texts`` in pixels."""
    lines = {line for text in texts for line in text.split("\n") if line.strip()}
    return max((TextPath((0, 0), line, size=size).get_extents().width * DPI / 72 for line in lines), default=0.0)


def _wrap(text: str, size: float, width: float) -> str:
    """Break ``text`` into lines that are no wider than ``width`` pixels, by the width of its mean letter."""
    letters = int(len(text) * width / max(_widest([text], size), 1))
    return text if letters >= len(text) else textwrap.fill(text, max(letters - 2, 8))


def _probability(p: float) -> str:
    return "> 99 %" if 0.995 <= p < 1 else f"{100 * p:.0f} %"


def _share(per_cent: float) -> str:
    return "< 0.1 %" if per_cent < 0.05 else f"{per_cent:.1f} %"


def _readable(ground: npt.ArrayLike) -> str:
    """Ink or paper, whichever has the more contrast on an RGB(A) ground."""
    luminance = float(np.dot([0.2126, 0.7152, 0.0722], np.asarray(ground)[:3] ** 2.2))
    return INK if (luminance + 0.05) ** 2 > 1.05 * 0.062 else PAPER  # 0.062: the luminance of INK, plus 0.05


def _signed(value: float, _: int | None = None) -> str:
    return f"{value:+.2f}".replace("-", "−") if value else "0"


def _shape(array: Array) -> str:
    return f"{array.dtype} {array.shape}"


def _check(fits: bool, message: str) -> None:
    if not fits:
        raise ValueError(message)
