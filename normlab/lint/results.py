"""Rules that need results: what came out, and what is missing."""

from collections import Counter
from collections.abc import Iterator

from normlab.analysis.cells import alike, at_chance, level, trained
from normlab.lint.design import Design
from normlab.lint.network import cannot_learn
from normlab.lint.rules import names, rule
from normlab.settings.conf import spell


@rule("NL014", "runs-lost", "report")
def lost(design: Design) -> Iterator[str]:
    """Runs of a setting diverged, failed, were interrupted or had no device.

    The mean of a setting in which some runs diverged is over those that did not, and flatters it. A setting without
    completed runs is compared with nothing.

    Look at the table of lost runs for the reason; the study's command does again what failed or was interrupted.
    """
    for cell in design.grouped.cells:
        missing = len(cell.ended) - len(cell.completed)
        diverged = sum(run.record.status == "diverged" for run in cell.ended)
        if not cell.completed:
            how = f" ({diverged} diverged)" if diverged else ""
            yield f"{cell.label}: no run completed{how}; there is nothing to compare."
        elif diverged:
            yield (
                f"{cell.label}: {diverged} of {len(cell.ended)} runs diverged. Its mean is over those that did not, "
                "and flatters it."
            )
        elif missing:
            yield f"{cell.label}: {missing} of {len(cell.ended)} runs did not complete."


@rule("NL015", "never-left-chance", "report")
def chance(design: Design) -> Iterator[str]:
    """A completed run's test accuracy is no better than always naming the commonest class, within three standard
    errors, although its network can learn (see NL001).

    The network did not train. Its setting has no verdicts: its mean and its spread are those of two kinds of runs.

    Look at the run's curves; a lower `lr`, a longer warm-up or `gradient_clip` may let it train.
    """
    stuck = {each.label for each in design.settings if cannot_learn(each)}
    for cell in design.grouped.cells:
        seeds = [run.record.seed for run in cell.completed if at_chance(run)]
        if seeds and cell.label not in stuck:
            yield (
                f"{cell.label}: the network never left chance with seed{'s' * (len(seeds) > 1)} "
                f"{', '.join(map(str, seeds))}."
            )


def _by_rate(design: Design) -> dict[str, dict[float, float]]:
    """Mean validation accuracy over seeds by setting and lr, where several lr were run and every run trained."""
    cells = [cell for cell in design.grouped.cells if "lr" in cell.levels and trained(cell) and cell.values("val_acc")]
    found = {rest: {level(cell, "lr"): cell.mean("val_acc") for cell in of} for rest, of in alike(cells, "lr").items()}
    return {setting: rates for setting, rates in found.items() if len(rates) > 1}


def _best(rates: dict[float, float]) -> list[float]:
    return [lr for lr, acc in sorted(rates.items()) if acc == max(rates.values())]


@rule("NL016", "best-learning-rates-differ", "report")
def best_rates(design: Design) -> Iterator[str]:
    """Several `lr` were run, and no single one has the best mean validation accuracy for every setting. Rates at which
    a run diverged or stayed at chance do not count; of equal ones, all are best.

    At one `lr` for all, settings that it does not suit look worse than they are.

    Compare each setting at its own best: the report has that table where three rates or more were run.
    """
    best = {setting: _best(rates) for setting, rates in _by_rate(design).items()}
    if best and not set.intersection(*({*rates} for rates in best.values())):
        groups: dict[float, list[str]] = {}
        for setting, rates in best.items():
            groups.setdefault(rates[0], []).append(setting)
        each = "; ".join(f"{spell(lr)}: {names(settings)}" for lr, settings in sorted(groups.items()))
        yield (
            f"The best lr by validation accuracy differs ({each}). At one lr for all, settings that it does not suit "
            "look worse than they are: compare each at its own."
        )


@rule("NL017", "best-learning-rate-at-the-edge", "report")
def edge(design: Design) -> Iterator[str]:
    """A setting's best `lr` by validation accuracy is the smallest or the largest that was run.

    A better one may lie beyond, so the setting may look worse than it is.

    Run more values on that side.
    """
    tried = _by_rate(design)
    at = [setting for setting, rates in tried.items() if {*_best(rates)} <= {min(rates), max(rates)}]
    if at:
        yield f"{names(at)}: the best lr is the smallest or largest that was run; a better one may lie beyond."


@rule("NL018", "predictions-missing", "report")
def predictions(design: Design) -> Iterator[str]:
    """Completed runs have no `predictions.npz`, or one of other test images than the runs beside them.

    Without every run's answers to the same images, intervals and verdicts hold for these very images only, and the
    table of errors is that of the other runs.

    Copy the file from where the run was made, or train the run again with `force=true`.
    """
    images = {
        run.folder: None if (true := (run.predictions or {}).get("true")) is None else true.tobytes()
        for run in design.grouped.completed
    }
    known = Counter(each for each in images.values() if each is not None).most_common(1)
    lacking = {
        cell.label: sum(not known or images[run.folder] != known[0][0] for run in cell.completed)
        for cell in design.grouped.cells
    }
    if count := sum(lacking.values()):
        yield (
            f"{count} of {len(images)} runs ({names(label for label, n in lacking.items() if n)}) left no predictions "
            "of the same test images as the others: intervals and verdicts hold for these very images only."
        )


@rule("NL019", "several-machines", "report")
def machines(design: Design) -> Iterator[str]:
    """The runs were made on devices of several names, with several numbers of threads, or several versions of torch.

    The same seed then gives other last bits, and times are not comparable; accuracies are as comparable as those of
    other seeds, unless a setting was always on one machine.

    Nothing, if every setting was run on each machine; else make the runs of one machine again.
    """
    records = [run.record for run in design.grouped.completed]
    for what, have in {
        "device": {str(record.device.get("name")) for record in records},
        "number of threads": {str(record.device.get("threads")) for record in records},
        "version of torch": {str(record.versions.get("torch")) for record in records},
    }.items():
        if len(have) > 1:
            yield f"The runs were made with more than one {what} ({', '.join(sorted(have))})."


@rule("NL020", "left-out", "report")
def left_out(design: Design) -> Iterator[str]:
    """Something below the folder was not used: the second of two folders of one setting and seed (a finished run comes
    before an unfinished one, then the order of the names counts), a `result.json` or another file of a run that is
    damaged or another program's, a folder that cannot be read.

    The report may be about other runs than one thinks. Of two different results of one run, either may be the wrong
    one.

    Move what does not belong there, or train a run with damaged files again (`force=true`).
    """
    yield from design.grouped.notes
    for run in design.grouped.ended:
        _ = run.curves, run.predictions  # read by now, as a rule
        yield from run.damage
