"""Images moved, turned, noised, of less contrast: training images by draws of their epoch, test images corrupted.

Corrupted test images are the same ones in every run, on every device: what is drawn depends on the kind and on an
image's place in the test set alone. An image is shifted in one direction, farther with every strength, and its noise is
one pattern that grows.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch.nn.functional import grid_sample

from normlab.randomness import Stream, generator
from normlab.settings.corruptions import CORRUPTIONS, Corrupted

AT_ONCE = 1000  # images; part of what is drawn for each
SIDE = 28  # pixels, of which a shift is given

Corrupt = Callable[[torch.Tensor, float, torch.Generator], torch.Tensor]


def rotate_and_shift(images: torch.Tensor, draws: torch.Tensor, *, rotation: float, shift: float) -> torch.Tensor:
    """Return every image rotated about its centre and shifted, with bilinear interpolation and 0 outside.

    Args:
        images: float (B, C, H, W), background 0.
        draws: float (B, 3) in [-1, 1]: angle, shift along x, shift along y, as shares of the largest.
        rotation: largest angle, degrees; draws of +1 turn the content counterclockwise.
        shift: largest shift, pixels; draws of +1 move the content right and down.
    """
    angle = draws[:, 0] * math.radians(rotation)
    cos, sin = angle.cos(), angle.sin()
    # For every output pixel, where it comes from, in units of half the image: the inverse of the move. Written out:
    # affine_grid's many small matrix products take three times as long as the sampling.
    height, width = images.shape[-2:]
    right, down = sin * (width / height), -sin * (height / width)  # half a width is not half a height
    x = _centres(width, draws) - draws[:, 1, None] * (2 * shift / width)  # (B, W)
    y = _centres(height, draws) - draws[:, 2, None] * (2 * shift / height)  # (B, H)
    from_x = torch.addcmul((cos[:, None] * x)[:, None, :], down[:, None, None], y[:, :, None])
    from_y = torch.addcmul((right[:, None] * x)[:, None, :], cos[:, None, None], y[:, :, None])
    return grid_sample(images, torch.stack([from_x, from_y], 3), align_corners=False)


def _centres(pixels: int, like: torch.Tensor) -> torch.Tensor:
    """Where the centres of so many pixels lie between the edges -1 and 1: (1, pixels)."""
    places = torch.arange(1 - pixels, pixels, 2, dtype=like.dtype, device=like.device)
    return (places / pixels)[None]


def corrupted(images: torch.Tensor, kind: Corrupted, strength: int) -> torch.Tensor:
    """Return images corrupted at a strength from 1 to 5, rounded to the 256 values that a pixel may have.

    Args:
        images: uint8 (N, C, H, W), on the CPU. The result has the same shape and type.
    """
    amount = CORRUPTIONS[kind].amounts[strength - 1]
    random = generator(Stream.CORRUPT, list(CORRUPTIONS).index(kind))
    parts = [KINDS[kind](part.float() / 255, amount, random) for part in torch.split(images, AT_ONCE)]
    return torch.cat([(part * 255).round().to(torch.uint8) for part in parts])


def shifted(images: torch.Tensor, pixels: float, random: torch.Generator) -> torch.Tensor:
    """Return images (N, C, H, W) in [0, 1], each moved so many pixels of 28 (of the shorter side) in a direction that
    is drawn; bilinear, 0 outside."""
    angle = torch.rand(len(images), generator=random) * (2 * math.pi)
    draws = torch.stack([torch.zeros_like(angle), angle.cos(), angle.sin()], 1)
    return rotate_and_shift(images, draws, rotation=0, shift=pixels * min(images.shape[2:]) / SIDE)


def rotated(images: torch.Tensor, degrees: float, random: torch.Generator) -> torch.Tensor:
    """Return images, each turned about its centre by so many degrees, one way or the other; bilinear, 0 outside."""
    way = torch.randint(2, (len(images),), generator=random) * 2.0 - 1
    draws = torch.stack([way, torch.zeros_like(way), torch.zeros_like(way)], 1)
    return rotate_and_shift(images, draws, rotation=degrees, shift=0)


def noised(images: torch.Tensor, sd: float, random: torch.Generator) -> torch.Tensor:
    """Return x + sd·n with n from a standard normal distribution per pixel and channel, cut off at 0 and 1."""
    return (images + sd * torch.randn(images.shape, generator=random)).clamp(0, 1)


def contrast(images: torch.Tensor, factor: float, _: object) -> torch.Tensor:
    """Return m + factor·(x - m), where m is the mean of an image's channel."""
    mean = images.mean((2, 3), keepdim=True)
    return (mean + factor * (images - mean)).clamp(0, 1)


KINDS: Mapping[str, Corrupt] = {each.__name__: each for each in (shifted, rotated, noised, contrast)}
