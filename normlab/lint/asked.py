"""The settings (cells) of a study as its rules see them: what was asked for, whether or not it has run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from normlab.analysis.cells import Cell, factors_of, label
from normlab.data.sources import PUBLISHED
from normlab.settings import Settings

__all__ = ["IMAGES", "Asked", "asked", "asked_of"]

# Training and test images of each data set, known before it is there; a test compares digits.
IMAGES = dict.fromkeys(PUBLISHED, (60_000, 10_000)) | {"digits": (1297, 500)}


@dataclass(frozen=True)
class Asked:
    """A setting. label: as in a report. levels: the value of each factor. settings: those of its first run; its runs
    differ in the seed alone."""

    label: str
    levels: Mapping[str, Any]
    settings: Settings
    seeds: tuple[int, ...]

    @property
    def train(self) -> int | None:
        """Images that it trains on; None where the data set is not known yet, or has not so many."""
        if self.settings.data.name not in IMAGES:
            return None
        everything = IMAGES[self.settings.data.name][0]
        val_size = self.settings.val_size
        left = everything - (min(5000, everything // 10) if val_size is None else val_size)
        size = left if self.settings.train_size is None else self.settings.train_size
        return size if 0 < size <= left else None

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
        return None if self.train is None else self.settings.epochs * -(-self.train // self.settings.batch_size)


def asked(runs: Sequence[Settings]) -> list[Asked]:
    """Runs by setting, in the order in which their settings first appear."""
    configs = [each.flat() for each in runs]
    keys = factors_of(configs)
    groups: dict[str, list[Settings]] = {}
    levels: dict[str, dict[str, Any]] = {}
    for each, config in zip(runs, configs, strict=True):
        own = {key: config.get(key) for key in keys}
        levels.setdefault(json.dumps(own), own)
        groups.setdefault(json.dumps(own), []).append(each)
    return [
        Asked(label(levels[key]), levels[key], group[0], tuple(sorted({each.seed for each in group})))
        for key, group in groups.items()
    ]


def asked_of(cells: Sequence[Cell]) -> list[Asked]:
    """Return the settings of a report, without those that this version cannot read; unknown settings are left out."""
    found = []
    for cell in cells:
        try:
            config = cell.ended[0].record.config
            settings = Settings.model_validate({key: config[key] for key in config if key in Settings.model_fields})
        except ValidationError:
            continue
        found.append(Asked(cell.label, cell.levels, settings, tuple(run.record.seed for run in cell.completed)))
    return found
