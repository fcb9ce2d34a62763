"""What happens around training, as Lightning's callbacks: speed, files, the progress line."""

import math
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.status import Status
from rich.table import Column

from normlab.training.files import join, part
from normlab.training.networks import NetworkArray

WIDE = 120  # columns from which a line has room for every number


class Speed(Callback):
    """Training images per second, of all networks and devices: from the first step of an epoch to its last, without
    evaluation."""

    def __init__(self) -> None:
        self._start = self._end = self._seen = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start, self._seen = time.perf_counter(), 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, NetworkArray)
        self._seen += batch[1].numel() * trainer.world_size / pl_module.share
        if trainer.is_last_batch and pl_module.device.type == "cuda":
            torch.cuda.synchronize()  # steps are queued: the clock must wait for the last one
        self._end = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Return the seconds of the current epoch, without evaluation."""
        return self._end - self._start

    @property
    def now(self) -> float:
        """Return images per second in the current epoch."""
        return self._seen / self.seconds if self.seconds > 0 else 0.0


class WriteFiles(Checkpoint):
    """Write each run's files, and end training once all runs have diverged.

    Lightning calls a `Checkpoint` after all other callbacks: by then everything that an epoch measures is there.
    """

    def __init__(self, module: NetworkArray, speed: Speed) -> None:
        self.module, self.speed = module, speed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for member in self.module.members:
            if member.files is not None:
                member.files.begin(member.model.net, member.model.image)
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch, networks = trainer.current_epoch + 1, len(self.module.members)
        speed = {"speed/images_per_s": self.speed.now, "speed/seconds": self.speed.seconds / networks}
        every = self.module.end_epoch()
        now = time.perf_counter()
        for member, measured in zip(self.module.members, every, strict=True):
            if member.files is not None and member.finite:
                member.files.fit_s += (now - self._since) / networks
                member.files.end_epoch(epoch, measured | speed, member.model.net)
        self._since = now
        if not any(math.isfinite(measured["ce/train"]) for measured in every):
            trainer.should_stop = True
        trainer.save_checkpoint(f"epoch {epoch}", weights_only=False)  # the optimizer too


class RunCheckpoints(CheckpointIO):
    """Lightning's checkpoint of K networks, as a checkpoint in the folder of each of their runs."""

    def __init__(self, module: NetworkArray) -> None:
        self.module = module
        self._optimizers = [settings.optimizer.name for settings in module.settings]

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the epoch that has just ended; a run that diverged in an earlier one keeps what it has."""
        epoch = int(checkpoint["epoch"]) + 1
        for index, member in enumerate(self.module.members):
            if member.files is not None and epoch in member.files.rows:
                own = part(checkpoint, index, dict(member.model.hparams), self._optimizers[index])
                member.files.save(own, kernels=self.module.kernel is not None)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return join([member.before.content() for member in self.module.members if member.before], self._optimizers)

    def remove_checkpoint(self, path: Any) -> None:
        """Nothing is removed: each epoch's checkpoint takes the place of the one before."""


class ProgressLine(Callback):
    """Epoch, share done, running accuracy, held-out accuracy, images/s and time left; of several networks the means.

    Reads an accuracy from the device twice a second at most, so that it does not hold up a GPU. Without a terminal,
    prints one line per epoch.
    """

    def __init__(self, module: NetworkArray, label: str, speed: Speed, console: Console) -> None:
        self.module, self.label, self.speed, self.console = module, label, speed, console
        self.progress: Progress | None = None
        self.status: Status | None = None
        self._read_at = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.console.is_terminal:
            return
        self.progress = Progress(
            # on a narrow terminal the name is truncated
            TextColumn("{task.description}", table_column=Column(ratio=1, min_width=6, no_wrap=True)),
            TextColumn("{task.fields[epoch]}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=12)),
            TaskProgressColumn(),
            TextColumn("{task.fields[measured]}", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True),
            console=self.console,
            refresh_per_second=2,
            expand=True,
        )
        total = int(trainer.estimated_stepping_batches)
        self.task = self.progress.add_task(
            self.label, total=total, completed=trainer.global_step, measured="", epoch=""
        )
        self.progress.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.progress is None:
            return
        if self.progress.get_time() - self._read_at > 0.5:
            self._read_at = self.progress.get_time()
            self.progress.update(self.task, measured=self._measured())
        self.progress.update(self.task, completed=trainer.global_step, epoch=_epoch(trainer))

    def _measured(self) -> str:
        held_out = {part: acc for part, (acc, _) in self.module.held_out.items()}
        shown = {"train": self.module.running_accuracy(), **held_out}
        parts = [f"{part} {100 * acc.double().mean().item():.2f} %" for part, acc in shown.items()]
        if self.progress is not None and self.console.width < WIDE:
            return parts[-1]
        return "  ".join([*parts, f"{self.speed.now:,.0f} images/s"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.progress is None:
            line = f"{self.label}  {_epoch(trainer)}  {self._measured()}"
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.console.is_terminal:
            self.status = self.console.status(f"measuring on {self.module.data.words}")
            self.status.start()

    def _stop(self, *_: Any, **__: Any) -> None:
        if self.progress is not None:
            self.progress.stop()
        if self.status is not None:
            self.status.stop()
        self.progress = self.status = None

    on_train_end = on_predict_end = on_exception = _stop


def _epoch(trainer: Trainer) -> str:
    return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
