"""A folder of runs, as records and as a table."""

import csv
import os
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from normlab.errors import NormlabError
from normlab.record import Record, RecordError, read_probes, read_robustness, read_support, reading
from normlab.settings import flatten
from normlab.settings.corruptions import STRENGTHS

T = TypeVar("T")
CLASSES = 10  # of predictions that do not say it
TRAIN_AGAIN = "train its run again with force=true"


class _File(cached_property[T]):
    """An attribute of a run: one of its files, read when asked for; a damaged one counts as missing."""

    def __init__(self, reader: Callable[[Path], T], missing: Any) -> None:
        def read(run: "Run") -> Any:
            try:
                return reader(run.folder)
            except RecordError as error:
                run.damage.append(f"Left out: {error}")
                return missing

        super().__init__(read)


def _curves(folder: Path) -> dict[str, npt.NDArray[np.float64]]:
    """metrics.csv: float (E,) per column, NaN where nothing was measured."""
    file = folder / "metrics.csv"
    if not file.is_file():
        return {}
    with reading(file, TRAIN_AGAIN):
        text = file.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            raise ValueError("its last line is cut")
        rows = list(csv.DictReader(text.splitlines()))
        return {key: np.array([float(row[key] or "nan") for row in rows]) for key in (rows[0] if rows else [])}


def _predictions(folder: Path) -> dict[str, npt.NDArray[Any]] | None:
    """predictions.npz: `pred` and `true` (N,), `log_probs` float16 (N, C), if they are there: version 0.1 kept no
    `log_probs`. Nothing in the file is ever executed."""
    file = folder / "predictions.npz"
    if not file.is_file():
        return None
    with reading(file, TRAIN_AGAIN):
        with np.load(file, allow_pickle=False) as found:
            arrays = {key: found[key] for key in ("pred", "true", "log_probs") if key in found}
        log_probs = arrays.get("log_probs", np.zeros((len(arrays["pred"]), CLASSES), np.float16))
        if {len(array) for array in arrays.values()} != {len(log_probs)} or log_probs.ndim != 2:
            raise ValueError("its arrays do not fit together")
        if log_probs.dtype != np.float16 or not (log_probs <= 0).all():  # nor is a nan
            raise ValueError("log_probs holds something other than logarithms of probabilities")
        for key in {"pred", "true"} & arrays.keys():
            known, last = arrays[key], log_probs.shape[1] - 1
            if known.dtype.kind != "u" or known.ndim != 1 or known.max(initial=0) > last:
                raise ValueError(f"{key} holds something other than the classes 0 to {last}")
        return arrays


@dataclass(frozen=True)
class Run:
    """A run that left a record: its folder, result.json, the settings by dotted name, and its files when asked for.

    A damaged file counts as missing; `damage` then says which and why, a line each.
    """

    folder: Path
    record: Record
    config: dict[str, Any]
    damage: list[str] = field(default_factory=list, compare=False)

    # empty, or None, where the file is missing
    curves = _File(_curves, {})
    predictions = _File(_predictions, None)
    probes = _File(read_probes, [])
    robustness = _File(read_robustness, [])
    support = _File(read_support, None)

    @property
    def classes(self) -> int:
        """How many classes the predictions are of."""
        log_probs = (self.predictions or {}).get("log_probs")
        return CLASSES if log_probs is None else log_probs.shape[1]

    def corrupted(
        self, kinds: Collection[str], score: str = "acc", mode: str = "eval", strengths: Collection[int] = STRENGTHS
    ) -> float | None:
        """Return the mean of a score over strengths of some kinds of corruption, or of `clean`; None where one was not
        measured."""
        wanted = {(kind, strength) for kind in kinds for strength in (strengths if kind != "clean" else (0,))}
        rows = [row for row in self.robustness if (row.kind, row.strength) in wanted and row.mode == mode]
        if {(row.kind, row.strength) for row in rows} != wanted:
            return None
        return float(np.mean([getattr(row, score) for row in rows]))


def find(folder: str | Path) -> tuple[list[Run], list[str]]:
    """Return every run below a folder that left a result.json, sorted by folder, failed runs included, and what was
    left out: folders and result.json that cannot be read or are no run's, a line each.

    Links to folders are followed; a folder that is reached in several ways counts once. Raise `NormlabError`, in one
    line, where the folder holds no run.
    """
    if not Path(folder).is_dir():
        raise NormlabError(f"{folder} is no folder: name one with runs in it, such as lightning_logs/replication_quick")
    places, notes = _places(Path(folder))
    found = []
    for place in places:
        try:
            record = Record.load(place)
        except RecordError as error:
            notes.append(f"Left out: {error}")
        else:
            found.append(Run(place, record, flatten(record.config)))
    if not found and notes:
        raise NormlabError(f"{folder} holds no run that can be read: {notes[0].removeprefix('Left out: ')}")
    if not found:
        raise NormlabError(f"{folder} holds no run (no result.json in it): python -m normlab.train makes one")
    return found, notes


def _places(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the folders with a result.json, and why others cannot be looked into."""
    errors: list[OSError] = []
    links, seen, found = [folder], set[str](), []
    for top in links:  # grows: a folder itself comes before the links to it
        for place, folders, files in os.walk(top, onerror=errors.append):
            real = os.path.realpath(place)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            links += [Path(place, name) for name in sorted(folders) if os.path.islink(os.path.join(place, name))]
            if "result.json" in files:
                found.append(Path(place))
    return sorted(found), [f"Left out: {error.filename} cannot be read ({error.strerror})" for error in errors]


def runs(folder: str | Path) -> list[Run]:
    """Return the runs of `find`; what was left out is a Python warning."""
    found, notes = find(folder)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return found


def read(folder: str | Path) -> pd.DataFrame:
    """Return every run below a folder that left a result.json: one row per run, sorted by folder, failed ones included.

    Columns: `folder` (text), `status`, `error`, `seed`, `data`, `parameters`, `epochs`, the setting (`norm`, `l1`, what
    else departs from the defaults or varies anywhere in the table), the metrics (accuracies in [0, 1]; NaN where not
    measured), `device`, `threads`, `epochs_done`, and the times in seconds (`fit_s`, …) with `images_per_s`.

    What cannot be read is left out. That, and runs of several data sets, which cannot be compared, are Python warnings.

    Raises:
        NormlabError: in one line, where the folder holds no run.
    """
    found = runs(folder)
    if len(sets := sorted({str(run.config["data"]) for run in found})) > 1:
        warnings.warn(f"{folder} holds runs of several data sets ({', '.join(sets)}): compare within one", stacklevel=2)
    # A setting is a column where any run departs from the default in it: every run then says what it had.
    shown = dict.fromkeys([key for run in found for key in run.record.setting] + varying([run.config for run in found]))
    rows = []
    for run in found:
        record, config = run.record, run.config
        row = {"folder": str(run.folder), "status": record.status, "error": record.error, "seed": record.seed}
        row |= {"data": config["data"], "parameters": record.parameters, "epochs": config.get("epochs")}
        row |= {key: config.get(key) for key in shown}
        device = {"device": record.device.get("accelerator"), "threads": record.device.get("threads")}
        time = {"epochs_done" if key == "epochs" else key: value for key, value in record.time.items()}
        rows.append(row | dict(record.metrics) | device | time)
    return pd.DataFrame(rows)


def varying(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings that are not the same in all configurations, by dotted name."""
    return [
        key
        for key in dict.fromkeys(key for config in configs for key in config)
        if any(config.get(key) != configs[0].get(key) for config in configs)
    ]
