"""What came out of a study, in sentences."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from normlab.analysis.cells import Cell, Sorted
from normlab.analysis.claims import Judged
from normlab.analysis.stats import Comparison
from normlab.analysis.words import mean_sd
from normlab.settings import Study

__all__ = ["findings"]


def findings(
    found: Sorted,
    table: pd.DataFrame,
    pairs: Sequence[tuple[Cell, Cell, Comparison]],
    margin: float,
    study: Study | None,
    tested: Sequence[Judged],
) -> list[str]:
    """What came out, in sentences."""
    told = []
    ranked = table[table["test_acc_mean"].notna()].sort_values("test_acc_mean", ascending=False).to_dict("records")
    if len(ranked) > 1:
        first, last = ranked[0], ranked[-1]
        told.append(
            f"Test accuracy runs from {100 * first['test_acc_mean']:.2f} % ({first['setting']}) down to "
            f"{100 * last['test_acc_mean']:.2f} % ({last['setting']})."
        )
    elif ranked:
        told.append(f"{ranked[0]['setting']}: {mean_sd(ranked[0], 'test_acc')} % test accuracy.")
    if pairs:
        counts = Counter(c.verdict for *_, c in pairs)
        differ = counts["better"] + counts["worse"]
        told.append(
            f"Of {len(pairs)} pair{'s' * (len(pairs) > 1)}, {differ} differ{'s' * (differ == 1)}, "
            f"{counts['equivalent']} {'is' if counts['equivalent'] == 1 else 'are'} equivalent within {margin:g} pp, "
            f"and {counts['undecided']} {'is' if counts['undecided'] == 1 else 'are'} undecided with these seeds."
        )
    told += [_of_own(cell, pairs) for cell in found.cells if cell.norm == "custom" and pairs]
    if study and tested:
        counts_ = Counter(t.ruling for t in tested)
        parts = [
            f"{counts_[ruling]} {ruling}"
            for ruling in ("supported", "refuted", "undecided", "untested")
            if counts_[ruling]
        ]
        told.append(f"Claims: {', '.join(parts)}.")
    if found.lost:
        told.append(f"{len(found.lost)} run{'s' * (len(found.lost) > 1)} did not complete: see below.")
    return told


def _of_own(cell: Cell, pairs: Sequence[tuple[Cell, Cell, Comparison]]) -> str:
    """The verdicts on a user's own layer, against each of the others: custom (mine:RMS): worse than bn; …"""
    other = {"better": "worse", "worse": "better"}
    by: dict[str, list[str]] = {}
    for a, b, c in pairs:
        if cell is a or cell is b:
            verdict = c.verdict if a is cell else other.get(c.verdict, c.verdict)
            seeds = f" (about {c.seeds_needed:,} seeds)" if c.verdict == "undecided" and c.seeds_needed else ""
            by.setdefault(verdict, []).append((b if a is cell else a).label + seeds)
    between = {
        "better": "better than",
        "worse": "worse than",
        "equivalent": "equivalent to",
        "undecided": "undecided against",
    }
    parts = [f"{words} {', '.join(by[verdict])}" for verdict, words in between.items() if verdict in by]
    target = cell.ended[0].config.get("norm.target")
    who = cell.label if "norm.target" in cell.levels else f"{cell.label} ({target})"
    return f"{who}: {'; '.join(parts) or 'compared with nothing'}."
