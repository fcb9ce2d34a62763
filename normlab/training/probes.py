"""Probes during training, as Lightning callbacks. `checkpoint.py` measures afterwards."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from normlab.data.augment import rotate_and_shift
from normlab.data.datamodule import Batch, ImageData, Part, epoch_draws
from normlab.kernels import Gathered
from normlab.nets import Network
from normlab.probes.landscape import LENGTHS, along_gradient
from normlab.probes.layers import Value, convolutions, layer_statistics, parameters
from normlab.probes.loss import StepLoss, Weights
from normlab.probes.points import points
from normlab.probes.shift import covariate_shift
from normlab.probes.statistics import decompose
from normlab.settings import Settings
from normlab.training.files import ProbeTable
from normlab.training.networks import Networks

__all__ = [
    "MOST",
    "first_images",
    "landscape_values",
    "probe_callbacks",
    "shift_values",
    "statistics_values",
]

LAYER_IMAGES = 256  # of the training set, the first in file order: what `layers` looks at


def probe_callbacks(settings: Settings, data: ImageData, table: ProbeTable) -> Iterator[Callback]:
    """Yield the callbacks that measure `settings.probes`."""
    if "layers" in settings.probes:
        yield LayerProbe(data, table)
    if "landscape" in settings.probes or "shift" in settings.probes:
        yield StepProbe(
            table, settings.peak_lr, landscape="landscape" in settings.probes, shift="shift" in settings.probes
        )


class LayerProbe(Callback):
    """`layers`: before training and after every epoch, on one batch that is always the same.

    TensorBoard's axis is epochs, as of all that is measured once an epoch.
    """

    def __init__(self, data: ImageData, table: ProbeTable) -> None:
        self.data, self.table = data, table

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 0:  # else the run goes on, and has measured where it stands
            self._measure(trainer, pl_module, 0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._measure(trainer, pl_module, trainer.current_epoch + 1)

    def _measure(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        net = net_of(pl_module)
        values = layer_statistics(net, *first_images(self.data, net))
        self.table.add("layers", values, epoch=epoch, step=trainer.global_step, at=epoch)
        self.table.save()


class StepProbe(Callback):
    """`landscape` and `shift`: on the batches of up to 40 training steps, evenly over the run, as they are trained on.

    The shift is that of the step itself, W(t) to W(t+1): momentum, penalty, clipping and weight decay move the layers
    before as they do in training. TensorBoard's axis is steps.
    """

    def __init__(self, table: ProbeTable, lr: float, *, landscape: bool, shift: bool) -> None:
        self.table, self.lr, self.landscape, self.shift = table, lr, landscape, shift
        self.at: set[int] = set()
        self.steps_an_epoch = 1.0
        self._pending: tuple[int, StepLoss, Weights] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        steps = int(trainer.estimated_stepping_batches)
        self.at = set(points(steps))
        self.steps_an_epoch = steps / (trainer.max_epochs or 1)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if step not in self.at:
            return
        images, labels = batch
        assert isinstance(pl_module, Networks)
        if isinstance(images, Gathered):
            images = pl_module.data.pixels(images)
        model = pl_module.models[0]
        loss = StepLoss(model.net, model.normalise(images[0]), labels[0])  # type: ignore[arg-type,operator]
        pl_module.hold_masks(loss.net, len(labels[0]))  # type: ignore[arg-type]  # a copy of the model's
        if self.landscape:
            self._add("landscape", landscape_values(loss, loss.weights, self.lr), step)
        if self.shift:
            self._pending = step, loss, loss.weights

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self._pending is None:
            return
        (step, loss, before), self._pending = self._pending, None
        net = net_of(pl_module)
        after = {name: parameter.detach() for name, parameter in net.named_parameters()}
        self._add("shift", shift_values(loss, net, before, after), step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.table.save()

    def _add(self, probe: str, values: Sequence[Value], step: int) -> None:
        self.table.add(probe, values, epoch=step / self.steps_an_epoch, step=step, at=step)


def landscape_values(loss: StepLoss, weights: Weights, lr: float) -> list[Value]:
    """Return the rows of the probe `landscape`, of the network as a whole."""
    found = along_gradient(loss, weights, [each * lr for each in LENGTHS])
    return [("", quantity, value) for quantity, value in found.quantities().items()]


def shift_values(loss: StepLoss, net: Network, before: Weights, after: Weights) -> list[Value]:
    """Return the rows of the probe `shift`: gradients are those of the convolutions, the layers before move whole."""
    measured = {layer: [name] for layer, name in convolutions(net).items()}
    found = covariate_shift(loss, before, after, parameters(net), measured)
    parts: Mapping[str, str] = {"l2": "l2", "cosine": "cosine", "gradient_norm": "gradient"}
    return [(layer, name, getattr(each, part)) for layer, each in found.items() for name, part in parts.items()]


def first_images(data: ImageData, net: Network) -> Batch:
    """Return the first training images in file order, without augmentation, where and as the network takes them."""
    where = data.train.where[:LAYER_IMAGES]
    like = next(net.parameters())
    pixels = data.train.pool[0][where].to(like.device, like.dtype) / 255
    return (pixels - data.mean) / data.std, data.train.pool[1][where].to(like.device)


def net_of(module: LightningModule) -> Network:
    """Return the one network of a run whose probes measure inside it while it trains."""
    assert isinstance(module, Networks)
    [net] = module.nets
    return net


MOST = 10_000  # images of a part at most: an accuracy's standard error is then below 0.1 points where it is above 99 %


def statistics_values(net: Network, data: ImageData) -> list[Value]:
    """Return the rows of the probe: accuracies of the network, errors of the running averages per layer.

    The precise statistics are those of training images as an epoch brings them, augmented by its draws; accuracies are
    measured without augmentation. Up to 10,000 images of each part are used, in an order drawn from the run's seed.
    Where no layer keeps running averages, all accuracies of a part are one: the control.
    """
    where = _some(len(data.train), data.seed)
    seen, _ = _as_input(data, data.train, where, net)
    if data.rotation or data.shift:
        draws = epoch_draws(len(data.train), data.seed, 0)[where].to(seen)
        pixels = seen * data.std + data.mean
        seen = (rotate_and_shift(pixels, draws, rotation=data.rotation, shift=data.shift) - data.mean) / data.std
    train, test = (_as_input(data, part, _some(len(part), data.seed), net) for part in (data.train, data.test))
    accuracies, errors = decompose(net, seen, train, test, data.batch_size)
    rows: list[Value] = [("", f"{name}_acc", value) for name, value in accuracies.items()]
    return rows + [(layer, f"error_{name}", value) for layer, of in errors.items() for name, value in of.items()]


def _some(count: int, seed: int) -> torch.Tensor:
    """Return which images, in an order that has nothing to do with their classes."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:MOST]


def _as_input(data: ImageData, part: Part, where: torch.Tensor, net: Network) -> Batch:
    """Return images and labels where and as the network takes them."""
    like = next(net.parameters())
    images, labels = (values[part.where[where]] for values in part.pool)
    pixels = (images.to(like.device, like.dtype) / 255 - data.mean) / data.std
    return pixels.contiguous(memory_format=torch.channels_last), labels.to(like.device)
