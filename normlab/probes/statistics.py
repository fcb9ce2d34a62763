"""Where batch norm's loss at small batches comes from: one trained network, scored with several sets of statistics.

With running averages (what eval mode uses), with precise statistics recomputed over training images, and with the
statistics of batches as small as those of training, on test and on training images.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from normlab.norms.about import About
from normlab.norms.layer import RunningStatistics
from normlab.norms.ops import moments

AT_ONCE = 1024  # images a forward pass, so many batches as fit

Population = Mapping[str, tuple[torch.Tensor, torch.Tensor]]  # layer -> mean and biased variance, (C,) each


def averaging_layers(net: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that normalize by running means and variances per channel in eval mode, by name: batch norm,
    ghost batch norm and batch renormalization. `_averages` has the averages of one."""
    return {name: layer for name, layer, known in _averaging(net) if known}


def knows_batches(net: nn.Module) -> bool:
    """Whether `log_probs_of` gives all layers that keep running averages the statistics of the batch: not where
    one averages something else, such as `l1bn`."""
    return all(known for _, _, known in _averaging(net))


def _averaging(net: nn.Module) -> Iterator[tuple[str, nn.Module, bool]]:
    """Yield each layer that keeps running averages, and whether they are means and variances per channel."""
    for name, layer in net.named_modules():
        if type(layer) is not RunningStatistics and (averages := _averages(layer)) is not None:
            about = getattr(layer, "about", None)
            known = about is None or (about.axes in (("NHW",), ("VHW",)) and about.statistic == About.statistic)
            yield name, layer, known and averages.running_mean is not None


def _averages(layer: nn.Module) -> nn.BatchNorm2d | None:
    """The module that holds a layer's running averages: itself, or a part of it; None where there is none."""
    holder = layer if isinstance(layer, nn.BatchNorm2d) else getattr(layer, "running", None)
    return holder if isinstance(holder, nn.BatchNorm2d) else None


@torch.no_grad()
def population(net: nn.Module, images: torch.Tensor, size: int = AT_ONCE) -> Population:
    """Precise statistics of every averaging layer over images (N, C, H, W), which go through in batches of `size`.

    Each batch is normalized by its own statistics, as while training; over batches μ = mean of μ_B and
    σ² = mean of (σ_B² + μ_B²) - μ², weighted by the number of images. Source: Wu & Johnson 2021, "Rethinking 'Batch' in
    BatchNorm", section 3.1. Nothing of the network changes.
    """
    sums: dict[str, list[torch.Tensor]] = {}

    def note(name: str, x: torch.Tensor) -> None:
        mean, var = (each.flatten() for each in moments(x.double(), [0, 2, 3]))
        found = [mean * len(x), (var + mean.square()) * len(x)]
        sums[name] = [a + b for a, b in zip(sums[name], found, strict=True)] if name in sums else found

    layers = averaging_layers(net)
    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.enter_context(layer.register_forward_pre_hook(lambda _, given, name=name: note(name, given[0])))
        log_probs_of(net, images, size)
    found = {}
    for name, (mean, square) in sums.items():
        mean, square = mean / len(images), square / len(images)
        dtype = next(net.parameters()).dtype
        found[name] = (mean.to(dtype), (square - mean.square()).clamp_min(0).to(dtype))
    return found


@torch.no_grad()
def log_probs_of(net: nn.Module, images: torch.Tensor, size: int = 0) -> torch.Tensor:
    """Log-probabilities (N, classes) in eval mode; with `size`, by the statistics of batches of that many, in order.

    Images that are left over make a smaller last batch. Ghost batch norm takes its own size where that is smaller.
    """
    training = net.training
    net.eval()
    try:
        with ExitStack() as stack:
            for layer in averaging_layers(net).values() if size else ():
                stack.enter_context(layer.register_forward_hook(partial(_by_own_statistics, size)))
            some = max(1, AT_ONCE // size) * size if size else AT_ONCE
            return torch.cat([net(part) for part in torch.split(images, some)])
    finally:
        net.train(training)


def _by_own_statistics(size: int, layer: Any, given: tuple[torch.Tensor], _: torch.Tensor) -> torch.Tensor:
    """Return what a layer gives that normalizes every `size` images by their own statistics."""
    [x], parts = given, []
    size = min(size, getattr(layer, "virtual_batch_size", size))
    whole = len(x) // size * size
    for some in (x[:whole].view(-1 if whole else 0, size, *x.shape[1:]), x[None, whole:]):
        if some.numel():
            mean, var = moments(some, [1, 3, 4])
            parts.append(((some - mean) * (var + layer.eps).rsqrt()).flatten(0, 1))
    y = torch.cat(parts)
    return y if layer.weight is None else torch.addcmul(layer.bias[:, None, None], y, layer.weight[:, None, None])


@contextmanager
def with_statistics(net: nn.Module, wanted: Population) -> Iterator[None]:
    """The network with other statistics in the place of its running averages, which come back in the end."""
    layers = averaging_layers(net)
    averages = {name: _averages(layer) for name, layer in layers.items()}
    kept = {name: (each.running_mean.clone(), each.running_var.clone()) for name, each in averages.items()}  # type: ignore[union-attr]
    try:
        _set(averages, wanted)
        yield
    finally:
        _set(averages, kept)


@torch.no_grad()
def _set(layers: Mapping[str, Any], statistics: Population) -> None:
    for name, layer in layers.items():
        mean, var = statistics[name]
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(var)


def running_error(net: nn.Module, precise: Population) -> dict[str, dict[str, float]]:
    """How far each layer's running averages are from the precise statistics, over its channels:

    - "mean": root mean square of (running μ - μ) / σ, in standard deviations.
    - "log_var": root mean square of ln((running σ² + ε) / (σ² + ε)): 0.1 is 10 %, either way.
    """
    found = {}
    for name, layer in averaging_layers(net).items():
        mean, var = (values.double() for values in precise[name])
        averages: Any = _averages(layer)
        running_mean, running_var = averages.running_mean.double(), averages.running_var.double()
        eps = float(layer.eps)  # type: ignore[arg-type]  # of every such layer
        off = (running_mean - mean) / (var + eps).sqrt()
        ratio = ((running_var + eps) / (var + eps)).log()
        found[name] = {"mean": off.square().mean().sqrt().item(), "log_var": ratio.square().mean().sqrt().item()}
    return found


def decompose(
    net: nn.Module,
    seen: torch.Tensor,
    train: tuple[torch.Tensor, torch.Tensor],
    test: tuple[torch.Tensor, torch.Tensor],
    size: int,
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """A trained network's accuracies, in [0, 1], under several statistics; and `running_error` of each layer.

    - "test_running", "train_running": eval mode, as a network is used.
    - "test_precise", "train_precise": eval mode with the statistics of `population` over `seen`.
    - "test_batch", "train_batch": the statistics of batches of `size` images, in the order given: train mode.

    Only the first two where a layer keeps averages of another kind, such as those of `l1bn`.

    Args:
        seen: images as training sees them, augmented, (M, 1, 28, 28).
        train, test: images and labels, without augmentation, in an order that does not sort them by class.
        size: of the batches in training.
    """
    precise = population(net, seen)
    found: dict[str, float] = {}
    for part, (images, labels) in {"test": test, "train": train}.items():
        found[f"{part}_running"] = _accuracy(log_probs_of(net, images), labels)
        if knows_batches(net):
            with with_statistics(net, precise):
                found[f"{part}_precise"] = _accuracy(log_probs_of(net, images), labels)
            found[f"{part}_batch"] = _accuracy(log_probs_of(net, images, size), labels)
    return found, running_error(net, precise)


def _accuracy(log_prob: torch.Tensor, labels: torch.Tensor) -> float:
    return (log_prob.argmax(1) == labels).double().mean().item()
