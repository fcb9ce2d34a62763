"""Probe: `python -m normlab.probe lightning_logs/runs/ln-seed_0` looks inside a network that was trained before."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table

from normlab.errors import ConfigError, NormlabError
from normlab.output import command
from normlab.record import ProbeRow
from normlab.settings import Probe

__all__ = ["main"]

NAMES: tuple[str, ...] = get_args(Probe)


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code: 0, 2 where the folder cannot be probed, 130 where it was stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m normlab.probe",
        description="Measures the network of a run's last.ckpt, prints the values and adds them to its probes.csv.",
        epilog="Example: python -m normlab.probe lightning_logs/runs/ln-seed_0 landscape shift",
    )
    parser.add_argument("folder", type=Path, help="a run's folder: result.json and last.ckpt are in it")
    parser.add_argument("probes", nargs="*", metavar="PROBE", help=f"{', '.join(NAMES)}; all of them unless given")
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="PACKAGE.MODULE:CLASS",
        help="the layer of a run with norm=custom, or other code that its network has: it is run",
    )
    given = parser.parse_args(arguments)
    try:
        for name in given.probes:
            if name not in NAMES:
                raise ConfigError(f"{name} is no probe: choose one of {', '.join(NAMES)}")
        rows = _measured(given.folder, given.probes or NAMES, given.target)
    except NormlabError as error:
        print(f"normlab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("normlab: stopped", file=sys.stderr)
        return 130
    console = Console() if sys.stdout.isatty() else Console(width=200)  # elsewhere there is no width to keep to
    for title, table in tables(rows):
        console.print(title, style="bold", highlight=False)
        console.print(table, "")
    console.print(f"Written: {given.folder / 'probes.csv'}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _measured(folder: Path, probes: Sequence[str], targets: Sequence[str]) -> list[ProbeRow]:
    from normlab.training.probes import probe_checkpoint  # a second or two: torch and Lightning

    with Console(stderr=True).status("measuring"):
        return probe_checkpoint(folder, probes, targets)


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


if __name__ == "__main__":
    raise SystemExit(command(main))
