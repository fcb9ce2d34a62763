"""The numbers of many networks of one shape, side by side: one row per network."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import nn

__all__ = ["Stack"]


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
            self.parameters = torch.stack([self.row(net.parameters()) for net in nets])
            self.buffers = {
                name: torch.stack([dict(net.named_buffers())[name] for net in nets])
                for name, _ in nets[0].named_buffers()
            }
        self.grads = torch.zeros_like(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)

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
        for index, net in enumerate(nets):
            for parameter, (values, grad) in zip(net.parameters(), self._row(index), strict=True):
                parameter.data = values
                parameter.grad = grad if parameter.requires_grad else None
            for name, buffer in net.named_buffers():
                buffer.data = self.buffers[name][index]

    def _row(self, index: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        row = slice(index, index + 1)
        both = (self.named(values[row]).values() for values in (self.parameters, self.grads))
        return ((values[0], grad[0]) for values, grad in zip(*both, strict=True))


def _shaped(part: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    if len(shape) != 4:
        return part.view(len(part), *shape)
    filters, channels, height, width = shape
    return part.view(len(part), filters, height, width, channels).permute(0, 1, 4, 2, 3)
