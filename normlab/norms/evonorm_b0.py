"""EvoNorm-B0: a normalization and its nonlinearity in one."""

import torch
from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import AFFINE, EPS, MOMENTUM, SWITCH, About, Learned
from normlab.norms.layer import BatchStatisticsNorm

ABOUT = About(
    family="mixed",
    formula="γ · x / max(√(σ_B² + ε), v · x + √(σ_I² + ε)) + β",
    axes=("NHW", "HW"),
    statistic=("variance", "variances"),
    centred=False,
    options={"eps": EPS, "momentum": MOMENTUM, "affine": SWITCH},
    learned={**AFFINE, "v": Learned(start=1.0, sign="v")},
    state="running variance of each channel",
    modes="train: σ_B² of the batch; eval: the running one; σ_I² of the map in both",
    source='Liu et al. 2020, "Evolving Normalization-Activation Layers", arXiv:2004.02967, table 4',
    colour="#1896AE",
    marker="D",
)


class EvoNormB0(BatchStatisticsNorm, about=ABOUT):
    """EvoNorm-B0: y = γ · x / max(sqrt(σ_B² + ε), v · x + sqrt(σ_I² + ε)) + β.

    σ_B² over (N, H, W) per channel, in eval mode its running average; σ_I² over (H, W) per image and channel; γ, β and
    v per channel, v starts at 1. No mean is subtracted. The nonlinearity is part of it: the paper puts no ReLU beside
    it. The running average takes the unbiased variance, as batch normalization's does; the paper's code the biased
    one.
    """

    v: Tensor

    def normalize(self, x: Tensor) -> Tensor:
        batch = self.variance(x)
        _, own = ops.moments(x, [-2, -1])
        bound = x * ops.per_channel(self.v) + torch.sqrt(own + self.eps)
        return ops.affine(x / torch.maximum(torch.sqrt(batch + self.eps), bound), self.weight, self.bias)
