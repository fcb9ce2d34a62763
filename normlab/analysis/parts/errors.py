"""What do networks get wrong, and what is the variance of an accuracy made of?"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from normlab.analysis.cells import Cell
from normlab.analysis.forensics import jaccard, majority, mcnemar, persistent, variance_shares
from normlab.analysis.numbers import percent
from normlab.analysis.part import Column, ImageSet, Part, Picture, Row, Table, p, share, text, value
from normlab.analysis.questions import Answers

__all__ = [
    "confusion_frame",
    "errors",
    "errors_frame",
    "overlap_frame",
    "persistent_errors",
    "persistent_frame",
    "wrong",
]

LISTED, SHOWN = 100, 30  # persistent errors in the table, and in the figure
MATRICES = 12  # confusion matrices in the figure
MOST_SETTINGS = 12  # with a column of their own in the table of persistent errors


def errors(answers: Answers) -> Part:
    frame, overlap = errors_frame(answers.found.cells), overlap_frame(answers.found.cells)
    if frame.empty:
        return Part("errors", "Errors", tables=[Table("errors", frame), Table("overlap", overlap)])
    columns = [
        text("setting"),
        value("errors per run", "errors_mean", 1),
        Column("wrong in most seeds", lambda row: f"{row['persistent']}", "persistent"),
        Column("wrong in all", lambda row: f"{row['always']}", "always"),
        share("seed", "share_seed"),
        share("test set", "share_test_set"),
        share("both together", "share_interaction"),
        value("sd, pp", "sd_pp", 3),
    ]
    note = (
        f"Of {int(frame['images'].iloc[0]):,} test images. The last four columns: where the variance of one run's "
        "accuracy would come from, on a fresh seed and a fresh test set of this size, and its standard deviation "
        "(two-way random effects, seeds by images). A negative estimate of a variance counts as 0: it is too small for "
        "these seeds to show."
    )
    shared = [
        text("pair", "pair"),
        Column("first alone", lambda row: f"{row['only_a']}", "only_a"),
        Column("second alone", lambda row: f"{row['only_b']}", "only_b"),
        Column("both", lambda row: f"{row['both']}", "both"),
        value("Jaccard", "jaccard", 2),
        p("p (McNemar)", "p_mcnemar"),
    ]
    how = (
        "Errors of the majority vote of each setting's seeds. Jaccard index: errors of both over errors of either. "
        "McNemar's exact p, not adjusted: whether the two votes err equally often."
    )
    tables = [Table("errors", frame, columns, note), Table("overlap", overlap, shared, how)]
    return Part("errors", "Errors", tables=tables, draw=lambda _: _draw(frame, overlap, answers.found.data_title))


def persistent_errors(answers: Answers) -> Part:
    """The test images that most runs of all settings get wrong, and which class is taken for which."""
    cells = [cell for cell in answers.found.cells if cell.predicted]
    frame, counts = persistent_frame(cells), confusion_frame(cells)
    per_setting = [Column(cell.label, lambda row, key=f"wrong {cell.label}": _of_runs(row, key)) for cell in cells]  # type: ignore[misc]
    columns = [
        Column("test image", lambda row: f"{row['image']}", "image"),
        text("true → predicted", "taken_for"),
        Column("wrong in", lambda row: f"{row['wrong']} of {row['runs']} runs", "wrong"),
        share("prob. of true class", "prob_true"),
        share("prob. of predicted", "prob_predicted"),
        *(per_setting if len(cells) <= MOST_SETTINGS else []),
    ]
    note = (
        "Test images by their place in the file, from 0, those first that most runs get wrong. Predicted: the most "
        "frequent wrong class; probabilities are means over all runs. Then, per setting, how many of its seeds are "
        "wrong."
    )
    tables = [Table("persistent", frame, columns, note), Table("confusion", counts)]
    data = answers.found.data_title
    return Part(
        "persistent",
        "Persistent errors and confusion",
        tables=tables,
        draw=lambda seen: _images(frame, counts, cells, data, seen) if cells else (),
        folded=True,
    )


def _of_runs(row: Row, key: str) -> str:
    wrong, runs = row[key], row[key.replace("wrong", "runs", 1)]
    return f"{wrong} of {runs}" if wrong else "0"


def _draw(errors: pd.DataFrame, overlap: pd.DataFrame, data: str) -> Iterator[Picture]:
    from normlab.analysis.image_figures import overlap as overlap_figure
    from normlab.analysis.row_figures import variance_shares as shares_figure

    parts = errors.set_index("setting")[["share_seed", "share_test_set", "share_interaction"]].astype(float)
    shares = {str(label): (float(a), float(b), float(c)) for label, a, b, c in parts.itertuples()}
    if np.isfinite(parts.to_numpy()).all(axis=1).any():
        caption = "What the variance of one run's accuracy is made of: the seed, the test images, and both together."
        title = f"Where the variance of an accuracy comes from, {data}"
        yield Picture("variance", caption, shares_figure(shares, title=title))
    if len(overlap):
        labels = list(dict.fromkeys([*overlap["a"], *overlap["b"]]))
        matrix = np.full((len(labels), len(labels)), np.nan)
        np.fill_diagonal(matrix, 1.0)
        for a, b, share_ in zip(overlap["a"], overlap["b"], overlap["jaccard"], strict=True):
            i, j = labels.index(a), labels.index(b)
            matrix[i, j] = matrix[j, i] = share_
        caption = "Errors that two settings share, of all that either makes (Jaccard index), by majority vote of seeds."
        yield Picture("overlap", caption, overlap_figure(matrix, labels, title=f"Overlap of errors on {data}"))


def _images(
    frame: pd.DataFrame, counts: pd.DataFrame, cells: Sequence[Cell], data: str, seen: ImageSet
) -> Iterator[Picture]:
    from normlab.analysis.image_figures import confusions, gallery

    images, classes = seen
    rows = frame.head(SHOWN).to_dict("records")
    figure, size = None, len(cells[0].predicted[1]) if cells[0].predicted else 0
    if images is not None and len(images) == size:
        below = [
            f"image {row['image']}\n{row['wrong']} of {row['runs']} runs"
            + (f"\n{percent(row['prob_true'])}, {percent(row['prob_predicted'])}" if row["prob_true"] >= 0 else "")
            for row in rows
        ]
        names = [(classes[row["true"]], classes[row["predicted"]]) for row in rows]
        note = "true → most frequent wrong class; how many runs of all settings are wrong"
        note += "; mean probabilities of the two classes" if "%" in "".join(below) else ""
        chosen = images[[row["image"] for row in rows]]
        figure = gallery(chosen, names, below, title=f"What most runs get wrong on {data}", note=note)
    caption = f"The test images that most runs of all {len(cells)} settings get wrong." if len(cells) > 1 else ""
    caption = caption or "The test images that most seeds get wrong."
    digest = hashlib.sha256(frame.head(SHOWN).to_csv().encode()).hexdigest()[:16]
    yield Picture("misclassified", caption, figure, digest)
    errors = {}
    for cell in cells[:MATRICES]:
        own = counts[counts["setting"] == cell.label]
        errors[cell.label] = np.zeros((len(classes), len(classes)))
        errors[cell.label][own["true"].to_numpy(int), own["predicted"].to_numpy(int)] = own["per_run"]
    some = f" Of {len(cells)} settings the first {MATRICES}; confusion.csv has all." if len(cells) > MATRICES else ""
    caption = f"Which class is taken for which: errors per run, mean over seeds.{some}"
    title = f"Confusion on {data}, errors per run"
    yield Picture("confusion", caption, confusions(errors, classes, title=title))


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
    kept = [run.predictions or {} for cell in cells for run in cell.completed]
    kept = [
        arrays for arrays in kept if {"log_probs", "true"} <= arrays.keys() and np.array_equal(arrays["true"], true)
    ]
    probs = {
        name: np.mean([np.exp(arrays["log_probs"][ranked, of].astype(float)) for arrays in kept], axis=0)
        if kept
        else np.full(len(ranked), np.nan)
        for name, of in (("prob_true", true[ranked]), ("prob_predicted", voted))
    }
    frame = pd.DataFrame({"image": ranked, "true": true[ranked].astype(int), "predicted": voted})
    frame["taken_for"] = [f"{a} → {b}" for a, b in zip(frame["true"], frame["predicted"], strict=True)]
    frame["wrong"], frame["runs"] = count[ranked], len(pred)
    frame = frame.assign(**probs)
    for label, own in preds.items():
        frame[f"wrong {label}"] = (own != true).sum(axis=0)[ranked]
        frame[f"runs {label}"] = len(own)
    return frame


def confusion_frame(cells: Sequence[Cell]) -> pd.DataFrame:
    """One row per setting, true and another, predicted class that some run took it for: how often, per run."""
    rows = []
    for cell in cells:
        if cell.predicted:
            pred, true = cell.predicted
            pairs = np.stack([np.broadcast_to(true, pred.shape)[pred != true], pred[pred != true]]).astype(int)
            found, counts = np.unique(pairs, axis=1, return_counts=True)
            for (a, b), count in zip(found.T.tolist(), counts.tolist(), strict=True):
                rows.append({"setting": cell.label, "true": a, "predicted": b, "per_run": count / len(pred)})
    return pd.DataFrame(rows, columns=["setting", "true", "predicted", "per_run"])


def wrong(cell: Cell) -> np.ndarray | None:
    """bool (S, N): which test images each seed's network got wrong; None where predictions are missing."""
    return cell.predicted[0] != cell.predicted[1] if cell.predicted else None


def errors_frame(cells: Sequence[Cell]) -> pd.DataFrame:
    """One row per setting: errors per run, images wrong in most and all seeds, and where the variance of accuracy comes
    from (seed, test set, both together) with the standard deviation of one run's accuracy on a fresh test set, in
    pp."""
    rows = []
    for cell in cells:
        if (bad := wrong(cell)) is None:
            continue
        shares = variance_shares(~bad)
        rows.append(
            {
                "setting": cell.label,
                "n": len(bad),
                "images": bad.shape[1],
                "errors_mean": float(bad.sum(1).mean()),
                "persistent": len(persistent(bad)),
                "always": int(bad.all(0).sum()),
                **dict(zip(("share_seed", "share_test_set", "share_interaction"), shares.shares, strict=True)),
                "sd_pp": 100 * shares.sd,
            }
        )
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
