"""A folder of runs as a table."""

from pathlib import Path
from typing import Any

import pandas as pd

from normlab.errors import NormlabError
from normlab.record import Record
from normlab.settings import flatten

__all__ = ["read"]


def read(folder: str | Path) -> pd.DataFrame:
    """Every run below a folder that left a result.json: a row a run, sorted by folder, failed runs included.

    Columns: `folder` (text), `status`, `error`, `seed`, `data`, `parameters`, `epochs`, the setting (`norm`, `l1`, what
    else departs from the defaults or varies anywhere in the table), the metrics (accuracies in [0, 1]; NaN where not
    measured), `device`, and the times in seconds (`fit_s`, …) with `images_per_s`.

    Raises `NormlabError`, in one line, where the folder holds no run or a result.json cannot be read.
    """
    folder = Path(folder)
    files = sorted(folder.rglob("result.json"))
    if not files:
        raise NormlabError(f"{folder} holds no run (no result.json in it): python -m normlab.train makes one")
    records = [(file.parent, Record.load(file.parent)) for file in files]
    configs = [flatten(record.config) for _, record in records]
    # A setting is a column where any run departs from the default in it: every run then says what it had.
    shown = dict.fromkeys(key for _, record in records for key in record.setting)
    varying = [key for key in dict.fromkeys(key for config in configs for key in config) if _varies(key, configs)]
    rows = []
    for (place, record), config in zip(records, configs, strict=True):
        row = {"folder": str(place), "status": record.status, "error": record.error, "seed": record.seed}
        row |= {"data": config["data"], "parameters": record.parameters, "epochs": config.get("epochs")}
        row |= {key: config.get(key) for key in [*shown, *varying]}
        device = {"device": record.device.get("accelerator"), "threads": record.device.get("threads")}
        time = {"epochs_done" if key == "epochs" else key: value for key, value in record.time.items()}
        rows.append(row | dict(record.metrics) | device | time)
    return pd.DataFrame(rows)


def _varies(key: str, configs: list[dict[str, Any]]) -> bool:
    return any(config.get(key) != configs[0].get(key) for config in configs)
