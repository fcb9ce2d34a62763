"""A folder of runs, as records and as a table."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import pandas as pd

from normlab.errors import NormlabError
from normlab.record import ProbeRow, Record, read_probes, read_support
from normlab.settings import flatten

__all__ = ["Run", "read", "runs", "varying"]

CLASSES = 10  # of predictions that do not say it


@dataclass(frozen=True)
class Run:
    """A run that left a record: its folder, result.json, the settings by dotted name, and its files when asked for."""

    folder: Path
    record: Record
    config: dict[str, Any]

    @cached_property
    def curves(self) -> dict[str, npt.NDArray[np.float64]]:
        """metrics.csv: float (E,) a column, NaN where nothing was measured. Empty where the file is missing.

        Raises `NormlabError` where the file holds something else.
        """
        file = self.folder / "metrics.csv"
        try:
            with file.open(encoding="utf-8", newline="") as stream:
                rows = list(csv.DictReader(stream))
            return {key: np.array([float(row[key] or "nan") for row in rows]) for key in (rows[0] if rows else [])}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError, csv.Error) as error:
            raise NormlabError(f"{file} is damaged ({error}): train its run again with force=true") from None

    @cached_property
    def predictions(self) -> dict[str, npt.NDArray[Any]] | None:
        """predictions.npz: `pred` and `true` (N,), `log_probs` float16 (N, C), if they are there: version 0.1 kept no
        `log_probs`. None where the file is missing.

        Raises `NormlabError` where the file holds something else; nothing in it is ever executed.
        """
        file = self.folder / "predictions.npz"
        try:
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
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, OSError, EOFError, KeyError, BadZipFile) as error:
            raise NormlabError(f"{file} is damaged ({error}): train its run again with force=true") from None

    @property
    def classes(self) -> int:
        """How many classes the predictions are of."""
        log_probs = (self.predictions or {}).get("log_probs")
        return CLASSES if log_probs is None else log_probs.shape[1]

    @cached_property
    def probes(self) -> list[ProbeRow]:
        """The rows of probes.csv; none where the file is missing. Raises `NormlabError` where it is damaged."""
        return read_probes(self.folder)

    @cached_property
    def support(self) -> npt.NDArray[np.bool_] | None:
        """support.npz: which penalised weights are not exactly 0, bool (P,); None where the file is missing."""
        return read_support(self.folder)


def runs(folder: str | Path) -> list[Run]:
    """Every run below a folder that left a result.json, sorted by folder, failed runs included.

    Raises `NormlabError`, in one line, where the folder holds no run or a result.json cannot be read.
    """
    folder = Path(folder)
    files = sorted(folder.rglob("result.json"))
    if not files:
        raise NormlabError(f"{folder} holds no run (no result.json in it): python -m normlab.train makes one")
    found = []
    for file in files:
        record = Record.load(file.parent)
        found.append(Run(file.parent, record, flatten(record.config)))
    return found


def read(folder: str | Path) -> pd.DataFrame:
    """Every run below a folder that left a result.json: one row per run, sorted by folder, failed runs included.

    Columns: `folder` (text), `status`, `error`, `seed`, `data`, `parameters`, `epochs`, the setting (`norm`, `l1`, what
    else departs from the defaults or varies anywhere in the table), the metrics (accuracies in [0, 1]; NaN where not
    measured), `device`, and the times in seconds (`fit_s`, …) with `images_per_s`.

    Raises `NormlabError`, in one line, where the folder holds no run or a result.json cannot be read.
    """
    found = runs(folder)
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
