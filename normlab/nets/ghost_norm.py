"""Ghost batch normalization: the statistics of a small batch, whatever the size of the real one."""

import torch
from torch import nn

from normlab.nets.batch_norm import batch_norm
from normlab.nets.synced import gather_counts, sum_over_processes

__all__ = ["GhostBatchNorm2d", "ghost_batch_norm"]


class GhostBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization over ghost batches of `virtual_batch_size` images.

    While training, images 0 … v-1, v … 2v-1, … are normalized as batches of their own; images that are left over make a
    smaller last one. In eval mode it is batch normalization. Parameters and state are those of `nn.BatchNorm2d`, and
    n ghost batches move the running averages by their weighted sum, with m = `momentum`:

        running ← (1 - m)^n · running + Σ m · (1 - m)^(n - i) · ghost_i,   i = 1 … n

    Where several processes share a batch, each cuts its own share into ghost batches; `synchronise` lets the running
    averages take in those of all processes, in their order.

    Raises `ValueError` while training where a ghost batch has one number a channel: it has no variance.
    Source: Hoffer, Hubara & Soudry 2017, "Train longer, generalize better", algorithm 1.
    """

    synced = False

    def __init__(
        self,
        num_channels: int,
        virtual_batch_size: int = 16,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
    ) -> None:
        if virtual_batch_size < 1:
            raise ValueError(f"virtual_batch_size={virtual_batch_size}: must be 1 or more")
        super().__init__(num_channels, eps=eps, momentum=momentum, affine=affine)
        self.virtual_batch_size = virtual_batch_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """y of the shape of x: (N, C, H, W)."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None  # as it was built
        assert self.running_var is not None
        assert self.momentum is not None
        running = (self.running_mean, self.running_var)
        mean, var = map(torch.zeros_like, running) if self.synced else running
        y = ghost_batch_norm(x, self.virtual_batch_size, mean, var, self.weight, self.bias, self.momentum, self.eps)
        self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        if self.synced:
            ghosts = -(-len(x) // self.virtual_batch_size)
            take_in_(self.running_mean, mean, ghosts, self.momentum)
            take_in_(self.running_var, var, ghosts, self.momentum)
        return y

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, virtual_batch_size={self.virtual_batch_size}"  # type: ignore[no-untyped-call]


def ghost_batch_norm(
    x: torch.Tensor,
    size: int,
    running_mean: torch.Tensor,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    momentum: float,
    eps: float,
) -> torch.Tensor:
    """A training step of (N, C, H, W) in ghost batches of `size` images; the running statistics (C,) move in place, by
    one ghost batch after the other."""
    least = min(size, len(x) % size or size)
    if least * x.shape[2] * x.shape[3] < 2:
        raise ValueError(
            f"virtual_batch_size={size} makes a ghost batch of one of {len(x)} images: on maps of 1x1 that is one "
            "number a channel, which has no variance: choose another virtual_batch_size, or larger maps"
        )
    parts = [
        batch_norm(ghost, running_mean, running_var, weight, bias, momentum, eps) for ghost in torch.split(x, size)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@torch.no_grad()
def take_in_(running: torch.Tensor, own: torch.Tensor, ghosts: int, momentum: float) -> None:
    """Moves running averages by the ghost batches of all processes, one process after the other.

    own: what this process's `ghosts` ghost batches make of running averages that are 0.
    """
    counts = gather_counts(ghosts, running)
    later = counts[torch.distributed.get_rank() + 1 :].sum()
    kept = 1 - momentum
    running.mul_(kept ** counts.sum()).add_(sum_over_processes(own * kept**later))
