"""A study in one picture: how accurate, how learnt, what differs, what all of them get wrong."""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from normlab.analysis.cells import Cell
from normlab.analysis.drawing import SMALL, Style, empty, figure, folded, key, level, plain, styles, zero_place
from normlab.analysis.image_figures import check_images, montage
from normlab.analysis.line_figures import curve_panel, mean_curve, shown_series
from normlab.analysis.part import ImageSet
from normlab.analysis.parts.effects import effect_of
from normlab.analysis.parts.errors import persistent_frame
from normlab.analysis.parts.settings import accuracies_of
from normlab.analysis.questions import Answer, Answers
from normlab.analysis.row_figures import accuracy_rows, effect_rows, row_height
from normlab.errors import NormlabError

ROWS, ACROSS = 6, 5  # contrasts that are shown; images side by side, in two rows
LETTERS = 26  # of a label's line
WIDE = 12.8  # inches


def strongest(answers: Sequence[Answer], count: int = ROWS) -> list[Answer]:
    """The contrasts with the surest verdicts, the surest first: a small adjusted p of the test behind the verdict, so
    what is undecided comes last."""

    def order(answer: Answer) -> tuple[float, float]:
        p = min((p for p in answer.decision.adjusted if np.isfinite(p)), default=1.0)
        return p, -abs(answer.numbers[0])

    return sorted((each for each in answers if each.estimate is not None and each.kind != "claim"), key=order)[:count]


@plain()
def poster(answers: Answers, seen: ImageSet) -> Figure:
    """Draw one picture of a study: accuracies with their intervals, learning curves, the surest verdicts, and the test
    images that most runs get wrong, without pictures where they are not those of the predictions.

    Raise `NormlabError` if no run was measured on test images, ValueError if the images are not uint8.
    """
    found, study = answers.grouped, answers.study
    cells = [cell for cell in found.cells if cell.values("test_acc")]
    if not cells:
        raise NormlabError("no run here has a test accuracy")
    runs = found.completed
    note = f"{study.question} " if study else ""
    size, epochs = runs[0].record.data.get("train", 0), runs[0].config["epochs"]
    note += f"{size:,} training images, {epochs} epochs, the last one counts."
    title = f"{len(found.cells)} settings, {len(runs)} runs on {found.data_title}\n{textwrap.fill(note, 130)}"
    looks = styles(found.norms)
    chosen = [effect_of(answers, each)._replace(group="") for each in strongest(answers.answers)]
    high = (
        max(row_height([cell.label for cell in cells], 0.4, LETTERS), 2.6),
        max(row_height([row.label for row in chosen], 0.42, LETTERS), 2.6),
    )
    fig = figure("", sum(high) + 2.6 + 0.2 * title.count("\n"), WIDE)
    fig.suptitle(title, size=11, x=0.01, ha="left")
    axes = fig.subplot_mosaic(
        [["accuracies", "curves"], ["effects", "errors"]], height_ratios=high, gridspec_kw={"hspace": 0.08}
    )
    values, means = accuracies_of(answers)
    accuracy_rows(axes["accuracies"], values, means, looks, letters=LETTERS)
    _curves(axes["curves"], cells, looks)
    effect_rows(axes["effects"], chosen, answers.margin, answers.about.unit, LETTERS, spans=False)
    _errors(axes["errors"], persistent_frame([cell for cell in cells if cell.predicted]), cells, seen)
    of = len(answers.answers)
    headings = {
        "accuracies": "How accurate after the last epoch?",
        "curves": "How do they learn?",
        "effects": "What differs?" + f" The {len(chosen)} surest of {of} verdicts" * (of > len(chosen)),
        "errors": "What do most runs get wrong?",
    }
    for name, heading in headings.items():
        axes[name].set_title(heading, weight="bold")
    key(
        fig,
        note="Dots: one seed each. Larger marks: mean, or difference, with its 95 % interval, not adjusted for their "
        "number. Curves: means over seeds. Images: true → most frequent wrong prediction, and how many runs miss them. "
        f"Verdicts are on the first of each contrast; the chance of a false one is at most {100 * answers.alpha:g} %. "
        f"Grey: within ± {answers.margin:g} {answers.about.unit}, taken as equivalent.",
    )
    return fig


def _curves(ax: Axes, cells: Sequence[Cell], looks: dict[str, Style]) -> None:
    names = ("test_acc", "val_acc", "train_acc_running")
    words, series = shown_series({cell.label: {name: cell.series(name) for name in names} for cell in cells}, "acc")
    means = {label: mean_curve(range(of.shape[1]), of)[1][None] for label, of in series.items()}
    means = {label: of for label, of in means.items() if of.size}
    floor = zero_place(*means.values())
    curve_panel(ax, means, looks, floor=floor)
    ax.set(xlabel="epoch", ylabel=f"{words} (logarithmic)")
    if not means:
        empty(ax)
        return
    level([ax], log=True, zero=floor)
    ax.legend(
        [looks[label].handle for label in means], [folded(label, LETTERS) for label in means],
        loc="upper left", bbox_to_anchor=(1, 1), fontsize=SMALL,
    )  # fmt: skip


def _errors(ax: Axes, frame: pd.DataFrame, cells: Sequence[Cell], seen: ImageSet) -> None:
    """Draw the images of the first rows of `persistent_frame`."""
    if frame.empty:
        empty(ax, "no errors, or no predictions")
        ax.set_axis_off()
        return
    rows, images, classes = frame.head(2 * ACROSS).to_dict("records"), seen.images, seen.classes
    size = next(len(cell.predicted[1]) for cell in cells if cell.predicted)
    if images is not None and len(images) == size:
        check_images(images)
        shown = images[[row["image"] for row in rows]]
    else:
        shown = np.full((len(rows), 28, 28), 25, dtype=np.uint8)
    names = [folded(f"{classes[row['true']]} → {classes[row['predicted']]}", 11) for row in rows]
    captions = [f"{name}\n{row['wrong']} of {row['runs']}" for name, row in zip(names, rows, strict=True)]
    montage(ax, shown, captions, ACROSS, cmap="gray_r", vmin=0, vmax=255)
