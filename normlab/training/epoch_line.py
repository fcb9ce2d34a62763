"""One line that lives while a run trains; where there is no terminal, a line an epoch."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.status import Status
from rich.table import Column

from normlab.training.callbacks import Speed
from normlab.training.member import Member

__all__ = ["EpochLine", "ProgressLine"]

WIDE = 120  # columns from which a line has room for every number


class ProgressLine(Callback):
    """Epoch, share done, running accuracy, held-out accuracy, images/s and time left.

    Reads a network's accuracy from the device twice a second at most, so that it does not hold up a GPU.
    """

    def __init__(self, label: str, speed: Speed, console: Console) -> None:
        self.label, self.speed, self.console = label, speed, console
        self.progress: Progress | None = None
        self.status: Status | None = None
        self._told_at = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.console.is_terminal:
            return
        self.progress = Progress(
            # where it is narrow, the name is cut
            TextColumn("{task.description}", table_column=Column(ratio=1, min_width=6, no_wrap=True)),
            TextColumn("{task.fields[epoch]}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=12)),
            TaskProgressColumn(),
            TextColumn("{task.fields[told]}", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True),
            console=self.console,
            refresh_per_second=2,
            expand=True,
        )
        total = int(trainer.estimated_stepping_batches)
        self.task = self.progress.add_task(self.label, total=total, completed=trainer.global_step, told="", epoch="")
        self.progress.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.progress is None:
            return
        due = self.progress.get_time() - self._told_at > 0.5
        if due:
            self._told_at = self.progress.get_time()
            self.progress.update(self.task, told=self._tell(trainer, pl_module))
        self.progress.update(self.task, completed=trainer.global_step, epoch=_epoch(trainer))

    def _tell(self, trainer: Trainer, pl_module: LightningModule) -> str:
        running = pl_module.running.acc_so_far()  # type: ignore[union-attr,operator]  # Classifier's
        held_out = {part: trainer.callback_metrics.get(f"acc/{part}") for part in ("val", "test")}
        parts = [f"train {100 * float(running):.2f} %"]
        parts += [f"{part} {100 * float(acc):.2f} %" for part, acc in held_out.items() if acc is not None]
        if self.progress is not None and self.console.width < WIDE:
            return parts[-1]
        return "  ".join([*parts, f"{self.speed.now:,.0f} images/s"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.progress is None:
            line = f"{self.label}  {_epoch(trainer)}  {self._tell(trainer, pl_module)}"
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.console.is_terminal:
            self.status = self.console.status("measuring on the training and the test images")
            self.status.start()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
        if self.status is not None:
            self.status.stop()
            self.status = None


def _epoch(trainer: Trainer) -> str:
    return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"


class EpochLine:
    """A line an epoch for what the array engine trains, in the words of `ProgressLine`."""

    def __init__(self, label: str, epochs: int, console: Console) -> None:
        self.label, self.epochs, self.console = label, epochs, console

    def __call__(self, epoch: int, members: Sequence[Member]) -> None:
        table = members[0].table
        shown = {"train": "train_acc_running", "val": "val_acc", "test": "test_acc"}
        parts = [f"{part} {100 * acc:.2f} %" for part, key in shown.items() if (acc := table.last(key)) is not None]
        line = "  ".join([f"{self.label}  epoch {epoch}/{self.epochs}", *parts])
        self.console.print(f"{line}  {table.last('images_per_s') or 0:,.0f} images/s", highlight=False, markup=False)
