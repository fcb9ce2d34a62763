"""What a study asks, declared before there are results: every contrast that gets a verdict.

Declared are, each once: the study's claims; each setting against its control, one factor at a time; each factor's
effect, averaged over all others; and for each two factors whether the effect of one depends on the other. All of them
are one family (`normlab.analysis.verdicts`). Every other pair of settings gets an estimate and an interval.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from normlab.analysis.cells import Cell, RunsBySetting, holds, numeric, tuned, without
from normlab.analysis.outcomes import OUTCOMES, Outcome
from normlab.settings import NO_STUDY, Claim, Study
from normlab.settings.conf import spell

Kind = Literal["claim", "setting", "effect", "interaction"]


@dataclass(frozen=True)
class Declared:
    """A question of a study.

    Attributes:
        label: what is compared, such as "ln − bn" or "l1=0.001 − l1=0, mean of 3 settings".
        outcome: its name in `OUTCOMES`.
        contrasts: c by the label of a setting; of an interaction, the contrasts that are all 0 where there is none.
        factor, level, control: of an effect or a setting, what differs, the level, and the one it is compared with.
        low, high: the range in which a contrast "is the same" (±margin) or as it was claimed (of_range), in the
            outcome's unit; NaN where nothing counts as the same.
        claims: the claims that ask this, each with whether it speaks of the contrast's negative.
    """

    kind: Kind
    label: str
    outcome: str
    contrasts: tuple[Mapping[str, float], ...]
    factor: str = ""
    level: str = ""
    control: str = ""
    low: float = math.nan
    high: float = math.nan
    of_range: bool = False
    claims: tuple[tuple[Claim, bool], ...] = ()

    @property
    def about(self) -> Outcome:
        return OUTCOMES[self.outcome]

    @property
    def key(self) -> tuple[Any, bool]:
        """What makes two questions one, and whether this one asks about the negative of the other: "ln beats gn" and
        "gn beats ln" are one."""
        if self.kind == "interaction":
            return (self.outcome, self.factor), False
        [contrast] = self.contrasts
        turned = contrast[min(contrast)] < 0
        sign = -1 if turned else 1
        terms = tuple(sorted((name, round(sign * c, 9)) for name, c in contrast.items()))
        wanted = sorted((sign * self.low, sign * self.high)) if self.of_range else ()
        return (self.outcome, terms, tuple(wanted)), turned


class Family:
    """The questions that a study declares about its settings.

    Args:
        found: the settings, whether or not their runs have been made. study: whose claims, control and primary outcome
            count. margin: of the primary outcome, pp.

    Attributes:
        asked: the study, or one that asks nothing. tune: the factor that it tunes, where these settings differ in it;
            else "".
        grouped: the settings that are compared; of a study that tunes a factor, each at its best level.
        grouped_all: all of them.
    """

    def __init__(self, found: RunsBySetting, study: Study | None, margin: float) -> None:
        self.grouped_all, self.study, self.margin = found, study, margin
        self.asked = study or NO_STUDY
        self.tune = self.asked.tune if self.asked.tune in found.factors else ""
        self.grouped = tuned(found, self.tune) if self.tune else found
        self.primary = self.asked.primary

    @cached_property
    def own(self) -> dict[str, str]:
        """By the label of a setting, its label among all of them, with its level of what is tuned."""
        of_runs = {id(run): cell.label for cell in self.grouped_all.cells for run in cell.ended}
        return {cell.label: of_runs[id(cell.ended[0])] for cell in self.grouped.cells}

    @property
    def about(self) -> Outcome:
        """The primary outcome."""
        return OUTCOMES[self.primary]

    @property
    def cells(self) -> list[Cell]:
        """The settings whose primary outcome is compared."""
        return [*self.grouped.cells]

    @cached_property
    def declared(self) -> list[Declared]:
        """The family: effects, interactions, settings, and the claims that ask something else; each question once."""
        questions: dict[Any, Declared] = {}
        for each in itertools.chain(self._effects(), self._interactions(), self._settings(), self._claims()):
            key, turned = each.key
            known = questions.setdefault(key, each)
            if known is not each:
                claims = tuple((claim, turned != known.key[1]) for claim, _ in each.claims)
                questions[key] = replace(known, claims=known.claims + claims)
        return list(questions.values())

    def _range(self, outcome: str, margin: float | None = None) -> tuple[float, float]:
        """Plus and minus the margin, where the outcome is counted in that of the study's; else nothing is."""
        about, same = OUTCOMES[outcome], OUTCOMES[self.primary].unit
        half = margin or (self.margin if about.unit == same and outcome != "unevenness" else math.nan)
        return -half, half

    def _claims(self) -> Iterator[Declared]:
        for claim in self.asked.claims:
            low, high = self._range(claim.measure, claim.margin)
            if claim.by is not None:
                middle = claim.by if claim.expect == "higher" else -claim.by
                low, high = middle - (claim.give or 0), middle + (claim.give or 0)
            of_range = claim.expect == "similar" or claim.by is not None
            for of, against in pairs_of(claim, self.grouped.cells):
                label, contrasts = _pair(of, against)
                yield Declared(
                    "claim", label, claim.measure, contrasts, low=low, high=high, of_range=of_range,
                    claims=((claim, False),),
                )  # fmt: skip

    def _effects(self) -> Iterator[Declared]:
        for factor, level, control, pairs in self._by_control():
            contrast = {cell.label: c / len(pairs) for pair in pairs for cell, c in zip(pair, (1, -1), strict=True)}
            mean = f", mean of {len(pairs)} settings" if len(pairs) > 1 else ""
            label = f"{named(factor, level)} − {named(factor, control)}{mean}"
            low, high = self._range(self.primary)
            yield Declared("effect", label, self.primary, (contrast,), factor, level, control, low, high)

    def _settings(self) -> Iterator[Declared]:
        low, high = self._range(self.primary)
        for factor, level, control, pairs in self._by_control():
            for of, against in pairs:
                label, contrasts = _pair(of, against)
                yield Declared("setting", label, self.primary, contrasts, factor, level, control, low, high)

    def _interactions(self) -> Iterator[Declared]:
        for one, two in itertools.combinations(self.factors, 2):
            if contrasts := self.double_differences(one, two):
                label = f"does the effect of {one} depend on {two}?"
                low, high = self._range(self.primary)
                factor = f"{one} x {two}"
                yield Declared("interaction", label, self.primary, tuple(contrasts), factor, low=low, high=high)

    def _by_control(self) -> Iterator[tuple[str, str, str, list[tuple[Cell, Cell]]]]:
        """Factor, level, the control's level, and the pairs of settings that are alike but for that."""
        for factor, levels in self.factors.items():
            at: dict[str, dict[str, Cell]] = {level: {} for level in levels}
            for cell in self.cells:
                at[level_of(cell, factor)][without(cell, factor)] = cell
            for level in levels:
                own = factor == "norm" and level.startswith("custom")  # which is compared with all others
                for control in levels if own else [self.control(factor)]:
                    pairs = [(cell, at[control][rest]) for rest, cell in at[level].items() if rest in at[control]]
                    if level != control and pairs:
                        yield factor, level, control, pairs

    def double_differences(self, one: str, two: str) -> list[dict[str, float]]:
        """For all but the control's levels of both factors: the effect of the one at a level of the other less that at
        the control's, averaged over all other factors; none where settings are missing."""
        at: dict[tuple[str, str], dict[str, Cell]] = {}
        for cell in self.cells:
            at.setdefault((level_of(cell, one), level_of(cell, two)), {})[without(cell, one, two)] = cell
        first, second = self.control(one), self.control(two)
        found = []
        for a, b in itertools.product(self.factors[one], self.factors[two]):
            if a == first or b == second:
                continue
            corners = [at.get(pair, {}) for pair in ((a, b), (first, second), (a, second), (first, b))]
            rests = set.intersection(*(set(corner) for corner in corners))
            if not rests or any(len(corner) != len(rests) for corner in corners):
                return []
            signs = zip(corners, (1, 1, -1, -1), strict=True)
            found.append({corner[rest].label: sign / len(rests) for corner, sign in signs for rest in rests})
        return found

    @cached_property
    def factors(self) -> dict[str, list[str]]:
        """The levels of each factor that has several, in the order of the settings; a norm's options are its own."""
        names = [name for name in self.grouped.factors if not name.startswith("norm.")]
        levels = {name: list(dict.fromkeys(level_of(cell, name) for cell in self.cells)) for name in names}
        return {name: of for name, of in levels.items() if len(of) > 1}

    def control(self, factor: str) -> str:
        """The level that others are compared with: the study's control, else bn, the smallest number or the first."""
        levels = self.factors[factor]
        control = self.asked.control
        wanted = {key: x for key, x in control.items() if key == factor or key.startswith(f"{factor}.")}
        if chosen := [cell for cell in self.cells if wanted and holds(cell, wanted)]:
            return level_of(chosen[0], factor)
        values = [cell.levels.get(factor) for cell in self.cells]
        if numeric(values):
            return min(levels, key=float)
        return "bn" if factor == "norm" and "bn" in levels else levels[0]


def factors_apart(a: Cell, b: Cell) -> int:
    """In how many factors two settings differ; a norm and its options are one."""
    differ = [key for key in a.levels if a.levels[key] != b.levels[key]]
    return len({"norm" if key.startswith("norm.") else key for key in differ})


def pairs_of(claim: Claim, cells: Sequence[Cell]) -> list[tuple[Cell, Cell]]:
    """Settings that hold what a claim names and agree in every other factor."""
    own = claim.of.keys() | claim.against.keys()
    return [
        (of, against)
        for of in cells
        for against in cells
        if holds(of, claim.of)
        and holds(against, claim.against)
        and all(level == against.levels.get(key) for key, level in of.levels.items() if key not in own)
    ]


def level_of(cell: Cell, factor: str) -> str:
    """A setting's level of a factor, in words; that of the norm with its options."""
    if factor != "norm":
        return spell(cell.levels.get(factor))
    options = [f"{key[5:]}={spell(x)}" for key, x in cell.levels.items() if key.startswith("norm.") and x is not None]
    return " ".join([cell.norm, *options])


def _pair(of: Cell, against: Cell) -> tuple[str, tuple[dict[str, float]]]:
    return f"{of.label} − {against.label}", ({of.label: 1.0, against.label: -1.0},)


def named(factor: str, level: str) -> str:
    return level if factor == "norm" else f"{factor}={level}"
