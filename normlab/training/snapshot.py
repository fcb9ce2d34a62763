"""How far an array has come: one file for all of its runs, so that they go on from the same epoch as the same array.

A network's last bits depend on what it shares its products with, so an array goes on with all the networks it had.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from normlab.files import write_atomically

__all__ = ["SNAPSHOT", "Progress", "Snapshot"]

SNAPSHOT = "array.ckpt"  # in the folder of the array's first run, until all its runs have ended


@dataclass(frozen=True)
class Progress:
    """What one run of an array has beside its numbers.

    Attributes:
        rows: of metrics.csv. checkpoints: states of the callbacks that write them. fit_s: its share of the seconds of
            training. resumed: how often it went on before.
    """

    rows: Mapping[int, Mapping[str, float]]
    checkpoints: Sequence[Mapping[str, Any]]
    fit_s: float
    resumed: int


@dataclass(frozen=True)
class Snapshot:
    """An array after a whole epoch.

    Attributes:
        names, hashes: the folder's name and the configuration's hash of each run, in the order of the array.
        epoch: how many are done. at_once: networks in a forward pass. numbers: `Engine.state`.
        runs: of each; None for those that had ended before, whose networks are there for the others' sake.
    """

    names: Sequence[str]
    hashes: Sequence[str]
    epoch: int
    at_once: int
    numbers: Mapping[str, torch.Tensor]
    runs: Sequence[Progress | None]

    def save(self, folder: Path) -> None:
        """Writes array.ckpt, whole or not at all."""
        values = {name: getattr(self, name) for name in ("names", "hashes", "epoch", "at_once", "numbers")}
        values["runs"] = [asdict(run) if run else None for run in self.runs]
        content = io.BytesIO()
        torch.save(values, content)
        write_atomically(folder / SNAPSHOT, content.getvalue())

    @classmethod
    def load(cls, folder: Path) -> "Snapshot | None":
        """The snapshot in a folder; None where there is none that can be read."""
        if not (folder / SNAPSHOT).is_file():
            return None
        try:
            values = torch.load(folder / SNAPSHOT, map_location="cpu", weights_only=True)
            runs = [Progress(**run) if run else None for run in values.pop("runs")]
            return cls(**values, runs=runs)
        except Exception:  # a damaged file may raise anything; then the array begins anew
            return None
