"""Statistics over all processes that train one network, whatever share of the batch each of them holds.

torch's `nn.SyncBatchNorm` does this for batch norm on a GPU; this is for every norm with statistics of a batch, on CPU
too.
"""

from typing import Any

import torch
from torch import Tensor, distributed

__all__ = ["counts", "mean_over", "sum_over_processes", "total"]


class _Sum(torch.autograd.Function):
    """Σ over processes. Each of them depends on every summand, so the gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004  # autograd's signature
        values = values.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ARG004  # autograd's signature
        return sum_over_processes(grads[0])


def sum_over_processes(values: Tensor) -> Tensor:
    """Σ over processes of tensors of one shape: the same result in each, with gradients."""
    return _Sum.apply(values)  # type: ignore[no-any-return]  # torch leaves `apply` untyped


def total(x: Tensor, dims: list[int]) -> int:
    """How many numbers a mean over `dims` and over processes takes in."""
    own = torch.tensor([float(x.numel() // x.sum(dims).numel())], dtype=torch.float64, device=x.device)
    return int(sum_over_processes(own))


def mean_over(x: Tensor, dims: list[int]) -> Tensor:
    """Mean over `dims`, which stay as axes of length 1, and over processes."""
    sums = x.sum(dims, keepdim=True)
    count = sum_over_processes(x.new_full((1,), x.numel() / sums.numel()))
    return sum_over_processes(sums) / count


def counts(count: int, like: Tensor) -> Tensor:
    """One whole number of every process, in their order: float64 (processes,)."""
    found = torch.zeros(distributed.get_world_size(), dtype=torch.float64, device=like.device)
    found[distributed.get_rank()] = count
    distributed.all_reduce(found)
    return found
