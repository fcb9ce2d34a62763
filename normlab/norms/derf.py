"""Dynamic erf."""

import torch
from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import AFFINE, LARGEST, SWITCH, About, Learned, Number
from normlab.norms.layer import Norm

ABOUT = About(
    family="statistic-free",
    formula="γ · erf(α · x + s) + β",
    centred=False,
    options={
        "alpha": Number(-LARGEST, LARGEST, "finite"),
        "shift": Number(-LARGEST, LARGEST, "finite"),
        "affine": SWITCH,
    },
    learned={"alpha": Learned("1", start="alpha", sign="α"), "shift": Learned("1", start="shift", sign="s"), **AFFINE},
    source='Chen et al. 2025, "Stronger Normalization-Free Transformers", arXiv:2512.10938, equation 10',
    colour="#426624",
    marker="v",
)


class DynamicErf2d(Norm, about=ABOUT):
    """Dynamic erf: y = γ · erf(α · x + s) + β, with one α and one s per layer, γ and β per channel; no statistics.

    α = 0.5 and s = 0 at the start, as in the authors' code.
    """

    alpha: Tensor
    shift: Tensor

    def normalize(self, x: Tensor) -> Tensor:
        y = torch.erf(x * ops.per_channel(self.alpha) + ops.per_channel(self.shift))
        return ops.affine(y, self.weight, self.bias)
