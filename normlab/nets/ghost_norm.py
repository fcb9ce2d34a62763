"""Ghost batch normalization: the statistics of a small batch, whatever the size of the real one."""

import torch
from torch import nn

from normlab.nets.batch_norm import batch_norm

__all__ = ["GhostBatchNorm2d", "ghost_batch_norm"]


class GhostBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization over ghost batches of `virtual_batch_size` images.

    While training, images 0 … v-1, v … 2v-1, … are normalized as batches of their own; images that are left over make a
    smaller last one. In eval mode it is batch normalization. Parameters and state are those of `nn.BatchNorm2d`.
    Source: Hoffer, Hubara & Soudry 2017, "Train longer, generalize better", algorithm 1.
    """

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
        assert self.running_mean is not None and self.momentum is not None  # noqa: PT018  # as it was built
        self.num_batches_tracked.add_(1)  # type: ignore[operator, union-attr]
        running = (self.running_mean, self.running_var)
        return ghost_batch_norm(x, self.virtual_batch_size, *running, self.weight, self.bias, self.momentum, self.eps)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, virtual_batch_size={self.virtual_batch_size}"


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
    """A training step of (N, C, H, W) in ghost batches of `size` images; the running statistics (C,) move in place.

    One ghost batch after the other moves them by `momentum`, which is the paper's weighted sum.
    """
    parts = [batch_norm(ghost, running_mean, running_var, weight, bias, momentum, eps) for ghost in x.split(size)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
