"""How do the networks learn, and how does accuracy go with a factor that is a number?"""

from collections.abc import Iterator

import numpy as np

from normlab.analysis.cells import Cell, numeric, word
from normlab.analysis.part import Part, Picture, slug
from normlab.analysis.questions import Answers

__all__ = ["curves", "factors"]

SERIES = ("test_acc", "test_ce", "val_acc", "val_ce", "train_acc_running", "train_ce")
POINTS = 3  # levels that make a number an axis


def curves(answers: Answers) -> Part | None:
    cells = answers.found.cells
    series = {cell.label: {name: cell.series(name) for name in SERIES if cell.series(name).size} for cell in cells}
    if not any(series.values()):
        return None

    def draw(_: object) -> Iterator[Picture]:
        from normlab.analysis.line_figures import curves as draw_curves

        measured = any("test_acc" in some and np.isfinite(some["test_acc"]).any() for some in series.values())
        caption = (
            f"Cross-entropy and error on the {'test' if measured else 'validation'} images after every epoch: every "
            "seed, and their mean. Nothing was chosen by these curves."
        )
        norms = {cell.label: cell.norm for cell in cells}
        title = f"Learning curves on {answers.found.data_title}"
        yield Picture("curves", caption, draw_curves(series, norms, title=title))

    return Part("curves", "Learning curves", draw=draw)


def factors(answers: Answers) -> Part | None:
    """A factor that is a number becomes an axis, with a line for each combination of the others."""
    axes = [factor for factor in answers.found.factors if _is_axis(answers, factor)]

    def draw(_: object) -> Iterator[Picture]:
        from normlab.analysis.drawing import styles
        from normlab.analysis.line_figures import Along, along, factor_words

        for factor in axes:
            series, norms, words = {}, {}, factor_words(factor)
            for label, cells in _lines(answers, factor).items():
                points, seeds = [], []
                for cell in cells:
                    estimate = answers.estimate({cell.label: 1.0}, "test_acc")
                    ends = estimate.interval(0.95) if estimate else (np.nan, np.nan)
                    points.append([float(cell.levels[factor]), *(100 * x for x in (cell.mean("test_acc"), *ends))])
                    seeds += [(points[-1][0], 100 * acc) for acc in cell.values("test_acc").values()]
                series[label] = Along.of(points, seeds)
                norms[label] = cells[0].norm
            caption = f"Test accuracy against the {words}: every seed, their mean and its 95 % interval."
            title = f"Test accuracy by {words}, {answers.found.data_title}"
            drawn = along(series, styles(norms), x_label=words, y_label="test accuracy, %", title=title)
            yield Picture(f"by-{slug(factor)}", caption, drawn)

    return Part("factors", "Factors that are numbers", draw=draw) if axes else None


def _is_axis(answers: Answers, factor: str) -> bool:
    levels = {word(cell.levels[factor]): cell.levels[factor] for cell in answers.found.cells}
    return len(levels) >= POINTS and numeric(list(levels.values())) and bool(_lines(answers, factor))


def _lines(answers: Answers, factor: str) -> dict[str, list[Cell]]:
    lines: dict[str, list[Cell]] = {}
    for cell in answers.found.cells:
        if cell.values("test_acc"):
            rest = [f"{key}={word(x)}" for key, x in cell.levels.items() if key not in ("norm", factor)]
            lines.setdefault(" ".join([cell.norm, *rest]), []).append(cell)
    return {label: sorted(cells, key=lambda cell: float(cell.levels[factor])) for label, cells in lines.items()}
