"""A study in one picture: how accurate, how learnt, what differs, what all of them get wrong."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from normlab.analysis.cells import Cell
from normlab.analysis.drawing import (
    SMALL,
    Array,
    Style,
    check,
    empty,
    figure,
    folded,
    key,
    level,
    plain,
    styles,
    zero_place,
)
from normlab.analysis.figures import montage, shape_of
from normlab.analysis.line_figures import curve_panel, shown_series
from normlab.analysis.parts.effects import effect_of
from normlab.analysis.questions import Answer, Answers
from normlab.analysis.row_figures import accuracy_rows, effect_rows, row_height

__all__ = ["poster", "shared_errors", "strongest"]

ROWS, ACROSS = 6, 5  # contrasts that are shown; images side by side, in two rows
LETTERS = 26  # of a label's line
WIDE = 12.8  # inches


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


@plain()
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
    leaves the last panel without pictures. note: a line or two below the title. Raise ValueError if images are not
    uint8 (N, H, W), or no run was measured on test images.
    """
    cells = [cell for cell in answers.found.cells if cell.values("test_acc")]
    check(bool(cells), "no run here has a test accuracy")
    fits = images is None or (images.ndim == 3 and images.dtype == np.uint8)
    check(fits, f"images must be uint8 (N, H, W), not {shape_of(np.asarray(images))}")
    looks = styles({cell.label: cell.norm for cell in answers.found.cells})
    chosen = [effect_of(answers, each)._replace(group="") for each in strongest(answers.answers)]
    high = (
        max(row_height([cell.label for cell in cells], 0.4, LETTERS), 2.6),
        max(row_height([row.label for row in chosen], 0.42, LETTERS), 2.6),
    )
    above = f"{title}\n{textwrap.fill(note, 130)}" if note else title
    fig = figure("", sum(high) + 2.6 + 0.2 * above.count("\n"), WIDE)
    fig.suptitle(above, size=11, x=0.01, ha="left")
    axes = fig.subplot_mosaic(
        [["accuracies", "curves"], ["effects", "errors"]], height_ratios=high, gridspec_kw={"hspace": 0.08}
    )
    values = {cell.label: 100 * np.array([*cell.values("test_acc").values()]) for cell in cells}
    means = {label: (float(of.mean()), *_ends(answers, label)) for label, of in values.items()}
    accuracy_rows(axes["accuracies"], values, means, looks, letters=LETTERS)
    axes["accuracies"].set_title("How accurate after the last epoch?", weight="bold")
    _curves(axes["curves"], cells, looks)
    effect_rows(axes["effects"], chosen, answers.margin, answers.about.unit, LETTERS, spans=False)
    of = len(answers.answers)
    some = f" The {len(chosen)} surest of {of} verdicts" if of > len(chosen) else ""
    axes["effects"].set_title(f"What differs?{some}", weight="bold")
    _errors(axes["errors"], shared_errors(cells), images if _fit(images, cells) else None, classes)
    key(
        fig,
        note="Dots: one seed each. Larger marks: mean, or difference, with its 95 % interval, not adjusted for their "
        "number. Curves: means over seeds. Images: true → most frequent wrong prediction, and how many runs miss them. "
        f"Verdicts are on the first of each contrast; the chance of a false one is at most {100 * answers.alpha:g} %. "
        f"Grey: within ± {answers.margin:g} {answers.about.unit}, taken as equivalent.",
    )
    return fig


def _ends(answers: Answers, label: str) -> tuple[float, float]:
    """The 95 % interval of a setting's accuracy, per cent."""
    estimate = answers.estimate({label: 1.0}, "test_acc")
    low, high = estimate.interval(0.95) if estimate else (np.nan, np.nan)
    return 100 * low, 100 * high


def _curves(ax: Axes, cells: Sequence[Cell], looks: dict[str, Style]) -> None:
    names = ("test_acc", "val_acc", "train_acc_running")
    words, series = shown_series({cell.label: {name: cell.series(name) for name in names} for cell in cells}, "acc")
    means = {label: np.nanmean(of[:, there], axis=0, keepdims=True) for label, of in series.items()
             if (there := np.isfinite(of).any(axis=0)).any()}  # fmt: skip
    floor = zero_place(np.concatenate([np.ravel(of) for of in means.values()] or [np.zeros(0)]))
    curve_panel(ax, means, looks, floor=floor)
    ax.set(xlabel="epoch", ylabel=f"{words} (logarithmic)")
    ax.set_title("How do they learn?", weight="bold")
    if not means:
        empty(ax)
        return
    level([ax], "log", floor)
    ax.legend(
        [looks[label].handle for label in means], [folded(label, LETTERS) for label in means],
        loc="upper left", bbox_to_anchor=(1, 1), fontsize=SMALL,
    )  # fmt: skip


def _errors(
    ax: Axes, errors: tuple[Array, Array, Array, Array, int], images: Array | None, classes: Sequence[str]
) -> None:
    ranked, true, taken, times, runs = errors
    ax.set_title("What do most runs get wrong?", weight="bold")
    if not len(ranked):
        empty(ax, "no errors, or no predictions")
        ax.set_axis_off()
        return
    shown = np.full((len(ranked), 28, 28), 25, dtype=np.uint8) if images is None else images[ranked]
    names = [f"{classes[t]} → {classes[p]}" for t, p in zip(true, taken, strict=True)]
    captions = [f"{folded(name, 11)}\n{count} of {runs}" for name, count in zip(names, times, strict=True)]
    montage(ax, shown, captions, ACROSS, 1.25, cmap="gray_r", vmin=0, vmax=255)
    ax.set_anchor("NW")


def _fit(images: Array | None, cells: Sequence[Cell]) -> bool:
    predicted = next((cell.predicted for cell in cells if cell.predicted), None)
    return images is not None and predicted is not None and len(images) == len(predicted[1])
