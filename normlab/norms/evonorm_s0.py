"""EvoNorm-S0: a normalization and its nonlinearity in one."""

import torch
from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import AFFINE, EPS, SWITCH, About, Divisor, Learned
from normlab.norms.layer import Norm

ABOUT = About(
    family="group",
    formula="γ · x · sigmoid(v · x) / √(σ² + ε) + β",
    axes=("GHW",),
    statistic=("variance", "variances"),
    centred=False,
    options={"num_groups": Divisor(), "eps": EPS, "affine": SWITCH},
    learned={**AFFINE, "v": Learned(start=1.0, sign="v")},
    source='Liu et al. 2020, "Evolving Normalization-Activation Layers", arXiv:2004.02967, table 4',
    colour="#2A422A",
    marker="^",
)


class EvoNormS0(Norm, about=ABOUT):
    """EvoNorm-S0: y = γ · x · sigmoid(v · x) / sqrt(σ² + ε) + β; σ² over (C / num_groups, H, W) per image and group.

    γ, β and v per channel; v starts at 1. The nonlinearity is part of it: the paper puts no ReLU beside it. σ² is about
    the group's mean, which is not subtracted from x; biased, as the paper's. Raises `ValueError` where num_groups does
    not divide num_channels.
    """

    num_groups: int
    v: Tensor

    def normalize(self, x: Tensor) -> Tensor:
        numerator = x * torch.sigmoid(x * ops.per_channel(self.v))
        return ops.affine(numerator * (ops.group_var(x, self.num_groups) + self.eps).rsqrt(), self.weight, self.bias)
