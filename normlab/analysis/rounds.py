"""A study that ends by itself: `until=decided` gives seeds to the settings whose questions are open, round by round.

A contrast that is open asks for seeds of its settings. Whether factors depend on each other is decided by the seeds
that the contrasts needed: to know it as well takes several times as many (docs/inference.md).

What is decided depends on the runs alone, not on when or by how many processes they were made: every look is computed
from the seeds that belonged to it. So a study that is killed and started again decides the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from normlab.analysis.cells import Cell, Sorted
from normlab.analysis.declared import ALPHA
from normlab.analysis.questions import Answer, Answers, identity
from normlab.analysis.sequential import looks, sequential_p
from normlab.analysis.verdicts import Joint, Question, decide
from normlab.settings import Study

__all__ = ["Progress", "Rounds"]


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

    def __init__(self, study: Study | None, margin: float, seeds: Sequence[int], alpha: float = ALPHA) -> None:
        self.study, self.margin, self.seeds, self.alpha = study, margin, list(seeds), alpha
        self._answers: dict[tuple[tuple[str, int], ...], list[Answer]] = {}  # a look that was computed stays as it is

    def progress(self, found: Sorted) -> Progress:
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
            answers = self._at(found, taken)
            for each in answers:
                history.setdefault(identity(each), []).append((look, each.question))
            answers = self._decided(answers, history)
            left = [each for each in answers if each.decision.verdict == "undecided"]
            last, open_ = look, tuple(each.label for each in left)
            wanted &= set().union(*(each.contrast for each in left))
            if not wanted:
                break
        return Progress(taken, last, open_, True, tuple(answers))

    def _at(self, found: Sorted, taken: dict[str, int]) -> list[Answer]:
        key = tuple(sorted(taken.items()))
        if key not in self._answers:
            cells = [_first(cell, set(self.seeds[: taken[cell.label]])) for cell in found.cells]
            answers = Answers(replace(found, cells=tuple(cells)), self.study, self.margin, self.alpha)
            self._answers[key] = answers.answers
        return self._answers[key]

    def _decided(
        self, answers: Sequence[Answer], history: dict[object, list[tuple[int, Question | Joint]]]
    ) -> list[Answer]:
        p = [_sequential(history[identity(each)], len(self.seeds)) for each in answers]
        decisions = decide([each.question for each in answers], self.alpha, p)
        return [replace(each, decision=decision) for each, decision in zip(answers, decisions, strict=True)]


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
