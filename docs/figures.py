"""The README's picture, drawn from runs: `python docs/figures.py lightning_logs/readme docs/curves.png`."""

import sys
from pathlib import Path

import pandas as pd

from normlab.analysis import read
from normlab.analysis.figures import curves


def main(folder: str, picture: str) -> None:
    """Mean over seeds of every curve in metrics.csv, a pair of lines a setting."""
    table = read(folder)
    table = table[table.status == "completed"]
    runs = {}
    for (norm, l1), group in table.groupby(["norm", "l1"], sort=False):
        epochs = [pd.read_csv(Path(run) / "metrics.csv", index_col="epoch") for run in group.folder]
        mean = sum(epochs) / len(epochs)
        runs[f"{norm} l1={l1:g}" if l1 else str(norm)] = {column: mean[column].to_numpy() for column in mean}
    (data,) = table.data.unique()  # one data set: curves of two would mean nothing together
    curves(runs, title=f"{data.upper()}, mean of {table.seed.nunique()} seeds").savefig(picture, dpi=120)


if __name__ == "__main__":
    main(*sys.argv[1:])
