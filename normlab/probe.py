"""Probe: `python -m normlab.probe lightning_logs/runs/ln-seed_0` looks inside a network that was trained before."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table

from normlab.errors import ConfigError, NormlabError, in_one_line
from normlab.output import command, console
from normlab.record import ProbeRow, Record, Robustness
from normlab.settings import Probe
from normlab.settings.conf import instead
from normlab.settings.corruptions import CORRUPTIONS

PROBES: tuple[str, ...] = get_args(Probe)
NAMES = (*PROBES, *CORRUPTIONS)


@in_one_line()
def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code: 0, 2 where a run cannot be measured, 130 where it was stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m normlab.probe",
        description="Measures the networks of finished runs' last.ckpt: probes go to probes.csv, scores on corrupted "
        "test images to robustness.csv. Of one run it prints the values too.",
        epilog="Examples: python -m normlab.probe lightning_logs/runs/ln-seed_0 landscape shift; "
        "python -m normlab.probe lightning_logs/replication shifted rotated noised contrast",
    )
    parser.add_argument("folder", type=Path, help="of a run, with result.json and last.ckpt in it, or of several runs")
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"{', '.join(NAMES)}; all of them unless given")
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="PACKAGE.MODULE:CLASS",
        help="the layer of a run with norm=custom, or other code that its network has: it is run",
    )
    given = parser.parse_args(arguments)
    for name in given.what:
        if name not in NAMES:
            raise ConfigError(f"{name} is no probe: {instead(name, NAMES)}")
    return _measure(given.folder, given.what or NAMES, given.target)


def _measure(folder: Path, what: Sequence[str], targets: Sequence[str]) -> int:
    """Measure a run, or every completed one below a folder; print the tables of one, and what prevents others."""
    from normlab.training.checkpoint import evaluate_checkpoints, probe_checkpoint  # a second or two: torch, Lightning

    below = sorted(file.parent for file in folder.rglob("result.json"))
    several = bool(below) and below != [folder]
    completed = (each for each in below if (record := Record.readable(each)) and record.status == "completed")
    folders = [*completed] if several else [folder]
    probes, kinds = [name for name in what if name in PROBES], [kind for kind in CORRUPTIONS if kind in what]
    screen, shown, failed = console(), Console(stderr=True, highlight=False), dict[Path, str]()

    def fail(place: Path, error: NormlabError) -> None:
        if not several:
            raise error
        reason = str(error).removeprefix(str(place))
        if reason not in failed.values():
            print(f"normlab: {error}", file=sys.stderr)
        failed[place] = reason

    found: list[tuple[str, Table]] = []
    for each in folders if probes else []:
        try:
            with shown.status(f"measuring {each.name}"):
                found += tables(probe_checkpoint(each, probes, targets))
        except NormlabError as error:
            fail(each, error)
    if kinds:
        left = [each for each in folders if each not in failed]
        for done, (place, rows) in enumerate(evaluate_checkpoints(left, kinds, targets, shown), 1):
            if isinstance(rows, NormlabError):
                fail(place, rows)
                continue
            found.append(("accuracy on corrupted test images, %", corrupted_table(rows)))
            if several:
                shown.print(f"{done}/{len(left)} {place.name}", markup=False, soft_wrap=True)
    for title, table in found if not several else []:
        screen.print(title, style="bold")
        screen.print(table, "")
    if more := len(failed) - len(set(failed.values())):
        print(f"normlab: and {more} more runs, for the same reason", file=sys.stderr)
    files = ", ".join(["probes.csv"] * bool(probes) + ["robustness.csv"] * bool(kinds))
    written = f"{folder / files}" if not several else f"{files} of {len(folders) - len(failed)} runs in {folder}"
    screen.print(f"Written: {written}", markup=False, soft_wrap=True)
    return 2 if failed else 0


def tables(rows: Sequence[ProbeRow]) -> list[tuple[str, Table]]:
    """Return title and table of each probe: one row per quantity, one column per layer."""
    found = []
    for probe in dict.fromkeys(row[2] for row in rows):
        own = [row for row in rows if row[2] == probe]
        epoch, step = own[0][:2]
        cells = {(quantity, layer or "network"): f"{value:.4g}" for _, _, _, layer, quantity, value in own}
        found.append((f"{probe} after {epoch:g} epochs, {step:,} steps", _table(cells)))
    return found


def corrupted_table(rows: Sequence[Robustness]) -> Table:
    """Return accuracies: one row per kind of corruption and mode, one column per strength."""
    cells = {}
    for row in sorted(rows, key=lambda row: row.strength):
        column = f"strength {row.strength}" if row.strength else "clean"
        cells[f"{row.kind}, {row.mode} mode", column] = f"{100 * row.acc:.2f}"
    return _table(cells)


def _table(cells: Mapping[tuple[str, str], str]) -> Table:
    """Return a table of cells by their row and column."""
    columns = dict.fromkeys(column for _, column in cells)
    table = Table("", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right")
    for row in dict.fromkeys(row for row, _ in cells):
        table.add_row(row, *(cells.get((row, column), "") for column in columns))
    return table


if __name__ == "__main__":
    raise SystemExit(command(main))
