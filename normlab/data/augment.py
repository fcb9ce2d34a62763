"""Random rotation and shift of a whole batch at once, on the batch's device."""

import math

import torch
from torch.nn.functional import grid_sample

__all__ = ["rotate_and_shift"]


def rotate_and_shift(images: torch.Tensor, draws: torch.Tensor, *, rotation: float, shift: float) -> torch.Tensor:
    """Every image rotated about its centre and shifted, with bilinear interpolation and 0 outside.

    Args:
        images: float (B, 1, H, W), background 0.
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
