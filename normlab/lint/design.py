"""What the rules see: the settings of a study, planned or run, and what is known of their spread."""

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from normlab.analysis.cells import PROTOCOL, Cell, RunsBySetting, group_runs
from normlab.analysis.table import Run
from normlab.data.published import PUBLISHED
from normlab.data.sources import split
from normlab.errors import ConfigError
from normlab.norms import CATALOGUE
from normlab.record import Record
from normlab.settings import NO_STUDY, Settings, Study, flatten, small_network

if TYPE_CHECKING:
    from normlab.analysis.questions import Answers

# Training and test images of each data set, known before it is there; a test compares digits.
IMAGES = dict.fromkeys(PUBLISHED, (60_000, 10_000)) | {"digits": (1297, 500)}
SEEN = 0.08  # sd of a run's test accuracy over seeds, pp: MNIST, 20 epochs, lightning_logs/replication
ACCURACY = {"digits": 0.993, "fashion_mnist": 0.9, "kmnist": 0.95}  # of study=replication_quick; the others are guesses
LEAST = 4  # degrees of freedom, for an sd of these runs to count before an assumed one
MOST = 0.85  # share of the training images below which nothing is known of the sd


@dataclass(frozen=True)
class Spread:
    """Standard deviation, in pp, of the test accuracy of runs that differ in the seed alone; where it is from."""

    sd: float
    source: str


@dataclass(frozen=True)
class Setting:
    """A setting with the settings of its first run; its runs differ in the seed alone."""

    cell: Cell
    settings: Settings

    @property
    def label(self) -> str:
        return self.cell.label

    @property
    def train(self) -> int | None:
        """Images that it trains on; None where the data set is not known yet, or has not so many."""
        data, train_size = self.settings.data.name, self.settings.train_size
        try:
            return split(data, IMAGES[data][0], train_size, self.settings.val_size)[0]
        except (KeyError, ConfigError):
            return None

    @property
    def batches(self) -> tuple[int, ...]:
        """The sizes of an epoch's batches, each once: the ordinary one, and the last one where it is smaller."""
        size, train = self.settings.batch_size, self.train
        if train is None:
            return (size,)
        rest = train % size
        return tuple(each for each in (min(size, train), rest if train > size else 0) if each)

    @property
    def steps(self) -> int | None:
        """Steps of the whole run; None where the data set is not known yet."""
        return None if self.train is None else self.settings.epochs * self.settings.steps_per_epoch(self.train)


@dataclass(frozen=True)
class Design:
    """Settings side by side.

    Attributes:
        grouped: the runs by setting; before the first one, made up from what is planned. several: whether there is more
            than one run.
        spread: where finished runs have shown one. answers, margin: of a report; None before.
    """

    grouped: RunsBySetting
    study: Study | None
    several: bool = True
    spread: Spread | None = None
    answers: "Answers | None" = None
    margin: float | None = None

    @cached_property
    def settings(self) -> list[Setting]:
        """Those that this version can read."""
        found = []
        for cell in self.grouped.cells:
            config = cell.ended[0].record.config
            with suppress(ValidationError):
                known = {key: config[key] for key in config if key in Settings.model_fields}
                found.append(Setting(cell, Settings.model_validate(known)))
        return found

    @cached_property
    def counts(self) -> list[tuple[Cell, int]]:
        """The number of parameters of each setting for which it is known: as counted, or computed before."""
        if self.answers is None:
            computed = [(each.cell, parameters(each.settings)) for each in self.settings]
        else:
            every = [(cell, {run.record.parameters for run in cell.completed}) for cell in self.grouped.cells]
            computed = [(cell, count) for cell, counted in every for count in counted]
        return [(cell, count) for cell, count in computed if count is not None]


def planned(runs: Sequence[Settings], study: Study | None, spread: Spread | None = None) -> Design:
    """Return the design of planned runs of one data set."""
    made = []
    for each in runs:
        config = each.recorded()
        record = Record(status="completed", config=config, config_hash="", setting={}, seed=each.seed)
        made.append(Run(Path(), record, flatten(config)))
    found = group_runs(made, (*(study or NO_STUDY).factors, *PROTOCOL[1:]))
    return Design(found, study, len(runs) > 1, spread)


def parameters(settings: Settings) -> int | None:
    """Return how many parameters the small network has; None where that is not known before it is made: with a custom
    norm or your own images, and for other networks."""
    about, net = CATALOGUE.get(settings.norm.name), settings.net
    if about is None or net.name != "small" or settings.data.name == "folder":
        return None
    stages = list(small_network(net.channels or 1, size=(net.size or 28, net.size or 28)))
    norms = sum(about.parameters(s.outputs, s.size, settings.norm.options) for s in stages if s.block)
    return sum(stage.weights for stage in stages) + norms


def spread_of(records: Iterable[Record]) -> Spread | None:
    """Pooled over the settings of finished runs: sqrt(Σ(x - mean of its setting)² / Σ(n - 1)); None below 4 degrees of
    freedom, where it says little, where all are equal, and for runs of several data sets."""
    accuracies: dict[str, list[float]] = {}
    sets = set()
    for record in records:
        sets.add(record.config["data"]["name"])
        if (acc := record.metrics.get("test_acc")) is not None:
            accuracies.setdefault(repr(sorted(record.setting.items())), []).append(100 * acc)
    df = sum(len(values) - 1 for values in accuracies.values())
    squares = sum(len(values) * float(np.var(values)) for values in accuracies.values())
    if df < LEAST or not squares or len(sets) > 1:
        return None
    return Spread(math.sqrt(squares / df), f"as in the {df + len(accuracies)} finished runs")


def assumed(setting: Setting) -> Spread | None:
    """Return the spread to expect where nothing has run yet: what MNIST was seen to have, else the binomial sd
    sqrt(p·(1 - p) / n) of n test images at an accuracy p, which is of that size: 0.07 pp on MNIST, and 0.37 pp on
    digits where 18 runs of study=replication_quick had 0.35 pp. None for other data, and where a part of it trains."""
    data = setting.settings.data.name
    if data not in IMAGES or (setting.train or 0) < MOST * IMAGES[data][0]:
        return None
    if data == "mnist":
        return Spread(SEEN, "as in the replication study")
    if data not in ACCURACY:
        return None
    p, images = ACCURACY[data], IMAGES[data][1]
    return Spread(100 * math.sqrt(p * (1 - p) / images), f"binomial, {images:,} test images at {100 * p:g} %")
