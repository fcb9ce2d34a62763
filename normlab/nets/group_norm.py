"""Group and instance normalization, as torch computes them or by `standardise` where that is faster."""

import torch
from torch import nn
from torch.nn import functional as F

from normlab.nets.standardise import rows_fit, standardise

__all__ = ["InstanceNorm2d", "group_norm"]

FEW = 8  # groups an image: with more of them torch's channels_last kernel falls behind, by far with one a channel


class InstanceNorm2d(nn.InstanceNorm2d):
    """`nn.InstanceNorm2d` without running statistics: the same parameters and results to rounding.

    On channels_last maps torch's way (a batch norm of N · C channels, with copies into another layout) costs more than
    the convolutions of the network; `group_norm` with a group a channel is the same layer.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """y of the shape of x: (N, C, H, W)."""
        if self.track_running_stats or not rows_fit(x, self.weight) or x.shape[2] * x.shape[3] < 2:
            return super().forward(x)
        return group_norm(x, x.shape[1], self.weight, self.bias, self.eps)


def group_norm(
    x: torch.Tensor, groups: int, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """`F.group_norm` of (N, C, H, W), faster on CPU where there are many groups."""
    if groups > FEW and rows_fit(x, weight):
        return standardise(x, groups, weight, bias, eps)[0]
    return F.group_norm(x, groups, weight, bias, eps)
