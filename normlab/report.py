"""Report: `python -m normlab.report lightning_logs/replication` makes tables, verdicts, figures and one page of it.

Reads files only: no torch, and no network.
"""

import argparse
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from normlab.analysis import tables, words
from normlab.analysis.cells import Sorted, chosen, sort
from normlab.analysis.claims import judge
from normlab.analysis.decomposed import decomposition_table
from normlab.analysis.effects import effects, effects_table
from normlab.analysis.findings import findings
from normlab.analysis.page import Section, Shown, render
from normlab.analysis.path import path_table
from normlab.analysis.rates import at_own_best, rates_table
from normlab.analysis.table import runs
from normlab.errors import DataError, NormlabError
from normlab.files import write_atomically
from normlab.lint import lint_results
from normlab.output import command
from normlab.settings import Study

__all__ = ["main", "report"]

MARGIN = 0.05  # of equivalence, percentage points, where no study says another
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
    parser.add_argument("--margin", type=float, help="margin of equivalence, percentage points; the study's or 0.05")
    parser.add_argument("--no-figures", action="store_true", help="tables and page only: a matter of a second or two")
    given = parser.parse_intermixed_args(arguments)
    try:
        report(given.folder, given.choose, given.out, margin=given.margin, figures=not given.no_figures)
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
) -> None:
    """Writes summary.csv, comparisons.csv, claims.csv, errors.csv, overlap.csv, times.csv, figures/ and report.html,
    and prints the tables.

    Args:
        choose: "setting=value" or "setting=a,b": only runs that have one of these values.
        out: where to; the folder itself by default.
        margin: of equivalence, in percentage points; that of the study by default, else 0.05.

    Raises `NormlabError`, in one line, where there is nothing to report or runs cannot be compared.
    """
    if not folder.is_dir():
        raise NormlabError(f"{folder} is no folder: name one with runs in it, such as lightning_logs/replication_quick")
    study = Study.find(folder)
    asked = margin if margin is not None else study.margin if study else None
    margin = MARGIN if asked is None else asked
    if not (math.isfinite(margin) and margin > 0):
        raise NormlabError(f"--margin {margin:g}: must be above 0 percentage points")
    found = sort(chosen(runs(folder), _wanted(choose)), study.factors if study else ())
    pairs = tables.compared(found, margin)
    judged = judge(study, found) if study else []
    summary, timed = tables.summary(found), tables.times(found)
    errors, overlap = tables.errors_table(found), tables.overlap_table(found)
    published = tables.published_table(study, found) if study else None

    parts, path, rates = decomposition_table(found), path_table(found), rates_table(found)
    best = at_own_best(found, margin) if len(rates) else []
    factorial = effects(found, margin)

    out = out or folder
    seconds = timed.groupby("setting")["fit_s"].mean().dropna().to_dict()
    told = findings(found, summary, pairs, margin, study, judged)
    lint = lint_results(found, pairs, margin=asked, study=study)
    told += [finding.message for finding in lint if finding.note]
    warnings = [*found.notes, *(finding.message for finding in lint if not finding.note)]
    sections = [Section("settings", "Settings", tables=[words.settings_words(summary, seconds)])]
    if judged:
        sections.append(Section("claims", "Claims", CLAIMS, [words.claims_words(judged)], verdict=2))
    if published is not None and len(published):
        sections.append(Section("published", "Published numbers", tables=[words.published_words(published)]))
    if pairs:
        sections.append(
            Section(
                "pairs",
                "Pairs",
                PAIRS,
                [words.pairs_words(pairs, margin, neighbours=len(found.cells) > tables.MANY)],
                verdict=1,
            )
        )
    if factorial:
        sections.append(Section("effects", "Effects", EFFECTS, [words.effects_words(effects_table(factorial), margin)]))
    sections += [Section("curves", "Learning curves"), Section("factors", "Factors that are numbers")]
    sections.append(Section("probes", "Inside the network", PROBES))
    if len(parts):
        sections.append(Section("statistics", "Which statistics", STATISTICS, [words.decomposition_words(parts)]))
    if len(rates):
        own = [words.pairs_words(best, margin)] if best else []
        sections.append(Section("rates", "Learning rates", RATES, [words.rates_words(rates), *own]))
    if len(path):
        sections.append(Section("path", "What L1 removes", PATH, [words.path_words(path)]))
    made_of = [words.errors_words(errors)] * bool(len(errors)) + [words.overlap_words(overlap)] * bool(len(overlap))
    sections.append(Section("errors", "Errors", tables=made_of))
    sections += [Section("galleries", "Misclassified images"), Section("confusion", "Confusion")]
    if found.lost:
        sections.append(Section("lost", "Runs that did not complete", tables=[_lost(found)]))

    written = {"summary": summary, "comparisons": tables.comparisons_table(pairs, margin), "times": timed}
    written |= {"rates": rates, "best": tables.comparisons_table(best, margin)} if len(rates) else {}
    written |= {"path": path} if len(path) else {}
    written |= {"effects": effects_table(factorial)} if factorial else {}
    written |= {"statistics": parts} if len(parts) else {}
    written |= {"claims": tables.claims_table(judged), "errors": errors, "overlap": overlap}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, table in written.items():
            text = table.to_csv(index=False, float_format="%.10g", lineterminator="\n")
            write_atomically(out / f"{name}.csv", text.encode())
        if figures:
            _draw(found, pairs, margin, study, out / "figures", {section.id: section for section in sections})
        values: dict[str, Any] = {
            "title": f"{folder.resolve().name}: {_count(len(found.cells), 'setting')} on {found.data}",
            "question": study.question if study else "",
            "about": _about(found),
            "findings": told,
            "warnings": warnings,
            "sections": [section for section in sections if section.tables or section.pictures],
            "made": _made(found),
            "command": shlex.join(_command(folder, choose, margin, study)),
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
    _print(console, told, warnings, sections)
    places = f"{out / 'report.html'}, *.csv" + (f", {out / 'figures'}" if figures else "")
    console.print(f"Written: {places}", highlight=False, markup=False, soft_wrap=True)


def _command(folder: Path, choose: Sequence[str], margin: float, study: Study | None) -> list[str]:
    """The command that makes this report, without the folders of this machine."""
    place = folder.name if folder.is_absolute() else str(folder)
    usual = study.margin if study else MARGIN
    return ["python", "-m", "normlab.report", place, *choose, *["--margin", f"{margin:g}"] * (margin != usual)]


CLAIMS = "What was said, and what these runs say to it."
PAIRS = "Settings two by two, as one family of tests: what differs, what is equivalent, what is still undecided."


EFFECTS = "What each factor does, averaged over all others, and with each norm alone."
RATES = "Where each setting is stable, which rate suits it, and how settings compare when each has its own."
PATH = (
    "A path of λ: exact zeros, what is left after training on without the penalty, whether seeds keep the same weights."
)
STATISTICS = "Batch norm's accuracy, taken apart: docs/probes.md has the definitions."
PROBES = "What the probes measured while the networks trained; docs/probes.md has the definitions."


def _wanted(choose: Sequence[str]) -> dict[str, list[str]]:
    wanted = {}
    for text in choose:
        key, equals, values = text.partition("=")
        if not (key and equals and values):
            raise NormlabError(f"{text}: write setting=value, as in norm=bn,ln")
        wanted[key] = values.split(",")
    return wanted


def _draw(
    found: Sorted, pairs: Any, margin: float, study: Study | None, folder: Path, sections: dict[str, Section]
) -> None:
    """Draws every figure, writes it, and puts it into its section."""
    from normlab.analysis.drawing import plain  # matplotlib: half a second that --no-figures saves
    from normlab.analysis.pictures import pictures, save
    from normlab.data.sources import load

    completed = [run for cell in found.cells for run in cell.completed]
    images, missing = None, ""
    classes = tuple(map(str, range(max((run.classes for run in completed), default=0))))  # until their names are known
    configs = (run.record.config.get("data", {}) for run in completed)
    places = [(config.get("root"), config.get("size")) for config in configs]
    root, size = next((place for place in places if isinstance(place[0], str)), (None, None))
    if found.data != "folder" and root and not Path(root).expanduser().is_dir():  # trained elsewhere
        root = None
    try:
        if found.data == "folder" and len({each for each, _ in places}) > 1:
            raise DataError("the runs are of several folders (data.root)")
        loaded = load(found.data, root, download=False, size=size)
        images, classes = loaded.test_images, loaded.classes
    except DataError as error:
        missing = str(error).splitlines()[0]
    undrawn = []
    console = Console(stderr=True)
    with console.status("drawing") as status, plain():
        for picture in pictures(found, pairs, margin, study, images, classes):
            status.update(f"drawing {picture.name}")
            svg = save(picture, folder)
            if svg is None:
                undrawn.append(picture.name)
            elif picture.section in sections:
                widest = 540 if picture.section == "confusion" else 1140  # two side by side; the page
                sections[picture.section].pictures.append(Shown.of(svg, picture.caption, widest))
    if undrawn:
        print(
            f"normlab: {missing or 'the images do not fit the predictions'}: {len(undrawn)} galleries not drawn",
            file=sys.stderr,
        )


def _lost(found: Sorted) -> words.Table:
    rows = [[run.folder.name, run.record.status, run.record.error or ""] for run in found.lost]
    return words.Table(["run", "status", "why"], rows, text=3)


def _print(console: Console, told: Sequence[str], warnings: Sequence[str], sections: Sequence[Section]) -> None:
    for section in sections:
        for table in section.tables:
            if not table.rows:
                continue
            shown = RichTable(title=section.heading, title_justify="left", title_style="bold", box=None, pad_edge=False)
            for i, heading in enumerate(table.headings):
                shown.add_column(heading, justify="left" if i < table.text else "right", overflow="fold")
            for row in table.rows:
                cells = [escape(cell) for cell in row]
                if section.verdict is not None:
                    colour = COLOURS.get(row[section.verdict].split(" ")[0])
                    cells[section.verdict] = (
                        f"[{colour}]{cells[section.verdict]}[/]" if colour else cells[section.verdict]
                    )
                shown.add_row(*cells)
            console.print(shown)
            console.print()
    for line in told:
        console.print(line, highlight=False, markup=False)
    console.print()
    if warnings:
        console.print("Warnings", style="bold")
        for line in warnings:
            bullet = RichTable.grid(padding=(0, 1))  # the lines of a folded warning stand below each other
            bullet.add_row("-", escape(line), style="yellow")
            console.print(bullet)
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


if __name__ == "__main__":
    raise SystemExit(command(main))
