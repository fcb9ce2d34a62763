"""How do the networks learn, and how does accuracy go with a factor that is a number?"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from normlab import analysis
from normlab.analysis.cells import Cell, alike, numeric, trained
from normlab.analysis.inference import Interval, mean_interval
from normlab.analysis.part import ImageSet, Part, Picture, slug
from normlab.analysis.questions import Answers
from normlab.settings.conf import spell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SERIES = ("test_acc", "test_ce", "val_acc", "val_ce", "train_acc_running", "train_ce")
TOLD_APART = 16  # settings of one norm: with more, the curves are several figures
POINTS = 3  # levels that make a number an axis
WORDS = {"l1": "L1 penalty λ", "lr": "learning rate", "train_size": "training images"}


def curves(answers: Answers) -> Part:
    cells = answers.grouped.cells
    series = {cell.label: {name: cell.series(name) for name in SERIES if cell.series(name).size} for cell in cells}
    measured = any(np.isfinite(some.get("test_acc", np.nan)).any() for some in series.values())
    caption = (
        f"Cross-entropy and error on the {'test' if measured else 'validation'} images after every epoch: every "
        "seed, and their mean. Nothing was chosen by these curves."
    )
    norms, title = answers.grouped.norms, f"Learning curves on {answers.grouped.data_title}"
    labels, size = [*series], len(series)
    crowd = max(Counter(norms.values()).values(), default=0) > TOLD_APART
    parts = [labels[low : low + TOLD_APART] for low in range(0, size, TOLD_APART)] if crowd else [labels]

    def pictures() -> Iterator[Picture]:
        for number, part in enumerate(parts if any(series.values()) else [], 1):
            first = TOLD_APART * (number - 1) + 1
            which = f", settings {first} to {first + len(part) - 1} of {size}" if crowd else ""
            yield Picture(
                f"curves-{number}" if crowd else "curves",
                caption,
                lambda _, part=part, which=which: analysis.line_figures.curves(  # type: ignore[misc]
                    {label: series[label] for label in part},
                    {label: norms[label] for label in part},
                    title=title + which,
                ),
            )

    return Part("curves", "Learning curves", pictures=pictures)


class Point(NamedTuple):
    """A setting in a figure of lines: (x, mean, low, high), and (x, value) of every seed."""

    middle: tuple[float, ...]
    seeds: list[tuple[float, float]]

    @classmethod
    def of(
        cls, x: Mapping[int, float], y: Mapping[int, float], *, accuracy: bool, ends: Interval | None = None
    ) -> "Point":
        """From x and y by seed. accuracy: y is one, and shown in per cent. ends: of the interval of the mean of y; a t
        interval's by default."""
        factor = 100 if accuracy else 1
        mean, *others = mean_interval([*y.values()], "logit" if accuracy else "identity")
        numbers = (factor * each for each in (mean, *(ends or others)))
        return cls((float(np.mean([*x.values()])), *numbers), [(x[seed], factor * y[seed]) for seed in y])


def along(
    name: str, caption: str, lines: Mapping[str, Sequence[Point]], norms: str | Mapping[str, str], **options: Any
) -> Picture:
    """Return a figure of lines.

    norms: of each line, or that of all, whose lines have an order (layers). options: of `line_figures.along`.
    """

    def draw(_: ImageSet) -> "Figure":
        from normlab.analysis.drawing import in_sequence, styles

        looks = in_sequence(list(lines), norms) if isinstance(norms, str) else styles(norms)
        drawn = {
            label: analysis.line_figures.Along.of(
                [point.middle for point in points], [seed for point in points for seed in point.seeds]
            )
            for label, points in lines.items()
        }
        return analysis.line_figures.along(drawn, looks, **options)

    return Picture(name, caption, draw)


def factors(answers: Answers) -> Part:
    """A factor that is a number becomes an axis, with a line for each combination of the others."""
    return Part("factors", "Factors that are numbers", pictures=lambda: _factors(answers))


def _factors(answers: Answers) -> Iterator[Picture]:
    cells = [cell for cell in answers.grouped.cells if cell.values("test_acc")]
    for factor in answers.grouped.factors:
        levels = [cell.levels[factor] for cell in answers.grouped.cells]
        if not cells or not numeric(levels) or len({spell(each) for each in levels}) < POINTS:
            continue
        groups = alike(cells, factor)
        lines = {label: [_point(answers, cell, factor) for cell in group] for label, group in groups.items()}
        norms = {label: group[0].norm for label, group in groups.items()}
        words = WORDS.get(factor, factor.replace("_", " ").replace("norm.", ""))  # batch_size: the batch size
        lost = not all(map(trained, cells))
        caption = f"Test accuracy against the {words}: every seed, their mean and its 95 % interval"
        caption += "; the median where a run was lost, which means say little of." if lost else "."
        labels = {"x_label": words, "y_label": "test accuracy, %"}
        title = f"Test accuracy by {words}, {answers.grouped.data_title}"
        yield along(f"by-{slug(factor)}", caption, lines, norms, title=title, lost=lost, **labels)


def _point(answers: Answers, cell: Cell, factor: str) -> Point:
    accs, estimate = cell.values("test_acc"), answers.estimate({cell.label: 1.0}, "test_acc")
    ends = estimate.interval(0.95) if estimate else Interval(math.nan, math.nan)
    point = Point.of(dict.fromkeys(accs, float(cell.levels[factor])), accs, accuracy=True, ends=ends)
    if trained(cell):
        return point
    x, *_ = point.middle
    return point._replace(middle=(x, 100 * float(np.median([*accs.values()])), math.nan, math.nan))
