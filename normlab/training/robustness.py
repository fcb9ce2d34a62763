"""How good trained networks are on corrupted test images: a callback of Lightning's `predict`."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from normlab.data.several import CorruptedImages
from normlab.nets import Network
from normlab.probes.statistics import averaging_layers, knows_batches, population, with_statistics
from normlab.randomness import Stream, generator
from normlab.record import Robustness
from normlab.scores import scores
from normlab.training.classifier import Classifier
from normlab.training.networks import Networks
from normlab.training.outcome import score

__all__ = ["CorruptedScores", "modes_of"]

ADAPTED = 500  # corrupted images that new statistics are taken of


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

    def __init__(self) -> None:
        self.rows: list[list[Robustness]] = []
        self._batches: list[torch.Tensor] = []
        self._adapted = ExitStack()

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        assert isinstance(pl_module, Networks)
        assert isinstance(pl_module.data, CorruptedImages)
        data = pl_module.data
        if batch_idx or data.ways[dataloader_idx][2] != "adapted":
            return
        order = torch.randperm(len(data.runs[0].test), generator=generator(Stream.CORRUPT, 0, 1))[:ADAPTED]
        images = data.some(dataloader_idx, order, pl_module.device)
        for model in pl_module.models:
            assert isinstance(model, Classifier)
            if _adapts(model.net):
                own = population(model.net, model.normalise(images), len(images))
                self._adapted.enter_context(with_statistics(model.net, own))
        pl_module.take_numbers()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert isinstance(pl_module, Networks)
        assert isinstance(pl_module.data, CorruptedImages)
        self._batches.append(outputs)
        labels = pl_module.data.runs[0].test.labels
        if sum(part.shape[1] for part in self._batches) < len(labels):
            return
        log_probs, self._batches = torch.cat(self._batches, 1), []
        self.rows = self.rows or [[] for _ in log_probs]
        kind, strength, mode = pl_module.data.ways[dataloader_idx]
        for rows, net, found in zip(self.rows, pl_module.nets, log_probs, strict=True):
            if found.isfinite().all() and (mode == "eval" or _adapts(net)):
                own = score(found, labels) | scores(found.numpy(), labels.numpy())
                rows.append(Robustness(kind=kind, strength=strength, mode=mode, **own))
        if mode == "adapted":
            self._adapted.close()
            pl_module.take_numbers()
