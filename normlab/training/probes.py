"""Probes: during training, as Lightning callbacks, and afterwards on a checkpoint."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from pydantic import ValidationError

from normlab.data.augment import rotate_and_shift
from normlab.data.datamodule import Batch, ImageData, Part, epoch_draws, epoch_order
from normlab.errors import ConfigError, NormlabError
from normlab.kernels import Gathered
from normlab.nets import Network
from normlab.probes.landscape import LENGTHS, along_gradient
from normlab.probes.layers import Value, convolutions, layer_statistics, parameters
from normlab.probes.loss import StepLoss, Weights, gradient
from normlab.probes.points import points
from normlab.probes.shift import covariate_shift
from normlab.probes.statistics import decompose
from normlab.randomness import Stream, stream_seed
from normlab.record import ProbeRow, Record, read_probes, write_probes
from normlab.settings import Settings
from normlab.training.build import initial_model
from normlab.training.classifier import foreign_code
from normlab.training.device import restore_process
from normlab.training.files import ProbeTable
from normlab.training.networks import Networks

__all__ = [
    "MOST",
    "probe_callbacks",
    "probe_checkpoint",
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


@restore_process()
def probe_checkpoint(folder: Path, probes: Sequence[str], targets: Sequence[str] = ()) -> list[ProbeRow]:
    """Measure the network of last.ckpt on the CPU, write the rows to the run's probes.csv and return them.

    The batch of `landscape` and `shift` is the first that one more epoch would bring, augmented as that would be, with
    its dropout. There is no step from which W(t+1) could be had: `shift` takes a plain one, W - lr·∇L, with the run's
    peak learning rate. In probes.csv the rows take the place of those of the same probe at the same step, which an
    earlier call left or, for `layers`, the end of training; all others stay.

    targets: the layer of a run with norm=custom, and other code that its network has. No file says what code is run:
    the caller does.

    Raises `NormlabError`, in one line, where the folder holds no run, no checkpoint or images are missing.
    """
    settings, data, net, step = _trained(folder, targets)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)  # the last bits are those of training
    epoch = step / -(-len(data.train) // settings.batch_size)
    rows: list[ProbeRow] = []
    if "layers" in probes:
        values = layer_statistics(net, *first_images(data, net))
        rows += [(epoch, step, "layers", *value) for value in values]
    if "landscape" in probes or "shift" in probes:
        torch.manual_seed(stream_seed(Stream.DROPOUT, settings.seed, round(epoch)))
        loss = StepLoss(net, *_next_batch(settings, data, net, round(epoch)))
        weights, lr = loss.weights, settings.peak_lr
        if "landscape" in probes:
            rows += [(epoch, step, "landscape", *value) for value in landscape_values(loss, weights, lr)]
        if "shift" in probes:
            _, found = gradient(loss, weights)
            after = {name: values - lr * found[name] for name, values in weights.items()}
            rows += [(epoch, step, "shift", *value) for value in shift_values(loss, net, weights, after)]
    if "statistics" in probes:
        rows += [(epoch, step, "statistics", *value) for value in statistics_values(net, data)]
    kept = [row for row in read_probes(folder) if row[1] != step or row[2] not in probes]
    try:
        write_probes(folder, [*kept, *rows])
    except OSError as error:
        raise NormlabError(f"{folder}: nothing can be written there ({error.strerror}): copy the run") from None
    return rows


def _trained(folder: Path, targets: Sequence[str]) -> tuple[Settings, ImageData, Network, int]:
    """Return a run's settings, its images, its network after the last epoch that was saved, the number of its steps."""
    record = Record.find(folder)
    if record is None:
        raise NormlabError(f"{folder} holds no run (no result.json in it): python -m normlab.train makes one")
    file = folder / "last.ckpt"
    if not file.is_file():
        raise NormlabError(f"{folder} holds no last.ckpt: train its run again with force=true")
    # before the settings are read, which looks for the code that they name
    if foreign := foreign_code([record.config.get("norm"), record.config.get("net")], targets):
        named = " ".join(f"--target {each}" for each in foreign)
        raise ConfigError(f"{folder} was trained with code of its own, which would run: name it, as in {named}")
    try:
        settings = Settings.model_validate(dict(record.config))
    except ValidationError as error:
        first = error.errors()[0]
        told = f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
        raise ConfigError(f"{folder}/result.json: {told}: train its run again with force=true") from None
    data = ImageData.of(settings)
    data.setup()
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
        step = int(found["global_step"])
        model = initial_model(settings, data)
        if settings.precision == "64-true":
            model.double()
        model.load_state_dict(found["state_dict"])
    except Exception as error:  # a damaged file, or a user's own norm that is not there any more, may raise anything
        told = next(iter(str(error).splitlines()), type(error).__name__)
        raise NormlabError(f"{file} cannot be loaded ({told}): train its run again with force=true") from None
    return settings, data, model.net, step


def _next_batch(settings: Settings, data: ImageData, net: Network, epoch: int) -> Batch:
    """Return the first training batch of an epoch."""
    where = data.train.where[epoch_order(len(data.train), settings.seed, epoch)[: settings.batch_size]]
    pixels = data.train.pool[0][where].to(next(net.parameters()).dtype) / 255
    if data.rotation or data.shift:
        draws = epoch_draws(len(data.train), settings.seed, epoch)[: len(where)].to(pixels)
        pixels = rotate_and_shift(pixels, draws, rotation=data.rotation, shift=data.shift)
    return (pixels - data.mean) / data.std, data.train.pool[1][where]
