"""Beside a study's results: what its settings tell, and what came out."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from normlab.analysis.cells import Cell, at_chance, label, trained, word
from normlab.lint.asked import Asked, asked_of
from normlab.lint.comparison import confounded, one_rate, selection, unequal
from normlab.lint.finding import Finding, names
from normlab.lint.network import PER_SETTING, cannot_learn
from normlab.lint.seeds import reached

if TYPE_CHECKING:
    from normlab.analysis.questions import Answers  # scipy

__all__ = ["lint_results"]


def lint_results(answers: "Answers", *, margin: float | None = None) -> list[Finding]:
    """What may mislead in the results of a report, gravest first.

    Args:
        margin: the difference asked about; None where nobody named one.
    """
    found, study = answers.found, answers.study
    cells = asked_of(found.cells)
    told = [finding for rule in PER_SETTING for finding in rule(cells)]
    told += _lost(found.cells)
    told += _chance(found.cells, [cell.label for cell in cells if cannot_learn(cell)])
    told += confounded([cell.levels for cell in found.cells])
    told += unequal(_sizes(found.cells))
    told += selection(cells, study)
    told += _rates(found.cells, cells)
    told += reached(answers, margin)
    told += _predictions(found.cells)
    told += _machines(found.cells)
    return told


def _lost(cells: Sequence[Cell]) -> Iterator[Finding]:
    for cell in cells:
        lost, diverged = len(cell.ended) - len(cell.completed), _diverged(cell)
        if not cell.completed:
            how = f" ({diverged} diverged)" if diverged else ""
            yield Finding("lost", f"{cell.label}: no run completed{how}; there is nothing to compare.")
        elif diverged:
            yield Finding(
                "lost",
                f"{cell.label}: {diverged} of {len(cell.ended)} runs diverged. Its mean is over those that did not, "
                "and flatters it.",
            )
        elif lost:
            yield Finding("lost", f"{cell.label}: {lost} of {len(cell.ended)} runs did not complete.")


def _diverged(cell: Cell) -> int:
    return sum(run.record.status == "diverged" for run in cell.ended)


def _chance(cells: Sequence[Cell], constant: Sequence[str]) -> Iterator[Finding]:
    """Networks that learned nothing; those that could not are told of already."""
    for cell in cells:
        stuck = [run.record.seed for run in cell.completed if at_chance(run)]
        if stuck and cell.label not in constant:
            seeds = f"seed{'s' * (len(stuck) > 1)} {', '.join(map(str, stuck))}"
            yield Finding("chance", f"{cell.label}: the network never left chance with {seeds}.")


def _sizes(cells: Sequence[Cell]) -> list[tuple[str, str, int | None]]:
    """The number of parameters as it was counted; settings that say none are left out."""
    counted = {cell.label: [run.record.parameters for run in cell.completed] for cell in cells}
    return [(cell.norm, cell.label, n) for cell in cells for n in {*counted[cell.label]} if n is not None]


def _rates(cells: Sequence[Cell], asked: Sequence[Asked]) -> Iterator[Finding]:
    """Where several lr were run: the best of each norm (of each setting without its lr) by validation accuracy, the
    mean over seeds, where every run trained. Of equal ones all count as best."""
    if "lr" not in cells[0].levels:
        yield from one_rate(asked)
        return
    by_setting: dict[str, dict[float, float]] = {}
    for cell in cells:
        if trained(cell) and (values := list(cell.values("val_acc").values())):
            others = {key: level for key, level in cell.levels.items() if key != "lr"}
            by_setting.setdefault(json.dumps(others), {})[float(cell.levels["lr"])] = float(np.mean(values))
    best = {
        label(json.loads(setting)): [lr for lr, acc in sorted(accs.items()) if acc == max(accs.values())]
        for setting, accs in by_setting.items()
        if len(accs) > 1
    }
    if not best:
        return
    shared = set.intersection(*({*rates} for rates in best.values()))
    if shared:
        alike = f"{names(best)}: lr={word(min(shared))} is the best"
        yield Finding("learning-rate", f"{alike} by validation accuracy, of those that were run.", note=True)
    else:
        groups: dict[float, list[str]] = {}
        for setting, rates in best.items():
            groups.setdefault(rates[0], []).append(setting)
        each = "; ".join(f"{word(lr)}: {names(settings)}" for lr, settings in sorted(groups.items()))
        yield Finding(
            "learning-rate",
            f"The best lr by validation accuracy differs ({each}). At one lr for all, settings that it does not suit "
            "look worse than they are: compare each at its own.",
        )
    tried = {label(json.loads(setting)): accs for setting, accs in by_setting.items()}
    edge = [setting for setting, rates in best.items() if {*rates} <= {min(tried[setting]), max(tried[setting])}]
    if edge:
        yield Finding(
            "learning-rate",
            f"{names(edge)}: the best lr is the smallest or largest that was run; a better one may lie beyond.",
        )


def _predictions(cells: Sequence[Cell]) -> Iterator[Finding]:
    for cell in cells:
        if lacking := len(cell.completed) - (len(cell.predicted[0]) if cell.predicted else 0):
            yield Finding(
                "predictions",
                f"{cell.label}: {lacking} of {len(cell.completed)} runs left no predictions that fit; its errors are "
                "those of the others.",
            )


def _machines(cells: Sequence[Cell]) -> Iterator[Finding]:
    records = [run.record for cell in cells for run in cell.completed]
    for what, have in {
        "device": {str(record.device.get("name")) for record in records},
        "number of threads": {str(record.device.get("threads")) for record in records},
        "version of torch": {str(record.versions.get("torch")) for record in records},
    }.items():
        if len(have) > 1:
            yield Finding("machine", f"The runs were made with more than one {what} ({', '.join(sorted(have))}).")
