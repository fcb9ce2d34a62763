"""What came of the runs that a command line asked for: the table at the end, and where everything is."""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from normlab.record import STATUSES, Record
from normlab.settings.plan import Job, label, labels

__all__ = ["show"]

STYLES = {"completed": "green", "diverged": "yellow", "failed": "red", "unavailable": "yellow", "interrupted": "yellow"}
MEASURED = {"train %": "train_acc", "val %": "val_acc", "test %": "test_acc", "test ce": "test_ce"}


def show(jobs: Sequence[Job], records: Sequence[Record | None], skipped: int, *, sweep: bool = False) -> None:
    """Print one row per run, or per setting where seeds repeat it, what did not complete and why, where the files are,
    and the commands that open them.

    Args:
        records: Of each job; None where it left none.
        skipped: How many runs were finished before.
        sweep: Whether they are a sweep's or a study's, which is reported whole, also where it has one run.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # rich takes 80 columns where there is no terminal, and would fold names in logs
    folders = [job.folder for job in jobs]
    names = [label(each) for each in labels(jobs)]
    settings: dict[str, list[Record | None]] = {}
    for differing, record in zip(labels(jobs), records, strict=True):
        setting = label({key: value for key, value in differing.items() if key != "seed"}) or jobs[0].settings.norm.name
        settings.setdefault(setting, []).append(record)
    data = sorted({str(record.data["name"]) for record in records if record is not None and record.data})
    title = f"Accuracy on {', '.join(data)}" if data else None
    repeated = any(len(each) > 1 for each in settings.values())
    console.print()
    console.print(_settings_table(title, settings) if repeated else _runs_table(title, names, records))
    console.print()
    _print_reasons(console, names, records)
    if len(jobs) > 1:
        counts = Counter(record.status if record else "no result" for record in records)
        told = [f"{counts[status]} {status}" for status in (*STATUSES, "no result") if counts[status]]
        before = f" ({skipped} finished before, skipped)" if skipped else ""
        console.print(f"{len(jobs)} runs: {', '.join(told)}{before}")
    elif skipped:
        console.print("This run was finished before: skipped. force=true does it again.")
    places = sorted({folder.parent for folder in folders}) if sweep else folders
    log_dir = Path(jobs[0].settings.log_dir)
    opened = places if sweep or not folders[0].is_relative_to(log_dir) else [log_dir]
    lines = [("Files:", str(place)) for place in places]
    lines += [("TensorBoard:", f"tensorboard --logdir {shlex.quote(str(place))}") for place in opened]
    lines += [("Report:", f"python -m normlab.report {shlex.quote(str(place))}") for place in places if sweep]
    for what, line in lines:
        console.print(f"{what:<12} {line}", highlight=False, markup=False, soft_wrap=True)


def _table(title: str | None, first: Iterable[str], rest: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="", box=None)
    for index, heading in enumerate(first):
        table.add_column(heading, overflow="fold" if index == 0 else "ellipsis")
    for heading in rest:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _runs_table(title: str | None, names: Sequence[str], records: Sequence[Record | None]) -> Table:
    table = _table(title, ("run", "status"), (*MEASURED, "seconds", "images/s"))
    for name, record in zip(names, records, strict=True):
        if record is None:
            table.add_row(escape(name), "[red]no result[/]")
            continue
        style = STYLES[record.status]
        cells = [_spread([record], heading, key) for heading, key in MEASURED.items()]
        cells += [_number(record.time.get("fit_s"), "{:,.1f}"), _number(record.time.get("images_per_s"), "{:,.0f}")]
        table.add_row(escape(name), f"[{style}]{record.status}[/]", *cells)
    return table


def _settings_table(title: str | None, settings: Mapping[str, Sequence[Record | None]]) -> Table:
    """n counts the completed runs; ± is their standard deviation."""
    table = _table(title, ("setting",), ("n", *MEASURED, "s per run"))
    for setting, records in settings.items():
        completed = [record for record in records if record is not None and record.status == "completed"]
        cells = [_spread(completed, heading, key) for heading, key in MEASURED.items()]
        seconds = [record.time["fit_s"] for record in completed if record.time.get("fit_s") is not None]
        cells.append(_number(mean(seconds) if seconds else None, "{:,.1f}"))
        table.add_row(escape(setting), str(len(completed)), *cells)
    return table


def _print_reasons(console: Console, names: Sequence[str], records: Sequence[Record | None]) -> None:
    """Print one line per reason, however many runs have it."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, record in zip(names, records, strict=True):
        if record is not None and record.error:
            reasons.setdefault((record.status, record.error), []).append(name)
    for (status, error), who in reasons.items():
        told = who[0] if len(who) == 1 else f"{len(who)} runs"
        console.print(f"{told} {status}: {error}", style=STYLES[status], markup=False, soft_wrap=True)


def _spread(records: Sequence[Record], heading: str, key: str) -> str:
    """Mean and standard deviation of a metric, as far as it was measured."""
    times, form = (100, "{:.2f}") if heading.endswith("%") else (1, "{:.4f}")
    values = [times * value for record in records if (value := record.metrics.get(key)) is not None]
    told = _number(mean(values) if values else None, form)
    return f"{told} ± {form.format(stdev(values))}" if len(values) > 1 else told


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
