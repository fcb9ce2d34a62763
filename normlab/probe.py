"""Probe: `python -m normlab.probe lightning_logs/runs/ln-seed_0` looks inside a network that was trained before."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table

from normlab.errors import ConfigError, NormlabError, in_one_line
from normlab.output import command
from normlab.record import ProbeRow, Record, Robustness
from normlab.settings import Probe
from normlab.settings.corruptions import CORRUPTIONS

__all__ = ["main"]

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
            raise ConfigError(f"{name} is no probe: choose one of {', '.join(NAMES)}")
    return _measure(given.folder, given.what or NAMES, given.target)


def _measure(folder: Path, what: Sequence[str], targets: Sequence[str]) -> int:
    """Measure a run, or every completed one below a folder; print the tables of one, and what prevents others."""
    from normlab.training.checkpoint import evaluate_checkpoints, probe_checkpoint  # a second or two: torch, Lightning

    below = sorted(file.parent for file in folder.rglob("result.json"))
    several = bool(below) and below != [folder]
    folders = [each for each in below if _completed(each)] if several else [folder]
    probes, kinds = [name for name in what if name in PROBES], [kind for kind in CORRUPTIONS if kind in what]
    console = Console() if sys.stdout.isatty() else Console(width=200)  # elsewhere there is no width to keep to
    shown, failed = Console(stderr=True), set()

    def fail(place: Path, error: NormlabError) -> None:
        if not several:
            raise error
        if place not in failed:
            print(f"normlab: {error}", file=sys.stderr)
        failed.add(place)

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
                shown.print(f"{done}/{len(left)} {place.name}", highlight=False, markup=False, soft_wrap=True)
    for title, table in found if not several else []:
        console.print(title, style="bold", highlight=False)
        console.print(table, "")
    files = ", ".join(["probes.csv"] * bool(probes) + ["robustness.csv"] * bool(kinds))
    written = f"{folder / files}" if not several else f"{files} of {len(folders) - len(failed)} runs in {folder}"
    console.print(f"Written: {written}", highlight=False, markup=False, soft_wrap=True)
    return 2 if failed else 0


def _completed(folder: Path) -> bool:
    record = Record.readable(folder)
    return record is not None and record.status == "completed"


def tables(rows: Sequence[ProbeRow]) -> list[tuple[str, Table]]:
    """Title and table of each probe: one row per quantity, a column a layer."""
    found = []
    for probe in dict.fromkeys(row[2] for row in rows):
        values = {(row[4], row[3]): row[5] for row in rows if row[2] == probe}
        layers = list(dict.fromkeys(layer for _, layer in values))
        epoch, step = next(row[:2] for row in rows if row[2] == probe)
        table = Table(box=None, pad_edge=False)
        table.add_column("")
        for layer in layers:
            table.add_column(layer or "network", justify="right")
        for quantity in dict.fromkeys(quantity for quantity, _ in values):
            cells = [values.get((quantity, layer)) for layer in layers]
            table.add_row(quantity, *("" if value is None else f"{value:.4g}" for value in cells))
        found.append((f"{probe} after {epoch:g} epochs, {step:,} steps", table))
    return found


def corrupted_table(rows: Sequence[Robustness]) -> Table:
    """Accuracies: one row per kind of corruption and mode, a column a strength."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    strengths = sorted({row.strength for row in rows})
    for strength in strengths:
        table.add_column(f"strength {strength}" if strength else "clean", justify="right")
    for kind, mode in dict.fromkeys((row.kind, row.mode) for row in rows):
        acc = {row.strength: row.acc for row in rows if (row.kind, row.mode) == (kind, mode)}
        table.add_row(f"{kind}, {mode} mode", *(f"{100 * acc[at]:.2f}" if at in acc else "" for at in strengths))
    return table


if __name__ == "__main__":
    raise SystemExit(command(main))
