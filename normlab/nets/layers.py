"""Layers that torch lacks: convolutions whose filters are a function of their weights (one formula for one network and
for K at once), dropout whose masks can be drawn again, and images fitted to the shape that a network takes."""

import copy
import math
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional as F

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
        new: Any = copy.copy(conv)
        new.__class__ = cls
        new.reset_gain()
        return new  # type: ignore[no-any-return]  # of this class by now

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


LEVELS = 2**16  # a mask is made of 16-bit random numbers


class Dropout(nn.Dropout):
    """`nn.Dropout` on maps (N, C, H, W), with masks by `keep_mask`.

    y = x · m / (1 - p) while training, m = 0 with probability p (to the nearest 1/65,536), else 1; y = x in eval mode.
    Source: Srivastava et al. 2014, "Dropout", section 4.

    Attributes:
        generator: of the masks; None: torch's default one for the device.
        mask: the one to use while training; None: each call draws its own.
    """

    generator: torch.Generator | None = None
    mask: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.p:
            return x
        return x * (keep_mask(x.shape, self.p, x, self.generator) if self.mask is None else self.mask)


def keep_mask(
    shape: torch.Size, p: float, like: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """A dropout mask (N, C, H, W) of the values 0 (probability p) and 1 / (1 - p), of the dtype and device of `like`.

    The random numbers run through the mask in the order N, H, W, C (its memory is channels_last), four to a 64-bit
    word, which takes a quarter of the time of `bernoulli_`. `generator`: torch's default one for the device if None.
    """
    n, c, h, w = shape
    dropped = min(round(p * LEVELS), LEVELS - 1)
    words = torch.empty((n * c * h * w + 3) // 4, dtype=torch.int64, device=like.device)
    words.random_(-(2**63), None, generator=generator)  # all 64 bits
    numbers = words.view(torch.int16)[: n * c * h * w]
    # compared as float32, in place: exact for 16 bits, and from bool to float would be five times slower
    mask = numbers.float().ge_(dropped - LEVELS // 2).to(like.dtype).div_(1 - p)
    return mask.view(n, h, w, c).permute(0, 3, 1, 2)


PADDED = 1.25  # images are padded to a size up to so many times their own, and scaled beyond


class FitImages(nn.Module):
    """Turns images (N, C, H, W) of the shape `image` into those of the shape `wanted`, both (C, H, W).

    One channel is repeated. Sides that grow by at most a quarter are padded with the pixels at the edge (28 to 32);
    otherwise the image is scaled, bilinearly. Raise `ValueError` where several channels would have to become others.
    """

    def __init__(self, image: tuple[int, int, int], wanted: tuple[int, int, int]) -> None:
        super().__init__()
        if wanted[0] != image[0] != 1:
            raise ValueError(
                f"net.channels={wanted[0]}: only grey images are repeated, and these have {image[0]} channels"
            )
        self.channels = wanted[0]
        self.size = wanted[1:]
        rows, columns = wanted[1] - image[1], wanted[2] - image[2]
        self.padding = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        self.scaled = min(rows, columns) < 0 or wanted[1] > PADDED * image[1] or wanted[2] > PADDED * image[2]
        self.smaller = min(rows, columns) < 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.scaled:
            images = F.interpolate(images, self.size, mode="bilinear", antialias=self.smaller)
        elif any(self.padding):
            images = F.pad(images, self.padding, mode="replicate")
        return images.expand(-1, self.channels, -1, -1)
