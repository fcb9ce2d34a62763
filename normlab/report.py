"""Report: `python -m normlab.report lightning_logs/replication` makes tables, verdicts, figures and one page of it.

Reads files only: no torch, and no network.
"""

import argparse
import hashlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from normlab.analysis.declared import MARGIN
from normlab.analysis.page import Section, Shown, glossary, made, recipe, render, run_links
from normlab.analysis.part import Part, Table
from normlab.analysis.parts.effects import methods
from normlab.analysis.projection import as_json, numbers
from normlab.compared import Beside, Compared, compare, compare_folders
from normlab.errors import NormlabError, in_one_line
from normlab.files import write_atomically
from normlab.output import command

__all__ = ["main", "report", "report_beside"]

COLOURS = {"better": "green", "supported": "green", "worse": "red", "refuted": "red", "equivalent": "blue"}
SHORT = ("effects", "claims", "summary", "lost", "beside")  # tables that the finding rests on
SCREEN = 45  # lines


@in_one_line()
def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code: 0, or 2 where the folder cannot be reported."""
    parser = argparse.ArgumentParser(
        prog="python -m normlab.report",
        usage="%(prog)s folder [folder …] [setting=value …] [options]",
        description="Tables, verdicts, figures and report.html of a folder of runs; of several folders, what differs.",
        epilog="Examples: python -m normlab.report lightning_logs/replication norm=bn,ln l1=0; "
        "python -m normlab.report old/replication lightning_logs/replication",
    )
    parser.add_argument(
        "words",
        nargs="+",
        metavar="folder … setting=value",
        help="a folder with runs in it, at any depth; of several, the others are compared with the first. Then which "
        "runs, as in norm=bn,ln epochs=20",
    )
    parser.add_argument("--out", type=Path, help="where the report goes; the folder itself unless given")
    parser.add_argument("--margin", type=float, help="margin of equivalence, percentage points; the study's or 0.1")
    parser.add_argument(
        "--ignore",
        type=lambda text: text.split(","),
        default=[],
        metavar="CODE",
        help="leave these warnings out, as in NL009,NL019 (docs/lint.md)",
    )
    parser.add_argument("--all", action="store_true", help="print every table, not only a screen of them")
    parser.add_argument(
        "--no-figures",
        action="store_true",
        help="draw nothing: the page keeps the figures that lie in figures/ if they are of the same runs",
    )
    given = parser.parse_intermixed_args(arguments)
    folders = [word for word in given.words if "=" not in word or Path(word).is_dir()]
    choose = [word for word in given.words if word not in folders]
    if len(folders) > 1:
        report_beside(folders, choose, given.out, margin=given.margin, every=given.all)
    else:
        [folder] = folders or given.words[:1]
        report(
            folder, choose, given.out, margin=given.margin, figures=not given.no_figures, every=given.all,
            ignore=given.ignore,
        )  # fmt: skip
    return 0


def report(
    folder: str | Path,
    choose: Sequence[str] = (),
    out: str | Path | None = None,
    *,
    margin: float | None = None,
    figures: bool = True,
    every: bool = False,
    ignore: Sequence[str] = (),
) -> Compared:
    """Write the tables of all parts as CSV files, figures/ and report.html, print the finding, and return the tables.

    Args:
        choose: "setting=value" or "setting=a,b": only runs that have one of these values.
        out: where to; the folder itself by default.
        margin: of equivalence, in the unit of the study's primary outcome (percentage points); that of the study by
            default, else 0.1.
        figures: draw them anew; else the page keeps those in figures/ that are of the same runs and margin.
        every: print every table, not a screen of them.
        ignore: codes of docs/lint.md whose warnings are left out.

    Raises `NormlabError`, in one line, where there is nothing to report or runs cannot be compared.
    """
    folder = Path(folder)
    out = Path(out) if out is not None else folder
    compared = compare(folder, choose, margin=margin, ignore=ignore)
    answers, parts = compared.answers, compared.parts
    found, study = answers.found, answers.study
    usual = study.margin if study else MARGIN
    given = ["--margin", f"{answers.margin:g}"] if answers.margin != usual else []
    given += ["--ignore", ",".join(ignore)] if ignore else []
    family = numbers(answers)
    with _Writing(out):
        _write_tables(parts, out)
        sections = [Section(part) for part in parts]
        (_draw if figures else _keep)(compared, sections, out / "figures")
        values = {
            "title": f"{folder.resolve().name}: {_count(len(found.cells), 'setting')} on {found.data_title}",
            "question": study.question if study else "",
            "glossary": glossary(cell.norm for cell in found.cells),
            "findings": compared.findings,
            "warnings": compared.warnings,
            "recipe": recipe(found),
            "methods": methods(answers) if answers.answers else {},
            "made": made(found),
            "runs": run_links(found, out),
            "tensorboard": f"tensorboard --logdir {_place(folder)}",
            "command": _command([folder], choose, given),
            "family": as_json(family) if family["rows"] else "",
            "live": family["rows"],
            "unit": answers.about.unit,
        }
        _write_page(out, values, sections)
    _print(compared.findings, compared.warnings, parts, every)
    drawn = any(section.pictures for section in sections)
    _print_line(f"Written: {out / 'report.html'}, *.csv" + (f", {out / 'figures'}" if figures and drawn else ""))
    return compared


def report_beside(
    folders: Sequence[str | Path],
    choose: Sequence[str] = (),
    out: str | Path | None = None,
    *,
    margin: float | None = None,
    every: bool = False,
) -> Beside:
    """Compare folders of runs, setting by setting, with the first: write beside.csv and report.html, print the finding.

    Args:
        choose, margin, every: as of `report`. out: where to; a folder beside_<first> in the last one by default.

    Raises `NormlabError`, in one line, where the folders cannot be compared or have no setting in common.
    """
    places = [Path(folder) for folder in folders]
    both = compare_folders(places, choose, margin=margin)
    out = Path(out) if out is not None else places[-1] / f"beside_{places[0].resolve().name}"
    with _Writing(out):
        _write_tables([both.part], out)
        names, common = " and ".join(both.names), both.frame["setting"].nunique()
        values = {
            "title": f"{names}: {_count(common, 'common setting')} on {both.found[0].data_title}",
            "question": "Do these folders of runs come to the same?",
            "glossary": glossary(cell.norm for found in both.found for cell in found.cells),
            "findings": both.findings,
            "warnings": [note for found in both.found for note in found.notes],
            "recipe": {},
            "methods": {},
            "made": {
                f"{name}: {key}": line
                for name, found in zip(both.names, both.found, strict=True)
                for key, line in made(found).items()
            },
            "runs": [],
            "tensorboard": "",
            "command": _command(places, choose, ["--margin", f"{margin:g}"] if margin is not None else []),
            "family": "",
            "live": {},
            "unit": "",
        }
        _write_page(out, values, [Section(both.part)])
    _print(both.findings, [], [both.part], every)
    _print_line(f"Written: {out / 'report.html'}, beside.csv")
    return both


class _Writing:
    """Make a folder; what cannot be written there is an error in one line."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def __enter__(self) -> None:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self.__exit__(None, error)

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        if isinstance(error, OSError):
            where = error.filename or self.out
            raise NormlabError(f"{where}: cannot be written ({error.strerror}): choose another --out") from None


def _write_tables(parts: Sequence[Part], out: Path) -> None:
    for table in _named(parts):
        write_atomically(out / f"{table.name}.csv", table.csv())


def _named(parts: Sequence[Part]) -> list[Table]:
    """The tables that are files."""
    return [table for part in parts for table in part.tables if table.name and len(table.frame)]


def _write_page(out: Path, values: Mapping[str, Any], sections: Sequence[Section]) -> None:
    shown = [each for each in sections if each.pictures or any(table.cells for table in each.part.tables)]
    files = [table.name for table in _named([section.part for section in sections])]
    write_atomically(out / "report.html", render({**values, "sections": shown, "files": files}).encode())


def _place(folder: Path) -> str:
    """A folder without where it lies on this machine."""
    return folder.name if folder.is_absolute() else str(folder)


def _command(folders: Sequence[Path], choose: Sequence[str], given: Sequence[str]) -> str:
    """The command that makes this report, without the folders of this machine."""
    return shlex.join(["python", "-m", "normlab.report", *map(_place, folders), *choose, *given])


# Figures

INDEX = "index.json"  # of the figures: what they are of, in which order they stand, and the line below each


def _draw(compared: Compared, sections: Sequence[Section], folder: Path) -> None:
    """Draw every figure, write it, and put it into its section. One that cannot be drawn here, for want of images, is
    kept where the one that lies there shows the same."""
    from normlab.analysis.drawing import png, svg

    before = {each["name"]: each for each in _index(folder).get("figures", [])}
    undrawn, missing, index = [], ["the images do not fit the predictions"], []
    console = Console(stderr=True)
    with console.status("drawing") as status:
        for part, picture in compared.pictures(missing.append):
            status.update(f"drawing {picture.name}")
            file, same = folder / f"{picture.name}.svg", before.get(picture.name, {}).get("digest") == picture.digest
            if picture.figure is not None:
                folder.mkdir(parents=True, exist_ok=True)
                write_atomically(file, svg(picture.figure))
                write_atomically(file.with_suffix(".png"), png(picture.figure))
            elif not (same and file.exists()):
                undrawn.append(picture.name)
                continue
            index.append({"name": picture.name, "part": part.id, "caption": picture.caption, "digest": picture.digest})
            _show(sections, part.id, file, picture.caption)
    if index:
        text = json.dumps({"of": _fingerprint(compared), "figures": index}, indent=1, ensure_ascii=False)
        write_atomically(folder / INDEX, text.encode() + b"\n")
    if undrawn:
        print(f"normlab: {missing[-1]}: not drawn: {', '.join(undrawn)}", file=sys.stderr)


def _keep(compared: Compared, sections: Sequence[Section], folder: Path) -> None:
    """Put the figures that lie in a folder into their sections, if they are of the same runs and margin."""
    index = _index(folder)
    if not index:
        return
    if index.get("of") != _fingerprint(compared):
        print(f"normlab: {folder} is of other runs or another margin, and left out of the page", file=sys.stderr)
        return
    for each in index["figures"]:
        file = folder / f"{each['name']}.svg"
        if file.is_file():
            _show(sections, each["part"], file, each["caption"])


def _show(sections: Sequence[Section], part: str, file: Path, caption: str) -> None:
    for section in sections:
        if section.part.id == part:
            section.pictures.append(Shown.of(file.read_bytes(), caption))


def _index(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _fingerprint(compared: Compared) -> str:
    """What figures are of: the runs with their results, and the margin."""
    answers = compared.answers
    runs = [
        [cell.label, run.folder.name, run.record.config_hash, run.record.status, dict(run.record.metrics)]
        for cell in answers.found.cells
        for run in cell.ended
    ]
    return hashlib.sha256(json.dumps([answers.margin, runs], sort_keys=True).encode()).hexdigest()[:16]


# The terminal


def _console() -> Console:
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # ± and − where a terminal has no such sign
    console = Console()
    return (
        console if console.is_terminal else Console(width=200)
    )  # rich takes 80 columns, and would fold tables in logs


def _print_line(line: str) -> None:
    _console().print(line, highlight=False, markup=False, soft_wrap=True)


def _print(findings: Sequence[str], warnings: Sequence[str], parts: Sequence[Part], every: bool) -> None:
    """The tables of parts, warnings, and last, where the eye is, the finding; a screen of it all unless every table is
    wanted."""
    console = _console()
    below = _lines(console, *_warnings(warnings), *findings, *[""] * 3)
    tables = [
        (part.heading, table)
        for part in parts
        for table in part.tables
        if table.cells and (every or table.name in SHORT)
    ]
    heights = [_lines(console, _grid(heading, table)) + 1 for heading, table in tables]
    room = max(SCREEN - below, 0) if not every else sum(heights)
    for at, (heading, table) in enumerate(tables):
        most = max(room // (len(tables) - at), 5 if room > 5 else 0)  # of what is left, each its share
        if sum(heights[at:]) <= room:
            most = heights[at]
        rows = len(table.cells)
        while rows and _lines(console, _grid(heading, table, rows)) + 1 + (rows < len(table.cells)) > most:
            rows -= 1
        used = _lines(console, _grid(heading, table, rows)) + 1 if rows else 1
        if rows:
            console.print(_grid(heading, table, rows))
        if rows < len(table.cells):
            more = f"{len(table.cells) - rows} {'more ' * bool(rows)}rows"
            console.print(f"{'' if rows else heading + ': '}… {more}: --all shows them", highlight=False, style="dim")
            used += 1
        console.print()
        room -= used
    for line in _warnings(warnings):
        console.print(line)
    for line in findings:
        console.print(line, highlight=False, markup=False)
    console.print()


def _lines(console: Console, *shown: Any) -> int:
    return sum(len(console.render_lines(each)) for each in shown)


def _grid(heading: str, table: Table, most: int | None = None) -> RichTable:
    shown = RichTable(title=heading, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in table.shown:
        shown.add_column(column.heading, justify="right" if column.number else "left", overflow="fold")
    at = table.headings.index(table.verdict) if table.verdict else None
    for row in table.rows[:most]:
        cells = [escape(cell) for cell in row]
        if at is not None and (colour := COLOURS.get(row[at])):
            cells[at] = f"[{colour}]{cells[at]}[/]"
        shown.add_row(*cells)
    return shown


def _warnings(warnings: Sequence[str]) -> list[Any]:
    if not warnings:
        return []
    bullets = RichTable.grid(padding=(0, 1))  # the lines of a folded warning stand below each other
    for line in warnings:
        bullets.add_row("-", escape(line), style="yellow")
    return ["[bold]Warnings[/]", bullets, ""]


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


class _Callable(ModuleType):
    """This module, which `from normlab import report` gives, called as its function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return report(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    raise SystemExit(command(main))
