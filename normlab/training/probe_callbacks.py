"""Probes during training, as Lightning callbacks, and afterwards on a checkpoint."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.tensorboard import SummaryWriter

from normlab.data.datamodule import Batch, ImageData
from normlab.nets import Network
from normlab.probes.landscape import LENGTHS, along_gradient
from normlab.probes.layers import Value, convolutions, layer_statistics, parameters
from normlab.probes.loss import StepLoss, Weights
from normlab.probes.points import points
from normlab.probes.shift import covariate_shift
from normlab.record import ProbeRow, read_probes, write_probes
from normlab.settings import Settings

__all__ = [
    "LAYER_IMAGES",
    "LayerProbe",
    "ProbeTable",
    "StepProbe",
    "first_images",
    "landscape_values",
    "probe_callbacks",
    "shift_values",
]

LAYER_IMAGES = 256  # of the training set, the first in file order: what `layers` looks at


class ProbeTable:
    """probes.csv and TensorBoard's curves of what a run's probes measured."""

    def __init__(self, folder: Path, writer: SummaryWriter) -> None:
        self.folder, self.writer = folder, writer
        self.rows: list[ProbeRow] = []

    def restore(self, *, step: int, shown: int) -> None:
        """Takes the rows of a run that stopped, up to a step; shows TensorBoard again what stands at `shown` or later
        on its axis."""
        self.rows = [row for row in read_probes(self.folder) if row[1] <= step]
        for epoch, at, probe, layer, quantity, value in self.rows:
            self._show(probe, (layer, quantity, value), round(epoch) if probe == "layers" else at, shown)

    def add(self, probe: str, values: Sequence[Value], *, epoch: float, step: int, at: int) -> None:
        """at: where the values stand on TensorBoard's axis."""
        self.rows += [(epoch, step, probe, layer, quantity, value) for layer, quantity, value in values]
        for each in values:
            self._show(probe, each, at)

    def _show(self, probe: str, value: Value, at: int, first: int = 0) -> None:
        layer, quantity, number = value
        if at >= first and math.isfinite(number):  # TensorBoard draws a nan as a triangle at 0
            self.writer.add_scalar(f"probe.{probe}/{quantity}{layer and f'.{layer}'}", number, at)

    def save(self) -> None:
        """Writes probes.csv with all rows so far, whole or not at all."""
        write_probes(self.folder, self.rows)


def probe_callbacks(settings: Settings, data: ImageData, table: ProbeTable) -> Iterator[Callback]:
    """What measures `settings.probes`."""
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

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        step = trainer.global_step
        if step not in self.at:
            return
        images, labels = batch
        loss = StepLoss(net_of(pl_module), pl_module.normalise(images), labels)  # type: ignore[operator]  # Classifier's
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
    """The rows of the probe `landscape`, of the network as a whole."""
    found = along_gradient(loss, weights, [each * lr for each in LENGTHS])
    return [("", quantity, value) for quantity, value in found.quantities().items()]


def shift_values(loss: StepLoss, net: Network, before: Weights, after: Weights) -> list[Value]:
    """The rows of the probe `shift`: the gradients are those of the convolutions, the layers before move whole."""
    measured = {layer: [name] for layer, name in convolutions(net).items()}
    found = covariate_shift(loss, before, after, parameters(net), measured)
    parts: Mapping[str, str] = {"l2": "l2", "cosine": "cosine", "gradient_norm": "gradient"}
    return [(layer, name, getattr(each, part)) for layer, each in found.items() for name, part in parts.items()]


def first_images(data: ImageData, net: Network) -> Batch:
    """The first training images in file order, without augmentation, where and as the network takes them."""
    where = data.train.where[:LAYER_IMAGES]
    like = next(net.parameters())
    pixels = data.train.pool[0][where].to(like.device, like.dtype) / 255
    return (pixels - data.mean) / data.std, data.train.pool[1][where].to(like.device)


def net_of(module: LightningModule) -> Network:
    net = module.net
    assert isinstance(net, Network)
    return net
