"""Weight standardization: convolutions whose filters have mean 0 and variance 1, whatever the weights are."""

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["StandardisedConv2d", "standardise_weight"]

EPS = 1e-5


class StandardisedConv2d(nn.Conv2d):
    """`nn.Conv2d` with ŵ = (w - μ) / sqrt(σ² + ε) in the place of w; μ and σ² over each filter, ε = 1e-5.

    Source: Qiao et al. 2019, "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization",
    equation 5.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = standardise_weight(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def standardise_weight(weight: torch.Tensor) -> torch.Tensor:
    """Weights (…, I, k, k), each filter with mean 0 and (biased) variance 1."""
    over = (-3, -2, -1)
    centred = weight - weight.mean(over, keepdim=True)
    return centred * (centred.square().mean(over, keepdim=True) + EPS).rsqrt()
