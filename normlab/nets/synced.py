"""Batch statistics over all processes of a run, whatever share of the batch each of them holds.

torch's `nn.SyncBatchNorm` does this for batch normalization on a GPU; this is for every norm that has statistics of a
batch, on CPU too.
"""

from typing import Any

import torch
from torch import distributed, nn

__all__ = ["batch_moments", "gather_counts", "sum_over_processes", "synced_batch_norm", "synchronise"]


def synchronise(net: nn.Module, on: bool = True) -> None:
    """Lets every layer of `net` that has batch statistics take them over all processes, or over its own share again."""
    for module in net.modules():
        if hasattr(module, "synced"):
            module.synced = on  # type: ignore[assignment]  # nn.Module's attributes are tensors to mypy


class _Sum(torch.autograd.Function):
    """Σ over processes. Each of them depends on every summand, so the gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:  # noqa: ARG004  # autograd's signature
        values = values.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:  # noqa: ARG004  # autograd's signature
        return sum_over_processes(grads[0])


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Σ over processes of tensors of one shape: the same result in each, with gradients."""
    return _Sum.apply(values)  # type: ignore[no-any-return]  # torch leaves `apply` untyped


def batch_moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean and biased variance (C,) of the maps (N, C, H, W) of all processes, and how many numbers a channel has.

    In two passes, as torch's layers take them on CPU: the sum of squares alone would lose what the mean hides. float32
    for maps in half precision.
    """
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    own = x.new_full((1,), x.numel() // x.shape[1])
    sums = sum_over_processes(torch.cat([x.sum((0, 2, 3)), own]))
    count = sums[-1]
    mean = sums[:-1] / count
    var = sum_over_processes((x - mean[:, None, None]).square().sum((0, 2, 3))) / count
    return mean, var, count


def synced_batch_norm(
    x: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    momentum: float,
    eps: float,
) -> torch.Tensor:
    """What `normlab.nets.batch_norm.batch_norm` computes of the whole batch, of this process's share (N, C, H, W)."""
    mean, var, count = batch_moments(x)
    scale = (var + eps).rsqrt() * (1 if weight is None else weight)
    y = (x - mean[:, None, None]) * scale[:, None, None] + (0 if bias is None else bias[:, None, None])
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * (count / (count - 1))).to(running_var.dtype), momentum)
    return y.to(x.dtype)


def gather_counts(count: int, like: torch.Tensor) -> torch.Tensor:
    """One whole number of every process, in their order: float64 (processes,)."""
    counts = torch.zeros(distributed.get_world_size(), dtype=torch.float64, device=like.device)
    counts[distributed.get_rank()] = count
    distributed.all_reduce(counts)
    return counts
