"""The network as a LightningModule: what a step does, what is measured, what is logged."""

from collections.abc import Collection, Mapping, Sequence
from contextvars import ContextVar
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.nn.functional import nll_loss
from torchmetrics.classification import MulticlassAccuracy

from normlab.data.datamodule import EVAL_BATCH, Batch
from normlab.data.folder import image_file
from normlab.errors import ConfigError, DataError
from normlab.nets import Network, l1_norm, network_of, penalised
from normlab.nets.factory import NAMED
from normlab.settings import Settings, checked, choices, group_values
from normlab.training.optim import make_optimizer, make_schedule, proximal_step_

PARTS = ("val", "test")
TRAIN = "train_running"
ARGUMENTS = {  # the settings that `Classifier` takes
    "norm", "net", "dropout", "placement", "weight_standardization", "l1", "penalty", "lr", "schedule", "optimizer",
}  # fmt: skip
_TARGETS: ContextVar[Collection[str] | None] = ContextVar("targets", default=None)  # code that a checkpoint may name


class Classifier(LightningModule):
    """A network with its loss, its L1 penalty and its optimizer.

    `loss` = `ce` + `penalty`, with ce the cross-entropy and penalty = λ·Σ|w|. They are logged apart, one value per
    epoch (on the axis of epochs, from 1): the mean over the epoch's images. Tags are `quantity/part`:
    `acc/train_running` is measured in train mode while the weights move, `acc/val` and `acc/test` in eval mode after
    the epoch.

    The arguments are settings, by their names on the command line. Those that are not given have the values of conf/;
    a wrong one raises `ConfigError`, in the command line's words. `norm`, `net` and `optimizer` take a name, or a
    mapping of the name and options: `Classifier({"name": "gn", "num_groups": 4}, optimizer="adamw", l1=1e-3,
    penalty={"method": "proximal"})`. Checkpoints hold them as plain values.

    Args:
        norm: a name of the catalogue, or {"name": …} with options.
        net: a name, or {"name": …} with options.
        dropout: the share of activations that are dropped while training, in [0, 1).
        placement: "post" puts the norm after ReLU, "pre" before it.
        weight_standardization: whether the 3x3 convolutions standardise their filters.
        l1: λ of the penalty, ≥ 0.
        penalty: {"scope": …, "method": …}.
        lr: the peak learning rate, for whatever batch size there is.
        schedule: "onecycle" or "constant".
        optimizer: "sgd", "adamw", or {"name": …} with options.
        num_classes: the number of classes of the data.
        channels: of its images, 1 or 3.
        size: (H, W) of its images, in pixels.

    Attributes:
        net: the network: log-probabilities (N, num_classes) of normalised images.
        pixel_mean, pixel_std: what `forward` normalises by, so that a checkpoint can be used on its own. Taken from the
            data when training begins; 0 and 1 where the data does not have them.
    """

    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor

    def __init__(
        self,
        norm: str | dict[str, Any] | None = None,
        *,
        net: str | dict[str, Any] | None = None,
        dropout: float | None = None,
        placement: str | None = None,
        weight_standardization: bool | None = None,
        l1: float | None = None,
        penalty: dict[str, str] | None = None,
        lr: float | None = None,
        schedule: str | None = None,
        optimizer: str | dict[str, Any] | None = None,
        num_classes: int = 10,
        channels: int = 1,
        size: Sequence[int] = (28, 28),
    ) -> None:
        super().__init__()
        given = {name: value for name, value in locals().items() if name in ARGUMENTS}
        allowed = _TARGETS.get()
        if allowed is not None and (foreign := foreign_code([norm, net], allowed)):  # before anything is imported
            named = f"the checkpoint names {foreign[0]}, whose code would run"
            raise ConfigError(f"{named}: allow it by targets={foreign}")
        settings = checked({name: value for name, value in given.items() if value is not None})
        self._build(settings, num_classes, channels, size)

    @classmethod
    def of(cls, settings: Settings, num_classes: int = 10, channels: int = 1, size: Sequence[int] = (28, 28)) -> Self:
        """Return the network of a run, whose settings are not checked again."""
        model = cls.__new__(cls)
        LightningModule.__init__(model)
        model._build(settings, num_classes, channels, size)
        return model

    def _build(self, settings: Settings, num_classes: int, channels: int, size: Sequence[int]) -> None:
        self.settings = settings
        self.image = (channels, size[0], size[1])
        values = settings.model_dump(include=ARGUMENTS) | {"lr": settings.peak_lr}
        self.save_hyperparameters(values | {"num_classes": num_classes, "channels": channels, "size": [*size]})
        self.l1 = settings.l1
        self.lr_used = 0.0
        made = network_of(settings, num_classes, self.image)
        # channels_last: convolutions of so few channels run about a third faster in it on CPU
        self.net: Network = made.to(memory_format=torch.channels_last)
        self.penalised = list(penalised(self.net, settings.penalty.scope).values())
        self.register_buffer("pixel_mean", torch.zeros(()))
        self.register_buffer("pixel_std", torch.ones(()))
        self.accuracy = nn.ModuleDict(  # checking the arguments costs more than counting
            {part: MulticlassAccuracy(num_classes, average="micro", validate_args=False) for part in (TRAIN, *PARTS)}
        )

    # Images to log-probabilities

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Return images in [0, 1] as `net` takes them: of its dtype, training pixels with mean 0 and deviation 1."""
        return (images.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities (N, num_classes) of images (N, C, H, W) in [0, 1]."""
        return self.net(self.normalise(images))

    def set_pixels(self, mean: float, std: float) -> None:
        """Set what images are normalised by, in the precision that the module has now."""
        self.pixel_mean.fill_(mean)
        self.pixel_std.fill_(std)

    @torch.no_grad()
    def predict(self, images: "torch.Tensor | np.ndarray[Any, Any] | str | PathLike[str]") -> torch.Tensor:
        """Return the probabilities of the classes, in eval mode: (N, num_classes), float32, on the CPU; N = 1 for one
        image. `predict(images).argmax(1)` are the classes.

        Args:
            images: uint8, or floats in [0, 1]: (N, H, W), (H, W) or (N, C, H, W), of the height and width that the
                network was trained on. Or the path of an image file, which is scaled and cropped to that size as
                data=folder does it (and made grey where the training images were). Digits are bright on dark, as
                MNIST's are.

        Raises:
            ValueError: in one line, for any other type, shape or range.
        """
        found = _read(images, self.image) if isinstance(images, (str, PathLike)) else images
        pixels = _as_pixels(found, self.image)
        training = self.training
        self.eval()
        try:
            parts = [self(part.to(self.device)).float().exp().cpu() for part in torch.split(pixels, EVAL_BATCH)]
        finally:
            self.train(training)
        return torch.cat(parts)

    # Training

    def on_train_start(self) -> None:  # the module has its precision by now, and loaders are there
        datamodule = getattr(self.trainer, "datamodule", None)
        self._take_pixels(datamodule or getattr(self.trainer.train_dataloader, "dataset", None))

    def _take_pixels(self, data: Any) -> None:
        """Take the mean and deviation of the pixels from what knows them."""
        while not hasattr(data, "mean") and hasattr(data, "dataset"):  # torch's Subset
            data = data.dataset
        if hasattr(data, "mean") and hasattr(data, "std"):
            self.set_pixels(data.mean, data.std)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        ce = self._measured(TRAIN, batch)
        penalty = self.l1 * l1_norm(self.penalised) if self.l1 else torch.zeros_like(ce)
        loss = ce + penalty
        self._log({"ce/train": ce, "loss/train": loss, "penalty/train": penalty}, len(batch[1]))
        # without a proximal penalty, whose step `_after_step` takes
        return ce if self.settings.penalty.method == "proximal" else loss

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Runs after each step that is taken, and not after one that a gradient scaler skips."""
        self.lr_used = optimizer.param_groups[0]["lr"]  # the schedule moves on before the epoch ends
        if self.l1 and self.settings.penalty.method == "proximal":
            proximal_step_(optimizer, self.penalised, self.l1)

    def on_train_epoch_end(self) -> None:
        self.log("optim/lr", self.lr_used)
        self._log_epoch()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        steps = 1.0
        if self.settings.schedule != "constant":
            steps = self.trainer.estimated_stepping_batches
            if steps == float("inf"):
                raise ConfigError(
                    f"schedule={self.settings.schedule} has to know its length: set Trainer(max_epochs=…) or "
                    "max_steps=…, or take schedule=constant"
                )
        optimizer, schedule = self.optimizer(int(steps))
        if schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer(
        self, total_steps: int
    ) -> tuple[torch.optim.SGD | torch.optim.AdamW, torch.optim.lr_scheduler.OneCycleLR | None]:
        """Return the optimizer, and the schedule over so many steps; None where the learning rate is constant."""
        optimizer = make_optimizer(self.net.parameters(), self.settings)
        optimizer.register_step_post_hook(self._after_step)
        return optimizer, make_schedule(optimizer, self.settings.schedule, total_steps)

    # Evaluation

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure a batch of the part that the data module names; of other loaders, of validation images."""
        part = getattr(self.trainer.datamodule, "curves", PARTS)[dataloader_idx]  # type: ignore[attr-defined]
        self._log({f"ce/{part}": self._measured(part, batch)}, len(batch[1]))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._log({"ce/test": self._measured("test", batch)}, len(batch[1]))

    def predict_step(self, batch: Batch | torch.Tensor, batch_idx: int, dataloader_idx: int = 0) -> torch.Tensor:
        """Return the log-probabilities (N, num_classes) of a batch, with labels or without, as float32 on the CPU."""
        images = batch if isinstance(batch, torch.Tensor) else batch[0]
        return self(images).float().cpu()  # type: ignore[no-any-return]

    def _measured(self, part: str, batch: Batch) -> torch.Tensor:
        """Return the cross-entropy of a batch; count what is right in it for the accuracy of its part."""
        images, labels = batch
        log_probs = self(images)
        self.accuracy[part].update(log_probs, labels)  # type: ignore[operator]  # ModuleDict hides the metric
        self._log({f"acc/{part}": self.accuracy[part]}, len(labels))
        return nll_loss(log_probs, labels)

    def _log(self, values: Mapping[str, Any], images: int) -> None:
        """Log metrics, and means over the images of an epoch, of all devices."""
        own = {name: value.detach() if isinstance(value, torch.Tensor) else value for name, value in values.items()}
        self.log_dict(own, on_step=False, on_epoch=True, batch_size=images, sync_dist=True, add_dataloader_idx=False)

    def _log_epoch(self) -> None:
        """Make epochs the axis of the curves, so that runs of different batch sizes lie on one another."""
        self.log("step", float(self.current_epoch + 1))

    on_validation_epoch_end = on_test_epoch_end = _log_epoch

    # Checkpoints

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take float64, if the weights are of a run with precision=64-true."""
        if any(values.dtype == torch.float64 for values in checkpoint["state_dict"].values()):
            self.double()

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # fewer arguments by position
        cls, checkpoint_path: Any, map_location: Any = None, *, targets: Collection[str] = (), **more: Any
    ) -> "Classifier":
        """Return the trained network of a checkpoint, by Lightning's method of this name, with weights only.

        Args:
            checkpoint_path: such as "lightning_logs/runs/ln-seed_0/last.ckpt".
            map_location: as in `torch.load`.
            targets: code that the checkpoint may name, such as the layer of a run with norm=custom.

        Raises:
            ConfigError: in one line, where the file names other code: a file alone never says what code is run.
        """
        if not more.pop("weights_only", True):
            raise ConfigError("weights_only=False would run code that a checkpoint holds: leave it out")
        reset = _TARGETS.set(frozenset(targets))
        try:
            return super().load_from_checkpoint(checkpoint_path, map_location, weights_only=True, **more)
        finally:
            _TARGETS.reset(reset)


def foreign_code(values: Any, allowed: Collection[str]) -> list[str]:
    """Return every "package.module:Name" in nested settings that neither conf/ has nor `allowed` holds."""
    usual = _code_in([group_values("net", name) for name in choices("net")])
    return sorted(_code_in(values) - usual - {*allowed})


def _code_in(values: Any) -> set[str]:
    if isinstance(values, str):
        return {values} if NAMED.fullmatch(values) else set()
    inside = values.values() if isinstance(values, Mapping) else values if isinstance(values, (list, tuple)) else ()
    return set().union(*map(_code_in, inside))


def _read(file: "str | PathLike[str]", image: tuple[int, int, int]) -> np.ndarray[Any, Any]:
    """Return the pixels of an image file, as data=folder reads it, in the shape `image`: uint8 (1, C, H, W)."""
    channels, height, width = image
    try:
        pixels = image_file(Path(file), (width, height), grey=channels == 1)
    except DataError as error:
        raise ValueError(str(error)) from error
    return pixels[None, None] if channels == 1 else pixels.transpose(2, 0, 1)[None]


def _as_pixels(images: "torch.Tensor | np.ndarray[Any, Any]", image: tuple[int, int, int]) -> torch.Tensor:
    """Return images as floats (N, C, H, W) in [0, 1]; `ValueError`, in one line, where they cannot be told."""
    if isinstance(images, np.ndarray):
        images = np.ascontiguousarray(images)  # torch has no negative strides
    pixels, channels = torch.as_tensor(images), image[0]
    one = pixels.dim() == (2 if channels == 1 else 3)
    pixels = pixels[None] if one else pixels
    pixels = pixels[:, None] if channels == 1 and pixels.dim() == 3 else pixels
    if pixels.dim() != 4 or pixels.shape[1:] != image:
        shape = "(N, {}, {}, {})".format(*image)
        raise ValueError(f"images of shape {tuple(torch.as_tensor(images).shape)}: this network takes {shape}")
    if pixels.dtype == torch.uint8:
        return pixels / 255
    if not pixels.is_floating_point():
        raise ValueError(f"images are {pixels.dtype}: give them as uint8 (0 to 255) or as floats from 0 to 1")
    if not bool(((pixels >= 0) & (pixels <= 1)).all()):
        raise ValueError("images hold values outside of [0, 1]: give floats from 0 to 1, or uint8 from 0 to 255")
    return pixels
