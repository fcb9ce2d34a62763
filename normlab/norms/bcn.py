"""Batch-channel normalization."""

import torch
from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import AFFINE, EPS, MOMENTUM, SWITCH, About, Divisor, Learned
from normlab.norms.layer import BatchStatisticsNorm

ABOUT = About(
    family="mixed",
    formula="γ · GN(γ_B · BN(x) + β_B) + β, each (x − μ) / √(σ² + ε)",
    axes=("NHW", "GHW"),
    chained=True,
    options={"num_groups": Divisor(), "eps": EPS, "momentum": MOMENTUM, "affine": SWITCH},
    learned={
        **AFFINE,
        "batch_weight": Learned(start=1.0, when="affine", scale=True, sign="γ_B"),
        "batch_bias": Learned(when="affine", sign="β_B"),
    },
    state="running mean and variance of each channel",
    modes="train: μ and σ² of the batch, then of the group; eval: the running ones, then of the group",
    source='Qiao et al. 2019, "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization", '
    "arXiv:1903.10520, section 4, its form for large batches",
    colour="#0C7E8A",
    marker="s",
)


class BatchChannelNorm2d(BatchStatisticsNorm, about=ABOUT):
    """Batch-channel normalization: batch normalization, then group normalization, each with a scale and a shift.

        z = γ_B · (x − μ_B) / sqrt(σ_B² + ε) + β_B,   y = γ · (z − μ_G) / sqrt(σ_G² + ε) + β

    μ_B, σ_B² over (N, H, W) per channel, in eval mode their running averages; μ_G, σ_G² of z over
    (C / num_groups, H, W) per image and group. Raises `ValueError` where num_groups does not divide num_channels.

    The form for micro-batches has running averages in train mode too. Khaled et al. 2023 (arXiv:2312.00596) gave the
    name to another layer, a mixture of batch and layer normalization.
    """

    num_groups: int
    batch_weight: Tensor | None
    batch_bias: Tensor | None

    def normalize(self, x: Tensor) -> Tensor:
        mean, var = self.statistics(x)
        z = ops.affine(x - mean, self.batch_weight, self.batch_bias, torch.rsqrt(var + self.eps))
        return ops.group_norm(z, self.num_groups, self.weight, self.bias, self.eps)
