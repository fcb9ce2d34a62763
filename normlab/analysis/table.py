"""A folder of runs as a table."""

from pathlib import Path

import pandas as pd

from normlab.errors import NormlabError
from normlab.record import Record

__all__ = ["read"]


def read(folder: str | Path) -> pd.DataFrame:
    """Every run below a folder that left a result.json: a row a run, sorted by folder, failed runs included.

    Columns: `folder` (text), `status`, `error`, `seed`, `data`, `parameters`, `epochs`, the setting (`norm`, `l1`, what
    else departs from the defaults anywhere in the table), the metrics (accuracies in [0, 1]; NaN where not measured),
    `device`, and the times in seconds (`fit_s`, …) with `images_per_s`.

    Raises `NormlabError`, in one line, where the folder holds no run or a result.json cannot be read.
    """
    folder = Path(folder)
    files = sorted(folder.rglob("result.json"))
    if not files:
        raise NormlabError(f"{folder} holds no run (no result.json in it): python -m normlab.train makes one")
    rows = []
    for file in files:
        record = Record.load(file.parent)
        row = {
            "folder": str(file.parent),
            "status": record.status,
            "error": record.error,
            "seed": record.seed,
            "data": record.data.get("name", record.config["data"]["name"]),
            "parameters": record.parameters,
        }
        device = {"device": record.device.get("accelerator"), "threads": record.device.get("threads")}
        time = {"epochs_done" if key == "epochs" else key: value for key, value in record.time.items()}
        rows.append(
            row | {"epochs": record.config["epochs"]} | dict(record.setting) | dict(record.metrics) | device | time
        )
    return pd.DataFrame(rows)
