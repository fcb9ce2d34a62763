"""Convolutions whose filters are a function of their weights: one formula for one network and for K at once."""

import math
from typing import Self

import torch
from torch import nn
from torch.nn import functional as F

__all__ = [
    "CONVOLUTIONS",
    "FilterConv2d",
    "ScaledStandardisedConv2d",
    "StandardisedConv2d",
    "WeightNormConv2d",
]

FILTER = (-3, -2, -1)  # the axes of one filter
RELU_GAIN = math.sqrt(2 / (1 - 1 / math.pi))  # 1 / sd(ReLU(z)) of a standard normal z


class FilterConv2d(nn.Conv2d):
    """`nn.Conv2d` with the filters `reparametrise(weight, gain)` in the place of `weight`.

    `gain`, (O,): a learned factor for each filter; None where the class has no gain.
    """

    gain: nn.Parameter | None

    @staticmethod
    def reparametrise(weight: torch.Tensor, gain: torch.Tensor | None = None) -> torch.Tensor:
        """Filters (..., O, I, k, k) of weights of that shape and gains (..., O)."""
        raise NotImplementedError

    @classmethod
    def of(cls, conv: nn.Conv2d) -> Self:
        """Return one with the weights and the bias of `conv`. Raise `ValueError` unless it pads with zeros."""
        if conv.padding_mode != "zeros":
            raise ValueError(f"convolutions with padding_mode={conv.padding_mode!r} cannot be reparametrised")
        new = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]  # of two sides
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            conv.bias is not None,
        )
        new.weight, new.bias = conv.weight, conv.bias
        new.reset_gain()
        return new

    def reset_gain(self) -> None:
        """Set the gains to their initial values, which may depend on the weights."""
        self.register_parameter("gain", None)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.reset_gain()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        filters = self.reparametrise(self.weight, self.gain)
        return F.conv2d(x, filters, self.bias, self.stride, self.padding, self.dilation, self.groups)


class StandardisedConv2d(FilterConv2d):
    """Weight standardization: ŵ = (w - μ) / sqrt(σ² + ε); μ and σ² (biased) over each filter, ε = 1e-5.

    Source: Qiao et al. 2019, "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization",
    equation 5.
    """

    @staticmethod
    def reparametrise(weight: torch.Tensor, gain: torch.Tensor | None = None) -> torch.Tensor:  # noqa: ARG004  # it has no gain
        centred = weight - weight.mean(FILTER, keepdim=True)
        return centred * (centred.square().mean(FILTER, keepdim=True) + 1e-5).rsqrt()


class WeightNormConv2d(FilterConv2d):
    """Weight normalization: ŵ = g · v / ‖v‖ with v = `weight` and g = `gain`, which starts as ‖v‖.

    A filter of zeros stays zeros. Source: Salimans & Kingma 2016, "Weight Normalization", equation 2.
    """

    def reset_gain(self) -> None:
        self.gain = nn.Parameter(torch.linalg.vector_norm(self.weight.detach(), dim=FILTER))

    @staticmethod
    def reparametrise(weight: torch.Tensor, gain: torch.Tensor | None = None) -> torch.Tensor:
        assert gain is not None
        length = torch.linalg.vector_norm(weight, dim=FILTER, keepdim=True)
        return weight * (gain[..., None, None, None] / torch.where(length > 0, length, 1.0))


class ScaledStandardisedConv2d(FilterConv2d):
    """Scaled weight standardization: ŵ = γ · g · (w - μ) / sqrt(N σ²) with N numbers in a filter and g = `gain`.

    g starts at 1. γ = sqrt(2 / (1 - 1/π)) keeps the variance of activations through a ReLU; N σ² is at least 1e-4, as
    in the authors' code. Source: Brock, De & Smith 2021, "Characterizing signal propagation to close the performance
    gap in unnormalized ResNets", section 4.1.
    """

    def reset_gain(self) -> None:
        self.gain = nn.Parameter(torch.ones_like(self.weight[:, 0, 0, 0]))

    @staticmethod
    def reparametrise(weight: torch.Tensor, gain: torch.Tensor | None = None) -> torch.Tensor:
        assert gain is not None
        centred = weight - weight.mean(FILTER, keepdim=True)
        scale = centred.square().sum(FILTER, keepdim=True).clamp_min(1e-4).rsqrt()
        return centred * (RELU_GAIN * gain[..., None, None, None] * scale)


# by what a norm's file calls the way the convolutions before it are reparametrised (`About.conv`)
CONVOLUTIONS: dict[str, type[nn.Conv2d]] = {
    "": nn.Conv2d,
    "standard": StandardisedConv2d,
    "weight_norm": WeightNormConv2d,
    "scaled_standard": ScaledStandardisedConv2d,
}
