"""Folders of runs made up for tests of the report: right in form, quick to make, with known numbers in them."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from normlab.analysis.cells import group_runs
from normlab.analysis.questions import Answers
from normlab.analysis.table import runs
from normlab.record import Record, write_metrics, write_predictions
from normlab.settings import Data, Norm, Settings, Study

COLUMNS = ("epoch", "train_ce", "train_acc_running", "test_ce", "test_acc")


def made_up(
    folder: Path, norm: str = "bn", seed: int = 0, *, test_acc: float = 0.9, val_acc: float | None = None,
    curve: Sequence[float] | None = None, status: str = "completed", error: str | None = None, data: str = "digits",
    root: str | None = None, images: int = 100, parameters: int = 7614, files: bool = True, target: str | None = None,
    wrong: Sequence[int] | None = None, options: dict[str, Any] | None = None, **settings: Any,
) -> Record:  # fmt: skip
    """Leaves one run in `folder`, below the name that its settings have.

    curve: test accuracy after every epoch, the last one `test_acc` unless given. wrong: the test images that it gets
    wrong; the first ones, as many as `test_acc` says, unless given.
    """
    own = Norm(name=norm, target=target, options=options or {})
    asked = Settings(norm=own, data=Data(name=data, root=root), seed=seed, test_curve=True, **settings)
    place = folder / asked.slug()
    place.mkdir(parents=True)
    done = status == "completed"
    metrics: dict[str, float | None] = {"train_acc": test_acc + 0.01, "train_acc_running": test_acc - 0.01}
    metrics |= {"test_acc": test_acc, "test_ce": 1 - test_acc, "train_ce": 0.9 - test_acc, "val_acc": val_acc}
    metrics["zeros"] = 0.0
    record = Record(
        status=status, error=error, config=asked.recorded(), config_hash=asked.config_hash(), setting=asked.setting(),
        seed=seed, data={"name": data, "train": 1297, "val": 0, "test": images}, parameters=parameters,
        device={"accelerator": "cpu", "name": "a processor", "threads": 1},
        versions={"torch": "2.15.0", "lightning": "2.6.6"}, metrics=metrics if done else {},
        time={"fit_s": 12.5, "images_per_s": 1000.0, "epochs": 3} if done else {},
    )  # fmt: skip
    record.save(place)
    if done and files:
        accs = list(curve) if curve is not None else [test_acc - 0.2, test_acc - 0.1, test_acc]
        rows = [dict(zip(COLUMNS, (epoch, 1 - a, a, 1 - a, a), strict=True)) for epoch, a in enumerate(accs, 1)]
        write_metrics(place, rows, COLUMNS)
        true = (np.arange(images) * 7 + np.arange(images) // 10) % 10
        pred = true.copy()
        bad = list(range(round(images * (1 - test_acc)))) if wrong is None else list(wrong)
        pred[bad] = (true[bad] + 1) % 10
        probabilities = np.full((images, 10), 0.1 / 9)
        probabilities[range(images), true] = 0.1
        probabilities[range(images), pred] = 0.9
        write_predictions(place, np.log(probabilities), true)
    return record


def several(folder: Path, norms: str = "bn", seeds: int = 5, step: float = 0, **settings: Any) -> None:
    """Runs of these norms with all values of settings that are lists; a seed is `step` better than the one before."""
    swept = {key: values for key, values in settings.items() if isinstance(values, list)}
    for norm, seed, *values in product(norms.split(), range(seeds), *swept.values()):
        own = {"test_acc": 0.9 + step * seed} | settings | dict(zip(swept, values, strict=True))
        made_up(folder, norm, seed, **own)


def crossed(folder: Path, cells: dict[tuple[str, float], float], seeds=5, spread=0.004, **settings: Any) -> None:
    """Runs of several settings, (norm, l1) → mean test accuracy, whose accuracies scatter by `spread` in the same
    way."""
    for (norm, l1), mean in cells.items():
        for seed in range(seeds):
            wobble = spread * np.cos(3 * seed + len(norm) + 700 * l1)
            made_up(folder, norm, seed, l1=l1, test_acc=float(mean + wobble), **settings)


def answers(folder: Path, study: Study | None = None, margin: float = 0.5) -> Answers:
    """What the runs of a folder say."""
    return Answers(group_runs(runs(folder), study.factors if study else ()), study, margin)
