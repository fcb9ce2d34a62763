"""The probe `statistics`: what a run's network scores with other statistics than its running averages."""

import torch

from normlab.data.augment import rotate_and_shift
from normlab.data.datamodule import Batch, ImageData, Part, epoch_draws
from normlab.nets import Network
from normlab.probes.layers import Value
from normlab.probes.statistics import decompose

__all__ = ["MOST", "statistics_values"]

MOST = 10_000  # images of a part at most: an accuracy's standard error is then below 0.1 points where it is above 99 %


def statistics_values(net: Network, data: ImageData) -> list[Value]:
    """The rows of the probe: accuracies of the network, errors of the running averages a layer.

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
    """Which images, in an order that has nothing to do with their classes."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:MOST]


def _as_input(data: ImageData, part: Part, where: torch.Tensor, net: Network) -> Batch:
    """Images and labels where and as the network takes them."""
    like = next(net.parameters())
    images, labels = (values[part.where[where]] for values in part.pool)
    pixels = (images.to(like.device, like.dtype) / 255 - data.mean) / data.std
    return pixels.contiguous(memory_format=torch.channels_last), labels.to(like.device)
