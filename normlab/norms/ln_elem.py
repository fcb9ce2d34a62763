"""Layer normalization, γ and β for every position."""

from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import EPS, SWITCH, About, Learned
from normlab.norms.layer import Norm

ABOUT = About(
    family="layer",
    axes=("CHW",),
    options={"eps": EPS, "affine": SWITCH},
    learned={
        "weight": Learned("C·H·W", start=1.0, when="affine", scale=True, sign="γ"),
        "bias": Learned("C·H·W", when="affine", sign="β"),
    },
    source='Ba, Kiros & Hinton 2016, "Layer Normalization", arXiv:1607.06450, equations 3 and 4',
    colour="#BC7100",
    marker="d",
)


class LayerNormElementwise(Norm, about=ABOUT):
    """Layer normalization as `nn.LayerNorm([C, H, W])`: μ and σ² over (C, H, W); a γ and a β for every position.

    `size`: (H, W), which the network knows.
    """

    def normalize(self, x: Tensor) -> Tensor:
        weight, bias, y = self.weight, self.bias, ops.group_norm(x, 1, None, None, self.eps)
        return y if weight is None or bias is None else y * weight + bias
