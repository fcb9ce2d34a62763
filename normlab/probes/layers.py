"""What the layers of a network do with one batch: their outputs, weights and gradients in a few numbers each."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.functional import nll_loss

from normlab.nets import Net
from normlab.probes.loss import kept_random_state

__all__ = ["Value", "convolutions", "dead_share", "layer_statistics", "moments", "parameters", "stable_rank"]

Value = tuple[str, str, float]  # layer, quantity, value
TERMS = {"weight": "gamma", "bias": "beta"}  # what torch calls a norm's parameters -> what papers call them


def convolutions(net: Net) -> dict[str, str]:
    """The weight of each layer's convolution by the layer's name ("block1", …, "squeeze", …, "head"), in the order of
    the forward pass: what the networks of all norms have in common."""
    layers = {name: layer for name, layer in net.in_order() if isinstance(layer, nn.Conv2d)}
    return {name.partition(".")[0]: f"{name}.weight" for name in layers}


def parameters(net: Net) -> dict[str, list[str]]:
    """All parameters of each layer, its convolution's and its norm's, by the layer's name, in order."""
    found: dict[str, list[str]] = {layer: [] for layer in convolutions(net)}
    for name, _ in net.named_parameters():
        found[name.partition(".")[0]].append(name)
    return found


def moments(values: torch.Tensor) -> dict[str, float]:
    """Mean μ, standard deviation sqrt(m₂) and skewness m₃ / m₂^(3/2) of all numbers, with m_k = mean((x - μ)^k).

    The skewness of numbers that are all the same is NaN.
    """
    mean = values.mean()
    centred = values - mean
    squared = centred.square()
    second, third = squared.mean(), (squared * centred).mean()
    return {"mean": float(mean), "sd": float(second.sqrt()), "skew": float(third / second**1.5)}


def dead_share(maps: torch.Tensor) -> float:
    """Share in [0, 1] of the channels of (N, C, H, W) that are 0 for every image at every position."""
    return float((maps == 0).all(3).all(2).all(0).double().mean())


def stable_rank(weight: torch.Tensor) -> float:
    """‖W‖_F² / ‖W‖₂² of a convolution's weights (O, I, k, k) as a matrix W (O, I·k·k): between 1 and its rank; NaN
    where W is 0. Source: Rudelson & Vershynin 2007, "Sampling from large matrices", section 1."""
    matrix = weight.detach().double().flatten(1)
    if not matrix.isfinite().all():
        return float("nan")
    return float(matrix.square().sum() / torch.linalg.matrix_norm(matrix, 2) ** 2)


def layer_statistics(net: Net, images: torch.Tensor, labels: torch.Tensor) -> list[Value]:
    """Every layer in numbers, on one batch, in training mode without dropout, from a copy of the network.

    - `relu_mean`, `relu_sd`, `relu_skew`, `norm_mean`, …: `moments` of what ReLU and norm put out, over (N, C, H, W).
    - `dead`: `dead_share` of what ReLU puts out.
    - `weight_norm` (‖W‖_F), `stable_rank`, `gradient_norm`: of the convolution's weights; the gradient is that of the
      batch's cross-entropy.
    - `gamma_mean`, `gamma_sd`, `beta_mean`, …: over the numbers of a norm's γ, β or other parameters.
    """
    net = copy.deepcopy(net).train()
    values: list[Value] = []
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    for name, module in net.in_order():
        layer, _, part = name.partition(".")
        if part in ("relu", "norm"):
            module.register_forward_hook(_watch(layer, part, values))
    weights = dict(net.named_parameters())
    of = convolutions(net)
    with torch.enable_grad(), kept_random_state(images.device):
        ce = nll_loss(net(images), labels)
        gradients = torch.autograd.grad(ce, [weights[name] for name in of.values()])
    for (layer, name), gradient in zip(of.items(), gradients, strict=True):
        values.append((layer, "weight_norm", float(weights[name].detach().double().norm())))
        values.append((layer, "stable_rank", stable_rank(weights[name])))
        values.append((layer, "gradient_norm", float(gradient.double().norm())))
    for name, norm in net.norm_layers().items():
        for parameter, numbers in norm.named_parameters():
            term = TERMS.get(parameter, parameter)
            found = moments(numbers.detach().double())
            values += [(name.partition(".")[0], f"{term}_{key}", found[key]) for key in ("mean", "sd")]
    order = list(of)
    return sorted(values, key=lambda value: order.index(value[0]))


def _watch(
    layer: str, part: str, values: list[Value]
) -> Callable[[nn.Module, Sequence[torch.Tensor], torch.Tensor], None]:
    def hook(_: nn.Module, __: Sequence[torch.Tensor], maps: torch.Tensor) -> None:
        maps = maps.detach()
        values.extend((layer, f"{part}_{key}", value) for key, value in moments(maps).items())
        if part == "relu":
            values.append((layer, "dead", dead_share(maps)))

    return hook
