"""Statistics over all processes that train one network, whatever share of the batch each of them holds.

torch's `nn.SyncBatchNorm` does this for batch norm on a GPU; this is for every norm with statistics of a batch, on CPU
too. Each function takes the process group: None is that of all processes.
"""

from typing import Any

import torch
from torch import Tensor, distributed

Group = distributed.ProcessGroup | None


class _Sum(torch.autograd.Function):
    """Σ over processes. Each of them depends on every summand, so the gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: Group) -> Tensor:
        ctx.group = group
        values = values.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(values, group=group)
        return values

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return sum_over_processes(grads[0], ctx.group), None


def sum_over_processes(values: Tensor, group: Group = None) -> Tensor:
    """Σ over processes of tensors of one shape: the same result in each, with gradients."""
    return _Sum.apply(values, group)  # type: ignore[no-any-return]  # torch leaves `apply` untyped


def total(x: Tensor, dims: list[int], group: Group = None) -> int:
    """How many numbers a mean over `dims` and over processes takes in."""
    own = torch.tensor([float(x.numel() // x.sum(dims).numel())], dtype=torch.float64, device=x.device)
    return int(sum_over_processes(own, group))


def mean_over(x: Tensor, dims: list[int], group: Group = None) -> Tensor:
    """Mean over `dims`, which stay as axes of length 1, and over processes."""
    sums = x.sum(dims, keepdim=True)
    count = sum_over_processes(x.new_full((1,), x.numel() / sums.numel()), group)
    return sum_over_processes(sums, group) / count


def counts(count: int, like: Tensor, group: Group = None) -> Tensor:
    """One whole number of every process, in their order: float64 (processes,)."""
    numbers = torch.zeros(distributed.get_world_size(group), dtype=torch.float64, device=like.device)
    numbers[distributed.get_rank(group)] = count
    distributed.all_reduce(numbers, group=group)
    return numbers
