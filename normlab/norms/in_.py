"""Instance normalization."""

from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import EPS, SWITCH, About
from normlab.norms.layer import Norm

ABOUT = About(
    family="group",
    axes=("HW",),
    options={"eps": EPS, "affine": SWITCH},
    source='Ulyanov, Vedaldi & Lempitsky 2016, "Instance Normalization", arXiv:1607.08022, equation 2',
    colour="#AF6999",
    marker="^",
)


class InstanceNorm2d(Norm, about=ABOUT):
    """Instance normalization: μ and σ² over (H, W) for each image and channel, in eval mode too."""

    def normalize(self, x: Tensor) -> Tensor:
        return ops.group_norm(x, self.num_channels, self.weight, self.bias, self.eps)
