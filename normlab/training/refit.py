"""Refit: what a network that L1 has thinned out can do without the penalty, its zeros kept."""

import copy
import time

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from normlab.data.datamodule import ImageData
from normlab.randomness import Stream, stream_seed
from normlab.settings import Settings
from normlab.training.build import lightning_precision
from normlab.training.classifier import Classifier
from normlab.training.device import choose_accelerator
from normlab.training.ranks import Here

__all__ = ["keep_zeros", "refit"]


class Reseed(Callback):
    """Gives every epoch its own dropout stream, which follows from (seed, epoch)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.manual_seed(stream_seed(Stream.DROPOUT, self.seed, trainer.current_epoch))


def refit(settings: Settings, model: Classifier, data: ImageData) -> tuple[dict[str, float], float]:
    """Trains a copy on for `settings.refit_epochs` epochs, with the run's optimizer and schedule begun anew.

    Without the penalty, and with every penalised parameter that is exactly 0 kept there: its support is fixed. L1
    shrinks what it keeps too; the refit tells that bias from what the removed weights were worth (the "relaxed lasso":
    Meinshausen 2007, "Relaxed Lasso", section 2). The epochs have the order and the augmentation of the run's first.
    Gives {"refit_train_acc", "refit_test_acc"} in [0, 1], in eval mode without augmentation, and the seconds it took.
    """
    began = time.perf_counter()
    model = copy.deepcopy(model)
    model.l1 = 0.0
    keep_zeros(model)
    trainer = Trainer(
        accelerator=choose_accelerator(settings.accelerator),
        devices=1,
        precision=lightning_precision(settings),  # type: ignore[arg-type]  # one of its words
        max_epochs=settings.refit_epochs,
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
    """Gives penalised parameters no gradient where they are exactly 0: momentum starts at 0, so no step moves them."""
    for parameter in model.penalised:
        there = parameter.detach() != 0
        if not there.all():
            parameter.register_hook(lambda grad, there=there: grad * there)  # type: ignore[no-untyped-call]
