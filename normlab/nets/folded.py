"""Many networks in one forward pass: their channels lie side by side, and grouped convolutions keep them apart.

K networks with maps (B, C, H, W) each are one network with maps (B, K · C, H, W) whose convolutions have K groups, in
the manner of HFTA (Wang et al. 2021, "Horizontally Fused Training Array"). Norms fold in the same way: group norm has K
times the groups, batch norm K times the channels. Nothing of one network ever reaches another: not in a sum, not as a
product with zero, so that a network which diverges to nan leaves its neighbours as they are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from normlab.nets.batch_norm import BatchNorm2d, batch_norm
from normlab.nets.dropout import Dropout
from normlab.nets.group_norm import InstanceNorm2d, group_norm
from normlab.nets.net import Net

__all__ = ["LAYERS", "Numbers", "apply", "fold", "log_probs", "unfold"]

Masks = Callable[[torch.Tensor], torch.Tensor]  # folded maps -> a dropout mask of their shape


@dataclass(frozen=True)
class Numbers:
    """Parameters and buffers of K networks, by name: (K, …). Buffers change in place where a layer changes them."""

    parameters: Mapping[str, torch.Tensor]
    buffers: Mapping[str, torch.Tensor]

    def of(self, layer: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Those of one layer, by their names within it."""
        prefix = f"{layer}."
        return tuple(  # type: ignore[return-value]  # two of them
            {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
            for values in (self.parameters, self.buffers)
        )


def fold(maps: torch.Tensor) -> torch.Tensor:
    """(K, B, C, H, W) as (B, K · C, H, W), on CPU channels_last in memory: grouped convolutions are fastest in it."""
    if maps.device.type != "cpu":
        return maps.transpose(0, 1).flatten(1, 2)
    return maps.permute(1, 3, 4, 0, 2).flatten(3).contiguous().permute(0, 3, 1, 2)


def unfold(maps: torch.Tensor, networks: int) -> torch.Tensor:
    """(B, K · C, H, W) as (K, B, C, H, W), without a copy."""
    batch, channels, height, width = maps.shape
    return maps.view(batch, networks, channels // networks, height, width).transpose(0, 1)


def log_probs(
    net: Net, numbers: Numbers, images: torch.Tensor, *, training: bool, masks: Masks | None = None
) -> torch.Tensor:
    """What K networks say to their own images: log-probabilities (K, B, 10) for (K, B, 1, 28, 28).

    Args:
        net: of the networks' shape; its own numbers are not used.
        numbers: theirs. In training, batch norm moves the running statistics in `numbers.buffers` in place.
        masks: gives the dropout masks while training; None: no dropout.
    """
    networks = len(images)
    x = fold(images)
    for name, layer in net.in_order():
        if isinstance(layer, Dropout):
            x = x * masks(x) if training and masks is not None else x
        else:
            x = apply(layer, *numbers.of(name), x, networks, training=training)
    return F.log_softmax(x.view(x.shape[0], networks, -1), dim=2).transpose(0, 1)


def apply(
    layer: nn.Module,
    parameters: dict[str, torch.Tensor],
    buffers: dict[str, torch.Tensor],
    x: torch.Tensor,
    networks: int,
    *,
    training: bool,
) -> torch.Tensor:
    """One layer on folded maps: each of K networks with its own numbers, (K, …) a name.

    `LAYERS` says how; what is not in it goes through `torch.func`, and may raise what that raises.
    """
    return LAYERS.get(type(layer), _vmapped)(_Call(layer, parameters, buffers, networks, training), x)


@dataclass(frozen=True)
class _Call:
    """A layer about to be applied: K sets of its numbers."""

    layer: Any
    parameters: dict[str, torch.Tensor]
    buffers: dict[str, torch.Tensor]
    networks: int
    training: bool

    def scales(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """γ and β over all channels, (K · C,); None without them."""
        weight, bias = self.parameters.get("weight"), self.parameters.get("bias")
        return (None if weight is None else weight.flatten()), (None if bias is None else bias.flatten())


def _conv(call: _Call, x: torch.Tensor) -> torch.Tensor:
    weight = call.parameters["weight"]  # (K, O, C, k, k)
    cpu = x.device.type == "cpu"
    if cpu and call.networks > 1 and weight.shape[-1] == 1:
        # A 1x1 convolution is a matrix product a network; as a grouped convolution it takes three times as long.
        batch, _, height, width = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(-1, call.networks, weight.shape[2]).transpose(0, 1)  # (K, pixels, C)
        out = torch.bmm(pixels, weight.flatten(2).transpose(1, 2))
        return out.transpose(0, 1).reshape(batch, height, width, -1).permute(0, 3, 1, 2)
    weight = weight.flatten(0, 1)
    if cpu:  # a clone: `contiguous` would leave the strides of a single channel as they are, and the maps follow those
        weight = weight.clone(memory_format=torch.channels_last)
    return F.conv2d(x, weight, stride=call.layer.stride, padding=call.layer.padding, groups=call.networks)


def _batch_norm(call: _Call, x: torch.Tensor) -> torch.Tensor:
    layer, (weight, bias) = call.layer, call.scales()
    mean, var = (call.buffers[name].view(-1) for name in ("running_mean", "running_var"))
    if not call.training:
        return F.batch_norm(x, mean, var, weight, bias, eps=layer.eps)
    call.buffers["num_batches_tracked"].add_(1)
    return batch_norm(x, mean, var, weight, bias, layer.momentum, layer.eps)


def _group_norm(call: _Call, x: torch.Tensor) -> torch.Tensor:
    return group_norm(x, call.networks * call.layer.num_groups, *call.scales(), call.layer.eps)


def _instance_norm(call: _Call, x: torch.Tensor) -> torch.Tensor:
    return group_norm(x, x.shape[1], *call.scales(), call.layer.eps)


def _vmapped(call: _Call, x: torch.Tensor) -> torch.Tensor:
    """Any other layer, through `torch.func`: as if each network called it with numbers of its own."""
    call.layer.train(call.training)

    def alone(
        parameters: dict[str, torch.Tensor], buffers: dict[str, torch.Tensor], maps: torch.Tensor
    ) -> torch.Tensor:
        return functional_call(call.layer, (parameters, buffers), (maps,))  # type: ignore[no-any-return]

    return fold(vmap(alone)(call.parameters, call.buffers, unfold(x, call.networks)))


# A layer's own class only: a class derived from one of these may compute something else.
LAYERS: dict[type[nn.Module], Callable[[_Call, torch.Tensor], torch.Tensor]] = {
    nn.Conv2d: _conv,
    nn.ReLU: lambda _, x: F.relu(x),
    nn.MaxPool2d: lambda call, x: F.max_pool2d(x, call.layer.kernel_size),
    nn.AdaptiveAvgPool2d: lambda call, x: F.adaptive_avg_pool2d(x, call.layer.output_size),
    nn.Flatten: lambda _, x: x.flatten(1),
    nn.LogSoftmax: lambda _, x: x,  # over the classes of each network, at the end
    nn.Identity: lambda _, x: x,
    BatchNorm2d: _batch_norm,
    nn.GroupNorm: _group_norm,
    InstanceNorm2d: _instance_norm,
}
