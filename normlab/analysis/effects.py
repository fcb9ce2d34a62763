"""What each factor of a study does, averaged over the others: main effects, and the effect with each norm."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from normlab.analysis.cells import Cell, Sorted, numeric, word
from normlab.analysis.stats import Comparison, compare

__all__ = ["Effect", "effects", "effects_table"]

LEAST = 2  # factors beside the norm that make a factorial study
ALL = "all norms"
SEED = 0  # of the sign flips that are drawn


@dataclass(frozen=True)
class Effect:
    """The effect of one level of a factor against its first. norm: of the settings it is taken over, or `ALL`."""

    factor: str
    level: str
    against: str
    norm: str
    pairs: int  # of settings that are alike but for the factor
    comparison: Comparison

    @property
    def label(self) -> str:
        return f"{self.factor}={self.level}, {self.norm}"


def effects(found: Sorted, margin: float) -> list[Effect]:
    """The effects on test accuracy, in percentage points, where two factors or more beside the norm vary; one family.

    The effect of a level is the mean difference to the factor's first level (the lowest number) over all pairs of
    settings that are alike but for that. A seed gives one such mean, over the same pairs as every other seed; t
    intervals and tests are over seeds, paired. It takes far fewer seeds than the difference of two settings, since
    each run serves every factor (Box, Hunter & Hunter 2005, "Statistics for Experimenters", chapter 5). Left out where
    no two seeds have all pairs. margin: of equivalence.
    """
    factors = [name for name in found.factors if name != "norm" and len(_levels(found, name)) > 1]
    if len(factors) < LEAST:
        return []
    norms = list(dict.fromkeys(cell.norm for cell in found.cells))
    asked: list[tuple[str, str, str, str, int]] = []
    sides: list[tuple[dict[int, float], dict[int, float]]] = []
    for factor in factors:
        first, *others = _levels(found, factor)
        for level in others:
            for norm in (ALL, *norms) if len(norms) > 1 else (ALL,):
                pairs = list(_pairs([c for c in found.cells if norm in (ALL, c.norm)], factor, level, first))
                if pairs and (means := _means(pairs)) is not None:
                    asked.append((factor, word(level), word(first), norm, len(pairs)))
                    sides.append(means)
    compared = compare(sides, margin=margin, rng=np.random.default_rng(SEED)) if sides else []
    return [Effect(*words, comparison) for words, comparison in zip(asked, compared, strict=True)]


def effects_table(found: Sequence[Effect]) -> pd.DataFrame:
    """A row an effect, in percentage points of test accuracy; p_holm is over all rows."""
    return pd.DataFrame(
        [
            {
                "factor": each.factor,
                "level": each.level,
                "against": each.against,
                "norm": each.norm,
                "pairs": each.pairs,
                "n": each.comparison.difference.n,
                "effect_pp": each.comparison.difference.mean,
                "effect_low": each.comparison.difference.low,
                "effect_high": each.comparison.difference.high,
                "p": each.comparison.difference.p,
                "p_holm": each.comparison.p_holm,
                "p_equivalence_holm": each.comparison.p_equivalence_holm,
                "verdict": each.comparison.verdict,
            }
            for each in found
        ]
    )


def _levels(found: Sorted, factor: str) -> list[Any]:
    """The levels of a factor, numbers upwards, others as they come; only where every setting has it."""
    levels = [cell.levels[factor] for cell in found.cells if factor in cell.levels]
    if len(levels) < len(found.cells):
        return []
    distinct = list({word(level): level for level in levels}.values())
    return sorted(distinct) if numeric(distinct) else distinct


def _pairs(cells: Sequence[Cell], factor: str, level: Any, first: Any) -> Iterator[tuple[Cell, Cell]]:
    """Settings with a level, and those that are alike but for the factor's first level."""

    def rest(cell: Cell) -> tuple[tuple[str, str], ...]:
        return tuple(sorted((key, word(value)) for key, value in cell.levels.items() if key != factor))

    plain = {rest(cell): cell for cell in cells if word(cell.levels[factor]) == word(first)}
    for cell in cells:
        if word(cell.levels[factor]) == word(level) and (other := plain.get(rest(cell))) is not None:
            yield cell, other


def _means(pairs: Sequence[tuple[Cell, Cell]]) -> tuple[dict[int, float], dict[int, float]] | None:
    """seed → mean accuracy in per cent over one side of all pairs, and over the other; None for fewer than two seeds
    that have them all."""
    values = [(cell.values("test_acc"), other.values("test_acc")) for cell, other in pairs]
    seeds = sorted(set.intersection(*(set(of) for each in values for of in each)))
    if len(seeds) < 2:
        return None
    a, b = ({seed: 100 * float(np.mean([of[side][seed] for of in values])) for seed in seeds} for side in (0, 1))
    return a, b
