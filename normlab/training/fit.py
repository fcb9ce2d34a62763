"""One run by Lightning's loop: from the beginning or from where it stopped, on one device or on several."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console

from normlab.data.datamodule import ImageData
from normlab.norms import synchronise
from normlab.record import Record
from normlab.settings import Settings
from normlab.training.array import load_array
from normlab.training.build import lightning_precision, set_float32_products
from normlab.training.callbacks import DivergenceStop, EpochTable, Reseed, Speed
from normlab.training.classifier import Classifier
from normlab.training.device import choose_accelerator, describe_device, set_threads
from normlab.training.epoch_line import ProgressLine
from normlab.training.logs import log_to
from normlab.training.memory import keep_freed_memory
from normlab.training.outcome import Trained, conclude
from normlab.training.probe_callbacks import ProbeTable, probe_callbacks
from normlab.training.ranks import Here, Rank, Stops, Weigh, as_rank, ranks
from normlab.training.refit import refit
from normlab.training.saving import Begun, Journal, WholeFile, checkpoints, event_logger
from normlab.training.views import NormViews, show_filters, show_settings

__all__ = ["train"]


def train(
    settings: Settings, folder: Path, data: ImageData, model: Classifier, console: Console, before: Begun | None
) -> Record:
    """Trains a network and measures it; the record is still to be saved. before: where the run goes on from."""
    logger = event_logger(folder, before.epoch if before else None)
    table, probes = EpochTable(folder), ProbeTable(folder, logger.experiment)
    journal = Journal(settings.config_hash(), table, before)
    if before is None:
        show_settings(logger.experiment, settings)
        show_filters(logger.experiment, model.net, 0)
    else:
        table.restore(before.rows, logger)
        if settings.probes:
            probes.restore(step=before.step, shown=before.epoch)
    speed = Speed()
    line = ProgressLine(settings.slug(), speed, console)
    callbacks = [
        Reseed(settings.seed),
        speed,
        DivergenceStop(),
        NormViews(logger.experiment),
        line,
        *probe_callbacks(settings, data, probes),
        journal,
        *checkpoints(folder, data),
    ]
    one = _trainer(settings, callbacks if settings.devices == 1 else [line], (logger, table))
    if before is None or (before.epoch < settings.epochs and table.diverged is None):
        if settings.devices == 1:
            _fit(one, settings, data, model, before)
        else:
            with ranks(settings, _beside, folder, before) as rank:
                several = _trainer(settings, [*callbacks, Weigh(data), Stops()], (logger, table), rank)
                _fit(several, settings, data, model, before, rank)
            synchronise(model.net, False)
            data.rank, data.processes = 0, 1
    else:  # it stopped between its last epoch and its result
        _double(settings, model)
        model.load_state_dict(torch.load(before.file, map_location="cpu", weights_only=True)["state_dict"])
        NormViews(logger.experiment).write(model, before.epoch)
    fitted = time.perf_counter()
    log_prob = {}
    if table.diverged is None:
        batches = one.predict(model, datamodule=data) or []
        log_prob = {part: torch.cat(found) for part, found in zip(data.predicted, batches, strict=True)}
    devices = {"devices": settings.devices} if settings.devices > 1 else {}
    trained = Trained(
        model=model,
        data=data,
        logger=logger,
        table=table,
        diverged=table.diverged,
        log_prob=log_prob,
        device=describe_device(one.strategy.root_device) | devices,
        fit_s=journal.fit_s,
        images_per_s=table.images_per_s(len(data.train)),
        fitted=fitted,
    )
    record = conclude(settings, folder, trained)
    if journal.resumed:
        record = replace(record, time={**record.time, "resumed": journal.resumed})
    if settings.refit_epochs and record.status == "completed":
        found, seconds = refit(settings, model, data)
        metrics, times = {**record.metrics, **found}, {**record.time, "refit_s": seconds}
        record = replace(record, metrics=metrics, time=times)
    return record


def _beside(ready: Callable[[], None], rank: Rank, settings: Settings, folder: Path, before: Begun | None) -> None:
    """Trains along in a process beside rank 0, which alone writes anything but train.log."""
    set_threads(settings)
    keep_freed_memory()
    with log_to(folder / "train.log") as log:
        try:
            [data], [model] = load_array([settings])
            callbacks = [
                Reseed(settings.seed),
                Speed(),
                DivergenceStop(),
                *checkpoints(folder, data),
                Weigh(data),
                Stops(),
            ]
            ready()
            with as_rank(rank):
                _fit(_trainer(settings, callbacks, (), rank), settings, data, model, before, rank)
        except Exception:
            log.exception("the process of device %d failed", rank.rank)
            os._exit(1)  # at once: rank 0 waits to know why


def _fit(
    trainer: Trainer,
    settings: Settings,
    data: ImageData,
    model: Classifier,
    before: Begun | None,
    rank: Rank | None = None,
) -> None:
    if rank is not None:
        data.rank, data.processes = rank.rank, rank.processes
        synchronise(model.net, settings.sync_batchnorm)
    if before is not None:
        _double(settings, model)
    trainer.fit(model, datamodule=data, ckpt_path=before.file if before else None, weights_only=True)


def _double(settings: Settings, model: Classifier) -> None:
    """Lightning does so after it has loaded the weights."""
    if settings.precision == "64-true":
        model.double()


def _trainer(
    settings: Settings,
    callbacks: list[Callback],
    loggers: tuple[TensorBoardLogger, EpochTable] | tuple[()],
    rank: Rank | None = None,
) -> Trainer:
    """rank: this process's, where several train the run; None: it has one device."""
    accelerator = choose_accelerator(settings.accelerator)
    set_float32_products(settings, accelerator)
    return Trainer(
        accelerator=accelerator,
        devices=rank.processes if rank else 1,
        strategy=DDPStrategy(process_group_backend=rank.backend) if rank else "auto",
        use_distributed_sampler=False,  # the data module gives every process its share
        precision=lightning_precision(settings),  # type: ignore[arg-type]  # one of its words
        max_epochs=settings.epochs,
        gradient_clip_val=settings.gradient_clip,
        deterministic=accelerator == "gpu",  # the same bits twice; on CPU they are anyway
        logger=[*loggers],
        callbacks=callbacks,
        plugins=[WholeFile(), Here(rank.rank if rank else 0)],
        log_every_n_steps=1,  # nothing is logged a step; any larger number warns where an epoch is short
        num_sanity_val_steps=0,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,  # ProgressLine is ours
        enable_model_summary=False,
    )
