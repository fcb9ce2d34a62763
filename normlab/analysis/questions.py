"""What a study asks, declared before there are results: every contrast that gets a verdict, and the verdicts.

Declared are, each once: the study's claims; each setting against its control, one factor at a time; each factor's
effect, averaged over all others; and for each two factors whether the effect of one depends on the other. All of them
are one family (`normlab.analysis.verdicts`). Every other pair of settings gets an estimate and an interval.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from normlab.analysis.cells import Cell, Sorted, holds, numeric, trained, word
from normlab.analysis.inference import Estimate, Model
from normlab.analysis.outcomes import OUTCOMES, Outcome, model_of
from normlab.analysis.verdicts import Decision, Joint, Question, decide, seeds_needed
from normlab.settings import Claim, Study

__all__ = ["ALPHA", "MARGIN", "Answer", "Answers", "Kind", "factors_apart", "identity", "named", "pairs_of"]

MARGIN = 0.1  # of equivalence, percentage points, where no study says another: what 10,000 test images can resolve
ALPHA = 0.05  # the chance of any false verdict in a report
Kind = Literal["claim", "setting", "effect", "interaction"]


@dataclass(frozen=True)
class Answer:
    """A declared question and what the runs say to it.

    Attributes:
        label: what is compared, such as "ln − bn" or "l1=0.001 − l1=0, mean of 3 settings".
        contrast: c by the label of a setting; of an interaction, empty.
        factor, level, control: of an effect or a setting, what differs, the level, and the one it is compared with.
        claims: the claims that ask this, each with whether it speaks of the contrast's negative.
        estimate: in the outcome's own unit; None for an interaction.
    """

    kind: Kind
    label: str
    outcome: Outcome
    contrast: Mapping[str, float]
    question: Question | Joint
    decision: Decision
    factor: str = ""
    level: str = ""
    control: str = ""
    claims: tuple[tuple[Claim, bool], ...] = ()
    alpha: float = ALPHA

    @property
    def estimate(self) -> Estimate | None:
        return self.question.estimate if isinstance(self.question, Question) else None


@dataclass
class _Open:
    """A question while the family is collected. claims: with each, whether it speaks of the contrast's negative."""

    kind: Kind
    label: str
    outcome: str
    contrast: Mapping[str, float]
    question: Question | Joint
    factor: str = ""
    level: str = ""
    control: str = ""
    claims: list[tuple[Claim, bool]] = field(default_factory=list)


class Answers:
    """A study's questions, their answers, and the models behind them.

    Args:
        found: the runs. study: whose claims, control and primary outcome count. margin: of the primary outcome, pp.
    """

    def __init__(self, found: Sorted, study: Study | None, margin: float, alpha: float = ALPHA) -> None:
        self.found, self.study, self.margin, self.alpha = found, study, margin, alpha
        self.primary = study.primary if study else "test_acc"
        self._models: dict[str, Model] = {}

    @property
    def about(self) -> Outcome:
        """The primary outcome."""
        return OUTCOMES[self.primary]

    @cached_property
    def seeds_needed(self) -> float:
        """Per setting, to tell settings apart that differ by the margin: see `seeds_needed`."""
        if math.isnan(self._range(self.primary)[0]) or not self.answers:
            return math.nan
        return seeds_needed(self.model(self.primary), self.margin / self.about.factor, len(self.answers), self.alpha)

    def model(self, outcome: str) -> Model:
        """The model of the settings in which every run trained."""
        if outcome not in self._models:
            self._models[outcome] = model_of([cell for cell in self.found.cells if trained(cell)], outcome)
        return self._models[outcome]

    def estimate(self, contrast: Mapping[str, float], outcome: str | None = None) -> Estimate | None:
        """A contrast's estimate; None where a setting has no such runs."""
        model = self.model(outcome or self.primary)
        return model.estimate(contrast) if contrast and contrast.keys() <= model.groups.keys() else None

    @cached_property
    def answers(self) -> list[Answer]:
        """The family: effects, interactions, settings, and the claims that ask something else; each question once."""
        open_: dict[Any, _Open] = {}
        for each in itertools.chain(self._effects(), self._interactions(), self._settings(), self._claims()):
            key, turned = _key(each)
            known = open_.setdefault(key, each)
            if known is not each:
                known.claims += [(claim, turned != _key(known)[1]) for claim, _ in each.claims]
        decisions = decide([each.question for each in open_.values()], self.alpha)
        return [
            Answer(
                each.kind, each.label, OUTCOMES[each.outcome], each.contrast, each.question, decision, each.factor,
                each.level, each.control, tuple(each.claims), self.alpha,
            )
            for each, decision in zip(open_.values(), decisions, strict=True)
        ]  # fmt: skip

    # What is declared

    def _ask(
        self, contrast: Mapping[str, float], outcome: str, low: float, high: float, of_range: bool
    ) -> Question | None:
        """low, high: in the outcome's unit."""
        estimate, about = self.estimate(contrast, outcome), OUTCOMES[outcome]
        if estimate is None:
            return None
        return Question(estimate, low / about.factor, high / about.factor, of_range, about.higher_is_better)

    def _range(self, outcome: str, margin: float | None = None) -> tuple[float, float]:
        """Plus and minus the margin, where the outcome is counted in that of the study's; else nothing is."""
        about, same = OUTCOMES[outcome], OUTCOMES[self.primary].unit
        half = margin or (self.margin if about.unit == same and outcome != "unevenness" else math.nan)
        return -half, half

    def _claims(self) -> Iterator[_Open]:
        for claim in self.study.claims if self.study else []:
            for of, against in pairs_of(claim, self.found.cells):
                contrast = {of.label: 1.0, against.label: -1.0}
                of_range = claim.expect == "similar" or claim.by is not None
                low, high = self._range(claim.measure, claim.margin)
                if claim.by is not None:
                    middle = claim.by if claim.expect == "higher" else -claim.by
                    low, high = middle - (claim.give or 0), middle + (claim.give or 0)
                if question := self._ask(contrast, claim.measure, low, high, of_range):
                    label = f"{of.label} − {against.label}"
                    yield _Open("claim", label, claim.measure, contrast, question, claims=[(claim, False)])

    def _effects(self) -> Iterator[_Open]:
        for factor, level, control, pairs in self._by_control():
            contrast: dict[str, float] = {}
            for of, against in pairs:
                contrast[of.label] = contrast.get(of.label, 0.0) + 1 / len(pairs)
                contrast[against.label] = contrast.get(against.label, 0.0) - 1 / len(pairs)
            if question := self._ask(contrast, self.primary, *self._range(self.primary), False):
                mean = f", mean of {len(pairs)} settings" if len(pairs) > 1 else ""
                label = f"{named(factor, level)} − {named(factor, control)}{mean}"
                yield _Open("effect", label, self.primary, contrast, question, factor, level, control)

    def _settings(self) -> Iterator[_Open]:
        for factor, level, control, pairs in self._by_control():
            for of, against in pairs:
                contrast, label = {of.label: 1.0, against.label: -1.0}, f"{of.label} − {against.label}"
                if question := self._ask(contrast, self.primary, *self._range(self.primary), False):
                    yield _Open("setting", label, self.primary, contrast, question, factor, level, control)

    def _interactions(self) -> Iterator[_Open]:
        model = self.model(self.primary)
        for one, two in itertools.combinations(self.factors, 2):
            contrasts = self._double_differences(one, two)
            if contrasts and all(each.keys() <= model.groups.keys() for each in contrasts):
                label = f"does the effect of {one} depend on {two}?"
                yield _Open("interaction", label, self.primary, {}, Joint(*model.joint(contrasts)), f"{one} x {two}")

    def _by_control(self) -> Iterator[tuple[str, str, str, list[tuple[Cell, Cell]]]]:
        """Factor, level, the control's level, and the pairs of settings that are alike but for that."""
        for factor, levels in self.factors.items():
            at: dict[str, dict[str, Cell]] = {level: {} for level in levels}
            for cell in self.cells:
                at[level_of(cell, factor)][_rest(cell, factor)] = cell
            for level in levels:
                own = factor == "norm" and level.startswith(
                    "custom"
                )  # somebody's own layer is compared with all others
                for control in levels if own else [self.control(factor)]:
                    pairs = [(cell, at[control][rest]) for rest, cell in at[level].items() if rest in at[control]]
                    if level != control and pairs:
                        yield factor, level, control, pairs

    def _double_differences(self, one: str, two: str) -> list[dict[str, float]]:
        """For all but the control's levels of both factors: the effect of the one at a level of the other less that at
        the control's, averaged over all other factors; none where settings are missing."""
        at: dict[tuple[str, str], dict[str, Cell]] = {}
        for cell in self.cells:
            rest = _rest(cell, one, two)
            at.setdefault((level_of(cell, one), level_of(cell, two)), {})[rest] = cell
        first, second = self.control(one), self.control(two)
        found = []
        for a, b in itertools.product(self.factors[one], self.factors[two]):
            if a == first or b == second:
                continue
            corners = [at.get(pair, {}) for pair in ((a, b), (first, second), (a, second), (first, b))]
            rests = set.intersection(*(set(corner) for corner in corners))
            if not rests or any(len(corner) != len(rests) for corner in corners):
                return []
            contrast: dict[str, float] = {}
            for corner, sign in zip(corners, (1, 1, -1, -1), strict=True):
                for rest in rests:
                    contrast[corner[rest].label] = sign / len(rests)
            found.append(contrast)
        return found

    @cached_property
    def cells(self) -> list[Cell]:
        known = self.model(self.primary).groups
        return [cell for cell in self.found.cells if cell.label in known]

    @cached_property
    def factors(self) -> dict[str, list[str]]:
        """The levels of each factor that has several, in the order of the settings; a norm's options are its own."""
        names = [name for name in self.found.factors if not name.startswith("norm.")]
        levels = {name: list(dict.fromkeys(level_of(cell, name) for cell in self.cells)) for name in names}
        return {name: of for name, of in levels.items() if len(of) > 1}

    def control(self, factor: str) -> str:
        """The level that others are compared with: the study's control, else bn, the smallest number or the first."""
        levels = self.factors[factor]
        wanted = (self.study.control if self.study else {}).get(factor)
        if wanted is not None and word(wanted) in levels:
            return word(wanted)
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
        return word(cell.levels.get(factor))
    options = [f"{key[5:]}={word(x)}" for key, x in cell.levels.items() if key.startswith("norm.") and x is not None]
    return " ".join([cell.norm, *options])


def named(factor: str, level: str) -> str:
    return level if factor == "norm" else f"{factor}={level}"


def _rest(cell: Cell, *factors: str) -> str:
    """A setting without some of its factors."""
    own = {key: x for key, x in cell.levels.items() if key.partition(".")[0] not in factors and key not in factors}
    return json.dumps(own, sort_keys=True)


def identity(each: Answer) -> Any:
    """What makes a question of one report the same as that of another."""
    of_range = isinstance(each.question, Question) and each.question.of_range
    asked = (each.question.low, each.question.high) if of_range else ()  # type: ignore[union-attr]  # a `Question`
    return each.label, each.outcome.words, each.factor, asked


def _key(each: _Open) -> tuple[Any, bool]:
    """What makes two questions one, and whether this one asks about the negative of the other: "ln beats gn" and "gn
    beats ln" are one."""
    if isinstance(each.question, Joint):
        return (each.outcome, each.factor), False
    low, high = each.question.low, each.question.high
    turned = each.contrast[min(each.contrast)] < 0
    sign = -1 if turned else 1
    contrast = tuple(sorted((name, round(sign * c, 9)) for name, c in each.contrast.items()))
    asked = sorted((sign * low, sign * high)) if each.question.of_range else ()
    return (each.outcome, contrast, tuple(asked)), turned
