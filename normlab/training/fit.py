"""K ≥ 1 runs by Lightning's Trainer: from the beginning or from where they stopped, on one device or on several."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console

from normlab.data.datamodule import ImageData
from normlab.data.several import CorruptedImages, SeveralImages
from normlab.kernels import refusal
from normlab.norms import synchronise
from normlab.record import Record, Robustness
from normlab.settings import Settings
from normlab.settings.corruptions import Corrupted
from normlab.training.build import (
    lightning_precision,
    load_array,
    networks_at_once,
    set_float32_products,
    unfoldable,
)
from normlab.training.callbacks import ProgressLine, RunCheckpoints, Speed, WriteFiles
from normlab.training.classifier import Classifier
from normlab.training.device import choose_accelerator, describe_device, keep_freed_memory, set_threads
from normlab.training.files import Begun, RunFiles
from normlab.training.folder import log_to
from normlab.training.networks import Networks
from normlab.training.outcome import conclude, refit
from normlab.training.probes import probe_callbacks
from normlab.training.ranks import Here, Rank, Stops, Weigh, as_rank, ranks
from normlab.training.robustness import CorruptedScores, modes_of

__all__ = ["Place", "corrupted_scores", "fit_networks", "make_trainer", "networks_of", "train"]

log = logging.getLogger("normlab")


@dataclass(frozen=True)
class Place:
    """One run of an array.

    Attributes:
        files: what it writes; None in a process beside the one that writes.
    """

    settings: Settings
    data: ImageData
    model: Classifier
    files: RunFiles | None

    @property
    def before(self) -> Begun | None:
        """Where it resumes; None if it begins."""
        return self.files.before if self.files else None

    @property
    def waits(self) -> bool:
        """Whether it has epochs to do."""
        return self.files is not None and not self.files.trained

    @property
    def epoch(self) -> int:
        return self.before.epoch if self.before else 0


def train(places: Sequence[Place], console: Console, memory_limit: float | None = None) -> Iterator[Record]:
    """Train and measure runs that can share a computation. Yield the record of each; the caller saves it.

    Runs that stopped after different epochs are trained one group after the other. On a CPU no network shares anything
    with another, and each gets the bits that it has alone; on a GPU networks share passes, which round differently.

    Args:
        memory_limit: GiB for what a step keeps; if that is too little for all networks, they take turns in a step.
    """
    common, networks = places[0].settings, len(places)
    accelerator = choose_accelerator(common.accelerator)
    for place in places:
        if common.precision == "64-true":  # Lightning does so after it has loaded the weights
            place.model.double()
        if place.before is not None and not place.waits:  # it stopped between its last epoch and its result
            place.model.load_state_dict(place.before.content()["state_dict"])
            place.files.begin(place.model.net)  # type: ignore[union-attr]  # who has no files has nothing before
    device = torch.device("cuda" if accelerator == "gpu" else "cpu")
    at_once = 1
    by_torch = None if accelerator == "gpu" else refusal(common, places[0].model.net)
    if accelerator == "gpu":
        at_once = networks_at_once(places[0].model.net, common.batch_size, networks, memory_limit)
    if networks > 1:
        passes = f", {at_once} in one forward pass" if accelerator == "gpu" else ""
        log.info("trained as an array of %d networks%s", networks, passes)
    for place in places:
        if accelerator == "cpu" and place.before and place.before.kernels != (by_torch is None):
            one, other = ("torch", "the kernels")[:: 1 if by_torch is None else -1]
            log.warning(
                "%s: %s trained it before, %s from here on: last bits differ", place.settings.slug(), one, other
            )
    label = common.slug() if networks == 1 else f"{networks} networks"
    not_replayed = (
        unfoldable(common) if accelerator == "gpu" else None
    )  # a custom layer may do what a graph cannot record
    for epoch in sorted({place.epoch for place in places if place.waits}):
        group = [place for place in places if place.waits and place.epoch == epoch]
        module = networks_of(group, at_once, not_replayed)
        _fit(module, group, label, console)
        not_replayed = module.not_replayed
    where = describe_device(device) | ({"array": networks} if networks > 1 else {})
    where |= {"devices": common.devices} if common.devices > 1 else {}
    if accelerator == "cpu":
        where["kernels"] = by_torch is None
        if by_torch is not None:
            log.info("trained by torch: %s", by_torch)
    if accelerator == "gpu":
        where["graph"] = not_replayed is None
        if not_replayed is not None:
            log.warning("steps were not replayed as a CUDA graph: %s", not_replayed)
    began = time.perf_counter()
    measured = any(map(_finite, places))
    log_prob = _predict(networks_of(places, at_once), label, console) if measured else {}
    kinds = common.corruptions if measured else []
    robustness = corrupted_scores(places, kinds, label, console, at_once) if kinds else [[] for _ in places]
    share = (time.perf_counter() - began) / networks
    for index, place in enumerate(places):
        assert place.files is not None
        own = {part: values[index] for part, values in log_prob.items()} if _finite(place) else {}
        since = time.perf_counter() - share
        record = conclude(place.files, place.model, place.data, own, robustness[index], device=where, since=since)
        if place.settings.refit_epochs and record.status == "completed":
            found, seconds = refit(place.settings, place.model, place.data)
            metrics, times = {**record.metrics, **found}, {**record.time, "refit_s": seconds}
            record = replace(record, metrics=metrics, time=times)
        yield record


def _finite(place: Place) -> bool:
    return place.files is not None and place.files.diverged is None


def networks_of(
    places: Sequence[Place], at_once: int = 1, not_replayed: str | None = None, images: SeveralImages | None = None
) -> Networks:
    """Return the module that trains runs in their places. images: other ones than those that they train on."""
    models, settings = [place.model for place in places], [place.settings for place in places]
    images = images or SeveralImages([place.data for place in places])
    return Networks(models, settings, images, at_once, not_replayed)


def _fit(module: Networks, places: Sequence[Place], label: str, console: Console) -> None:
    """Train the runs that have files."""
    settings, files, before = places[0].settings, [place.files for place in places], [place.before for place in places]
    speed = Speed()
    callbacks: list[Callback] = [speed, ProgressLine(label, speed, console)]
    if len(places) == 1 and files[0] is not None:
        callbacks += probe_callbacks(settings, places[0].data, files[0].probes)
    callbacks.append(WriteFiles(files, speed))
    if settings.devices == 1:
        fit_networks(module, callbacks, files, before)
        return
    with ranks(settings, _beside, places[0].files.folder, before[0]) as rank:  # type: ignore[union-attr]  # K = 1
        fit_networks(module, callbacks, files, before, rank)
    synchronise(module.nets[0], False)
    places[0].data.rank, places[0].data.processes = 0, 1


def _beside(ready: Callable[[], None], rank: Rank, settings: Settings, folder: Path, before: Begun | None) -> None:
    """Train in a process beside rank 0. It writes nothing but train.log."""
    set_threads(settings)
    keep_freed_memory()
    with log_to(folder / "train.log") as log:
        try:
            [data], [model] = load_array([settings])
            if settings.precision == "64-true":
                model.double()
            module = networks_of([Place(settings, data, model, None)], 1)
            speed = Speed()
            ready()
            with as_rank(rank):
                fit_networks(module, [speed, WriteFiles([None], speed)], [None], [before], rank)
        except Exception:
            log.exception("the process of device %d failed", rank.rank)
            os._exit(1)  # at once: rank 0 waits to know why


def fit_networks(
    module: Networks,
    callbacks: list[Callback],
    files: Sequence[RunFiles | None],
    before: Sequence[Begun | None],
    rank: Rank | None = None,
) -> None:
    """Train networks from the beginning, or from where their runs stopped.

    Args:
        rank: this process's, if several train the run; None: it has one device.
    """
    settings = module.settings[0]
    if rank is not None:
        [data] = module.data.runs
        data.rank, data.processes = rank.rank, rank.processes
        synchronise(module.nets[0], settings.sync_batchnorm)
        callbacks = [*callbacks, Weigh(data), Stops()]
    trainer = make_trainer(settings, callbacks, RunCheckpoints(module, files, before), rank)
    resumed = next((each.file for each in before if each is not None), None)
    trainer.fit(module, datamodule=module.data, ckpt_path=resumed, weights_only=True)


def _predict(module: Networks, label: str, console: Console) -> dict[str, torch.Tensor]:
    """Return log-probabilities (K, N, num_classes) by part, in file order and eval mode."""
    trainer = make_trainer(module.settings[0], [ProgressLine(label, Speed(), console)], RunCheckpoints(module))
    found = trainer.predict(module, datamodule=module.data) or []
    return {part: torch.cat(batches, 1) for part, batches in zip(module.data.predicted, found, strict=True)}


def corrupted_scores(
    places: Sequence[Place], kinds: Sequence[Corrupted], label: str, console: Console, at_once: int = 1
) -> list[list[Robustness]]:
    """Return the scores of each run's network on clean and on corrupted test images. None of a network whose outputs
    are not finite."""
    modes = modes_of([place.model.net for place in places])
    module = networks_of(places, at_once, images=CorruptedImages([place.data for place in places], kinds, modes))
    found = CorruptedScores()
    trainer = make_trainer(module.settings[0], [ProgressLine(label, Speed(), console), found], RunCheckpoints(module))
    trainer.predict(module, datamodule=module.data, return_predictions=False)
    return found.rows


def make_trainer(
    settings: Settings, callbacks: list[Callback], files: RunCheckpoints, rank: Rank | None = None
) -> Trainer:
    """Return a Trainer for one of a run's processes, which it sets up for the run's precision."""
    accelerator = choose_accelerator(settings.accelerator)
    set_float32_products(settings, accelerator)
    return Trainer(
        accelerator=accelerator,
        devices=rank.processes if rank else 1,
        strategy=DDPStrategy(process_group_backend=rank.backend) if rank else "auto",
        use_distributed_sampler=False,  # the data module gives every process its share
        precision=lightning_precision(settings),  # type: ignore[arg-type]  # one of its words
        max_epochs=settings.epochs,
        deterministic=accelerator == "gpu",  # the same bits twice; on CPU they are anyway
        logger=False,
        callbacks=callbacks,
        plugins=[files, Here(rank.rank if rank else 0)],
        num_sanity_val_steps=0,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_progress_bar=False,  # ProgressLine is ours
        enable_model_summary=False,
    )
