"""The table at the end: what came of the runs that a command line asked for."""

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from normlab.record import STATUSES, Record

__all__ = ["show"]

STYLES = {"completed": "green", "diverged": "yellow", "failed": "red", "unavailable": "yellow", "interrupted": "yellow"}


def show(runs: Sequence[tuple[Path, Record | None]], log_dir: str, skipped: int, *, study: bool = False) -> None:
    """Prints a row a run, what did not complete and why, where the files are and how TensorBoard opens them.

    Args:
        runs: folder and record of each run; None where a run left none.
        log_dir: what TensorBoard is pointed to.
        skipped: how many runs stood there finished.
        study: whether they are a study's, which a report can sum up.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # rich takes 80 columns where there is no terminal, and would fold names in logs
    records = [record for _, record in runs if record is not None]
    data = sorted({str(record.data["name"]) for record in records if record.data})
    table = Table(
        title=f"Accuracy on {', '.join(data)}" if data else None, title_justify="left", title_style="", box=None
    )
    table.add_column("run", overflow="fold")
    table.add_column("status")
    for heading in ("train %", "val %", "test %", "test ce", "seconds", "images/s"):
        table.add_column(heading, justify="right")
    for folder, record in runs:
        if record is None:
            table.add_row(escape(folder.name), "[red]no result[/]")
            continue
        style = STYLES[record.status]
        measured = [_number(record.metrics.get(key), "{:.2f}", 100) for key in ("train_acc", "val_acc", "test_acc")]
        measured += [_number(record.metrics.get("test_ce"), "{:.4f}")]
        measured += [_number(record.time.get("fit_s"), "{:,.1f}"), _number(record.time.get("images_per_s"), "{:,.0f}")]
        table.add_row(escape(folder.name), f"[{style}]{record.status}[/]", *measured)
    console.print()
    console.print(table)
    console.print()
    reasons: dict[tuple[str, str], list[str]] = {}  # one line a reason, not one a run
    for folder, record in runs:
        if record is not None and record.error:
            reasons.setdefault((record.status, record.error), []).append(folder.name)
    for (status, error), names in reasons.items():
        who = names[0] if len(names) == 1 else f"{len(names)} runs"
        console.print(f"{who} {status}: {error}", style=STYLES[status], markup=False, soft_wrap=True)
    if len(runs) > 1:
        counts = Counter(record.status if record else "no result" for _, record in runs)
        told = [f"{counts[status]} {status}" for status in (*STATUSES, "no result") if counts[status]]
        console.print(
            f"{len(runs)} runs: {', '.join(told)}" + (f" ({skipped} stood finished, skipped)" if skipped else "")
        )
    elif skipped:
        console.print("This run stands finished: skipped. force=true does it again.")
    places = sorted({folder.parent for folder, _ in runs}) if len(runs) > 1 else [runs[0][0]]
    for place in places:
        console.print(f"Files:       {place}", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"TensorBoard: tensorboard --logdir {shlex.quote(log_dir)}", highlight=False, markup=False, soft_wrap=True
    )
    if study:  # all of it, also where this command was narrowed to one run
        line = f"Report:      python -m normlab.report {shlex.quote(str(runs[0][0].parent))}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _number(value: float | None, form: str, times: float = 1) -> str:
    return "–" if value is None else form.format(value * times)
