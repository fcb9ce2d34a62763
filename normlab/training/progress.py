"""One line that lives while a run trains; where there is no terminal, a line an epoch."""

import sys
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from normlab.training.callbacks import EpochTable, Speed

__all__ = ["ProgressLine"]


class ProgressLine(Callback):
    """Epoch, share done, running accuracy, held-out accuracy, images/s and time left, on stderr.

    Reads a network's accuracy from the device twice a second at most, so that it does not hold up a GPU.
    """

    def __init__(self, label: str, speed: Speed, table: EpochTable, console: Console | None = None) -> None:
        self.label, self.speed, self.table = label, speed, table
        self.console = console or Console(file=sys.stderr)
        self.progress: Progress | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.console.is_terminal:
            return
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[told]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            refresh_per_second=2,
            expand=True,
        )
        total = int(trainer.estimated_stepping_batches)
        self.task = self.progress.add_task(self.label, total=total, completed=trainer.global_step, told="")
        self.progress.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.progress is None:
            return
        due = self.progress.get_time() - getattr(self, "_told_at", 0.0) > 0.5
        if due:
            self._told_at = self.progress.get_time()
            self.progress.update(self.task, told=self._tell(trainer, pl_module))
        description = f"{self.label}  epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self.progress.update(self.task, completed=trainer.global_step, description=description)

    def _tell(self, trainer: Trainer, pl_module: LightningModule) -> str:
        running = pl_module.running.acc.compute()  # type: ignore[union-attr,operator]  # Classifier's
        parts = [f"train {100 * float(running):.2f} %"]
        parts += [
            f"{part} {100 * value:.2f} %" for part in ("val", "test") if (value := self.table.last(f"{part}_acc"))
        ]
        return "  ".join([*parts, f"{self.speed.now:,.0f} images/s"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.progress is None:
            held_out = [
                f"{part} {100 * float(trainer.callback_metrics[f'acc/{part}']):.2f} %"
                for part in ("val", "test")
                if f"acc/{part}" in trainer.callback_metrics
            ]
            running = float(pl_module.running.acc.compute())  # type: ignore[union-attr,operator]  # Classifier's
            line = [
                f"{self.label}  epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
                f"train {100 * running:.2f} %",
            ]
            self.console.print(
                "  ".join([*line, *held_out, f"{self.speed.now:,.0f} images/s"]), highlight=False, soft_wrap=True
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
