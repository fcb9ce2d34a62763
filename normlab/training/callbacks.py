"""What happens around training: random streams, speed, divergence, metrics.csv."""

import math
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import Logger

from normlab.randomness import Stream, stream_seed
from normlab.record import write_metrics

__all__ = ["DivergenceStop", "EpochTable", "Reseed", "Speed"]

COLUMNS = {
    "train_loss": "loss/train",
    "train_ce": "ce/train",
    "train_penalty": "penalty/train",
    "train_acc_running": "acc/train_running",
    "val_ce": "ce/val",
    "val_acc": "acc/val",
    "test_ce": "ce/test",
    "test_acc": "acc/test",
    "lr": "optim/lr",
    "images_per_s": "speed/images_per_s",
    "seconds": "speed/seconds",
}


class EpochTable(Logger):
    """metrics.csv: a row an epoch, the whole file written anew each time, so that it never ends in half a row."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.rows: dict[int, dict[str, float]] = {}

    def restore(self, rows: Mapping[int, Mapping[str, float]], logger: Logger) -> None:
        """Takes the epochs of a run that stopped; tells `logger` the last of them again, which it may not have kept."""
        self.rows = {epoch: dict(row) for epoch, row in rows.items()}
        last = max(self.rows)
        tags = {tag: self.rows[last][column] for column, tag in COLUMNS.items() if column in self.rows[last]}
        for in_turn in (self, logger):
            in_turn.log_metrics(tags, last)

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """metrics.csv holds metrics alone; result.json holds the settings."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        cells = {column: metrics[tag] for column, tag in COLUMNS.items() if tag in metrics}
        if step is None or not cells:
            return
        self.rows.setdefault(int(step), {"epoch": int(step)}).update(cells)
        write_metrics(self.folder, [self.rows[epoch] for epoch in sorted(self.rows)], ["epoch", *COLUMNS])

    def images_per_s(self, images: int) -> float:
        """Over all epochs, each of so many images: from the first step of an epoch to its last, without evaluation."""
        seconds = sum(row.get("seconds", 0.0) for row in self.rows.values())
        return len(self.rows) * images / seconds if seconds else 0.0

    @property
    def diverged(self) -> int | None:
        """The epoch in which the training loss was not finite, the last one then; None where there is none."""
        found = [epoch for epoch, row in self.rows.items() if not math.isfinite(row.get("train_ce", 0.0))]
        return min(found, default=None)

    def last(self, column: str) -> float | None:
        """A column's value in the last epoch; None where it was not measured or is not finite."""
        value = self.rows[max(self.rows)].get(column) if self.rows else None
        return value if value is not None and math.isfinite(value) else None


class Reseed(Callback):
    """Gives every epoch its own dropout stream, which follows from (seed, epoch) and the process."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.manual_seed(stream_seed(Stream.DROPOUT, self.seed, trainer.current_epoch, trainer.global_rank))


class Speed(Callback):
    """Training images a second, of all devices: from the first step of an epoch to its last, without evaluation."""

    def __init__(self) -> None:
        self._start = self._end = self._seen = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start, self._seen = time.perf_counter(), 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        share = pl_module.share  # Classifier's
        assert isinstance(share, float)
        self._seen += len(batch[1]) * trainer.world_size / share
        if trainer.is_last_batch and pl_module.device.type == "cuda":
            torch.cuda.synchronize()  # steps are queued: the clock must wait for the last one
        self._end = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seconds = self._end - self._start
        pl_module.log("speed/images_per_s", self._seen / seconds)
        pl_module.log("speed/seconds", seconds)

    @property
    def now(self) -> float:
        """In the epoch that runs."""
        return self._seen / (self._end - self._start) if self._end > self._start else 0.0


class DivergenceStop(Callback):
    """Ends a run whose training loss is no longer finite, after the epoch in which that happened."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        ce = pl_module.running.ce.compute()  # type: ignore[union-attr,operator]  # Classifier's
        if not torch.isfinite(ce):
            trainer.should_stop = True
