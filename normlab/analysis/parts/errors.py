"""What do networks get wrong, and what is the variance of an accuracy made of?"""

import hashlib
import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd

from normlab.analysis.cells import Cell
from normlab.analysis.forensics import jaccard, majority, mcnemar, persistent, times_wrong, variance_shares
from normlab.analysis.part import Column, ImageSet, Part, Picture, Table, p, share, slug, text, value
from normlab.analysis.questions import Answers

__all__ = ["errors", "errors_frame", "galleries", "overlap_frame", "wrong"]

SHOWN = 30  # misclassified images per setting


def errors(answers: Answers) -> Part | None:
    frame, overlap = errors_frame(answers.found.cells), overlap_frame(answers.found.cells)
    if frame.empty:
        return None
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
    tables = [Table("errors", frame, columns, note)]
    if len(overlap):
        tables.append(Table("overlap", overlap, shared, how))
    return Part("errors", "Errors", tables=tables, draw=lambda _: _draw(frame, overlap, answers.found.data))


def galleries(answers: Answers) -> Part | None:
    """Misclassified images and confusion matrices, setting by setting."""
    cells = [cell for cell in answers.found.cells if cell.predicted]
    if not cells:
        return None

    def draw(seen: ImageSet) -> Iterator[Picture]:
        for cell in cells:
            yield from _of_cell(cell, answers.found.data, seen)

    return Part("galleries", "Misclassified images and confusion", draw=draw, folded=True)


def _draw(errors: pd.DataFrame, overlap: pd.DataFrame, data: str) -> Iterator[Picture]:
    from normlab.analysis.error_figures import overlap as overlap_figure
    from normlab.analysis.error_figures import variance_shares as shares_figure

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


def _of_cell(cell: Cell, data: str, seen: ImageSet) -> Iterator[Picture]:
    from normlab.analysis.error_figures import persistent_gallery
    from normlab.analysis.figures import confusion

    images, classes = seen
    bad = wrong(cell)
    assert bad is not None
    assert cell.predicted is not None
    pred, true = cell.predicted
    count = times_wrong(bad)
    ranked = np.argsort(-count, kind="stable")[: min(SHOWN, int((count > 0).sum()))]
    voted = np.array([np.bincount(pred[bad[:, i], i], minlength=len(classes)).argmax() for i in ranked], dtype=int)
    content = b"".join(a.astype(np.int64).tobytes() for a in (ranked, voted, count[ranked]))
    figure, name = None, slug(cell.label)
    if images is not None and len(images) == bad.shape[1]:
        title = f"{cell.label} on {data}: what most seeds get wrong"
        of_true = true[ranked].astype(int)
        figure = persistent_gallery(
            images[ranked], of_true, voted, count[ranked], len(bad), classes=classes, title=title
        )
    caption = f"{cell.label}: misclassified test images, those first that most of the {len(bad)} seeds get wrong."
    yield Picture(f"misclassified-{name}", caption, figure, hashlib.sha256(content).hexdigest()[:16])
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (np.broadcast_to(true, pred.shape).ravel(), pred.ravel()), 1)
    caption = f"{cell.label}: confusion matrix, all {len(bad)} seeds added up."
    title = f"{cell.label} on {data}, {len(bad)} seeds"
    yield Picture(f"confusion-{name}", caption, confusion(counts, classes=classes, title=title, compact=True))


def wrong(cell: Cell) -> np.ndarray | None:
    """bool (S, N): which test images each seed's network got wrong; None where predictions are missing."""
    return cell.predicted[0] != cell.predicted[1] if cell.predicted else None


def errors_frame(cells: tuple[Cell, ...]) -> pd.DataFrame:
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


def overlap_frame(cells: tuple[Cell, ...]) -> pd.DataFrame:
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
