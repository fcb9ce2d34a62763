"""What the runs of a study say to the questions that it declares (`normlab.analysis.declared`): models and verdicts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from normlab.analysis.cells import Cell, RunsBySetting, trained
from normlab.analysis.declared import Declared, Family
from normlab.analysis.inference import Estimate, Model
from normlab.analysis.outcomes import model_of
from normlab.analysis.verdicts import ALPHA, Decision, Joint, Question, decide, seeds_needed
from normlab.settings import Study


@dataclass(frozen=True, kw_only=True)
class Answer(Declared):
    """A declared question and what the runs say to it.

    Attributes:
        question: with its estimates. decision: at level alpha.
    """

    question: Question | Joint
    decision: Decision
    alpha: float = ALPHA

    @property
    def contrast(self) -> Mapping[str, float]:
        """c by the label of a setting; of an interaction, empty."""
        return {} if self.kind == "interaction" else self.contrasts[0]

    @property
    def estimate(self) -> Estimate | None:
        """In the outcome's own unit; None for an interaction."""
        return self.question.estimate if isinstance(self.question, Question) else None

    @property
    def numbers(self) -> tuple[float, float, float]:
        """The estimate and the ends of its 95 % interval, in the unit that people are shown; NaN for an interaction."""
        of = self.estimate
        value, low, high = (of.value, *of.interval(0.95)) if of is not None else (math.nan,) * 3
        factor = self.about.factor
        return factor * value, factor * low, factor * high


class Answers(Family):
    """A study's questions, their answers, and the models behind them.

    Args:
        found: the runs. study, margin: as of `Family`. alpha: the chance of any false verdict.
    """

    most = 0  # seeds that a setting may get, of a study that ends by itself

    def __init__(self, found: RunsBySetting, study: Study | None, margin: float, alpha: float = ALPHA) -> None:
        super().__init__(found, study, margin)
        self.alpha = alpha
        self._models: dict[str, Model] = {}

    @cached_property
    def several(self) -> bool:
        """Whether a setting has several seeds: without, there is neither an interval nor a verdict."""
        return bool(self.model(self.primary).degrees.any())

    @property
    def random(self) -> str:
        """What an interval of the primary outcome is for."""
        images = self.model(self.primary).images is not None
        return "new seeds and new test images" if images else "new seeds, on these test images"

    @cached_property
    def seeds_needed(self) -> float:
        """Per setting, to tell settings apart that differ by the margin: see `seeds_needed`."""
        if math.isnan(self._range(self.primary)[0]) or not self.answers:
            return math.nan
        return seeds_needed(self.model(self.primary), self.margin / self.about.factor, len(self.answers), self.alpha)

    def model(self, outcome: str) -> Model:
        """The model of the settings in which every run trained."""
        if outcome not in self._models:
            self._models[outcome] = model_of([cell for cell in self.grouped.cells if trained(cell)], outcome)
        return self._models[outcome]

    def estimate(self, contrast: Mapping[str, float], outcome: str | None = None) -> Estimate | None:
        """A contrast's estimate; None where a setting has no such runs."""
        model = self.model(outcome or self.primary)
        return model.estimate(contrast) if contrast and contrast.keys() <= model.groups.keys() else None

    @cached_property
    def answers(self) -> list[Answer]:
        """The family's answers, in the order of `declared`; questions about settings without such runs are left out."""
        open_ = [(each, question) for each in self.declared if (question := self._question(each)) is not None]
        decisions = decide([question for _, question in open_], self.alpha)
        return [
            Answer(**vars(each), question=question, decision=decision, alpha=self.alpha)
            for (each, question), decision in zip(open_, decisions, strict=True)
        ]

    def _question(self, each: Declared) -> Question | Joint | None:
        about = each.about
        ends = each.low / about.factor, each.high / about.factor
        estimates = [self.estimate(contrast, each.outcome) for contrast in each.contrasts]
        asked = [Question(one, *ends, each.of_range, about.higher_is_better) for one in estimates if one is not None]
        if len(asked) < len(each.contrasts):
            return None
        if each.kind == "interaction":
            return Joint(*self.model(each.outcome).joint(each.contrasts), tuple(asked))
        return asked[0]

    @cached_property
    def cells(self) -> list[Cell]:
        """Those in which every run trained."""
        known = self.model(self.primary).groups
        return [cell for cell in self.grouped.cells if cell.label in known]


def identity(each: Answer) -> Any:
    """What makes a question of one report the same as that of another."""
    return each.label, each.outcome, each.factor, (each.low, each.high) if each.of_range else ()
