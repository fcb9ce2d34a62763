"""The other layer norms: over the channels of a pixel, and with a scale for every position."""

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["LayerNorm2d", "layer_norm_2d"]


class LayerNorm2d(nn.LayerNorm):
    """Layer normalization of each pixel: μ and σ² over C; γ and β per channel.

    `nn.LayerNorm(C)` on maps of shape (N, H, W, C), as vision transformers apply it and ConvNeXt does (Liu et al. 2022,
    "A ConvNet for the 2020s", section 2.6).
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """y of the shape of x: (N, C, H, W)."""
        return layer_norm_2d(x, 1, self.weight, self.bias, self.eps)


def layer_norm_2d(
    x: torch.Tensor, groups: int, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """(N, C, H, W), each pixel's channels in `groups` that are normalized by themselves; γ and β are (C,)."""
    pixels = x.permute(0, 2, 3, 1)
    width = x.shape[1] // groups
    if groups == 1:
        y = F.layer_norm(pixels, (width,), weight, bias, eps)
    else:
        y = F.layer_norm(pixels.view(*pixels.shape[:3], groups, width), (width,), eps=eps).flatten(3)
        y = y if weight is None else y * weight
        y = y if bias is None else y + bias
    return y.permute(0, 3, 1, 2)
