"""Several learning rates: where each setting is stable, which rate suits it, and how settings compare at their own."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from normlab.analysis.cells import Cell, Sorted, at_chance, label, stable
from normlab.analysis.stats import Comparison, summarise
from normlab.analysis.tables import compared

__all__ = ["at_own_best", "rates_table"]

LEAST = 3  # rates that make a search


def rates_table(found: Sorted) -> pd.DataFrame:
    """One row per setting and learning rate, where lr has three values or more; accuracies in [0, 1].

    - diverged, chance: runs whose loss was not finite, and networks that never left chance.
    - stable: no run of this rate failed in either way.
    - best: of the stable rates the one with the highest validation accuracy, mean over seeds; the smaller of equal
      ones. Nothing is best where no images were held out: the test set chooses nothing.
    """
    rows = []
    for kind, cells in _kinds(found).items():
        best = _best(cells)
        for cell in cells:
            test = list(cell.values("test_acc").values())
            s = summarise(test) if test else None
            diverged = sum(run.record.status == "diverged" for run in cell.ended)
            rows.append(
                {
                    "setting": kind,
                    "lr": cell.levels["lr"],
                    "runs": len(cell.ended),
                    "diverged": diverged,
                    "chance": sum(at_chance(run) for run in cell.completed),
                    "stable": stable(cell),
                    "best": cell is best,
                    "val_acc_mean": cell.mean("val_acc"),
                    "test_acc_mean": s.mean if s else np.nan,
                    "test_acc_low": s.low if s else np.nan,
                    "test_acc_high": s.high if s else np.nan,
                }
            )
    return pd.DataFrame(rows)


def at_own_best(found: Sorted, margin: float) -> list[tuple[Cell, Cell, Comparison]]:
    """Test accuracy of settings, each at the learning rate that its validation accuracy chose, as one family."""
    best = [cell for cells in _kinds(found).values() if (cell := _best(cells)) is not None]
    return compared(replace(found, cells=tuple(best)), margin) if len(best) > 1 else []


def _kinds(found: Sorted) -> dict[str, list[Cell]]:
    """Settings that differ in lr alone, by what they share; the rates upwards."""
    kinds: dict[str, list[Cell]] = {}
    for cell in found.cells:
        if "lr" in cell.levels:
            others = {key: level for key, level in cell.levels.items() if key != "lr"}
            kinds.setdefault(label(others), []).append(cell)
    kinds = {kind: sorted(cells, key=lambda cell: float(cell.levels["lr"])) for kind, cells in kinds.items()}
    return {kind: cells for kind, cells in kinds.items() if len(cells) >= LEAST}


def _best(cells: Sequence[Cell]) -> Cell | None:
    able = [cell for cell in cells if stable(cell) and cell.values("val_acc")]
    # of equal ones the first, the smallest rate
    return max(able, key=lambda cell: cell.mean("val_acc")) if able else None
