"""Many networks in one forward pass.

K small networks with maps (B, C, H, W) each are one with maps (B, K · C, H, W) whose convolutions have K groups, in
the manner of HFTA (Wang et al. 2021, "Horizontally Fused Training Array"). A norm of the catalogue takes the maps as
(B, K, C, H, W) and its numbers as (K, ...). Nothing of one network ever reaches another: not in a sum, not as a product
with zero, so that a network which diverges to nan leaves its neighbours as they are. A custom layer, and any
other network, goes through `torch.func.vmap`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from normlab.nets.layers import CONVOLUTIONS, Dropout, FilterConv2d
from normlab.nets.net import Net
from normlab.nets.network import Network, in_order
from normlab.norms import is_packaged

Masks = Callable[[torch.Tensor], torch.Tensor]  # folded maps -> a dropout mask of their shape
Named = Mapping[str, torch.Tensor]
LINE = 64  # bytes: the longest vectors, and where torch's memory begins

# layers without numbers that treat every channel alone; each layer's own class only, since a class derived from one may
# compute something else
BY_CHANNEL = {nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Identity}


class Stack:
    """K networks of one shape as few tensors, so that one operation moves all of them.

    Attributes:
        parameters: (K, P), one row per network, its parameters in the order of `named_parameters()`. The filters of a
            convolution lie in a row as channels_last has them in memory.
        grads: (K, P), their gradients; zeros at first.
        buffers: by name, (K, …): running statistics and counters.
        shapes: of the parameters of one network, by name.
    """

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        shapes = [{name: value.shape for name, value in net.state_dict().items()} for net in nets]
        if any(shape != shapes[0] for shape in shapes):
            raise ValueError("only networks of one shape can be stacked")
        self.shapes = {name: parameter.shape for name, parameter in nets[0].named_parameters()}
        with torch.no_grad():
            self.parameters = _aligned([self.row(net.parameters()) for net in nets])
            self.buffers = {
                name: torch.stack([dict(net.named_buffers())[name] for net in nets])
                for name, _ in nets[0].named_buffers()
            }
        self.grads = _aligned([torch.zeros_like(row) for row in self.parameters])

    @staticmethod
    def row(values: Iterable[torch.Tensor]) -> torch.Tensor:
        """Return the numbers of one network's parameters, or of what has their shapes, as a row has them: (P,)."""
        flat = [(each.permute(0, 2, 3, 1) if each.dim() == 4 else each).flatten() for each in values]
        return torch.cat(flat) if flat else torch.zeros(0)

    def named(self, values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return rows such as those of `parameters`, (K, P), by parameter: (K, *shape), as views. Autograd goes through
        it."""
        parts = torch.split(values, [shape.numel() for shape in self.shapes.values()], dim=1)
        return {name: _shaped(part, shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def own(self, nets: Sequence[nn.Module]) -> None:
        """Let the networks share this memory: their parameters, gradients and buffers become views into it, so that
        what changes the one changes the other."""
        weights, grads = self.named(self.parameters), self.named(self.grads)
        for index, net in enumerate(nets):
            for name, parameter in net.named_parameters():
                parameter.data = weights[name][index]
                parameter.grad = grads[name][index] if parameter.requires_grad else None
            for name, buffer in net.named_buffers():
                buffer.data = self.buffers[name][index]


def _aligned(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return rows as one tensor (K, P), each beginning where a vector of the processor may: some of torch's operations
    round otherwise elsewhere, and a network's bits would depend on its place in the array."""
    numbers, of_line = len(rows[0]), LINE // rows[0].itemsize
    room = rows[0].new_zeros(len(rows), -(-numbers // of_line) * of_line)
    return room[:, :numbers].copy_(torch.stack(list(rows)))


def _shaped(part: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    if len(shape) != 4:
        return part.view(len(part), *shape)
    filters, channels, height, width = shape
    return part.view(len(part), filters, height, width, channels).permute(0, 1, 4, 2, 3)


@dataclass(frozen=True)
class StackedState:
    """Parameters and buffers of K networks, by name: (K, ...). Buffers change in place where a layer changes them."""

    parameters: Named
    buffers: Named

    def of(self, layer: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Those of one layer, by their names within it."""
        prefix = f"{layer}."
        return tuple(  # type: ignore[return-value]  # two of them
            {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
            for values in (self.parameters, self.buffers)
        )


def log_probs(
    net: Network, numbers: StackedState, images: torch.Tensor, *, training: bool, masks: Masks | None = None
) -> torch.Tensor:
    """Return the log-probabilities of K networks for their own images: (K, B, num_classes) for (K, B, C, H, W).

    Args:
        net: of the networks' shape; its own numbers are not used.
        numbers: theirs. In training, batch norm moves the running statistics in `numbers.buffers` in place.
        masks: gives the dropout masks of small networks while training; None: no dropout.
    """
    if not isinstance(net, Net):
        return each_alone(net, numbers.parameters, numbers.buffers, images, training=training)
    networks = len(images)
    x = fold(images)
    for name, layer in in_order(net):
        if isinstance(layer, Dropout):
            x = x * masks(x) if training and masks is not None else x
        elif not isinstance(layer, nn.LogSoftmax):  # over the classes of each network, below
            x = apply(layer, *numbers.of(name), x, networks, training=training)
    return F.log_softmax(x.view(x.shape[0], networks, -1), dim=2).transpose(0, 1)


def apply(
    layer: nn.Module, parameters: Named, buffers: Named, x: torch.Tensor, networks: int, *, training: bool
) -> torch.Tensor:
    """Apply one layer to folded maps, for each of K networks with its own numbers, (K, ...) by name."""
    if type(layer) in BY_CHANNEL:
        return layer(x)  # type: ignore[no-any-return]  # nn.Module's call is untyped
    if type(layer) in CONVOLUTIONS.values():
        assert isinstance(layer, nn.Conv2d)
        weight = parameters["weight"]
        if isinstance(layer, FilterConv2d):
            weight = layer.reparametrise(weight, parameters.get("gain"))
        return _convolve(layer, weight, x, networks)
    if is_packaged(layer):
        layer.train(training)
        maps = x.unflatten(1, (networks, -1))  # type: ignore[no-untyped-call]
        return functional_call(layer, (dict(parameters), dict(buffers)), (maps,)).flatten(1, 2)  # type: ignore[no-any-return]
    return fold(each_alone(layer, parameters, buffers, unfold(x, networks), training=training))


def each_alone(
    module: nn.Module, parameters: Named, buffers: Named, inputs: torch.Tensor, *, training: bool
) -> torch.Tensor:
    """Return the outputs of K networks for inputs (K, N, ...), as if each called the module with its own numbers.

    Raise what `torch.func.vmap` raises, such as for random numbers.
    """
    module.train(training)

    def alone(parameters: Named, buffers: Named, own: torch.Tensor) -> torch.Tensor:
        return functional_call(module, (dict(parameters), dict(buffers)), (own,))  # type: ignore[no-any-return]

    return vmap(alone)(parameters, buffers, inputs)


def _convolve(layer: nn.Conv2d, weight: torch.Tensor, x: torch.Tensor, networks: int) -> torch.Tensor:
    """Convolve folded maps with the weights (K, O, C, k, k)."""
    cpu = x.device.type == "cpu"
    if cpu and networks > 1 and weight.shape[-1] == 1:
        # A 1x1 convolution is a matrix product per network; as a grouped convolution it takes three times as long.
        batch, _, height, width = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(-1, networks, weight.shape[2]).transpose(0, 1)  # (K, pixels, C)
        out = torch.bmm(pixels, weight.flatten(2).transpose(1, 2))
        return out.transpose(0, 1).reshape(batch, height, width, -1).permute(0, 3, 1, 2)
    weight = weight.flatten(0, 1)
    if cpu:  # a clone: `contiguous` would leave the strides of a single channel as they are, and the maps follow those
        weight = weight.clone(memory_format=torch.channels_last)
    return F.conv2d(x, weight, stride=layer.stride, padding=layer.padding, groups=networks)


def fold(maps: torch.Tensor) -> torch.Tensor:
    """(K, B, C, H, W) as (B, K · C, H, W), on CPU channels_last in memory: grouped convolutions are fastest in it."""
    if maps.device.type != "cpu":
        return maps.transpose(0, 1).flatten(1, 2)
    return maps.permute(1, 3, 4, 0, 2).flatten(3).contiguous().permute(0, 3, 1, 2)


def unfold(maps: torch.Tensor, networks: int) -> torch.Tensor:
    """(B, K · C, H, W) as (K, B, C, H, W), without a copy."""
    batch, channels, height, width = maps.shape
    return maps.view(batch, networks, channels // networks, height, width).transpose(0, 1)
