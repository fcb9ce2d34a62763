"""What runs are compared in: each outcome with its words, unit, link and, where there is one, its score per image."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from normlab.analysis.cells import Cell, value
from normlab.analysis.inference import Group, Link, Model
from normlab.analysis.table import Run
from normlab.scores import brier_of_images, prob_true_of_images
from normlab.settings.corruptions import CORRUPTIONS

Floats = npt.NDArray[np.float64]
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Outcome:
    """A number of a run.

    Attributes:
        words: what it is called in a table. unit: of differences; factor: from a run's number to that unit.
        of_images: the scores of the test images by the arrays of predictions.npz, float (N,), whose mean it is; None
            where no such scores are kept.
    """

    words: str
    unit: str
    link: Link
    higher_is_better: bool = True
    of_images: Callable[[Arrays], Floats] | None = None

    @property
    def factor(self) -> float:
        return 100.0 if self.unit == "pp" else 1.0

    @property
    def digits(self) -> int:
        """Decimals that people are shown."""
        return 2 if self.unit == "pp" else 4

    @property
    def own_unit(self) -> str:
        """Of the outcome itself."""
        return "%" if self.unit == "pp" else self.unit

    @property
    def points(self) -> str:
        """The unit of differences in a sentence."""
        return "points" if self.unit == "pp" else self.unit


def _right(arrays: Arrays) -> Floats:
    return np.asarray(arrays["pred"] == arrays["true"], dtype=np.float64)


def _prob_true(arrays: Arrays) -> Floats:
    return prob_true_of_images(arrays["log_probs"], arrays["true"])


def _brier(arrays: Arrays) -> Floats:
    return brier_of_images(arrays["log_probs"], arrays["true"])


OUTCOMES: Mapping[str, Outcome] = {
    "test_acc": Outcome("test accuracy", "pp", "logit", of_images=_right),
    "train_acc": Outcome("training accuracy", "pp", "logit"),
    "train_acc_running": Outcome("running training accuracy", "pp", "logit"),
    "val_acc": Outcome("validation accuracy", "pp", "logit"),
    "test_ce": Outcome("test cross-entropy", "nats", "log", higher_is_better=False),
    "train_ce": Outcome("training cross-entropy", "nats", "log", higher_is_better=False),
    "val_ce": Outcome("validation cross-entropy", "nats", "log", higher_is_better=False),
    "test_prob_true": Outcome("mean probability of the true class", "pp", "logit", of_images=_prob_true),
    "test_brier": Outcome("Brier score", "", "log", higher_is_better=False, of_images=_brier),
    "test_calibration_error": Outcome("calibration error", "pp", "logit", higher_is_better=False),
    "unevenness": Outcome("unevenness", "pp", "identity", higher_is_better=False),
    **{f"{kind}_acc": Outcome(f"accuracy on images {of.title}", "pp", "logit") for kind, of in CORRUPTIONS.items()},
    "robust_acc": Outcome("accuracy on corrupted images", "pp", "logit"),
}


def model_of(cells: Sequence[Cell], name: str) -> Model:
    """The model of the settings whose runs have an outcome, in its own unit.

    Images are random too where every run kept predictions of the same images.
    """
    outcome = OUTCOMES[name]
    runs = {cell.label: [run for run in cell.completed if value(run, name) is not None] for cell in cells}
    runs = {label: some for label, some in runs.items() if some}
    every = [run for some in runs.values() for run in some]
    scores = _scores(every, outcome)
    groups = {}
    for label, some in runs.items():
        values = np.array([value(run, name) for run in some], dtype=float)
        own = None if scores is None else np.stack([scores[id(run)] for run in some])
        groups[label] = Group(values, tuple(run.record.seed for run in some), own)
    images = max((run.record.data.get("test") or 0 for run in every), default=0)
    return Model(groups, outcome.link, resolution=1 / images if images else 1e-9)


def _scores(runs: Sequence[Run], outcome: Outcome) -> dict[int, Floats] | None:
    """The scores of each run's images by its identity; None unless all runs kept them, of the same images."""
    if outcome.of_images is None or not runs:
        return None
    kept = [run.predictions or {} for run in runs]
    try:
        same = all(np.array_equal(arrays["true"], kept[0]["true"]) for arrays in kept)
        return {id(run): outcome.of_images(run.predictions or {}) for run in runs} if same else None
    except KeyError:
        return None
