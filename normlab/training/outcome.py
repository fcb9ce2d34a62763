"""The end of a run: what is measured, drawn and recorded; and the refit without the penalty."""

import copy
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from normlab.data.datamodule import ImageData
from normlab.nets import l1_norm, penalised, sparsity
from normlab.randomness import Stream, stream_seed
from normlab.record import Record, Robustness, write_predictions, write_robustness, write_support
from normlab.scores import scores
from normlab.settings import Settings
from normlab.training.build import lightning_precision
from normlab.training.classifier import Classifier
from normlab.training.device import choose_accelerator, versions
from normlab.training.files import RunFiles
from normlab.training.probes import statistics_values
from normlab.training.ranks import Here
from normlab.training.views import show_filters, show_result

__all__ = [
    "asked",
    "conclude",
    "keep_zeros",
    "refit",
    "score",
]


def asked(settings: Settings) -> dict[str, Any]:
    """Return the part of a record that is known before training."""
    return {
        "config": settings.model_dump(),
        "config_hash": settings.config_hash(),
        "setting": settings.setting(),
        "seed": settings.seed,
        "versions": versions(),
    }


def conclude(
    files: RunFiles,
    model: Classifier,
    data: ImageData,
    log_prob: Mapping[str, torch.Tensor],
    robustness: Sequence[Robustness] = (),
    *,
    device: Mapping[str, Any],
    since: float,
) -> Record:
    """Score the last epoch's weights; write predictions.npz, robustness.csv and TensorBoard's last views. Return the
    record, which the caller saves.

    Args:
        log_prob: by part ("train", "test"): log-probabilities (N, num_classes) in eval mode, in file order.
        robustness: scores on corrupted test images.
        device: for result.json. since: when the measurements of this run began (`time.perf_counter`).
    """
    settings, folder = files.settings, files.folder
    metrics: dict[str, float | None] = {"train_acc": None, "train_ce": None}
    metrics |= {"train_acc_running": files.last("train_acc_running"), "train_ce_running": files.last("train_ce")}
    metrics |= {"val_acc": files.last("val_acc"), "val_ce": files.last("val_ce"), "test_acc": None, "test_ce": None}
    status, error = "completed", None
    if files.diverged is not None:
        status, error = "diverged", f"the training loss was not finite in epoch {files.diverged}"
    elif not all(values.isfinite().all() for values in log_prob.values()):
        status, error = "diverged", "the trained network's outputs are not finite"
    if status == "completed":
        for part, values in log_prob.items():
            metrics |= {f"{part}_{name}": x for name, x in score(values, getattr(data, part).labels).items()}
        metrics["weight_norm"] = (
            sum(float(w.detach().double().square().sum()) for w in penalised(model.net, "conv").values()) ** 0.5
        )
        metrics |= {"penalty": settings.l1 * float(l1_norm(model.penalised).detach()), **sparsity(model.net)}
        test, labels = log_prob["test"], data.test.labels
        metrics |= {f"test_{name}": value for name, value in scores(test.numpy(), labels.numpy()).items()}
        if "statistics" in settings.probes:
            steps = settings.epochs * -(-len(data.train) // settings.batch_size)
            found = statistics_values(model.net, data)
            files.probes.add("statistics", found, epoch=settings.epochs, step=steps, at=settings.epochs)
            files.probes.save()
        support = [(parameter != 0).flatten().cpu().numpy() for parameter in model.penalised]
        if not all(part.all() for part in support):
            write_support(folder, np.concatenate(support))
        write_predictions(folder, test.numpy(), labels.numpy())
        if robustness:
            write_robustness(folder, robustness)
        files.show(show_filters, model.net, settings.epochs)
        files.show(
            show_result,
            images=data.test.images,
            labels=labels,
            log_prob=test,
            classes=data.classes,
            epoch=settings.epochs,
        )
    files.end(metrics)
    return Record(
        status=status,
        error=error,
        data={"name": data.dataset, "train": len(data.train), "val": len(data.val), "test": len(data.test)},
        parameters=sum(p.numel() for p in model.net.parameters()),
        device=device,
        metrics={key: _finite(value) for key, value in metrics.items()},
        time={
            "fit_s": files.fit_s,
            "measure_s": time.perf_counter() - since,
            "images_per_s": files.images_per_s(len(data.train)),
            "epochs": len(files.rows),
            **({"resumed": files.resumed} if files.resumed else {}),
        },
        **asked(settings),
    )


def score(log_prob: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Return accuracy and cross-entropy of log-probabilities (N, C)."""
    return {
        "acc": (log_prob.argmax(1) == labels).double().mean().item(),
        "ce": torch.nn.functional.nll_loss(log_prob.double(), labels).item(),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


class Reseed(Callback):
    """Give every epoch its own dropout stream, which follows from (seed, epoch)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.manual_seed(stream_seed(Stream.DROPOUT, self.seed, trainer.current_epoch))


def refit(settings: Settings, model: Classifier, data: ImageData) -> tuple[dict[str, float], float]:
    """Train a copy for `settings.refit_epochs` more epochs, with a fresh optimizer and schedule.

    Without the penalty, and with every penalised parameter that is exactly 0 kept there: its support is fixed. L1
    shrinks what it keeps too; the refit tells that bias from what the removed weights were worth (the "relaxed lasso":
    Meinshausen 2007, "Relaxed Lasso", section 2). The epochs have the order and the augmentation of the run's first.
    Gives {"refit_train_acc", "refit_test_acc"} in [0, 1], in eval mode without augmentation, and the seconds it took.
    """
    began, accelerator = time.perf_counter(), choose_accelerator(settings.accelerator)
    model = copy.deepcopy(model)
    model.l1 = 0.0
    keep_zeros(model)
    trainer = Trainer(
        accelerator=accelerator,
        devices=1,
        precision=lightning_precision(settings),  # type: ignore[arg-type]  # one of its words
        max_epochs=settings.refit_epochs,
        deterministic=accelerator == "gpu",
        gradient_clip_val=settings.gradient_clip,
        logger=False,
        plugins=[Here()],
        callbacks=[Reseed(settings.seed)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    trainer.fit(model, datamodule=data)
    found = {}
    batches = trainer.predict(model, datamodule=data) or []
    for part, log_prob in zip(data.predicted, batches, strict=True):
        right = torch.cat(log_prob).argmax(1) == getattr(data, part).labels
        found[f"refit_{part}_acc"] = right.double().mean().item()
    return found, time.perf_counter() - began


def keep_zeros(model: Classifier) -> None:
    """Zero the gradient of penalised parameters that are exactly 0: momentum starts at 0, so no step moves them."""
    for parameter in model.penalised:
        there = parameter.detach() != 0
        if not there.all():
            parameter.register_hook(lambda grad, there=there: grad * there)  # type: ignore[no-untyped-call]
