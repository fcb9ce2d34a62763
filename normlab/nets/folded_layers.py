"""How each kind of layer is applied to the folded maps of K networks, see `normlab.nets.folded`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from normlab.nets.convolutions import FilterConv2d, ScaledStandardisedConv2d, StandardisedConv2d, WeightNormConv2d
from normlab.nets.batch_norm import BatchNorm2d, batch_norm
from normlab.nets.batch_renorm import BatchRenorm2d, batch_renorm
from normlab.nets.ghost_norm import GhostBatchNorm2d, ghost_batch_norm
from normlab.nets.group_norm import InstanceNorm2d, group_norm
from normlab.nets.layer_norm import LayerNorm2d, layer_norm_2d
from normlab.nets.uncentred import (
    DynamicTanh2d,
    FilterResponseNorm2d,
    RMSNorm2d,
    dynamic_tanh,
    filter_response_norm,
    rms_norm,
)

__all__ = ["LAYERS", "Call", "each_alone", "fold", "unfold", "vmapped"]


def fold(maps: torch.Tensor) -> torch.Tensor:
    """(K, B, C, H, W) as (B, K · C, H, W), on CPU channels_last in memory: grouped convolutions are fastest in it."""
    if maps.device.type != "cpu":
        return maps.transpose(0, 1).flatten(1, 2)
    return maps.permute(1, 3, 4, 0, 2).flatten(3).contiguous().permute(0, 3, 1, 2)


def unfold(maps: torch.Tensor, networks: int) -> torch.Tensor:
    """(B, K · C, H, W) as (K, B, C, H, W), without a copy."""
    batch, channels, height, width = maps.shape
    return maps.view(batch, networks, channels // networks, height, width).transpose(0, 1)


@dataclass(frozen=True)
class Call:
    """A layer about to be applied: K sets of its numbers."""

    layer: Any
    parameters: dict[str, torch.Tensor]
    buffers: dict[str, torch.Tensor]
    networks: int
    training: bool

    def scales(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """γ and β over all channels, (K · C,); None without them."""
        return self.flat("weight"), self.flat("bias")

    def flat(self, name: str) -> torch.Tensor | None:
        """A parameter of all networks, one behind the other; None where the layer does not have it."""
        values = self.parameters.get(name)
        return None if values is None else values.flatten()

    def running(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Running means and variances over all channels, (K · C,): views, which move with their networks' buffers."""
        return self.buffers["running_mean"].view(-1), self.buffers["running_var"].view(-1)


def _conv(call: Call, x: torch.Tensor) -> torch.Tensor:
    return _convolve(call, call.parameters["weight"], x)


def _filter_conv(call: Call, x: torch.Tensor) -> torch.Tensor:
    assert isinstance(call.layer, FilterConv2d)
    return _convolve(call, call.layer.reparametrise(call.parameters["weight"], call.parameters.get("gain")), x)


def _convolve(call: Call, weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """`weight`: (K, O, C, k, k)."""
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


def _batch_norm(call: Call, x: torch.Tensor) -> torch.Tensor:
    layer, scales, running = call.layer, call.scales(), call.running()
    if not call.training:
        return F.batch_norm(x, *running, *scales, eps=layer.eps)
    call.buffers["num_batches_tracked"].add_(1)
    return batch_norm(x, *running, *scales, layer.momentum, layer.eps)


def _ghost_batch_norm(call: Call, x: torch.Tensor) -> torch.Tensor:
    if not call.training:
        return _batch_norm(call, x)
    layer = call.layer
    call.buffers["num_batches_tracked"].add_(1)
    return ghost_batch_norm(x, layer.virtual_batch_size, *call.running(), *call.scales(), layer.momentum, layer.eps)


def _batch_renorm(call: Call, x: torch.Tensor) -> torch.Tensor:
    if not call.training:
        return _batch_norm(call, x)
    layer, steps = call.layer, call.buffers["num_batches_tracked"]  # (K,)
    r_max, d_max = (limit.repeat_interleave(x.shape[1] // call.networks) for limit in layer.limits(steps))
    steps.add_(1)
    return batch_renorm(x, r_max, d_max, *call.running(), *call.scales(), layer.momentum, layer.eps)


def _group_norm(call: Call, x: torch.Tensor) -> torch.Tensor:
    return group_norm(x, call.networks * call.layer.num_groups, *call.scales(), call.layer.eps)


def _instance_norm(call: Call, x: torch.Tensor) -> torch.Tensor:
    return group_norm(x, x.shape[1], *call.scales(), call.layer.eps)


def _layer_norm(call: Call, x: torch.Tensor) -> torch.Tensor:
    """`nn.LayerNorm([C, H, W])`: γ and β for every position."""
    y = group_norm(x, call.networks, None, None, call.layer.eps)
    if "weight" in call.parameters:
        y = torch.addcmul(call.parameters["bias"].flatten(0, 1), y, call.parameters["weight"].flatten(0, 1))
    return y


def _rms_norm(call: Call, x: torch.Tensor) -> torch.Tensor:
    return rms_norm(x, call.networks, call.flat("weight"), call.layer.eps)


def _filter_response_norm(call: Call, x: torch.Tensor) -> torch.Tensor:
    return filter_response_norm(x, *call.scales(), call.flat("tau"), call.layer.eps)


def _dynamic_tanh(call: Call, x: torch.Tensor) -> torch.Tensor:
    alpha = call.parameters["alpha"].flatten().repeat_interleave(x.shape[1] // call.networks)
    return dynamic_tanh(x, alpha, *call.scales())


def vmapped(call: Call, x: torch.Tensor) -> torch.Tensor:
    """Any other layer, through `torch.func`."""
    call.layer.train(call.training)
    return fold(each_alone(call.layer, call.parameters, call.buffers, unfold(x, call.networks)))


def each_alone(
    module: nn.Module,
    parameters: Mapping[str, torch.Tensor],
    buffers: Mapping[str, torch.Tensor],
    inputs: torch.Tensor,
) -> torch.Tensor:
    """The outputs of K networks for inputs (K, N, ...), as if each called the module with numbers of its own.

    Raise what `torch.func.vmap` raises, such as for random numbers.
    """

    def alone(
        parameters: Mapping[str, torch.Tensor], buffers: Mapping[str, torch.Tensor], own: torch.Tensor
    ) -> torch.Tensor:
        return functional_call(module, (dict(parameters), dict(buffers)), (own,))  # type: ignore[no-any-return]

    return vmap(alone)(parameters, buffers, inputs)


# A layer's own class only: a class derived from one of these may compute something else.
LAYERS: dict[type[nn.Module], Callable[[Call, torch.Tensor], torch.Tensor]] = {
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
    StandardisedConv2d: _filter_conv,
    WeightNormConv2d: _filter_conv,
    ScaledStandardisedConv2d: _filter_conv,
    GhostBatchNorm2d: _ghost_batch_norm,
    BatchRenorm2d: _batch_renorm,
    nn.LayerNorm: _layer_norm,
    LayerNorm2d: lambda call, x: layer_norm_2d(x, call.networks, *call.scales(), call.layer.eps),
    RMSNorm2d: _rms_norm,
    FilterResponseNorm2d: _filter_response_norm,
    DynamicTanh2d: _dynamic_tanh,
}
