"""How far a simple cost model goes: `python -m benchmarks.scale docs/study.csv` fits it to a benchmark's points.

A step of K networks on batches of B images takes a + c · K + b · K · B seconds: a is what Python and the libraries need
to say what is to be done, c what a network adds to that (its positions, its update), b what the arithmetic of an image
takes. An arm has one a, b and c for all its points; c is part of a where K is 1 throughout. They are fitted to the
relative errors of its step times, and the table shows what they give beside what was measured.
"""

import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd

from benchmarks.study_results import ARMS, Cell
from benchmarks.tables import markdown

FITTED = ("R1", "R2", "R4")
NORM = "gn"
HEADINGS = ("arm", "batch", "networks", "ms per step", "model", "error")


def points(measured: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Return the cells of an arm with the median `seconds` of a step of one process."""
    own = measured[(measured["arm"] == arm) & (measured["norm"] == NORM)]
    seconds = own["batch"] * own["networks"] * own["processes"] / own["images_per_s"]
    return own.assign(seconds=seconds).groupby(list(Cell._fields), as_index=False)["seconds"].median()


def fit(found: pd.DataFrame) -> tuple[float, float, float]:
    """Return a, b and c of an arm's points, by least squares of the relative errors."""
    k = found["networks"].to_numpy()
    columns = [np.ones(len(k)), k * found["batch"], *[k] * (len({*k}) > 1)]
    terms = np.stack(columns, axis=1) / found[["seconds"]].to_numpy()
    a, b, c = (*map(float, np.linalg.lstsq(terms, np.ones(len(k)), rcond=None)[0]), 0.0)[:3]
    return a, b, c


def table(measured: pd.DataFrame) -> str:
    """Return, in Markdown, a, b and c of every arm, then each point as measured and by the model."""
    fits, rows = [], []
    for arm in FITTED:
        found = points(measured, arm)
        if len(found) < 3:
            continue
        a, b, c = fit(found)
        each = f", c = {1e3 * c:.2f} ms per network" if c else ""
        rate = f"{1e6 * b:,.0f} µs per image ({1 / b:,.0f} images/s)"
        fits.append(f"- {arm}, {ARMS[arm]}: a = {1e3 * a:.1f} ms per step{each}, b = {rate}.")
        for of in found.itertuples():
            model = a + c * of.networks + b * of.networks * of.batch
            error = f"{100 * (model / of.seconds - 1):+.0f} %".replace("-", "−")
            networks = str(of.networks) if arm == "R4" else ""
            rows.append([arm, str(of.batch), networks, f"{1e3 * of.seconds:,.1f}", f"{1e3 * model:,.1f}", error])
    return "\n".join([*fits, "", markdown(HEADINGS, rows, HEADINGS[1:])])


def main(given: Sequence[str]) -> int:
    try:
        [file] = given  # study.csv of benchmarks.study, measured on a CPU
        print(table(pd.read_csv(file)))
    except (OSError, KeyError, TypeError, ValueError) as error:
        print(f"benchmarks: {' '.join(given)}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
