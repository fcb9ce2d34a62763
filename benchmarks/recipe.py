"""Print the table of docs/recipe.md: `python -m benchmarks.recipe`; with a folder, take its runs in first.

docs/studies/recipe/runs.csv has one row per completed run.
"""

import sys
from pathlib import Path

import pandas as pd

from benchmarks.tables import markdown
from normlab.analysis import read
from normlab.analysis.inference import mean_interval
from normlab.analysis.numbers import with_interval

FILE = Path(__file__).parents[1] / "docs" / "studies" / "recipe" / "runs.csv"
FACTORS = ["batch_size", "augment.shift", "augment.rotation", "optimizer.weight_decay", "lr"]
MEASURES = ["train_acc", "val_acc", "val_ce", "test_acc", "test_ce"]
FIRST = (128, 2, 7, 0, 0.1)  # what the others are compared with
NORMS = ["bn", "ln", "gn"]
HEADINGS = ["batch", "shift, pixels", "rotation, °", "weight decay", "lr", "held-out, %", "gain, points"]


def take_in(folder: Path) -> None:
    """Write a folder's completed runs to `FILE`."""
    runs = read(folder)
    runs = runs[runs["status"] == "completed"].sort_values([*FACTORS, "norm", "seed"])
    kept = [*FACTORS, "norm", "seed", "epochs", "threads", *MEASURES]
    runs[kept].to_csv(FILE, index=False, float_format="%.8g", lineterminator="\n")


def table() -> str:
    """Return one row per recipe in Markdown: held-out and test accuracy, the gain paired by norm and seed."""
    runs = pd.read_csv(FILE)
    held = 100 * runs.pivot_table(index=["norm", "seed"], columns=FACTORS, values="val_acc")
    test = 100 * runs.pivot_table(index=FACTORS, columns="norm", values="test_acc")
    rows = []
    for recipe in sorted(held, key=lambda each: (-each[0], each[3], each[2], -each[1], each[4])):
        gain = with_interval(mean_interval(held[recipe] - held[FIRST])) if recipe != FIRST else ""
        factors = [f"{value:g}" for value in recipe]
        rows.append([*factors, f"{held[recipe].mean():.2f}", gain, *(f"{test.loc[recipe, of]:.2f}" for of in NORMS)])
    return markdown([*HEADINGS, *(f"test, %: `{norm}`" for norm in NORMS)], rows)


if __name__ == "__main__":
    if sys.argv[1:]:
        take_in(Path(sys.argv[1]))
    print(table())
