"""Checkpoints: written whole or not at all, with what a stopped run needs to go on from its last epoch."""

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO

from normlab.data.datamodule import ImageData
from normlab.files import write_atomically
from normlab.training.callbacks import EpochTable
from normlab.training.snapshot import Progress

__all__ = ["Begun", "EpochCheckpoint", "Journal", "WholeFile", "begun", "checkpoints", "event_logger"]

OWN_KEY = "normlab"  # the key of a checkpoint that is not Lightning's


class WholeFile(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there: whoever stops the process, no half file is left.

    Lightning's own goes by the system's folder for temporary files, from where a move may be a copy.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_atomically(Path(path), content.getvalue())


class EpochCheckpoint(ModelCheckpoint):
    """A checkpoint an epoch in one file: the latest, or the best by a monitored metric."""

    def __init__(self, folder: Path, filename: str, monitor: str | None = None) -> None:
        super().__init__(
            folder,
            filename=filename,
            monitor=monitor,
            mode="max",
            enable_version_counter=False,
            save_on_train_epoch_end=True,  # when all that is measured in the epoch is there
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the state of a run whose folder was moved since as its own."""

        def here(value: Any) -> Any:
            return str(Path(str(self.dirpath), Path(value).name)) if value else value

        paths = {name: here(state_dict.get(name)) for name in ("best_model_path", "kth_best_model_path")}
        best = {here(path): score for path, score in state_dict.get("best_k_models", {}).items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "dirpath": self.dirpath})


@dataclass(frozen=True)
class Begun:
    """A run that stopped after a whole epoch.

    Attributes:
        file: its checkpoint. epoch: how many are done. step: how many optimizer steps that is.
        rows: of metrics.csv. fit_s: seconds of training so far. resumed: how often it went on before.
    """

    file: Path
    epoch: int
    step: int
    rows: Mapping[int, dict[str, float]]
    fit_s: float
    resumed: int


class Journal(Callback):
    """Puts into every checkpoint whose run it is and what metrics.csv holds by then, and flushes TensorBoard's events:
    what stands in a checkpoint is on the disk, whatever happens next."""

    def __init__(self, config_hash: str, table: EpochTable, before: Begun | Progress | None = None) -> None:
        self.config_hash, self.table = config_hash, table
        self.resumed = before.resumed + 1 if before else 0
        self.fit_s = before.fit_s if before else 0.0  # in all; whoever trains adds to it

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now = time.perf_counter()
        self.fit_s, self._since = self.fit_s + now - self._since, now

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Lightning tells its loggers of an epoch after it has saved it
        measured = {tag: float(value) for tag, value in trainer.callback_metrics.items()}
        self.table.log_metrics(measured, trainer.current_epoch + 1)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.flush()
        checkpoint[OWN_KEY] = {
            "config_hash": self.config_hash,
            "rows": {epoch: dict(row) for epoch, row in self.table.rows.items()},
            "fit_s": self.fit_s,
            "resumed": self.resumed,
        }


def begun(folder: Path, config_hash: str) -> Begun | str | None:
    """How far a run has come whose last.ckpt lies in a folder; why that cannot be used, in one line; None if there is
    none."""
    file = folder / "last.ckpt"
    if not file.is_file():
        return None
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
        ours = found[OWN_KEY]
        if ours["config_hash"] != config_hash:
            return f"last.ckpt is of another configuration ({ours['config_hash']})"
        rows = {int(epoch): dict(row) for epoch, row in ours["rows"].items()}
        if sorted(rows) != list(range(1, max(rows) + 1)):
            return "last.ckpt lacks epochs of metrics.csv"
        return Begun(file, max(rows), int(found["global_step"]), rows, float(ours["fit_s"]), int(ours["resumed"]))
    except Exception as error:  # a damaged file may raise anything
        return f"last.ckpt cannot be read ({next(iter(str(error).splitlines()), type(error).__name__)[:80]})"


def event_logger(folder: Path, before: int | None = None) -> TensorBoardLogger:
    """TensorBoard's events of a run, in a new file. before: how many epochs a run that goes on had done.

    TensorBoard reads the files of a folder by their names, in which the clock's seconds stand, and leaves out of the
    older ones what stands at `before` or later on its axis: that has to be told again. The older ones are renamed, so
    that they come first also where the run goes on within a second, or the clock went back.
    """
    start = "events.out.tfevents."
    if before is not None:
        for number, file in enumerate(sorted(folder.glob(f"{start}*"))):
            _, _, rest = file.name.removeprefix(start).partition(".")
            file.rename(folder / f"{start}{number:010d}.{rest}")
    return TensorBoardLogger(folder, name="", version="", default_hp_metric=False, purge_step=before)


def checkpoints(folder: Path, data: ImageData) -> list[EpochCheckpoint]:
    """best.ckpt, where images are held out: without them there is nothing to choose by; and last.ckpt, after it: a run
    goes on from last.ckpt, which has to know which was the best by then."""
    kept = [EpochCheckpoint(folder, "last")]
    if "val" in data.curves:  # the test set chooses nothing
        kept.insert(0, EpochCheckpoint(folder, "best", "acc/val"))
    return kept
