"""Many runs trained as one computation: an array. Each leaves the folder that it would have left alone."""

import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn.functional import nll_loss

from normlab.data.datamodule import ImageData
from normlab.record import Record
from normlab.settings import Settings
from normlab.training.build import initial_model, set_float32_products
from normlab.training.classifier import Classifier
from normlab.training.device import choose_accelerator, describe_device
from normlab.training.engine import Engine, EpochResult
from normlab.training.footprint import networks_at_once
from normlab.training.member import Member
from normlab.training.optim import Rates, learning_rates
from normlab.training.outcome import Trained, conclude
from normlab.training.snapshot import Snapshot

__all__ = ["load_array", "train_array"]

log = logging.getLogger("normlab")

Told = Callable[[int, Sequence[Member]], None]


def load_array(settings: Sequence[Settings]) -> tuple[list[ImageData], list[Classifier]]:
    """Images and initial networks of the runs of an array. The images are in memory once, whatever their number."""
    data = [ImageData.of(each) for each in settings]
    data[0].setup()
    for other in data[1:]:
        other.hold_as(data[0])
    return data, [initial_model(each, own) for each, own in zip(settings, data, strict=True)]


def train_array(
    settings: Sequence[Settings],
    folders: Sequence[Path],
    data: Sequence[ImageData],
    models: Sequence[Classifier],
    *,
    memory_limit: float | None = None,
    told: Told | None = None,
    ended: Collection[int] = (),
    before: Snapshot | None = None,
) -> Iterator[Record]:
    """Trains runs that can share a computation (`normlab.settings.arrays`) and leaves each one's files in its folder,
    all but result.json: the records for that come in the order of the runs, each when its other files stand. After
    every epoch a snapshot in the first folder holds what is needed to go on.

    Args:
        ended: runs, by their index, that have a result already: their networks are trained for the sake of the others'
            last bits, their folders are not touched. before: how far the array had come when it was stopped.
        memory_limit: GiB for what a step keeps; where it is too little for all networks, they take turns in a step.
        told: called after every epoch with its number (from 1) and the members.
    """
    common = settings[0]
    accelerator = choose_accelerator(common.accelerator)
    device = torch.device("cuda", torch.cuda.current_device()) if accelerator == "gpu" else torch.device("cpu")
    set_float32_products(common, accelerator)
    steps = math.ceil(len(data[0].train) / common.batch_size)
    members = {
        index: Member(*each, steps=steps, accelerator=accelerator, before=before.runs[index] if before else None)
        for index, each in enumerate(zip(settings, folders, data, models, strict=True))
        if index not in ended
    }
    if before is None:
        at_once = networks_at_once(models[0].net, common.batch_size, len(models), device, memory_limit)
    else:
        at_once = before.at_once
    rates = array_rates(settings, models, steps * common.epochs)
    engine = Engine([model.net for model in models], settings, data, rates, device=device, at_once=at_once)
    log.info("trained as an array of %d networks, %d in one forward pass", len(models), at_once)
    if before is not None:
        log.info("goes on after epoch %d of %d", before.epoch, common.epochs)
        engine.restore(before.numbers)
    for index, member in members.items():
        engine.stack.write_back(index, member.model.net)
        member.begin()
    for epoch in range(before.epoch if before else 0, common.epochs):
        if all(member.diverged is not None for member in members.values()):
            break
        began = time.perf_counter()
        engine.begin_epoch(epoch)
        training = time.perf_counter()
        result = engine.train_epoch()
        _end_epoch(engine, members, epoch, result, (time.perf_counter() - training) / len(models))
        for member in members.values():
            member.journal.fit_s += (time.perf_counter() - began) / len(models)
        Snapshot(
            names=[folder.name for folder in folders],
            hashes=[each.config_hash() for each in settings],
            epoch=epoch + 1,
            at_once=at_once,
            numbers=engine.state(),
            runs=[members[index].progress() if index in members else None for index in range(len(models))],
        ).save(folders[0])
        if told is not None:
            told(epoch + 1, [*members.values()])
    where = describe_device(device) | {"array": len(models)}
    if accelerator == "gpu":
        where["graph"] = engine.not_replayed is None
        if engine.not_replayed is not None:
            log.warning("the steps were not replayed as a CUDA graph: %s", engine.not_replayed)
    began = time.perf_counter()
    log_prob: list[dict[str, torch.Tensor]] = [{} for _ in models]
    for part in data[0].predicted:
        for index, values in engine.evaluate(part):
            log_prob[index][part] = values
    share = (time.perf_counter() - began) / len(models)
    for index, member in members.items():
        trained = Trained(
            model=member.model,
            data=member.data,
            logger=member.logger,
            table=member.table,
            diverged=member.diverged,
            log_prob=log_prob[index] if member.diverged is None else {},
            device=where,
            fit_s=member.journal.fit_s,
            images_per_s=member.table.images_per_s(len(member.data.train)),
            fitted=time.perf_counter() - share,
        )
        record = conclude(member.settings, member.folder, trained)
        if member.journal.resumed:
            record = replace(record, time={**record.time, "resumed": member.journal.resumed})
        yield record


def _end_epoch(engine: Engine, members: Mapping[int, Member], epoch: int, result: EpochResult, seconds: float) -> None:
    """Scores what is held out and tells every member that has not diverged. `seconds`: a member's share of the time."""
    held_out: list[dict[str, float]] = [{} for _ in engine.data]
    for part in engine.data[0].curves:
        for index, log_probs in engine.evaluate(part):
            labels = getattr(engine.data[index], part).labels
            held_out[index][f"acc/{part}"] = (log_probs.argmax(1) == labels).float().mean().item()
            held_out[index][f"ce/{part}"] = nll_loss(log_probs, labels).item()
    done = (epoch + 1) * engine.steps_an_epoch
    for index, member in members.items():
        if member.diverged is not None:
            continue
        engine.stack.write_back(index, member.model.net)
        settings = member.settings
        rates = learning_rates(settings.peak_lr, settings.schedule, engine.steps_an_epoch * settings.epochs)
        ce, penalty = result.ce[index].item(), result.penalty[index].item()
        measured = held_out[index] | {
            "speed/images_per_s": engine.size / seconds,
            "speed/seconds": seconds,
            "loss/train": ce + penalty,
            "ce/train": ce,
            "penalty/train": penalty,
            "acc/train_running": result.acc[index].item(),
            "optim/lr": rates[done - 1],
        }
        member.end_epoch(epoch, measured, rates[done], engine.optimizer_state(index))


def array_rates(settings: Sequence[Settings], models: Sequence[Classifier], steps: int) -> Rates:
    """Return how each run of an array is updated: by the optimizer that its model would have on its own."""
    covered, frozen = [], []
    for model in models:
        penalised = {id(parameter) for parameter in model.penalised}
        sizes = [(p, p.numel()) for p in model.net.parameters()]
        covered.append(torch.cat([torch.full((size,), id(p) in penalised) for p, size in sizes]))
        frozen.append(torch.cat([torch.full((size,), not p.requires_grad) for p, size in sizes]))
    return Rates.of(
        [model.optimizer(steps)[0] for model in models],
        [learning_rates(each.peak_lr, each.schedule, steps)[:steps] for each in settings],
        clip=[math.inf if each.gradient_clip is None else each.gradient_clip for each in settings],
        l1=[each.l1 for each in settings],
        proximal=[each.penalty.method == "proximal" for each in settings],
        covered=covered,
        frozen=frozen,
    )
