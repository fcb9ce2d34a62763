"""Images of one shape for a network that takes another: grey ones are repeated, small ones padded, others scaled."""

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["FitImages"]

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
