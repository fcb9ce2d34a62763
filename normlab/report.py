"""Report: `python -m normlab.report lightning_logs/replication` makes tables, verdicts, figures and one page of it.

Reads files only: no torch, and no network.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from normlab.analysis.cells import Sorted
from normlab.analysis.declared import MARGIN
from normlab.analysis.page import Section, Shown, render
from normlab.analysis.part import Part
from normlab.analysis.questions import Answers
from normlab.compared import Compared, compare
from normlab.errors import NormlabError
from normlab.files import write_atomically
from normlab.output import command

__all__ = ["main", "report"]

COLOURS = {"better": "green", "supported": "green", "worse": "red", "refuted": "red", "equivalent": "blue"}


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code: 0, or 2 where the folder cannot be reported."""
    parser = argparse.ArgumentParser(
        prog="python -m normlab.report",
        description="Tables, verdicts, figures and report.html of a folder of runs.",
        epilog="Example: python -m normlab.report lightning_logs/replication norm=bn,ln l1=0",
    )
    parser.add_argument("folder", type=Path, help="a folder with runs in it, at any depth")
    parser.add_argument(
        "choose", nargs="*", metavar="setting=value", help="only these runs, as in norm=bn,ln epochs=20"
    )
    parser.add_argument("--out", type=Path, help="where the report goes; the folder itself unless given")
    parser.add_argument("--margin", type=float, help="margin of equivalence, percentage points; the study's or 0.1")
    parser.add_argument(
        "--ignore",
        type=_words,
        default=[],
        metavar="CODE",
        help="leave these warnings out, as in NL009,NL019 (docs/lint.md)",
    )
    parser.add_argument("--all", action="store_true", help="print every table, not only those of the finding")
    parser.add_argument("--no-figures", action="store_true", help="tables and page only: a matter of a second or two")
    given = parser.parse_intermixed_args(arguments)
    try:
        report(
            given.folder,
            given.choose,
            given.out,
            margin=given.margin,
            figures=not given.no_figures,
            every=given.all,
            ignore=given.ignore,
        )
    except NormlabError as error:
        print(f"normlab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("normlab: stopped", file=sys.stderr)
        return 130
    return 0


def report(
    folder: Path,
    choose: Sequence[str] = (),
    out: Path | None = None,
    *,
    margin: float | None = None,
    figures: bool = True,
    every: bool = False,
    ignore: Sequence[str] = (),
) -> None:
    """Write the tables of all parts as CSV files, figures/ and report.html, and print the finding.

    Args:
        choose: "setting=value" or "setting=a,b": only runs that have one of these values.
        out: where to; the folder itself by default.
        margin: of equivalence, in the unit of the study's primary outcome (percentage points); that of the study by
            default, else 0.1.
        every: print every table, not the finding alone.
        ignore: codes of docs/lint.md whose warnings are left out.

    Raises `NormlabError`, in one line, where there is nothing to report or runs cannot be compared.
    """
    compared = compare(folder, choose, margin=margin, ignore=ignore)
    answers, parts = compared.answers, compared.parts
    out = out or folder
    try:
        out.mkdir(parents=True, exist_ok=True)
        for table in (table for part in parts for table in part.tables if table.name):
            write_atomically(out / f"{table.name}.csv", table.csv())
        sections = [Section(part, []) for part in parts]
        if figures:
            _draw(compared, sections, out / "figures")
        found, study = answers.found, answers.study
        values: dict[str, Any] = {
            "title": f"{folder.resolve().name}: {_count(len(found.cells), 'setting')} on {found.data}",
            "question": study.question if study else "",
            "about": _about(found),
            "findings": compared.findings,
            "warnings": compared.warnings,
            "sections": [
                each for each in sections if each.pictures or any(table.columns for table in each.part.tables)
            ],
            "made": _made(found),
            "files": [table.name for part in parts for table in part.tables if table.name],
            "tensorboard": f"tensorboard --logdir {folder.name if folder.is_absolute() else folder}",
            "command": shlex.join(_command(folder, choose, answers, ignore)),
        }
        write_atomically(out / "report.html", render(values).encode())
    except OSError as error:
        told_where = error.filename or out
        raise NormlabError(f"{told_where}: cannot be written ({error.strerror}): choose another --out") from None
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # ± and − where a terminal has no such sign
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # rich takes 80 columns where there is no terminal, and would fold tables in logs
    _print(console, compared.findings, compared.warnings, [part for part in parts if every or part.id in SHORT])
    places = f"{out / 'report.html'}, *.csv" + (f", {out / 'figures'}" if figures else "")
    console.print(f"Written: {places}", highlight=False, markup=False, soft_wrap=True)


def _words(text: str) -> list[str]:
    return text.split(",")


def _command(folder: Path, choose: Sequence[str], answers: Answers, ignore: Sequence[str]) -> list[str]:
    """The command that makes this report, without the folders of this machine."""
    place = folder.name if folder.is_absolute() else str(folder)
    usual = answers.study.margin if answers.study else MARGIN
    given = ["--margin", f"{answers.margin:g}"] if answers.margin != usual else []
    given += ["--ignore", ",".join(ignore)] if ignore else []
    return ["python", "-m", "normlab.report", place, *choose, *given]


def _draw(compared: Compared, sections: Sequence[Section], folder: Path) -> None:
    """Draw every figure, write it, and put it into its section."""
    from normlab.analysis.drawing import save

    undrawn, missing = [], ["the images do not fit the predictions"]
    console = Console(stderr=True)
    with console.status("drawing") as status:
        for part, picture in compared.pictures(missing.append):
            status.update(f"drawing {picture.name}")
            if (svg := save(picture, folder)) is None:
                undrawn.append(picture.name)
                continue
            [section] = [section for section in sections if section.part is part]
            section.pictures.append(Shown.of(svg, picture))
    if undrawn:
        print(f"normlab: {missing[-1]}: {len(undrawn)} galleries not drawn", file=sys.stderr)


SHORT = ("effects", "claims", "settings", "lost")  # what the finding rests on


def _print(console: Console, told: Sequence[str], warnings: Sequence[str], parts: Sequence[Part]) -> None:
    """The tables of parts, warnings, and last, where the eye is, the finding."""
    for heading, table in [(part.heading, table) for part in parts for table in part.tables]:
        if not table.columns or not table.rows:
            continue
        shown = RichTable(title=heading, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for column in table.columns:
            shown.add_column(column.heading, justify="right" if column.number else "left", overflow="fold")
        at = table.headings.index(table.verdict) if table.verdict else None
        for row in table.rows:
            cells = [escape(cell) for cell in row]
            if at is not None and (colour := COLOURS.get(row[at])):
                cells[at] = f"[{colour}]{cells[at]}[/]"
            shown.add_row(*cells)
        console.print(shown)
        console.print()
    if warnings:
        console.print("Warnings", style="bold")
        for line in warnings:
            bullet = RichTable.grid(padding=(0, 1))  # the lines of a folded warning stand below each other
            bullet.add_row("-", escape(line), style="yellow")
            console.print(bullet)
        console.print()
    for line in told:
        console.print(line, highlight=False, markup=False)
    console.print()


def _about(found: Sorted) -> str:
    """The protocol in a line."""
    run = next((run for cell in found.cells for run in cell.completed), found.cells[0].ended[0])
    data = run.record.data
    total = sum(len(cell.ended) for cell in found.cells)
    parts = [f"{_count(total, 'run')} of {_count(len(found.cells), 'setting')}"]
    if data:
        held = f", {data['val']:,} held out" if data.get("val") else ""
        parts.append(
            f"{found.data}: {data.get('train', 0):,} training images{held}, {data.get('test', 0):,} test images"
        )
    ended = [run.config for cell in found.cells for run in cell.ended]
    networks = sorted({config.get("net.target") or config.get("net") or "small" for config in ended})
    if networks != ["small"]:
        parts.append(f"Network: {' or '.join(networks)}")
    epochs = sorted({config.get("epochs") or 0 for config in ended})
    parts.append(f"{' or '.join(map(str, epochs))} epoch{'s' * (epochs != [1])}; the last one counts")
    return ". ".join(parts) + "."


def _made(found: Sorted) -> str:
    """Devices and versions of the runs."""
    records = [run.record for cell in found.cells for run in cell.completed]
    devices = sorted({f"{r.device.get('name', r.device.get('accelerator'))}" for r in records})
    versions = sorted({", ".join(f"{k} {v}" for k, v in r.versions.items()) for r in records})
    return f"Trained on {', '.join(devices)}. {'; '.join(versions)}." if records else ""


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


class _Callable(ModuleType):
    """This module, which `from normlab import report` gives, called as its function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return report(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    raise SystemExit(command(main))
