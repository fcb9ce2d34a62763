"""What do networks get wrong, and what is the variance of an accuracy made of?"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from normlab import analysis
from normlab.analysis.cells import Cell
from normlab.analysis.forensics import jaccard, majority, mcnemar, variance_shares
from normlab.analysis.numbers import percent
from normlab.analysis.part import Column, ImageSet, Part, Picture, Row, Table, p, share, text, value
from normlab.analysis.questions import Answers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LISTED, SHOWN = 100, 30  # persistent errors in the table, and in the figure
MATRICES = 12  # confusion matrices in the figure
MATRIX = 24  # rows and columns of the matrix of overlaps that can be read
MOST_SETTINGS = 12  # with a column of their own in the table of persistent errors
SHARES = ("share_seed", "share_test_set", "share_interaction")
NOTE = (
    "The last four columns: where the variance of one run's accuracy would come from, on a fresh seed and a fresh test "
    "set of this size, and its standard deviation (two-way random effects, seeds by images). A negative estimate of a "
    "variance counts as 0: it is too small for these seeds to show."
)
OVERLAP = (
    "Errors of the majority vote of each setting's seeds. Jaccard index: errors of both over errors of either. "
    "McNemar's exact p, not adjusted: whether the two votes err equally often."
)
PERSISTENT = (
    "Test images by their place in the file, from 0, those first that most runs get wrong. Predicted: the most "
    "frequent wrong class; probabilities are means over all runs. Then, per setting, how many of its seeds are wrong."
)


def errors(answers: Answers) -> Part:
    frame, overlap = errors_frame(answers.grouped.cells), overlap_frame(answers.grouped.cells)
    columns = [
        text("setting"), value("errors per run", "errors_mean", 1), value("wrong in most seeds", "persistent"),
        value("wrong in all", "always"), share("seed", "share_seed"), share("test set", "share_test_set"),
        share("both together", "share_interaction"), value("sd, pp", "sd_pp", 3),
    ]  # fmt: skip
    shared = [
        text("pair"), value("first alone", "only_a"), value("second alone", "only_b"), value("both", "both"),
        value("Jaccard", "jaccard", 2), p("p (McNemar)", "p_mcnemar"),
    ]  # fmt: skip
    images = f"Of {frame['images'].iloc[0]:,} test images. " if len(frame) else ""
    tables = [Table("errors", frame, columns, images + NOTE), Table("overlap", overlap, shared, OVERLAP)]
    return Part(
        "errors", "Errors", tables=tables, pictures=lambda: _pictures(frame, overlap, answers.grouped.data_title)
    )


def persistent_errors(answers: Answers) -> Part:
    """The test images that most runs of all settings get wrong, and which class is taken for which."""
    cells = [cell for cell in answers.grouped.cells if cell.predicted]
    frame, counts = persistent_frame(cells), confusion_frame(cells)
    columns = [
        Column("test image", lambda row: f"{row['image']}", "image"),
        text("true → predicted", "taken_for"),
        Column("wrong in", lambda row: f"{row['wrong']} of {row['runs']} runs", "wrong"),
        share("prob. of true class", "prob_true"),
        share("prob. of predicted", "prob_predicted"),
        *(_of_setting(cell.label) for cell in cells if len(cells) <= MOST_SETTINGS),
    ]
    tables = [Table("persistent", frame, columns, PERSISTENT), Table("confusion", counts)]
    heading, data = "Persistent errors and confusion", answers.grouped.data_title
    pictures = [_misclassified(frame.head(SHOWN), cells, data), _confusion(counts, cells, data)] if cells else []
    return Part("persistent", heading, tables=tables, pictures=lambda: pictures, folded=True)


def _of_setting(label: str) -> Column:
    def show(row: Row) -> str:
        wrong = row[f"wrong {label}"]
        return f"{wrong} of {row[f'runs {label}']}" if wrong else "0"

    return Column(label, show, f"wrong {label}")


def _pictures(errors: pd.DataFrame, overlap: pd.DataFrame, data: str) -> Iterator[Picture]:
    parts = errors.set_index("setting")[[*SHARES]].astype(float) if len(errors) else errors
    if np.isfinite(parts.to_numpy(float)).all(axis=1).any():
        caption = "What the variance of one run's accuracy is made of: the seed, the test images, and both together."
        shares = {str(label): (float(a), float(b), float(c)) for label, a, b, c in parts.itertuples()}
        title = f"Where the variance of an accuracy comes from, {data}"
        yield Picture("variance", caption, lambda _: analysis.row_figures.variance_shares(shares, title=title))
    if len(overlap):
        labels = list(dict.fromkeys([*overlap["a"], *overlap["b"]]))
        shared = overlap.pivot(index="a", columns="b", values="jaccard").reindex(index=labels, columns=labels)
        caption = "Errors that two settings share, of all that either makes (Jaccard index), by majority vote of seeds."
        if len(labels) > MATRIX:
            caption += f" Of {len(labels)} settings the first {MATRIX}; overlap.csv has all."
            labels = labels[:MATRIX]
            shared = shared.loc[labels, labels]
        matrix = shared.fillna(shared.T).to_numpy(float, copy=True)
        np.fill_diagonal(matrix, 1.0)
        of = f"Overlap of errors on {data}"
        yield Picture("overlap", caption, lambda _: analysis.image_figures.overlap(matrix, labels, title=of))


def _misclassified(frame: pd.DataFrame, cells: Sequence[Cell], data: str) -> Picture:
    """The gallery of the first rows of `persistent_frame`."""

    def draw(seen: ImageSet) -> "Figure | None":
        assert cells[0].predicted
        if seen.images is None or len(seen.images) != len(cells[0].predicted[1]):
            return None
        rows = frame.to_dict("records")
        below = [
            f"image {row['image']}\n{row['wrong']} of {row['runs']} runs"
            + (f"\n{percent(row['prob_true'])}, {percent(row['prob_predicted'])}" if row["prob_true"] >= 0 else "")
            for row in rows
        ]
        names = [(seen.classes[row["true"]], seen.classes[row["predicted"]]) for row in rows]
        note = "true → most frequent wrong class; how many runs of all settings are wrong"
        note += "; mean probabilities of the two classes" if "%" in "".join(below) else ""
        chosen, title = seen.images[[row["image"] for row in rows]], f"What most runs get wrong on {data}"
        return analysis.image_figures.gallery(chosen, names, below, title=title, note=note)

    several = f"runs of all {len(cells)} settings" if len(cells) > 1 else "seeds"
    digest = hashlib.sha256(frame.to_csv().encode()).hexdigest()[:16]
    return Picture("misclassified", f"The test images that most {several} get wrong.", draw, digest)


def _confusion(counts: pd.DataFrame, cells: Sequence[Cell], data: str) -> Picture:
    """The matrices of `confusion_frame`."""

    def draw(seen: ImageSet) -> "Figure":
        errors = {cell.label: np.zeros((len(seen.classes), len(seen.classes))) for cell in cells[:MATRICES]}
        for label, true, predicted, per_run in counts.itertuples(index=False):
            if label in errors:
                errors[label][true, predicted] = per_run
        return analysis.image_figures.confusions(errors, seen.classes, title=f"Confusion on {data}, errors per run")

    some = f" Of {len(cells)} settings the first {MATRICES}; confusion.csv has all." if len(cells) > MATRICES else ""
    return Picture("confusion", f"Which class is taken for which: errors per run, mean over seeds.{some}", draw)


def persistent_frame(cells: Sequence[Cell]) -> pd.DataFrame:
    """One row per test image, the `LISTED` that most runs of all settings get wrong: its place in the file, true and
    most frequent wrong class, mean probabilities of both over the runs that kept them (NaN where none did), and how
    many runs of each setting are wrong."""
    if not cells or cells[0].predicted is None:
        return pd.DataFrame()
    true = cells[0].predicted[1]
    preds = {
        cell.label: cell.predicted[0] for cell in cells if cell.predicted and np.array_equal(cell.predicted[1], true)
    }
    pred = np.concatenate(list(preds.values()))
    count = (pred != true).sum(axis=0)
    ranked = np.argsort(-count, kind="stable")[: min(LISTED, int((count > 0).sum()))]
    voted = np.array([np.bincount(pred[pred[:, i] != true[i], i]).argmax() for i in ranked], dtype=int)
    frame = pd.DataFrame({"image": ranked, "true": true[ranked].astype(int), "predicted": voted})
    frame["taken_for"] = [f"{a} → {b}" for a, b in zip(frame["true"], frame["predicted"], strict=True)]
    frame["wrong"], frame["runs"] = count[ranked], len(pred)
    kept = [
        arrays["log_probs"][ranked]
        for cell in cells
        for run in cell.completed
        if (arrays := run.predictions or {}).keys() >= {"log_probs", "true"} and np.array_equal(arrays["true"], true)
    ]
    for name, of in (("prob_true", true[ranked]), ("prob_predicted", voted)):
        probs = [np.exp(log_probs[range(len(ranked)), of].astype(float)) for log_probs in kept]
        frame[name] = np.mean(probs, axis=0) if probs else np.nan
    counts: dict[str, Any] = {}
    for label, own in preds.items():
        counts |= {f"wrong {label}": (own != true).sum(axis=0)[ranked], f"runs {label}": len(own)}
    return frame.join(pd.DataFrame(counts, frame.index))


def confusion_frame(cells: Sequence[Cell]) -> pd.DataFrame:
    """One row per setting, true and another, predicted class that some run took it for: how often, per run."""
    rows = []
    for cell in cells:
        if cell.predicted:
            pred, true = cell.predicted
            pairs = np.stack([np.broadcast_to(true, pred.shape)[pred != true], pred[pred != true]]).astype(int)
            found, counts = np.unique(pairs, axis=1, return_counts=True)
            rows += [(cell.label, a, b, count / len(pred)) for (a, b), count in zip(found.T, counts, strict=True)]
    return pd.DataFrame(rows, columns=["setting", "true", "predicted", "per_run"])


def errors_frame(cells: Sequence[Cell]) -> pd.DataFrame:
    """One row per setting: errors per run, images wrong in most and all seeds, and where the variance of accuracy comes
    from (seed, test set, both together) with the standard deviation of one run's accuracy on a fresh test set, in
    pp."""
    rows = []
    for cell in cells:
        if cell.predicted:
            wrong = cell.predicted[0] != cell.predicted[1]
            found = variance_shares(~wrong)
            row = {"setting": cell.label, "n": len(wrong), "images": wrong.shape[1]}
            row |= {"errors_mean": float(wrong.sum(1).mean()), "persistent": int((2 * wrong.sum(0) > len(wrong)).sum())}
            row |= {"always": int(wrong.all(0).sum()), **dict(zip(SHARES, found.shares, strict=True))}
            rows.append(row | {"sd_pp": 100 * found.sd})
    return pd.DataFrame(rows)


def overlap_frame(cells: Sequence[Cell]) -> pd.DataFrame:
    """One row per pair of settings, on the vote of the majority of seeds: errors of each alone and of both, Jaccard
    index of the errors, McNemar's exact p."""
    votes = {cell.label: majority(cell.predicted[0]) != cell.predicted[1] for cell in cells if cell.predicted}
    rows = []
    for a, b in itertools.combinations(votes, 2):
        if votes[a].shape == votes[b].shape:
            test, both = mcnemar(votes[a], votes[b]), int((votes[a] & votes[b]).sum())
            row = {"pair": f"{a} and {b}", "a": a, "b": b, "only_a": test.only_a, "only_b": test.only_b, "both": both}
            rows.append(row | {"jaccard": jaccard(votes[a], votes[b]), "p_mcnemar": test.p})
    return pd.DataFrame(rows)
