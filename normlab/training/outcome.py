"""The end of a run: what is measured, drawn and recorded; the refit without the penalty; scores on corrupted images."""

import copy
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LambdaCallback

from normlab.data.several import CorruptedImages
from normlab.nets import Network, l1_norm, penalised, sparsity
from normlab.probes.statistics import averaging_layers, knows_batches, population, with_statistics
from normlab.randomness import Stream, generator, stream_seed
from normlab.record import Record, Robustness, write_predictions, write_robustness, write_support
from normlab.scores import scores
from normlab.settings.corruptions import IMAGES_ADAPTED_TO
from normlab.training.build import make_trainer
from normlab.training.classifier import Classifier
from normlab.training.files import RunFiles
from normlab.training.networks import Member, NetworkArray
from normlab.training.probes import statistics_values
from normlab.training.views import show_filters, show_result


def conclude(
    member: Member,
    log_prob: Mapping[str, torch.Tensor],
    robustness: Sequence[Robustness] = (),
    *,
    device: Mapping[str, Any],
    since: float,
) -> Record:
    """Score the last epoch's weights; write predictions.npz, robustness.csv and TensorBoard's last views; refit the
    network, if the run asks for it. Return the record, which the caller saves.

    Args:
        log_prob: by part ("train", "test"): log-probabilities (N, num_classes) in eval mode, in file order.
        robustness: scores on corrupted test images.
        device: for result.json. since: when the measurements of this run began (`time.perf_counter`).
    """
    settings, data, files, error = member.settings, member.data, member.files, None
    assert files is not None
    metrics: dict[str, float | None] = {"train_acc": None, "train_ce": None}
    metrics |= {"train_acc_running": files.last("train_acc_running"), "train_ce_running": files.last("train_ce")}
    metrics |= {"val_acc": files.last("val_acc"), "val_ce": files.last("val_ce"), "test_acc": None, "test_ce": None}
    if files.diverged is not None:
        error = f"the training loss was not finite in epoch {files.diverged}"
    elif not all(values.isfinite().all() for values in log_prob.values()):
        error = "the trained network's outputs are not finite"
    else:
        for part, values in log_prob.items():
            metrics |= {f"{part}_{name}": x for name, x in score(values, getattr(data, part).labels).items()}
        metrics |= _keep(member, files, log_prob["test"])
        if robustness:
            write_robustness(files.folder, robustness)
    files.end(metrics)
    measure_s = time.perf_counter() - since
    more: dict[str, float] = {"resumed": files.resumed} if files.resumed else {}
    if settings.refit_epochs and not error:
        found, more["refit_s"] = refit(member)
        metrics |= found
    return Record.of(
        settings,
        "diverged" if error else "completed",
        error,
        data={"name": data.dataset, "train": len(data.train), "val": len(data.val), "test": len(data.test)},
        parameters=sum(p.numel() for p in member.model.net.parameters()),
        device=device,
        metrics={key: x if x is not None and math.isfinite(x) else None for key, x in metrics.items()},
        time={
            "fit_s": files.fit_s,
            "measure_s": measure_s,
            "images_per_s": files.images_per_s(len(data.train)),
            "epochs": len(files.rows),
            **more,
        },
    )


def _keep(member: Member, files: RunFiles, test: torch.Tensor) -> dict[str, float]:
    """Write and show what a trained network is and predicts. Return what is measured of its weights and of `test`, the
    log-probabilities of the test images."""
    settings, model, data, labels = member.settings, member.model, member.data, member.data.test.labels
    square = sum(float(w.detach().double().square().sum()) for w in penalised(model.net, "conv").values())
    metrics = {"weight_norm": square**0.5, "penalty": settings.l1 * float(l1_norm(model.penalised).detach())}
    metrics |= sparsity(model.net)
    metrics |= {f"test_{name}": value for name, value in scores(test.numpy(), labels.numpy()).items()}
    if "statistics" in settings.probes:
        steps = settings.epochs * settings.steps_per_epoch(len(data.train))
        found = statistics_values(model.net, data)
        files.probes.add("statistics", found, epoch=settings.epochs, step=steps, at=settings.epochs)
        files.probes.save()
    support = [(parameter != 0).flatten().cpu().numpy() for parameter in model.penalised]
    if not all(part.all() for part in support):
        write_support(files.folder, np.concatenate(support))
    write_predictions(files.folder, test.numpy(), labels.numpy())
    files.show(show_filters, model.net, settings.epochs)
    shown = {"images": data.test.images, "labels": labels, "log_prob": test}
    files.show(show_result, **shown, classes=data.classes, epoch=settings.epochs)
    return metrics


def score(log_prob: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Return accuracy and cross-entropy of log-probabilities (N, C)."""
    return {
        "acc": (log_prob.argmax(1) == labels).double().mean().item(),
        "ce": torch.nn.functional.nll_loss(log_prob.double(), labels).item(),
    }


def refit(member: Member) -> tuple[dict[str, float], float]:
    """Train a copy for `settings.refit_epochs` more epochs, with a fresh optimizer and schedule.

    Without the penalty, and with every penalised parameter that is exactly 0 kept there: its support is fixed. L1
    shrinks what it keeps too; the refit tells that bias from what the removed weights were worth (the "relaxed lasso":
    Meinshausen 2007, "Relaxed Lasso", section 2). The epochs have the order, the augmentation and the dropout stream of
    the run's first. Return {"refit_train_acc", "refit_test_acc"} in [0, 1], in eval mode without augmentation, and the
    seconds it took.
    """
    began, settings, data, model = time.perf_counter(), member.settings, member.data, copy.deepcopy(member.model)
    model.l1 = 0.0
    keep_zeros(model)

    def reseed(trainer: Trainer, _: LightningModule) -> None:
        torch.manual_seed(stream_seed(Stream.DROPOUT, settings.seed, trainer.current_epoch))

    own: dict[str, Any] = {"max_epochs": settings.refit_epochs, "gradient_clip_val": settings.gradient_clip}
    trainer = make_trainer(settings, [LambdaCallback(on_train_epoch_start=reseed)], limit_val_batches=0, **own)
    trainer.fit(model, datamodule=data)
    found = {}
    batches = trainer.predict(model, datamodule=data) or []
    for part, log_prob in zip(data.predicted, batches, strict=True):
        found[f"refit_{part}_acc"] = score(torch.cat(log_prob), getattr(data, part).labels)["acc"]
    return found, time.perf_counter() - began


def keep_zeros(model: Classifier) -> None:
    """Zero the gradient of penalised parameters that are exactly 0: momentum starts at 0, so no step moves them."""
    for parameter in model.penalised:
        there = parameter.detach() != 0
        if not there.all():
            parameter.register_hook(lambda grad, there=there: grad * there)  # type: ignore[no-untyped-call]


def modes_of(nets: Sequence[Network]) -> list[str]:
    """Return the modes in which networks are scored: eval and, if they have running averages, adapted."""
    return ["eval", *["adapted"] * any(map(_adapts, nets))]


def _adapts(net: Network) -> bool:
    return bool(averaging_layers(net)) and knows_batches(net)


class CorruptedScores(Callback):
    """Score K networks on each way in which `CorruptedImages` corrupts the test images.

    In mode eval as they are; in mode adapted with the statistics of 500 of the corrupted images, the same ones for all,
    in the place of running averages: Schneider et al. 2020, "Improving robustness against common corruptions by
    covariate shift adaptation", section 3, without the statistics of training (n = 500, N = 0).

    Attributes:
        rows: of each network; none of one whose outputs are not finite.
    """

    def __init__(self, module: NetworkArray, images: CorruptedImages) -> None:
        self.module, self.images = module, images
        self.rows: list[list[Robustness]] = [[] for _ in module.models]
        self._batches: list[torch.Tensor] = []
        self._adapted = ExitStack()

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx or self.images.ways[dataloader_idx][2] != "adapted":
            return
        test = self.images.runs[0].test
        order = torch.randperm(len(test), generator=generator(Stream.CORRUPT, 0, 1))[:IMAGES_ADAPTED_TO]
        images = self.images.some(dataloader_idx, order, pl_module.device)
        for model in self.module.models:
            if _adapts(model.net):
                own = population(model.net, model.normalise(images), len(images))
                self._adapted.enter_context(with_statistics(model.net, own))
        self.module.restack()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._batches.append(outputs)
        labels = self.images.runs[0].test.labels
        if sum(part.shape[1] for part in self._batches) < len(labels):
            return
        log_probs, self._batches = torch.cat(self._batches, 1), []
        kind, strength, mode = self.images.ways[dataloader_idx]
        for rows, net, found in zip(self.rows, self.module.nets, log_probs, strict=True):
            if found.isfinite().all() and (mode == "eval" or _adapts(net)):
                own = score(found, labels) | scores(found.numpy(), labels.numpy())
                rows.append(Robustness(kind=kind, strength=strength, mode=mode, **own))
        if mode == "adapted":
            self._adapted.close()
            self.module.restack()
