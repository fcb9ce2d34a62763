"""A study in one picture: how accurate, how learnt, what differs, what all of them get wrong."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import ScaledTranslation

from normlab.analysis.cells import Cell, Sorted
from normlab.analysis.colours import FAINT, INK, QUIET
from normlab.analysis.drawing import (
    DPI,
    MARGIN,
    SMALL,
    TEXT,
    TILE,
    TITLE,
    Array,
    check,
    frame,
    label_height,
    settle,
    shape_of,
    sheet,
    tile,
    widest,
    wrap,
)
from normlab.analysis.numbers import signed
from normlab.analysis.panels import (
    SUFFIX,
    VERDICTS,
    band_panel,
    difference_rows,
    difference_view,
    empty,
    finite,
    first_word,
    folded,
    interval_rows,
    looks,
    mean_sd,
    samples,
    scaled,
    view,
)
from normlab.analysis.questions import Answer, Answers

__all__ = ["poster", "shared_errors", "strongest"]

WIDTH, HALF = 1280, 596  # pixels: the whole, a column
ROWS, ACROSS = 6, 5  # pairs that are shown; images side by side, in two rows
LABEL = 170  # pixels that a label may be wide before it is broken


def strongest(answers: Sequence[Answer], count: int = ROWS) -> list[Answer]:
    """The contrasts with the surest verdicts, the surest first: a small adjusted p of the test behind the verdict, so
    what is undecided comes last."""

    def order(answer: Answer) -> tuple[float, float]:
        assert answer.estimate is not None
        p = min((p for p in answer.decision.adjusted if np.isfinite(p)), default=1.0)
        return p, -abs(answer.estimate.value)

    return sorted((answer for answer in answers if answer.estimate is not None and answer.kind != "claim"), key=order)[
        :count
    ]


def shared_errors(cells: Sequence[Cell], count: int = 2 * ACROSS) -> tuple[Array, Array, Array, Array, int]:
    """The test images that most runs of all settings get wrong.

    Returns their indices int (M,), true classes int (M,), the most frequent wrong prediction int (M,), by how many runs
    each is missed int (M,), M ≤ count, and the number of runs that were asked. Runs count where they left predictions
    on the test set of the first of them.
    """
    found = [cell.predicted for cell in cells if cell.predicted]
    same = [pred for pred, true in found if np.array_equal(true, found[0][1])]
    if not same:
        none = np.zeros(0, dtype=int)
        return none, none, none, none, 0
    pred, true = np.concatenate(same), found[0][1].astype(int)
    wrong = pred != true
    times = wrong.sum(axis=0)
    ranked = np.argsort(-times, kind="stable")[: min(count, int((times > 0).sum()))]
    taken = np.array([np.bincount(pred[wrong[:, i], i]).argmax() for i in ranked], dtype=int)
    return ranked, true[ranked], taken, times[ranked], len(pred)


def poster(
    answers: Answers,
    *,
    title: str,
    note: str = "",
    images: Array | None = None,
    classes: Sequence[str] = tuple("0123456789"),
) -> Figure:
    """Draw one picture of a study: accuracies with their intervals, learning curves, the surest verdicts, and the test
    images that most runs get wrong.

    images: uint8 (N, H, W), the test images in file order; None, or another number of them than there are predictions,
    leaves the last panel without pictures. note: a line or two below the title. Raises ValueError if images are not
    uint8 (N, H, W), or no run was measured on test images.
    """
    found, margin = answers.found, answers.margin
    cells = [cell for cell in found.cells if cell.values("test_acc")]
    check(bool(cells), "no run here has a test accuracy")
    fits = images is None or (images.ndim == 3 and images.dtype == np.uint8)
    check(fits, f"images must be uint8 (N, H, W), not {shape_of(np.asarray(images))}")
    chosen = strongest(answers.answers)
    errors = shared_errors(cells)
    names = {cell.label: folded(cell.label, LABEL) for cell in cells}
    lines = max(name.count("\n") + 1 for name in names.values())
    pitch = max(40, 12 + 17 * lines)
    first = max(250, pitch * len(cells), sum(int(label_height(name)) + 3 for name in names.values()))
    tallest = max((name.count("\n") + 1 for name in _pair_names(chosen)), default=1)
    second = max(2 * (TILE + 56) - 10, len(chosen) * (12 + 17 * tallest))
    told = wrap(note, TEXT, WIDTH - 4 * MARGIN)
    above = 19 * (told.count("\n") + 1) + 18 if note else 0
    key = wrap(_key(margin), SMALL, WIDTH - 4 * MARGIN)
    below = 16 * (key.count("\n") + 1)
    height = above + 44 + first + 74 + 44 + second + 50 + below
    fig, page, top = sheet(WIDTH, height, title)
    page.text(MARGIN, top, told, size=TEXT, color=QUIET, va="top", linespacing=1.35)
    upper = top + above
    lower = upper + 44 + first + 74
    right = WIDTH - MARGIN - HALF
    _accuracies(page, (MARGIN, upper, first), cells, answers, names)
    _curves(page, (right, upper, first), cells, found, names)
    _verdicts(page, (MARGIN, lower, second), chosen, len(answers.answers), margin)
    _errors(page, (right, lower), errors, images if _fit(images, cells) else None, classes)
    page.text(MARGIN, top + height - below, key, size=SMALL, color=QUIET, va="top")
    return fig


def _key(margin: float) -> str:
    return (
        "Dots: one seed each. Larger marks: mean with its 95 % interval. Curves: mean over seeds, band ± standard "
        f"deviation. Grey: within ± {margin:g} percentage points, taken as equivalent. Verdicts are on the first of "
        "each contrast; the chance of any false one is at most 5 %. Intervals are not adjusted for their number."
    )


def _accuracies(
    page: Axes, place: tuple[float, float, float], cells: Sequence[Cell], answers: Answers, names: dict[str, str]
) -> None:
    x, y, high = place
    look = looks(names, {cell.label: cell.norm for cell in answers.found.cells})
    seeds = {cell.label: 100 * np.array(list(cell.values("test_acc").values())) for cell in cells}
    means = {label: (float(values.mean()), *_ends(answers, label)) for label, values in seeds.items()}
    points = np.concatenate(list(seeds.values()))
    low, most, kind = view(points, finite([end for _, *ends in means.values() for end in ends]), True)
    numbers = [mean_sd(values, ".2f") for values in seeds.values()]
    left, beside = widest(names.values(), TEXT) + 16, widest(numbers, TEXT) + 16
    ax = _panel(page, x + left, y + 44, HALF - left - beside, high)
    _heading(page, x, y, "How accurate?", f"test accuracy of the last epoch, %{SUFFIX[kind]}")
    frame(ax, "", "x")
    scaled(ax, "x", low, most, kind)
    interval_rows(ax, seeds, means, look)
    _labels(ax, list(names.values()))
    for row, number in enumerate(numbers):
        _beside(ax, row, 12, number, INK)


def _ends(answers: Answers, label: str) -> tuple[float, float]:
    """The 95 % interval of a setting's accuracy, per cent."""
    estimate = answers.estimate({label: 1.0}, "test_acc")
    low, high = estimate.interval(0.95) if estimate else (np.nan, np.nan)
    return 100 * low, 100 * high


def _curves(
    page: Axes, place: tuple[float, float, float], cells: Sequence[Cell], found: Sorted, names: dict[str, str]
) -> None:
    x, y, high = place
    look = looks(names, {cell.label: cell.norm for cell in found.cells})
    series: dict[str, dict[str, Array | None]] = {
        cell.label: {
            name: cell.series(name) for name in ("test_acc", "val_acc", "train_acc_running") if cell.series(name).size
        }
        for cell in cells
    }
    room = widest([f"99.99  {name}" for name in names.values()], TEXT) + 66
    ax = _panel(page, x + 36, y + 44, HALF - 36 - room, high)
    labels, notes = band_panel(ax, "acc", series, names, look)
    _heading(page, x, y, "How do they learn?", ax.get_title(loc="left"))
    ax.set_title("", loc="left")
    said = "; ".join(dict.fromkeys(f"{before}: {after}" for before, after in notes))
    page.text(x + 36, y + 44 + high + 48, wrap(said, SMALL, HALF - 36), size=SMALL, color=QUIET, va="top")
    figure = page.get_figure(root=True)
    assert isinstance(figure, Figure)
    settle(figure, {ax: labels})
    samples(ax, labels, look)


def _verdicts(page: Axes, place: tuple[float, float, float], chosen: Sequence[Answer], of: int, margin: float) -> None:
    x, y, high = place
    some = f"surest {len(chosen)} of {of} verdicts" if of > len(chosen) else f"{of} verdict{'s' * (of != 1)}"
    rows = []
    for each in chosen:
        assert each.estimate is not None
        factor, (low, top) = each.outcome.factor, each.estimate.interval(0.95)
        rows.append((each.label, factor * each.estimate.value, factor * low, factor * top, each.decision.verdict))
    names = _pair_names(chosen)
    verdicts = [each.decision.verdict.replace(" the ", "\nthe ") for each in chosen]
    left = widest(names, TEXT) + 16
    beside = widest(verdicts, TEXT) + 70
    ax = _panel(page, x + left, y + 44, HALF - left - beside, high)
    frame(ax, "", "x")
    if not rows:
        _heading(page, x, y, "What differs?", "nothing to compare")
        empty(ax)
        return
    low, most, bent = difference_view(rows, margin)
    axis = f", logarithmic beyond ± {2 * margin:g}" if bent else ""
    _heading(page, x, y, "What differs?", f"percentage points of test accuracy{axis}; {some}")
    difference_rows(ax, rows, margin, low, most, bent)
    _labels(ax, names)
    for row, ((_, mean, *_, verdict), told) in enumerate(zip(rows, verdicts, strict=True)):
        colour = VERDICTS[first_word(verdict)][0]
        _beside(ax, row, 52, signed(mean, ".2f"), colour, "right")
        _beside(ax, row, 62, told, colour)


def _pair_names(chosen: Sequence[Answer]) -> list[str]:
    """ "bn − ln", in two lines or more where it is long."""
    found = []
    for each in chosen:
        name = each.label
        lines = [name] if widest([name], TEXT) < LABEL else name.replace(" − ", " −\n").split("\n")
        found.append("\n".join(folded(line, LABEL) for line in lines))
    return found


def _errors(
    page: Axes,
    place: tuple[float, float],
    errors: tuple[Array, Array, Array, Array, int],
    images: Array | None,
    classes: Sequence[str],
) -> None:
    x, y = place
    ranked, true, taken, times, runs = errors
    said = "true → most frequent wrong prediction, and how many runs miss the image" if len(ranked) else ""
    _heading(page, x, y, "What do most runs get wrong?", said)
    if not len(ranked):
        page.text(x, y + 80, "no errors, or no predictions", size=TEXT, color=QUIET)
    pitch = (HALF - TILE) / (ACROSS - 1)
    for i, number in enumerate(ranked):
        left, high = x + i % ACROSS * pitch, y + 44 + i // ACROSS * (TILE + 56)
        if images is None:
            page.add_patch(Rectangle((left, high), TILE, TILE, facecolor="none", edgecolor=FAINT, linewidth=0.8))
            page.text(left + TILE / 2, high + TILE / 2, f"no. {number}", size=SMALL, color=QUIET, ha="center")
        else:
            tile(page, images[number], left, high, "gray_r", 0, 255)
        named = f"{classes[true[i]]} → {classes[taken[i]]}"
        size = TEXT if widest([named], TEXT) < pitch else SMALL
        page.text(left + TILE / 2, high + TILE + 16, named, size=size, color=INK, ha="center")
        count = f"{times[i]} of {runs} runs"
        page.text(left + TILE / 2, high + TILE + 31, count, size=SMALL, color=QUIET, ha="center")


def _fit(images: Array | None, cells: Sequence[Cell]) -> bool:
    predicted = next((cell.predicted for cell in cells if cell.predicted), None)
    return images is not None and predicted is not None and len(images) == len(predicted[1])


def _heading(page: Axes, x: float, y: float, heading: str, what: str) -> None:
    page.text(x, y, heading, size=TITLE - 1, color=INK, weight="bold", va="top")
    page.text(x, y + 21, what, size=SMALL, color=QUIET, va="top")


def _panel(page: Axes, x: float, y: float, wide: float, high: float) -> Axes:
    """Axes at so many pixels from the upper left corner of the sheet."""
    figure = page.get_figure(root=True)
    assert isinstance(figure, Figure)
    width, height = figure.bbox.width, figure.bbox.height
    return figure.add_axes((x / width, 1 - (y + high) / height, wide / width, high / height))


def _labels(ax: Axes, names: Sequence[str]) -> None:
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(axis="y", labelsize=TEXT, labelcolor=INK, pad=8)
    for edge in np.arange(1, len(names)) - 0.5:
        ax.axhline(edge, color=FAINT, linewidth=0.6, zorder=0.5)


def _beside(ax: Axes, row: int, x: float, text: str, colour: str, side: Any = "left") -> None:
    """Write right of the panel, so many pixels from its edge."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    place = ax.get_yaxis_transform() + ScaledTranslation(x / DPI, 0, figure.dpi_scale_trans)
    ax.text(1, row, text, size=TEXT, color=colour, ha=side, va="center", transform=place)
