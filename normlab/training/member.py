"""A run inside an array, as Lightning would have it: logs, views and checkpoints of a loop that is not Lightning's.

The engine trains; this is the one place that tells Lightning's parts how far training has come, so that an array's run
leaves the files of a single run, made by the same code.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import LRSchedulerConfig

from normlab.data.datamodule import EVAL_BATCH, ImageData
from normlab.settings import Settings
from normlab.training.build import lightning_precision
from normlab.training.callbacks import EpochTable
from normlab.training.classifier import Classifier
from normlab.training.ranks import Here
from normlab.training.saving import Journal, WholeFile, checkpoints, event_logger
from normlab.training.snapshot import Progress
from normlab.training.views import NormViews, show_filters, show_settings

__all__ = ["Member"]


class Member:
    """One run's Lightning side.

    Args:
        model: its weights are those of the last `end_epoch`. steps: optimizer steps an epoch.
        accelerator: "cpu" or "gpu", where the engine trains. before: what stands of a run that goes on.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        data: ImageData,
        model: Classifier,
        *,
        steps: int,
        accelerator: str,
        before: Progress | None = None,
    ) -> None:
        self.settings, self.folder, self.data, self.model, self.steps = settings, folder, data, model, steps
        self.before = before
        if settings.precision == "64-true":
            model.double()
        model.set_pixels(data.mean, data.std)
        self.logger = event_logger(folder, max(before.rows) if before else None)
        self.table = EpochTable(folder)
        self.journal = Journal(settings.config_hash(), self.table, before)
        self.optimizer, self.schedule = model.optimizer(steps * settings.epochs)
        self.trainer = Trainer(
            accelerator="cpu",  # where its copy of the weights lies
            devices=1,
            precision=lightning_precision(settings),  # type: ignore[arg-type]  # one of its words
            max_epochs=settings.epochs,
            deterministic=accelerator == "gpu",  # torch's switch for the whole process: the same bits twice
            logger=[self.logger, self.table],
            callbacks=[self.journal, *checkpoints(folder, data)],
            plugins=[WholeFile(), Here()],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        self.views = NormViews(self.logger.experiment)
        self._attach()

    def _attach(self) -> None:
        trainer = self.trainer
        trainer.strategy.connect(self.model)
        self.model.trainer = trainer
        trainer.strategy.optimizers = [self.optimizer]
        if self.schedule is not None:
            trainer.strategy.lr_scheduler_configs = [LRSchedulerConfig(self.schedule, interval="step")]
        trainer.state.fn = TrainerFn.FITTING
        sizes = [len(getattr(self.data, part)) for part in self.data.curves]
        trainer.fit_loop.epoch_loop.val_loop._max_batches = [-(-size // EVAL_BATCH) for size in sizes]
        for callback in trainer.checkpoint_callbacks:
            callback.setup(trainer, self.model, "fit")

    @property
    def diverged(self) -> int | None:
        """The epoch in which the training loss was not finite."""
        return self.table.diverged

    def progress(self) -> Progress:
        """What has to be kept for a run that may have to go on, beside what the engine holds."""
        return Progress(
            rows={epoch: dict(row) for epoch, row in self.table.rows.items()},
            checkpoints=[callback.state_dict() for callback in self.trainer.checkpoint_callbacks],
            fit_s=self.journal.fit_s,
            resumed=self.journal.resumed,
        )

    def begin(self) -> None:
        """Before the first epoch that is trained now, with `model` holding the weights that it begins with."""
        if self.before is not None:
            self.table.restore(self.before.rows, self.logger)
            for callback, state in zip(self.trainer.checkpoint_callbacks, self.before.checkpoints, strict=True):
                callback.load_state_dict(dict(state))
            self.views.write(self.model, max(self.before.rows))
            return
        show_settings(self.logger.experiment, self.settings)
        show_filters(self.logger.experiment, self.model.net, 0)
        self.logger.log_hyperparams(dict(self.model.hparams))
        self.logger.save()
        self.views.on_train_start(self.trainer, self.model)

    def end_epoch(
        self, epoch: int, measured: Mapping[str, float], lr: float, state: Mapping[str, Mapping[str, torch.Tensor]]
    ) -> None:
        """After an epoch (from 0), with `model` holding its weights.

        Args:
            measured: by TensorBoard's tag, what `Classifier` and `Speed` would have logged.
            lr: what the schedule gives the next step. state: of the optimizer, by parameter.
        """
        self._progress(epoch)
        measured = {tag: float(np.float32(value)) for tag, value in measured.items()}  # as Lightning's metrics are
        optimizer = self.optimizer
        optimizer.param_groups[0]["lr"] = lr
        if self.schedule is not None:
            self.schedule.last_epoch = (epoch + 1) * self.steps
            self.schedule._step_count = self.schedule.last_epoch + 1
            self.schedule._last_lr = [lr]
        for name, parameter in self.model.net.named_parameters():
            if parameter.requires_grad and name in state:
                optimizer.state[parameter] = dict(state[name])
        held_out = {tag: value for tag, value in measured.items() if tag.endswith(("/val", "/test"))}
        for logger in self.trainer.loggers:
            if held_out:
                logger.log_metrics(held_out, epoch + 1)
            logger.log_metrics({tag: value for tag, value in measured.items() if tag not in held_out}, epoch + 1)
            logger.save()
        self.views.on_train_epoch_end(self.trainer, self.model)
        scores = {tag: torch.tensor(value) for tag, value in measured.items()}
        self.trainer._logger_connector._callback_metrics.update(scores)
        for callback in self.trainer.checkpoint_callbacks:  # each saves in the one of the two that is its turn
            callback.on_validation_end(self.trainer, self.model)
            callback.on_train_epoch_end(self.trainer, self.model)

    def _progress(self, epoch: int) -> None:
        """Lightning's counters as they stand while it saves a checkpoint at the end of an epoch."""
        loop = self.trainer.fit_loop
        done, now = (epoch + 1) * self.steps, self.steps
        _count(loop.epoch_progress, epoch + 1, epoch + 1)
        loop.epoch_progress.total.completed = loop.epoch_progress.current.completed = epoch
        inner = loop.epoch_loop
        _count(inner.batch_progress, done, now)
        inner.batch_progress.is_last_batch = True
        inner._batches_that_stepped = done
        progress = inner.automatic_optimization.optim_progress.optimizer
        for counted in (progress.step, progress.zero_grad):
            _count(counted, done, now)
        if self.schedule is not None:
            _count(inner.scheduler_progress, done, now)
        if batches := [int(n) for n in inner.val_loop._max_batches]:
            _count(inner.val_loop.batch_progress, sum(batches), sum(batches))
            inner.val_loop.batch_progress.is_last_batch = True


def _count(progress: Any, total: int, current: int) -> None:
    for counts, value in ((progress.total, total), (progress.current, current)):
        for name in vars(counts):
            setattr(counts, name, value)
