"""Layer normalization."""

from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import EPS, SWITCH, About
from normlab.norms.layer import Norm

ABOUT = About(
    family="layer",
    axes=("CHW",),
    options={"eps": EPS, "affine": SWITCH},
    source='Ba, Kiros & Hinton 2016, arXiv:1607.06450; as in Wu & He 2018, "Group Normalization", section 3.1',
    colour="#A02700",
    marker="s",
)


class LayerNorm(Norm, about=ABOUT):
    """Layer normalization of an image: μ and σ² over (C, H, W) for each image; γ and β per channel.

    The same as group normalization with one group. `nn.LayerNorm([C, H, W])` is another layer: it has a γ and a β for
    every position.
    """

    def normalize(self, x: Tensor) -> Tensor:
        return ops.group_norm(x, 1, self.weight, self.bias, self.eps)
