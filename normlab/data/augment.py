"""Random rotation and shift of a whole batch at once, on the batch's device."""

import math

import torch
from torch.nn.functional import affine_grid, grid_sample

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
    # affine_grid says for every output pixel where it comes from, in units of half the image: the inverse of the move.
    height, width = images.shape[-2:]
    size = draws.new_tensor([width, height])
    back = -draws[:, 1:] * (2 * shift / size)
    right, down = sin * (width / height), -sin * (height / width)  # half a width is not half a height
    x = cos * back[:, 0] + down * back[:, 1]
    y = right * back[:, 0] + cos * back[:, 1]
    theta = torch.stack([torch.stack([cos, down, x], 1), torch.stack([right, cos, y], 1)], 1)
    return grid_sample(images, affine_grid(theta, list(images.shape), align_corners=False), align_corners=False)
