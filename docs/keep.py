"""Keep a study's small results beside this file: `python docs/keep.py lightning_logs/batch_size`.

In docs/studies/<name>/: runs.csv (one row per run), the report's tables, and the figures that docs/studies/<name>.md
shows; all that may be of use where there is no such page yet. The folders of the runs, with checkpoints and curves,
stay where they are.

`python docs/keep.py --thin lightning_logs/replication` makes the predictions of runs that are committed themselves a
third as large. Accuracies stay as they are, Brier scores within 1e-7.
"""

import argparse
import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from normlab.analysis import read
from normlab.errors import NormlabError
from normlab.report import main as report
from normlab.settings import STUDY_FILE

HERE = Path(__file__).parent
TABLES = ("summary", "effects", "pairs", "pairing", "claims", "statistics", "path", "rates", "best")
FIGURES = ("by-*.png", "statistics*.png", "path*.png", "effects*.png", "accuracy.png")
MOST = 12  # settings of which a figure of accuracies can still be read
LEAST = math.log(1e-4)  # of the kept log-probabilities: less is a class for which no image is taken
COLUMNS = ("folder", "error", "device", "fit_s", "measure_s")  # of this machine: left out


def keep(folder: Path, to: Path) -> None:
    """Write the small results of a study's folder. Raise `NormlabError` where it holds no run."""
    table = read(folder)
    to.mkdir(parents=True, exist_ok=True)
    kept = table.drop(columns=[name for name in COLUMNS if name in table])
    kept.to_csv(to / "runs.csv", index=False, float_format="%.8g", lineterminator="\n")
    with tempfile.TemporaryDirectory() as made:
        if code := report([str(folder), "--out", made]):
            raise SystemExit(code)
        for name in TABLES:
            if (file := Path(made, f"{name}.csv")).is_file() and file.read_text(encoding="utf-8").count("\n") > 1:
                shutil.copy(file, to)
        page = to.with_suffix(".md").read_text(encoding="utf-8") if to.with_suffix(".md").is_file() else None
        few = Path(made, "summary.csv").read_text(encoding="utf-8").count("\n") - 1 <= MOST
        for pattern in FIGURES if few else FIGURES[:-1]:
            for figure in Path(made, "figures").glob(pattern):
                if page is None or f"({to.name}/{figure.name})" in page:
                    shutil.copy(figure, to)
    if (folder / STUDY_FILE).is_file():
        shutil.copy(folder / STUDY_FILE, to)


def thin(folder: Path) -> None:
    """Raise the log-probabilities below `LEAST` in a folder's predictions to it, except those of the true classes.

    Raise `NormlabError` where the folder holds no predictions.
    """
    files = sorted(folder.rglob("predictions.npz"))
    if not files:
        raise NormlabError(f"{folder} holds no predictions.npz")
    for file in files:
        with np.load(file) as found:
            arrays = dict(found)
        log_probs, true = arrays["log_probs"], arrays["true"]
        own = np.arange(log_probs.shape[1]) == true[:, None]
        arrays["log_probs"] = np.where(own, log_probs, np.maximum(log_probs, np.float16(LEAST)))
        np.savez_compressed(file, **arrays)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder with the runs of a study")
    parser.add_argument("--out", type=Path, help="where to; docs/studies/<name> unless given")
    parser.add_argument("--thin", action="store_true", help="make predictions smaller, and keep nothing elsewhere")
    given = parser.parse_args(arguments)
    try:
        if given.thin:
            thin(given.folder)
        else:
            keep(given.folder, given.out or HERE / "studies" / given.folder.resolve().name)
    except NormlabError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
