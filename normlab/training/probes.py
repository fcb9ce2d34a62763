"""Probes during training, as Lightning callbacks. `checkpoint.py` measures afterwards."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from normlab.data.datamodule import Batch, ImageData, ImageSubset, epoch_draws
from normlab.kernels import Gathered
from normlab.nets import Network
from normlab.probes.gradients import LENGTHS, StepLoss, Weights, along_gradient, covariate_shift, points
from normlab.probes.layers import Value, convolutions, layer_statistics, parameters
from normlab.probes.statistics import decompose
from normlab.training.files import ProbeTable
from normlab.training.networks import NetworkArray

LAYER_IMAGES = 256  # of the training set, the first in file order: what `layers` looks at
MOST = 10_000  # images of a part at most: an accuracy's standard error is then below 0.1 points where it is above 99 %


def probe_callbacks(module: NetworkArray, table: ProbeTable) -> Iterator[Callback]:
    """Yield the callbacks that measure the probes of a run on its own."""
    [settings] = module.settings
    if "layers" in settings.probes:
        yield LayerProbe(module, table)
    if "landscape" in settings.probes or "shift" in settings.probes:
        yield StepProbe(module, table)


class LayerProbe(Callback):
    """`layers`: before training and after every epoch, on one batch that is always the same.

    TensorBoard's axis is epochs, as of all that is measured once per epoch.
    """

    def __init__(self, module: NetworkArray, table: ProbeTable) -> None:
        self.module, self.table = module, table

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 0:  # else the run resumes, and has been measured where it stands
            self._measure(trainer, 0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._measure(trainer, trainer.current_epoch + 1)

    def _measure(self, trainer: Trainer, epoch: int) -> None:
        values = layers_values(self.module.nets[0], self.module.data.runs[0])
        self.table.add("layers", values, epoch=epoch, step=trainer.global_step, at=epoch)
        self.table.save()


class StepProbe(Callback):
    """`landscape` and `shift`: on the batches of up to 40 training steps, evenly over the run, as they are trained on.

    The shift is that of the step itself, W(t) to W(t+1): momentum, penalty, clipping and weight decay move the layers
    before as they do in training. TensorBoard's axis is steps.
    """

    def __init__(self, module: NetworkArray, table: ProbeTable) -> None:
        self.module, self.table = module, table
        self.settings = module.settings[0]
        self.at: set[int] = set()
        self.steps_per_epoch = 1.0
        self._pending: tuple[int, StepLoss, Weights] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        steps = int(trainer.estimated_stepping_batches)
        self.at = set(points(steps))
        self.steps_per_epoch = steps / (trainer.max_epochs or 1)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if step not in self.at:
            return
        images, labels = batch
        if isinstance(images, Gathered):
            images = self.module.data.pixels(images)
        model = self.module.models[0]
        loss = StepLoss(model.net, model.normalise(images[0]), labels[0])
        self.module.hold_masks(loss.net, len(labels[0]))  # type: ignore[arg-type]  # a copy of the model's
        if "landscape" in self.settings.probes:
            self._add("landscape", landscape_values(loss, loss.weights, self.settings.peak_lr), step)
        if "shift" in self.settings.probes:
            self._pending = step, loss, loss.weights

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self._pending is None:
            return
        (step, loss, before), self._pending = self._pending, None
        net = self.module.nets[0]
        after = {name: parameter.detach() for name, parameter in net.named_parameters()}
        self._add("shift", shift_values(loss, net, before, after), step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.table.save()

    def _add(self, probe: str, values: Sequence[Value], step: int) -> None:
        self.table.add(probe, values, epoch=step / self.steps_per_epoch, step=step, at=step)


def layers_values(net: Network, data: ImageData) -> list[Value]:
    """Return the rows of the probe `layers`, on the first training images in file order, without augmentation."""
    return layer_statistics(net, *data.inputs(data.train, slice(LAYER_IMAGES), net))


def landscape_values(loss: StepLoss, weights: Weights, lr: float) -> list[Value]:
    """Return the rows of the probe `landscape`, of the network as a whole."""
    return [("", *each) for each in along_gradient(loss, weights, [each * lr for each in LENGTHS]).items()]


def shift_values(loss: StepLoss, net: Network, before: Weights, after: Weights) -> list[Value]:
    """Return the rows of the probe `shift`: gradients are those of the convolutions, the layers before move whole."""
    measured = {layer: [name] for layer, name in convolutions(net).items()}
    found = covariate_shift(loss, before, after, parameters(net), measured)
    return [(layer, *each) for layer, values in found.items() for each in values.items()]


def statistics_values(net: Network, data: ImageData) -> list[Value]:
    """Return the rows of the probe `statistics`: accuracies of the network, errors of the running averages per layer.

    The precise statistics are those of training images as an epoch brings them, augmented by its draws; accuracies are
    measured without augmentation. Up to 10,000 images of each part are used, in an order drawn from the run's seed.
    Where no layer keeps running averages, all accuracies of a part are one: the control.
    """

    def some(part: ImageSubset, draws: torch.Tensor | None = None) -> Batch:
        """Return images in an order that has nothing to do with their classes."""
        where = torch.randperm(len(part), generator=torch.Generator().manual_seed(data.seed))[:MOST]
        images, labels = data.inputs(part, where, net, None if draws is None else draws[where])
        return images.contiguous(memory_format=torch.channels_last), labels

    seen, _ = some(data.train, epoch_draws(len(data.train), data.seed, 0))
    accuracies, errors = decompose(net, seen, some(data.train), some(data.test), data.batch_size)
    rows: list[Value] = [("", f"{name}_acc", value) for name, value in accuracies.items()]
    return rows + [(layer, f"error_{name}", value) for layer, of in errors.items() for name, value in of.items()]
