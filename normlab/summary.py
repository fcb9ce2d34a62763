"""What came of the runs that a command line asked for: the table at the end, and where everything is."""

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from normlab.output import console
from normlab.record import STATUSES, Record
from normlab.settings.plan import Job, labels, run_label

STYLES = {
    "completed": "green", "diverged": "yellow", "failed": "red", "unavailable": "yellow", "interrupted": "yellow",
    "no result": "red",
}  # fmt: skip
MEASURED = {  # heading: where it is in a record, factor, decimals
    "train %": ("metrics", "train_acc", 100, 2),
    "val %": ("metrics", "val_acc", 100, 2),
    "test %": ("metrics", "test_acc", 100, 2),
    "test ce": ("metrics", "test_ce", 1, 4),
    "seconds": ("time", "fit_s", 1, 1),
    "images/s": ("time", "images_per_s", 1, 0),
}


def show(jobs: Sequence[Job], records: Sequence[Record | None], skipped: int, *, sweep: bool = False) -> None:
    """Print one row per run, or per setting where seeds repeat it, what did not complete and why, where the files are,
    and the commands that open them.

    Args:
        records: Of each job; None where it left none.
        skipped: How many runs were finished before.
        sweep: Whether they are a sweep's or a study's, which is reported whole, also where it has one run.
    """
    screen = console()
    folders = [job.folder for job in jobs]
    differing = labels(jobs)
    names = [run_label(each) for each in differing]
    statuses = [record.status if record else "no result" for record in records]
    settings: dict[str, list[Record | None]] = {}
    for each, record in zip(differing, records, strict=True):
        setting = run_label({key: value for key, value in each.items() if key != "seed"}) or jobs[0].settings.norm.name
        settings.setdefault(setting, []).append(record)
    data = sorted({str(record.data["name"]) for record in records if record is not None and record.data})
    title = f"Accuracy on {', '.join(data)}" if data else None
    table = Table(title=title, title_justify="left", title_style="", box=None)
    repeated = len(settings) < len(jobs)
    table.add_column("setting" if repeated else "run", overflow="fold")
    table.add_column("n" if repeated else "status", justify="right" if repeated else "left")
    headings = [*MEASURED][:-1] if repeated else [*MEASURED]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    if repeated:
        for setting, some in settings.items():
            completed = [record for record in some if record and record.status == "completed"]
            table.add_row(escape(setting), str(len(completed)), *_cells(completed, headings))
    else:
        for name, record, status in zip(names, records, statuses, strict=True):
            table.add_row(escape(name), f"[{STYLES[status]}]{status}[/]", *_cells([record] if record else [], headings))
    screen.print()
    screen.print(table)
    screen.print()
    _print_reasons(screen, names, records)
    if len(jobs) > 1:
        counts = Counter(statuses)
        told = [f"{counts[status]} {status}" for status in (*STATUSES, "no result") if counts[status]]
        before = f" ({skipped} finished before, skipped)" if skipped else ""
        screen.print(f"{len(jobs)} runs: {', '.join(told)}{before}")
    elif skipped:
        screen.print("This run was finished before: skipped. force=true does it again.")
    places = sorted({folder.parent for folder in folders}) if sweep else folders
    log_dir = Path(jobs[0].settings.log_dir)
    opened = places if sweep or not folders[0].is_relative_to(log_dir) else [log_dir]
    lines = [("Files:", str(place)) for place in places]
    lines += [("TensorBoard:", f"tensorboard --logdir {shlex.quote(str(place))}") for place in opened]
    lines += [("Report:", f"python -m normlab.report {shlex.quote(str(place))}") for place in places if sweep]
    for what, line in lines:
        screen.print(f"{what:<12} {line}", markup=False, soft_wrap=True)


def _cells(records: Sequence[Record], headings: Sequence[str]) -> list[str]:
    """What was measured, as far as it was: the mean over runs, of metrics with its standard deviation."""
    cells = []
    for of, key, factor, digits in (MEASURED[heading] for heading in headings):
        values = [factor * value for record in records if (value := getattr(record, of).get(key)) is not None]
        sd = f" ± {stdev(values):.{digits}f}" if len(values) > 1 and of == "metrics" else ""
        cells.append(f"{mean(values):,.{digits}f}{sd}" if values else "–")
    return cells


def _print_reasons(screen: Console, names: Sequence[str], records: Sequence[Record | None]) -> None:
    """Print one line per reason, however many runs have it."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, record in zip(names, records, strict=True):
        if record is not None and record.error:
            reasons.setdefault((record.status, record.error), []).append(name)
    for (status, error), who in reasons.items():
        told = who[0] if len(who) == 1 else f"{len(who)} runs"
        screen.print(f"{told} {status}: {error}", style=STYLES[status], markup=False, soft_wrap=True)
