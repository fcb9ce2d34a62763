"""Dynamic tanh."""

import torch
from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import AFFINE, LARGEST, SWITCH, About, Learned, Number
from normlab.norms.layer import Norm

ABOUT = About(
    family="statistic-free",
    formula="γ · tanh(α · x) + β",
    centred=False,
    options={"alpha": Number(-LARGEST, LARGEST, "finite"), "affine": SWITCH},
    learned={"alpha": Learned("1", start="alpha", sign="α"), **AFFINE},
    source='Zhu et al. 2025, "Transformers without Normalization", arXiv:2503.10622, section 4',
    colour="#41765B",
    marker=">",
)


class DynamicTanh2d(Norm, about=ABOUT):
    """Dynamic tanh: y = γ · tanh(α · x) + β, with one α for the layer and γ, β per channel; no statistics at all."""

    alpha: Tensor

    def normalize(self, x: Tensor) -> Tensor:
        return ops.affine(torch.tanh(x * ops.per_channel(self.alpha)), self.weight, self.bias)
