"""Report: `python -m normlab.report lightning_logs/replication` makes tables, verdicts, figures and one page of it.

Reads files only: no torch, and no network.
"""

import argparse
import hashlib
import shlex
import sys
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from normlab.analysis.page import Shown, as_json, glossary, made, recipe, render, run_links
from normlab.analysis.part import Table
from normlab.analysis.parts.effects import methods
from normlab.analysis.projection import numbers
from normlab.compared import Compared, ComparedFolders, compare, compare_folders
from normlab.errors import NormlabError, in_one_line
from normlab.files import write_atomically
from normlab.output import command, console, counted

COLOURS = {"better": "green", "supported": "green", "worse": "red", "refuted": "red", "equivalent": "blue"}
SCREEN = 45  # lines
MARK = "<!-- normlab "  # begins the last line of a figure: what it is of
# Values of the page that not every report has.
OPTIONAL = ("family", "live", "methods", "question", "recipe", "runs", "tensorboard", "unit", "warnings")


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
    words: dict[str, Any] = {"margin": given.margin, "every": given.all}
    if len(folders) > 1:
        report_beside(folders, choose, given.out, **words)
    else:
        [folder] = folders or given.words[:1]
        report(folder, choose, given.out, figures=not given.no_figures, ignore=given.ignore, **words)
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
        choose, margin, ignore: as of `normlab.compare`. out: where to; the folder itself by default.
        figures: draw them anew; else the page keeps those in figures/ that are of the same runs and margin.
        every: print every table, not a screen of them.

    Raise `NormlabError`, in one line, where there is nothing to report or runs cannot be compared.
    """
    folder = Path(folder)
    out = Path(out) if out is not None else folder
    compared = compare(folder, choose, margin=margin, ignore=ignore)
    answers, found = compared.answers, compared.answers.grouped
    given = ["--margin", f"{answers.margin:g}"] if answers.margin != answers.asked.margin else []
    given += ["--ignore", ",".join(ignore)] if ignore else []
    family = numbers(answers)
    with _writing(out):
        shown = _figures(compared, out / "figures", figures)
        values = {
            "title": f"{folder.resolve().name}: {counted(len(found.cells), 'setting')} on {found.data_title}",
            "question": answers.asked.question,
            "glossary": glossary([found]),
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
        _write(compared, out, shown, values)
    _print(compared, every)
    written = f"Written: {out / 'report.html'}, *.csv" + (f", {out / 'figures'}" if figures and shown else "")
    console().print(written, markup=False, soft_wrap=True)
    return compared


def report_beside(
    folders: Sequence[str | Path],
    choose: Sequence[str] = (),
    out: str | Path | None = None,
    *,
    margin: float | None = None,
    every: bool = False,
) -> ComparedFolders:
    """Compare folders of runs, setting by setting, with the first: write beside.csv and report.html, print the finding.

    Args:
        choose, margin, every: as of `report`. out: where to; a folder beside_<first> in the last one by default.

    Raise `NormlabError`, in one line, where the folders cannot be compared or have no setting in common.
    """
    places = [Path(folder) for folder in folders]
    both = compare_folders(places, choose, margin=margin)
    out = Path(out) if out is not None else places[-1] / f"beside_{places[0].resolve().name}"
    common = counted(both.frame["setting"].nunique(), "common setting")
    facts = {name: made(found) for name, found in zip(both.names, both.grouped, strict=True)}
    values = {
        "title": f"{' and '.join(both.names)}: {common} on {both.grouped[0].data_title}",
        "question": "Do these folders of runs come to the same?",
        "glossary": glossary(both.grouped),
        "made": {f"{name}: {key}": line for name, lines in facts.items() for key, line in lines.items()},
        "command": _command(places, choose, ["--margin", f"{margin:g}"] if margin is not None else []),
    }
    with _writing(out):
        _write(both, out, {}, values)
    _print(both, every)
    console().print(f"Written: {out / 'report.html'}, beside.csv", markup=False, soft_wrap=True)
    return both


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Make a folder; what cannot be written there is an error in one line."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        where = error.filename or out
        raise NormlabError(f"{where}: cannot be written ({error.strerror}): choose another --out") from None


def _write(
    compared: Compared | ComparedFolders, out: Path, shown: Mapping[str, Sequence[Shown]], values: Mapping[str, Any]
) -> None:
    """Write the tables, and the page with the figures of each part."""
    tables = [table for part in compared.parts for table in part.tables if table.name and len(table.frame)]
    for table in tables:
        write_atomically(out / f"{table.name}.csv", table.csv())
    sections = [(part, shown.get(part.id, [])) for part in compared.parts]
    sections = [(part, some) for part, some in sections if some or any(table.cells for table in part.tables)]
    own = {"sections": sections, "files": [table.name for table in tables]}
    own |= {"findings": compared.findings, "warnings": compared.warnings}
    write_atomically(out / "report.html", render(dict.fromkeys(OPTIONAL, ()) | own | dict(values)).encode())


def _figures(compared: Compared, folder: Path, draw: bool) -> dict[str, list[Shown]]:
    """The figures of the page by part, drawn and written, or else those in the folder that are of the same runs and
    margin. One that cannot be drawn here, for want of images, is kept where it shows the same; one that the report had
    before and has no more is removed."""
    shown: dict[str, list[Shown]] = {}
    missing, names = [], set()
    fingerprint = _fingerprint(compared)
    with Console(stderr=True).status("figures") as status:
        for part, picture in compared.pictures():
            status.update(f"figure {picture.name}")
            names.add(picture.name)
            mark = f"{MARK}{picture.digest or fingerprint} -->\n".encode()
            file = folder / f"{picture.name}.svg"
            if draw and (figure := picture.draw(compared.images)):
                from normlab.analysis.drawing import plain, png, svg  # matplotlib

                folder.mkdir(parents=True, exist_ok=True)
                with plain():
                    write_atomically(file, svg(figure) + mark)
                    write_atomically(folder / f"{picture.name}.png", png(figure))
            content = file.read_bytes() if file.exists() else b""
            if content.endswith(mark):
                shown.setdefault(part.id, []).append(Shown.of(content, picture.caption))
            elif draw or content:
                missing.append(picture.name)
    for file in folder.glob("*.svg") if draw else ():
        if file.stem not in names and MARK.encode() in file.read_bytes()[-99:]:
            file.unlink()
            file.with_suffix(".png").unlink(missing_ok=True)
    if missing:
        other = f"{folder} is of other runs or another margin: left out"
        why = f"{compared.images.missing}: not drawn" if draw else other
        print(f"normlab: {why}: {', '.join(missing)}", file=sys.stderr)
    return shown


def _fingerprint(compared: Compared) -> str:
    """What figures are of: what the tables show, and the margin."""
    tables = b"".join(table.csv() for part in compared.parts for table in part.tables if table.columns)
    return hashlib.sha256(f"{compared.answers.margin} ".encode() + tables).hexdigest()[:16]


def _place(folder: Path) -> str:
    """A folder without where it lies on this machine."""
    return folder.name if folder.is_absolute() else str(folder)


def _command(folders: Sequence[Path], choose: Sequence[str], given: Sequence[str]) -> str:
    """The command that makes this report, without the folders of this machine."""
    return shlex.join(["python", "-m", "normlab.report", *map(_place, folders), *choose, *given])


# The terminal


def _print(compared: Compared | ComparedFolders, every: bool) -> None:
    """The tables, warnings, and last, where the eye is, the finding; a screen of it all unless every table is
    wanted."""
    screen = console()
    below = [*_warnings(compared.warnings), *map(escape, compared.findings), ""]
    tables = [
        (part.heading, table)
        for part in compared.parts
        for table in part.tables
        if table.cells and (every or table.first)
    ]
    heights = [_lines(screen, _grid(*each)) + 1 for each in tables]
    room = sum(heights) if every else max(SCREEN - _lines(screen, *below) - 2, 0)
    for at, (heading, table) in enumerate(tables):
        count = len(table.cells)
        most = (
            heights[at] if sum(heights[at:]) <= room else room // (len(tables) - at)
        )  # of what is left, each its share

        def lines(rows: int, heading: str = heading, table: Table = table) -> int:
            return _lines(screen, _grid(heading, table, rows)) + 1 + (rows < len(table.cells))

        rows = count if most >= heights[at] else bisect_right(range(1, count), most, key=lines)
        if rows:
            screen.print(_grid(heading, table, rows))
        if rows < count:
            more = f"… {count - rows} {'more ' * bool(rows)}rows: --all shows them"
            screen.print(more if rows else f"{heading}: {more}", style="dim")
        screen.print()
        room -= lines(rows) if rows else 2
    for each in below:
        screen.print(each)


def _lines(screen: Console, *shown: Any) -> int:
    return sum(len(screen.render_lines(each)) for each in shown)


def _grid(heading: str, table: Table, most: int | None = None) -> RichTable:
    shown = RichTable(title=heading, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in table.shown:
        shown.add_column(column.heading, justify="right" if column.number else "left", overflow="fold")
    for row in table.cells[:most]:
        colours = [COLOURS.get(cell.text, "") if cell.column.verdict else "" for cell in row]
        cells = zip(map(escape, (cell.text for cell in row)), colours, strict=True)
        shown.add_row(*(f"[{colour}]{text}[/]" if colour else text for text, colour in cells))
    return shown


def _warnings(warnings: Sequence[str]) -> list[Any]:
    if not warnings:
        return []
    bullets = RichTable.grid(padding=(0, 1))  # the lines of a folded warning stand below each other
    for line in warnings:
        bullets.add_row("-", escape(line), style="yellow")
    return ["[bold]Warnings[/]", bullets, ""]


class _Callable(ModuleType):
    """This module, which `from normlab import report` gives, called as its function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return report(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    raise SystemExit(command(main))
