"""The numbers of many networks of one shape, side by side: a row a network."""

from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["Stack"]


class Stack:
    """K networks of one shape as few tensors, so that one operation moves all of them.

    Attributes:
        parameters: (K, P), a row a network, its parameters in the order of `named_parameters()`.
        buffers: by name, (K, …): running statistics and counters.
        template: the first network; what stays the same in all.
    """

    def __init__(self, nets: Sequence[nn.Module], device: torch.device | str = "cpu") -> None:
        shapes = [{name: value.shape for name, value in net.state_dict().items()} for net in nets]
        if any(shape != shapes[0] for shape in shapes):
            raise ValueError("only networks of one shape can be stacked")
        self.template = nets[0]
        self.shapes = {name: parameter.shape for name, parameter in nets[0].named_parameters()}
        with torch.no_grad():
            rows = [[parameter.flatten() for parameter in net.parameters()] for net in nets]
            self.parameters = torch.stack([torch.cat(row) if row else torch.zeros(0) for row in rows]).to(device)
            self.buffers = {
                name: torch.stack([dict(net.named_buffers())[name] for net in nets]).to(device)
                for name, _ in nets[0].named_buffers()
            }

    def __len__(self) -> int:
        return len(self.parameters)

    def named(self, values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Rows such as those of `parameters`, (K, P), by parameter: (K, *shape). Autograd goes through it."""
        parts = torch.split(values, [shape.numel() for shape in self.shapes.values()], dim=1)
        return {
            name: part.reshape(len(part), *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    @torch.no_grad()
    def write_back(self, index: int, net: nn.Module) -> None:
        """Copies one row's parameters and buffers into a network of this shape."""
        row = self.parameters[index].to(next(net.parameters()).device, copy=True)
        for parameter, values in zip(net.parameters(), self.named(row[None]).values(), strict=True):
            parameter.copy_(values[0])
        for name, buffer in net.named_buffers():
            buffer.copy_(self.buffers[name][index])
