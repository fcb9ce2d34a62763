"""How good trained networks are on corrupted test images: a callback of Lightning's `predict`."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from normlab.data.several import CorruptedImages
from normlab.probes.statistics import averaging_layers, knows_batches, log_probs_by_batch
from normlab.randomness import Stream, generator
from normlab.record import Robustness
from normlab.scores import scores
from normlab.training.classifier import Classifier
from normlab.training.networks import Networks
from normlab.training.outcome import score

__all__ = ["CorruptedScores"]


class CorruptedScores(Callback):
    """Score K networks on each way in which `CorruptedImages` corrupts the test images.

    In eval mode; where a network normalizes by running averages, also by the statistics of batches of these images, as
    large as in training and in an order that is the same for all: Nado et al. 2020, "Evaluating Prediction-Time Batch
    Normalization for Robustness under Covariate Shift".

    Attributes:
        rows: of each network; none of one whose outputs are not finite.
    """

    def __init__(self) -> None:
        self.rows: list[list[Robustness]] = []
        self._batches: list[torch.Tensor] = []

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
        data = pl_module.data
        labels = data.runs[0].test.labels
        if sum(part.shape[1] for part in self._batches) < len(labels):
            return
        log_probs, self._batches = torch.cat(self._batches, 1), []
        self.rows = self.rows or [[] for _ in log_probs]
        way = data.ways[dataloader_idx]
        for index, model in enumerate(pl_module.models):
            assert isinstance(model, Classifier)
            self._add(index, way, "eval", log_probs[index], labels)
            if averaging_layers(model.net) and knows_batches(model.net):
                order = torch.randperm(len(labels), generator=generator(Stream.CORRUPT, 0, 1))
                images = data.corrupted(dataloader_idx, order, pl_module.device)
                size = pl_module.settings[index].batch_size
                found = log_probs_by_batch(model.net, model.normalise(images), size).float().cpu()
                self._add(index, way, "batch", found, labels[order])

    def _add(self, index: int, way: tuple[str, int], mode: str, log_probs: torch.Tensor, labels: torch.Tensor) -> None:
        if log_probs.isfinite().all():
            own = score(log_probs, labels) | scores(log_probs.numpy(), labels.numpy())
            self.rows[index].append(Robustness(*way, mode, **own))
