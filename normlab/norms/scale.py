"""Variance-only batch normalization."""

import torch
from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import EPS, MOMENTUM, SWITCH, About
from normlab.norms.layer import BatchStatisticsNorm

ABOUT = About(
    family="batch",
    formula="γ · x / √(σ² + ε) + β",
    axes=("NHW",),
    statistic=("variance", "variances"),
    centred=False,
    options={"eps": EPS, "momentum": MOMENTUM, "affine": SWITCH},
    state="running variance of each channel",
    modes="train: σ² of the batch; eval: the running one",
    source='the other half of Ioffe & Szegedy 2015, "Batch Normalization", arXiv:1502.03167, section 3',
    colour="#122A48",
    marker="P",
)


class VarianceOnlyBatchNorm2d(BatchStatisticsNorm, about=ABOUT):
    """Batch normalization without its subtraction: y = γ · x / sqrt(σ² + ε) + β, σ² over (N, H, W) per channel.

    σ² is the variance about the mean, which stays in y; in eval mode its running average takes its place. With `center`
    it takes batch normalization into its two halves.
    """

    def normalize(self, x: Tensor) -> Tensor:
        return ops.affine(x, self.weight, self.bias, torch.rsqrt(self.variance(x) + self.eps))
