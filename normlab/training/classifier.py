"""The network as a LightningModule: what a step does, what is measured, what is logged."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.nn.functional import nll_loss
from torchmetrics import MeanMetric, SumMetric
from torchmetrics.classification import MulticlassAccuracy

from normlab.data.datamodule import Batch
from normlab.nets import METHODS, Net, add_subgradient_, l1_norm, penalised, proximal_threshold, soft_threshold_

__all__ = ["Classifier"]

CLASSES = 10
PARTS = ("val", "test")


class Measures(nn.Module):
    """Accuracy (micro, in [0, 1]) and mean cross-entropy over the images seen since the last `results()`."""

    def __init__(self) -> None:
        super().__init__()
        # checking the arguments costs more than counting
        self.acc = MulticlassAccuracy(CLASSES, average="micro", validate_args=False)
        # Sums: a MeanMetric that does not look for nan takes no weights, and one that does leaves a nan out, so that a
        # diverged loss looks fine.
        self.ce, self.images = SumMetric(nan_strategy="disable"), SumMetric(nan_strategy="disable")

    def update(self, log_prob: torch.Tensor, labels: torch.Tensor, ce: torch.Tensor) -> None:
        self.acc.update(log_prob, labels)
        self.ce.update(ce * len(labels))
        self.images.update(len(labels))

    def acc_so_far(self) -> torch.Tensor:
        """Accuracy over the images that this process has seen; `compute` would wait for all others to ask too."""
        right, wrong = self.acc.tp, self.acc.fn
        assert isinstance(right, torch.Tensor)  # as micro-averaged
        assert isinstance(wrong, torch.Tensor)
        return (right / (right + wrong)).squeeze()

    def results(self) -> dict[str, torch.Tensor]:
        results = {"acc": self.acc.compute(), "ce": self.ce.compute() / self.images.compute()}
        for metric in (self.acc, self.ce, self.images):
            metric.reset()
        return results


class Classifier(LightningModule):
    """`Net` with its loss, its L1 penalty and its optimizer.

    `loss` = `ce` + `penalty`, with ce the cross-entropy and penalty = λ·Σ|w|. They are logged apart, a value an epoch
    (on the axis of epochs, from 1): the mean over the epoch's images (ce, accuracy) and steps (penalty). Tags are
    `quantity/part`: `acc/train_running` is measured in train mode while the weights move, `acc/val` and `acc/test` in
    eval mode after the epoch.

    Every hyper-parameter is a plain value, so that `load_from_checkpoint` reads a checkpoint with weights only.

    Args:
        norm, norm_options, dropout, placement, weight_standardization: of `Net`.
        l1: λ ≥ 0. scope: which parameters it covers. method: "subgradient" adds λ·sign(w) to the gradient;
            "proximal" soft-thresholds by lr·λ / (1 - momentum) after the step.
        lr: learning rate; the peak with schedule "onecycle" (Smith & Topin 2019), which warms up for 30 % of the steps
            from lr/25 and falls on a cosine to lr/250,000. "constant" keeps it.
        momentum: of SGD, in Nesterov's form; 0: plain SGD. weight_decay: times w, added to every gradient.
    """

    def __init__(
        self,
        norm: str = "bn",
        norm_options: Mapping[str, Any] | None = None,
        dropout: float = 0.0,
        placement: str = "post",
        weight_standardization: bool = False,
        l1: float = 0.0,
        scope: str = "weights",
        method: str = "subgradient",
        lr: float = 0.1,
        schedule: str = "onecycle",
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__()
        if method not in METHODS:
            raise ValueError(f"penalty.method {method!r} is unknown: choose one of {', '.join(METHODS)}")
        self.save_hyperparameters()
        self.l1, self.method = l1, method
        self.lr_used = 0.0
        self.share = 1.0  # what this process's mean over its images counts in the mean over all processes
        # channels_last: convolutions of so few channels run about a third faster in it on CPU
        net = Net(norm, dropout, placement, norm_options, weight_standardization)
        self.net: Net = net.to(memory_format=torch.channels_last)
        self.penalised = list(penalised(self.net, scope).values())
        # float64 without dimensions: computing with them leaves images in their own dtype
        self.register_buffer("pixel_mean", torch.tensor(0.0, dtype=torch.float64))
        self.register_buffer("pixel_std", torch.tensor(1.0, dtype=torch.float64))
        self.running = Measures()
        self.penalty = MeanMetric(nan_strategy="disable")
        self.held_out = nn.ModuleDict({part: Measures() for part in PARTS})

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities (N, 10) of images (N, 1, 28, 28) in [0, 1]."""
        return self.net(self.normalise(images))

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Return images in [0, 1] as the network takes them: with mean 0 and sd 1 over the training pixels."""
        return (images - self.pixel_mean) / self.pixel_std  # type: ignore[operator]  # buffers are tensors

    def set_pixels(self, mean: float, std: float) -> None:
        """Set the mean and sd of the training pixels."""
        self.pixel_mean.fill_(mean)  # type: ignore[operator]
        self.pixel_std.fill_(std)  # type: ignore[operator]

    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and data is not None and hasattr(data, "std"):
            self.set_pixels(data.mean, data.std)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        images, labels = batch
        log_prob = self(images)
        ce = nll_loss(log_prob, labels)
        self.running.update(log_prob.detach(), labels, ce.detach())
        if self.l1:
            with torch.no_grad():
                self.penalty.update(self.l1 * l1_norm(self.penalised))
        # without the penalty: on_before_optimizer_step adds its gradient, optimizer_step its threshold
        return ce if self.share == 1 else ce * self.share

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.l1 and self.method == "subgradient":
            add_subgradient_(self.penalised, self.l1)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        group = optimizer.param_groups[0]
        self.lr_used = group["lr"]  # the schedule moves on before the epoch ends
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.l1 and self.method == "proximal":
            soft_threshold_(self.penalised, proximal_threshold(self.lr_used, self.l1, group["momentum"]))

    def on_train_epoch_end(self) -> None:
        results = self.running.results()
        penalty = self.penalty.compute() if self.l1 else torch.zeros_like(results["ce"])
        self.penalty.reset()
        self._log_epoch(
            {
                "loss/train": results["ce"] + penalty,
                "ce/train": results["ce"],
                "penalty/train": penalty,
                "acc/train_running": results["acc"],
                "optim/lr": torch.tensor(self.lr_used),
            }
        )

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        images, labels = batch
        if not len(labels):  # the others' share was all of it
            return
        log_prob = self(images)
        measures = self.held_out[self._part(dataloader_idx)]
        measures.update(log_prob, labels, nll_loss(log_prob, labels))  # type: ignore[operator]  # ModuleDict hides Measures

    def on_validation_epoch_end(self) -> None:
        for index in range(len(self.trainer.num_val_batches)):
            part = self._part(index)
            results = self.held_out[part].results()  # type: ignore[operator]  # ModuleDict hides Measures
            self._log_epoch({f"{quantity}/{part}": value for quantity, value in results.items()})

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> torch.Tensor:
        images, _ = batch
        return self(images).float().cpu()  # type: ignore[no-any-return]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer, schedule = self.optimizer(int(self.trainer.estimated_stepping_batches))
        if schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer(self, total_steps: int) -> tuple[torch.optim.SGD, torch.optim.lr_scheduler.OneCycleLR | None]:
        """The optimizer, and the schedule over so many steps; None where the learning rate is constant."""
        hp = self.hparams
        optimizer = torch.optim.SGD(
            self.net.parameters(),
            lr=hp["lr"],
            momentum=hp["momentum"],
            nesterov=hp["momentum"] > 0,
            weight_decay=hp["weight_decay"],
        )
        if hp["schedule"] == "constant":
            return optimizer, None
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=hp["lr"],
            total_steps=total_steps,
            cycle_momentum=False,  # `momentum` is what it says, throughout
        )

    def _part(self, dataloader_idx: int) -> str:
        """What a validation loader holds: the data module's word, or validation images where another one is used."""
        return str(getattr(self.trainer.datamodule, "curves", PARTS)[dataloader_idx])  # type: ignore[attr-defined]

    def _log_epoch(self, values: Mapping[str, torch.Tensor]) -> None:
        """`step` makes epochs the axis of the curves, so that runs of different batch sizes lie on one another.

        The values are those of all devices already; a log that synchronised them again would wait for every device
        wherever a value is read.
        """
        self.log_dict({**values, "step": float(self.current_epoch + 1)})
