"""The figures of a report: which there are, what they are called and what they show."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from normlab.analysis import drawing
from normlab.analysis.cells import Cell, Sorted, holds, numeric, word
from normlab.analysis.decomposed import decomposition_pictures
from normlab.analysis.effects import effects
from normlab.analysis.error_figures import overlap as overlap_picture
from normlab.analysis.error_figures import persistent_gallery, variance_shares
from normlab.analysis.factor_figure import factor_curve
from normlab.analysis.figures import confusion
from normlab.analysis.forensics import times_wrong
from normlab.analysis.path import path_pictures
from normlab.analysis.probed import probe_pictures
from normlab.analysis.stats import Comparison, summarise
from normlab.analysis.study_figures import bands, differences, intervals
from normlab.analysis.tables import errors_table, overlap_table, wrong
from normlab.files import write_atomically
from normlab.settings import Study

__all__ = ["Picture", "pictures", "save"]

SHOWN = 30  # misclassified images a setting
POINTS = 3  # levels that make a number an axis
PAIRS = 66  # rows that a figure of differences can hold and still be read

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Picture:
    """A figure with its file name, heading and what a reader has to know to read it. figure is None where the images
    that it needs are not on this machine; `digest` is over what it is drawn from."""

    name: str
    section: str
    caption: str
    figure: Figure | None
    digest: str


def pictures(
    found: Sorted,
    pairs: list[tuple[Cell, Cell, Comparison]],
    margin: float,
    study: Study | None,
    images: Array | None,
    classes: tuple[str, ...],
) -> Iterator[Picture]:
    """Draws a report's figures, one at a time.

    Args:
        images: uint8 (N, 28, 28), the test images in file order; None where they are not on this machine.
    """
    norms = {cell.label: cell.norm for cell in found.cells}
    data = found.data
    able = [cell for cell in found.cells if cell.values("test_acc")]
    if able:
        values = {cell.label: 100 * np.array(list(cell.values("test_acc").values())) for cell in able}
        summaries = {label: summarise(x) for label, x in values.items()}
        yield _picture(
            "accuracy",
            "settings",
            "Test accuracy of the last epoch: every seed, their mean and its 95 % interval.",
            intervals(
                values,
                {label: (s.mean, s.low, s.high) for label, s in summaries.items()},
                norms,
                title=f"Test accuracy on {data}",
                unit_label="test accuracy, %",
                reference=_published(study, able),
            ),
        )
    if pairs:
        by_size = sorted(pairs, key=lambda pair: -abs(pair[2].difference.mean))[:PAIRS]
        rows = [
            (f"{a.label} − {b.label}", c.difference.mean, c.difference.low, c.difference.high, c.verdict)
            for a, b, c in pairs
            if any(c is other for *_, other in by_size)
        ]
        some = f" The {PAIRS} largest of {len(pairs)}." if len(pairs) > PAIRS else ""
        yield _picture(
            "differences",
            "pairs",
            f"Difference in test accuracy of each pair, first minus second, in percentage points.{some}",
            differences(rows, margin, title=f"Differences in test accuracy on {data}"),
        )
    names = ("test_acc", "test_ce", "val_acc", "val_ce", "train_acc_running", "train_ce")
    series = {cell.label: {name: cell.series(name) for name in names if cell.series(name).size} for cell in found.cells}
    if any(series.values()):
        held = (
            "test"
            if any("test_acc" in some and np.isfinite(some["test_acc"]).any() for some in series.values())
            else "validation"
        )
        yield _picture(
            "curves",
            "curves",
            f"Cross-entropy and accuracy on the {held} images after every epoch: mean and standard deviation over "
            "seeds. Nothing was chosen by these curves.",
            bands(series, norms, title=f"Learning curves on {data}"),
        )
    yield from _factor_curves(found, data)
    if factorial := effects(found, margin):
        rows = [
            (each.label, d.mean, d.low, d.high, each.comparison.verdict)
            for each in factorial
            for d in [each.comparison.difference]
        ]
        yield _picture(
            "effects",
            "effects",
            "What each factor adds to the test accuracy, averaged over all others, in percentage points.",
            differences(rows, margin, title=f"Effects on test accuracy, {data}"),
        )
    for name, caption, figure in probe_pictures(found):
        yield _picture(name, "probes", caption, figure)
    for name, caption, figure in path_pictures(found):
        yield _picture(name, "path", caption, figure)
    for name, caption, figure in decomposition_pictures(found):
        yield _picture(name, "statistics", caption, figure)
    errors = errors_table(found)
    if len(errors):
        columns = ["share_seed", "share_test_set", "share_interaction"]
        parts = errors.set_index("setting")[columns].astype(float)
        shares = {str(label): (float(a), float(b), float(c)) for label, a, b, c in parts.itertuples()}
        if np.isfinite(parts.to_numpy()).all(axis=1).any():
            yield _picture(
                "variance",
                "errors",
                "What the variance of one run's accuracy is made of: the seed, the choice of test images, and both "
                "together.",
                variance_shares(shares, title=f"Where the variance of an accuracy comes from, {data}"),
            )
    overlap = overlap_table(found)
    if len(overlap):
        labels = list(dict.fromkeys([*overlap["a"], *overlap["b"]]))
        yield _picture(
            "overlap",
            "errors",
            "Errors that two settings share, of all that either makes (Jaccard index), by the majority vote of the "
            "seeds.",
            overlap_picture(_matrix(overlap, labels), labels, title=f"Overlap of errors on {data}"),
        )
    for cell in found.cells:
        yield from _of_cell(cell, data, images, classes)


def _of_cell(cell: Cell, data: str, images: Array | None, classes: tuple[str, ...]) -> Iterator[Picture]:
    bad = wrong(cell)
    if bad is None or cell.predicted is None:
        return
    pred, true = cell.predicted
    count = times_wrong(bad)
    ranked = np.argsort(-count, kind="stable")[: min(SHOWN, int((count > 0).sum()))]
    voted = np.array([np.bincount(pred[bad[:, i], i], minlength=len(classes)).argmax() for i in ranked], dtype=int)
    digest = hashlib.sha256(b"".join(a.astype(np.int64).tobytes() for a in (ranked, voted, count[ranked]))).hexdigest()[
        :16
    ]
    figure = None
    if images is not None and len(images) == bad.shape[1]:
        figure = persistent_gallery(
            images[ranked],
            true[ranked].astype(int),
            voted,
            count[ranked],
            len(bad),
            classes=classes,
            title=f"{cell.label} on {data}: what most seeds get wrong",
        )
    caption = f"{cell.label}: misclassified test images, those first that most of the {len(bad)} seeds get wrong."
    yield Picture(f"misclassified-{slug(cell.label)}", "galleries", caption, figure, digest)
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (np.broadcast_to(true, pred.shape).ravel(), pred.ravel()), 1)
    yield _picture(
        f"confusion-{slug(cell.label)}",
        "confusion",
        f"{cell.label}: confusion matrix, all {len(bad)} seeds added up.",
        confusion(counts, classes=classes, title=f"{cell.label} on {data}, {len(bad)} seeds", compact=True),
    )


def _factor_curves(found: Sorted, data: str) -> Iterator[Picture]:
    """A factor that is a number becomes an axis, with a line for each combination of the others."""
    for factor in found.factors:
        levels = {word(cell.levels[factor]): cell.levels[factor] for cell in found.cells}
        if len(levels) < POINTS or not numeric(list(levels.values())):
            continue
        lines: dict[str, list[Cell]] = {}
        for cell in found.cells:
            if cell.values("test_acc"):
                rest = [f"{key}={word(x)}" for key, x in cell.levels.items() if key not in ("norm", factor)]
                lines.setdefault(" ".join([cell.norm, *rest]), []).append(cell)
        series, norms = {}, {}
        for label, cells in lines.items():
            cells.sort(key=lambda cell: float(cell.levels[factor]))
            found_ = [summarise([100 * x for x in cell.values("test_acc").values()]) for cell in cells]
            xs = np.array([float(cell.levels[factor]) for cell in cells])
            mean, low, high = (np.array([getattr(s, key) for s in found_]) for key in ("mean", "low", "high"))
            series[label] = (xs, mean, low, high)
            norms[label] = cells[0].norm
        if series:
            yield _picture(
                f"by-{slug(factor)}",
                "factors",
                f"Test accuracy against {factor}: mean over seeds and its 95 % interval.",
                factor_curve(
                    series, norms, factor=factor, y_label="test accuracy, %", title=f"Test accuracy by {factor}, {data}"
                ),
            )


def save(picture: Picture, folder: Path) -> bytes | None:
    """Writes a picture as PNG and SVG; returns the SVG. Where it could not be drawn here, the files that stand are kept
    if they show the same thing: returns None where there are none such."""
    svg, png = folder / f"{picture.name}.svg", folder / f"{picture.name}.png"
    mark = f"normlab {picture.digest}".encode()
    if picture.figure is None:
        content = svg.read_bytes() if svg.exists() else b""
        return content if mark in content else None
    folder.mkdir(parents=True, exist_ok=True)
    content = drawing.svg(picture.figure, mark.decode())
    write_atomically(svg, content)
    write_atomically(png, drawing.png(picture.figure))
    return content


def _picture(name: str, section: str, caption: str, figure: Figure) -> Picture:
    return Picture(name, section, caption, figure, "")


def _published(study: Study | None, cells: list[Cell]) -> dict[str, list[tuple[str, float]]]:
    found: dict[str, list[tuple[str, float]]] = {}
    for item in study.published if study else []:
        for cell in cells:
            if item.test_acc is not None and holds(cell, item.setting):
                found.setdefault(cell.label, []).append((item.source, item.test_acc))
    return found


def _matrix(overlap: pd.DataFrame, labels: list[str]) -> Array:
    matrix = np.full((len(labels), len(labels)), np.nan)
    np.fill_diagonal(matrix, 1.0)
    for a, b, share in zip(overlap["a"], overlap["b"], overlap["jaccard"], strict=True):
        i, j = labels.index(a), labels.index(b)
        matrix[i, j] = matrix[j, i] = share
    return matrix


def slug(label: str) -> str:
    """A label as part of a file's name."""
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in label)
