"""Layer normalization of each pixel."""

from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import EPS, SWITCH, About
from normlab.norms.layer import Norm

ABOUT = About(
    family="layer",
    axes=("C",),
    options={"eps": EPS, "affine": SWITCH},
    source='Liu et al. 2022, "A ConvNet for the 2020s", arXiv:2201.03545, section 2.6',
    colour="#681700",
    marker="D",
)


class LayerNorm2d(Norm, about=ABOUT):
    """Layer normalization of each pixel: μ and σ² over C; γ and β per channel.

    `nn.LayerNorm(C)` on maps of shape (N, H, W, C), as vision transformers and ConvNeXt apply it.
    """

    def normalize(self, x: Tensor) -> Tensor:
        return ops.layer_norm(x, self.weight, self.bias, self.eps)
