"""Dropout whose masks can be drawn again, for one network or for many: cheap random bits in a stated order."""

import torch
from torch import nn

__all__ = ["Dropout", "keep_mask"]

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
