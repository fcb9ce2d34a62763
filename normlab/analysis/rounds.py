"""A study that ends by itself: `until=decided` gives seeds to the settings whose questions are open, round by round.

A contrast that is open asks for seeds of its settings. Whether factors depend on each other is decided by the seeds
that the contrasts needed: to know it as well takes several times as many (docs/inference.md).

What is decided depends on the runs alone, not on when or by how many processes they were made: every look is computed
from the seeds that belonged to it. So a study that is killed and started again decides the same.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from normlab.analysis.cells import Cell, RunsBySetting
from normlab.analysis.questions import Answer, Answers, identity
from normlab.analysis.sequential import looks, sequential_p
from normlab.analysis.table import Run
from normlab.analysis.verdicts import Joint, Question, decide
from normlab.settings import Study


@dataclass(frozen=True)
class Progress:
    """Where a study is.

    Attributes:
        seeds: by setting, how many of its seeds are wanted by now. look: seeds per setting at the last whole look, 0
            before it. open: the questions that it left open. finished: whether no more seeds are wanted.
        answers: at the last look, decided by all looks so far.
    """

    seeds: dict[str, int]
    look: int
    open: tuple[str, ...]
    finished: bool
    answers: tuple[Answer, ...] = ()


class Rounds:
    """The looks at a study of at most so many seeds per setting.

    Args:
        study, margin: as of a report. seeds: all that a setting may get, in their order.
    """

    def __init__(self, study: Study | None, margin: float, seeds: Sequence[int]) -> None:
        self.study, self.margin, self.seeds = study, margin, list(seeds)
        self._looks: dict[tuple[tuple[str, int], ...], Answers] = {}  # one that was computed stays as it is

    def progress(self, found: RunsBySetting) -> Progress:
        """Follow the looks as far as the runs go. A run counts once it has ended, however."""
        ended = {cell.label: {run.record.seed for run in cell.ended} for cell in found.cells}
        taken = dict.fromkeys(ended, 0)
        wanted, open_ = set(ended), tuple[str, ...]()
        history: dict[object, list[tuple[int, Question | Joint]]] = {}
        last, answers = 0, list[Answer]()
        for look in looks(len(self.seeds)):
            taken |= dict.fromkeys(wanted, look)
            if any(seed not in ended[label] for label in wanted for seed in self.seeds[:look]):
                return Progress(taken, last, open_, False, tuple(answers))
            at = self._at(found, taken)
            answers = at.answers
            for each in answers:
                history.setdefault(identity(each), []).append((look, each.question))
            answers = self._decided(answers, history)
            left = [each for each in answers if each.decision.verdict == "undecided"]
            last, open_ = look, tuple(each.label for each in left)
            wanted &= {at.own[label] for each in left for label in each.contrast}
            if not wanted:
                break
        return Progress(taken, last, open_, True, tuple(answers))

    def _at(self, found: RunsBySetting, taken: dict[str, int]) -> Answers:
        key = tuple(sorted(taken.items()))
        if key not in self._looks:
            cells = [_first(cell, set(self.seeds[: taken[cell.label]])) for cell in found.cells]
            self._looks[key] = Answers(replace(found, cells=tuple(cells)), self.study, self.margin)
        return self._looks[key]

    def _decided(
        self, answers: Sequence[Answer], history: dict[object, list[tuple[int, Question | Joint]]]
    ) -> list[Answer]:
        p = [_sequential(history[identity(each)], len(self.seeds)) for each in answers]
        decisions = decide([each.question for each in answers], p=p)
        return [replace(each, decision=decision) for each, decision in zip(answers, decisions, strict=True)]


class Followed(Answers):
    """The answers of a study that ends by itself, at its last whole look: with p that hold although it was looked at
    before."""

    def __init__(self, found: RunsBySetting, study: Study | None, margin: float) -> None:
        super().__init__(found, study, margin)
        made = {run.record.seed for run in found.ended}
        told = max(int(run.record.config.get("max_seeds", 0)) for run in found.ended if _ends_by_itself(run))
        missing = (seed for seed in itertools.count(min(made)) if seed not in made)
        self.seeds = sorted([*made, *itertools.islice(missing, max(0, told - len(made)))])
        self.most = len(self.seeds)

    @cached_property
    def answers(self) -> list[Answer]:
        return [*Rounds(self.study, self.margin, self.seeds).progress(self.grouped_all).answers]


def answers_of(found: RunsBySetting, study: Study | None, margin: float) -> Answers:
    """Return what the runs of a folder say, with the p of the looks that were taken where any was trained with
    `until=decided`."""
    kind = Followed if any(map(_ends_by_itself, found.ended)) else Answers
    return kind(found, study, margin)


def _ends_by_itself(run: Run) -> bool:
    return run.record.config.get("until") == "decided"


def _sequential(looks_: Sequence[tuple[int, Question | Joint]], most: int) -> tuple[float, float]:
    """p of a question's hypotheses that hold although it was asked at every look."""
    seeds = [look for look, _ in looks_]
    if isinstance(looks_[0][1], Joint):
        first, second = sequential_p([question.p for _, question in looks_], seeds, most)
        return float(first), float(second)
    sides = [question.sides for _, question in looks_ if isinstance(question, Question)]
    below, above, low, high = sequential_p([first + second for first, second in sides], seeds, most)
    return min(1.0, 2 * float(min(below, above))), float(max(low, high))


def _first(cell: Cell, seeds: set[int]) -> Cell:
    return replace(cell, ended=tuple(run for run in cell.ended if run.record.seed in seeds))
