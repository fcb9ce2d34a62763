"""K ≥ 1 runs by Lightning's Trainer: from the beginning or from where they stopped, on one device or on several."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from lightning.pytorch import Callback
from rich.console import Console

from normlab.data.several import CorruptedImages
from normlab.kernels import why_torch
from normlab.norms import synchronise
from normlab.record import Record, Robustness
from normlab.settings import Settings
from normlab.settings.corruptions import Corrupted
from normlab.training.build import load_array, make_trainer, networks_at_once, unfoldable
from normlab.training.callbacks import ProgressLine, RunCheckpoints, Speed, WriteFiles
from normlab.training.device import describe_device, keep_freed_memory, set_threads
from normlab.training.files import ResumePoint
from normlab.training.folder import log_to
from normlab.training.networks import Member, NetworkArray
from normlab.training.outcome import CorruptedScores, conclude, modes_of
from normlab.training.probes import probe_callbacks
from normlab.training.ranks import AroundTraining, Rank, as_rank, ranks

log = logging.getLogger("normlab")


def train_members(members: Sequence[Member], console: Console, memory_limit: float | None = None) -> Iterator[Record]:
    """Train and measure runs that can share a computation. Yield the record of each; the caller saves it.

    Runs that stopped after different epochs are trained one group after the other. On a CPU no network shares anything
    with another, and each gets the bits that it has alone; on a GPU networks share passes, which round differently.

    Args:
        memory_limit: GiB for what a step keeps; if that is too little for all networks, they take turns in a step.
    """
    common, networks = members[0].settings, len(members)
    gpu, net = common.accelerator == "gpu", members[0].model.net
    where = describe_device(torch.device("cuda" if gpu else "cpu")) | ({"array": networks} if networks > 1 else {})
    where |= {"devices": common.devices} if common.devices > 1 else {}
    at_once = networks_at_once(net, common.batch_size, networks, memory_limit) if gpu else 1
    not_replayed = unfoldable(common) if gpu else None  # a custom layer may do what a graph cannot record
    by_torch = None if gpu else why_torch(common, net)
    if networks > 1:
        passes = f", {at_once} in one forward pass" if gpu else ""
        log.info("trained as an array of %d networks%s", networks, passes)
    for member in members:
        if member.before is not None and not member.waits:  # it stopped between its last epoch and its result
            member.model.load_state_dict(member.before.content()["state_dict"])
            member.files.begin(member.model.net)  # type: ignore[union-attr]  # who has no files has nothing before
        if not gpu and member.before and member.before.kernels != (by_torch is None):
            one, other = ("torch", "the kernels")[:: 1 if by_torch is None else -1]
            told = "%s: %s trained it before, %s from here on: last bits differ"
            log.warning(told, member.settings.slug(), one, other)
    label = common.slug() if networks == 1 else f"{networks} networks"
    for epoch in sorted({member.epoch for member in members if member.waits}):
        group = [member for member in members if member.waits and member.epoch == epoch]
        module = NetworkArray(group, at_once, not_replayed)
        _fit(module, label, console)
        not_replayed = module.not_replayed
    if gpu:
        where["graph"] = not_replayed is None
        if not_replayed is not None:
            log.warning("steps were not replayed as a CUDA graph: %s", not_replayed)
    else:
        where["kernels"] = by_torch is None
        if by_torch is not None:
            log.info("trained by torch: %s", by_torch)
    began = time.perf_counter()
    measured = any(member.finite for member in members)
    log_prob = _predict(NetworkArray(members, at_once), label, console) if measured else {}
    kinds = common.corruptions if measured else []
    robustness = corrupted_scores(members, kinds, label, console, at_once) if kinds else [[] for _ in members]
    share = (time.perf_counter() - began) / networks
    for index, member in enumerate(members):
        own = {part: values[index] for part, values in log_prob.items()} if member.finite else {}
        since = time.perf_counter() - share
        yield conclude(member, own, robustness[index], device=where, since=since)


def _fit(module: NetworkArray, label: str, console: Console) -> None:
    """Train the runs that have files."""
    speed, first = Speed(), module.members[0]
    assert first.files is not None
    callbacks: list[Callback] = [speed, ProgressLine(module, label, speed, console)]
    if len(module.members) == 1:
        callbacks += probe_callbacks(module, first.files.probes)
    callbacks.append(WriteFiles(module, speed))
    if first.settings.devices == 1:
        fit_networks(module, callbacks)
        return
    with ranks(first.settings, _beside, first.files.folder, first.before) as rank:
        fit_networks(module, callbacks, rank)
    synchronise(first.model.net, False)
    first.data.rank, first.data.processes = 0, 1


def _beside(
    ready: Callable[[], None], rank: Rank, settings: Settings, folder: Path, before: ResumePoint | None
) -> None:
    """Train in a process beside rank 0. It writes nothing but train.log."""
    set_threads(settings)
    keep_freed_memory()
    with log_to(folder / "train.log") as log:
        try:
            [data], [model] = load_array([settings])
            module = NetworkArray([Member(settings, data, model, before=before)])
            speed = Speed()
            ready()
            with as_rank(rank):
                fit_networks(module, [speed, WriteFiles(module, speed)], rank)
        except Exception:
            log.exception("the process of device %d failed", rank.rank)
            os._exit(1)  # at once: rank 0 waits to know why


def fit_networks(module: NetworkArray, callbacks: list[Callback], rank: Rank | None = None) -> None:
    """Train networks from the beginning, or from where their runs stopped.

    Args:
        rank: this process's, if several train the run; None: it has one device.
    """
    settings = module.settings[0]
    if rank is not None:
        [data] = module.data.runs
        data.rank, data.processes = rank.rank, rank.processes
        synchronise(module.nets[0], settings.sync_batchnorm)
        callbacks = [*callbacks, AroundTraining(data)]
    trainer = make_trainer(settings, callbacks, RunCheckpoints(module), rank)
    resumed = next((member.before.file for member in module.members if member.before), None)
    trainer.fit(module, datamodule=module.data, ckpt_path=resumed, weights_only=True)


def _predict(module: NetworkArray, label: str, console: Console) -> dict[str, torch.Tensor]:
    """Return log-probabilities (K, N, num_classes) by part, in file order and eval mode."""
    trainer = make_trainer(module.settings[0], [ProgressLine(module, label, Speed(), console)])
    found = trainer.predict(module, datamodule=module.data) or []
    return {part: torch.cat(batches, 1) for part, batches in zip(module.data.predicted, found, strict=True)}


def corrupted_scores(
    members: Sequence[Member], kinds: Sequence[Corrupted], label: str, console: Console, at_once: int = 1
) -> list[list[Robustness]]:
    """Return the scores of each run's network on clean and on corrupted test images. None of a network whose outputs
    are not finite."""
    modes = modes_of([member.model.net for member in members])
    images = CorruptedImages([member.data for member in members], kinds, modes)
    module = NetworkArray(members, at_once, data=images)
    found = CorruptedScores(module, images)
    trainer = make_trainer(module.settings[0], [ProgressLine(module, label, Speed(), console), found])
    trainer.predict(module, datamodule=images, return_predictions=False)
    return found.rows
