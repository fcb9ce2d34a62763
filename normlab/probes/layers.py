"""The layers of a network on one batch: their outputs, weights and gradients in a few numbers each."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.functional import nll_loss

from normlab.nets import Network, in_order, norm_layers
from normlab.probes.gradients import kept_random_state

Value = tuple[str, str, float]  # layer, quantity, value
TERMS = {"weight": "gamma", "bias": "beta"}  # torch's names of a norm's parameters -> those of papers


def convolutions(net: Network) -> dict[str, str]:
    """Return the name of each convolution's weight by its layer's label, in the order of the forward pass: what the
    networks of all norms have in common. In the small network a layer is a stage: "block1", ..., "squeeze", ...
    """
    return {net.label(name): f"{name}.weight" for name, layer in in_order(net) if isinstance(layer, nn.Conv2d)}


def parameters(net: Network) -> dict[str, list[str]]:
    """Return all parameters that move with each convolution, by its label: its own, and those of the layers behind it
    up to the next convolution."""
    names = dict(net.named_parameters())
    found: dict[str, list[str]] = {}
    for name, layer in in_order(net):
        own = [f"{name}.{parameter}" for parameter, _ in layer.named_parameters()]
        if isinstance(layer, nn.Conv2d):
            found[net.label(name)] = own
        elif found:
            found[[*found][-1]] += own
    return {label: [name for name in own if name in names] for label, own in found.items()}


def moments(values: torch.Tensor) -> dict[str, float]:
    """Return mean μ, standard deviation sqrt(m₂) and skewness m₃ / m₂^(3/2) of all numbers, with m_k = mean((x - μ)^k).

    The skewness of numbers that are all the same is NaN.
    """
    mean = values.mean()
    centred = values - mean
    squared = centred.square()
    second, third = squared.mean(), (squared * centred).mean()
    return {"mean": float(mean), "sd": float(second.sqrt()), "skew": float(third / second**1.5)}


def dead_share(maps: torch.Tensor) -> float:
    """Return the share in [0, 1] of the channels of (N, C, H, W) that are 0 for every image at every position."""
    return float((maps == 0).all(3).all(2).all(0).double().mean())


def stable_rank(weight: torch.Tensor) -> float:
    """Return ‖W‖_F² / ‖W‖₂² of a convolution's weights (O, I, k, k) as a matrix W (O, I·k·k): between 1 and its rank;
    NaN where W is 0. Source: Rudelson & Vershynin 2007, "Sampling from large matrices", section 1."""
    matrix = weight.detach().double().flatten(1)
    if not matrix.isfinite().all():
        return float("nan")
    return float(matrix.square().sum() / torch.linalg.matrix_norm(matrix, 2) ** 2)


def layer_statistics(net: Network, images: torch.Tensor, labels: torch.Tensor) -> list[Value]:
    """Return every layer in numbers, on one batch, in training mode without dropout, from a copy of the network.

    - `relu_mean`, `relu_sd`, `relu_skew`, `norm_mean`, ...: `moments` of the outputs of ReLU and norm.
    - `dead`: `dead_share` of the output of ReLU.
    - `weight_norm` (‖W‖_F), `stable_rank`, `gradient_norm`: of the convolution's weights; the gradient is that of the
      batch's cross-entropy.
    - `gamma_mean`, `gamma_sd`, `beta_mean`, ...: over the numbers of a norm's γ, β or other parameters.

    A layer that is called several times is measured at its first call.
    """
    net = copy.deepcopy(net).train()
    values: dict[tuple[str, str], float] = {}
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    for name, layer in in_order(net):
        part = "norm" if name in net.norms else "relu" if isinstance(layer, nn.ReLU) else None
        if part is not None:
            layer.register_forward_hook(_watch(net.label(name), part, values))
    weights = dict(net.named_parameters())
    of = convolutions(net)
    with torch.enable_grad(), kept_random_state(images.device):
        ce = nll_loss(net(images), labels)
        gradients = torch.autograd.grad(ce, [weights[name] for name in of.values()])
    for (label, name), gradient in zip(of.items(), gradients, strict=True):
        values[label, "weight_norm"] = float(weights[name].detach().double().norm())
        values[label, "stable_rank"] = stable_rank(weights[name])
        values[label, "gradient_norm"] = float(gradient.double().norm())
    for name, norm in norm_layers(net).items():
        for parameter, numbers in norm.named_parameters():
            term, summary = TERMS.get(parameter, parameter), moments(numbers.detach().double())
            values |= {(net.label(name), f"{term}_{key}"): summary[key] for key in ("mean", "sd")}
    order = [*dict.fromkeys(net.label(name) for name in net.order)]
    return sorted(((*key, value) for key, value in values.items()), key=lambda value: order.index(value[0]))


def _watch(
    label: str, part: str, values: dict[tuple[str, str], float]
) -> Callable[[nn.Module, Sequence[torch.Tensor], torch.Tensor], None]:
    def hook(_: nn.Module, __: Sequence[torch.Tensor], maps: torch.Tensor) -> None:
        if (label, f"{part}_mean") in values:
            return
        maps = maps.detach()
        values.update({(label, f"{part}_{key}"): value for key, value in moments(maps).items()})
        if part == "relu":
            values[label, "dead"] = dead_share(maps)

    return hook
