"""Group normalization."""

from typing import Any

from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import EPS, SWITCH, About, Divisor
from normlab.norms.layer import Norm

ABOUT = About(
    family="group",
    axes=("GHW",),
    options={"num_groups": Divisor(), "channels_per_group": Divisor(null=True), "eps": EPS, "affine": SWITCH},
    source='Wu & He 2018, "Group Normalization", arXiv:1803.08494, section 3.1',
    colour="#19945A",
    marker="P",
)


class GroupNorm(Norm, about=ABOUT):
    """Group normalization: μ and σ² over (C / num_groups, H, W) for each image and group of channels.

    `channels_per_group` takes the place of num_groups: 1 is instance normalization. Raises `ValueError` where either
    does not divide num_channels.
    """

    def __init__(self, num_channels: int, **options: Any) -> None:
        super().__init__(num_channels, **options)
        self.num_groups = self.about.groups(num_channels, options)

    def normalize(self, x: Tensor) -> Tensor:
        return ops.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
