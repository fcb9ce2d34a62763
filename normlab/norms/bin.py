"""Batch-instance normalization."""

import torch
from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import AFFINE, EPS, MOMENTUM, SWITCH, About, Learned, Number
from normlab.norms.layer import BatchStatisticsNorm

ABOUT = About(
    family="mixed",
    formula="γ · (ρ · (x − μ_B) / √(σ_B² + ε) + (1 − ρ) · (x − μ_I) / √(σ_I² + ε)) + β",
    axes=("NHW", "HW"),
    options={"rho": Number(0, 1, "between 0 and 1"), "eps": EPS, "momentum": MOMENTUM, "affine": SWITCH},
    learned={"rho": Learned(start="rho", sign="ρ"), **AFFINE},
    state="running mean and variance of each channel",
    modes="train: μ_B and σ_B² of the batch; eval: the running ones; μ_I and σ_I² of the map in both",
    source='Nam & Kim 2018, "Batch-Instance Normalization for Adaptively Style-Invariant Neural Networks", '
    "arXiv:1805.07925, equation 4",
    colour="#1E4E42",
    marker="H",
)


class BatchInstanceNorm2d(BatchStatisticsNorm, about=ABOUT):
    """Batch-instance normalization: batch and instance normalization, mixed in each channel by a learned ρ in [0, 1].

        y = γ · (ρ · (x − μ_B) / sqrt(σ_B² + ε) + (1 − ρ) · (x − μ_I) / sqrt(σ_I² + ε)) + β

    B over (N, H, W) per channel, in eval mode the running averages; I over (H, W) per image and channel. The paper
    clips ρ after each step of the optimizer. A layer has no hand in that step: it clips ρ in the forward pass, and its
    gradient is that of the clipped value, so that a ρ beyond its limits can return. ρ starts at 1 (batch
    normalization), as in the authors' code.
    """

    rho: Tensor

    def normalize(self, x: Tensor) -> Tensor:
        mean, var = self.statistics(x)
        map_mean, map_var = ops.moments(x, [-2, -1])
        rho = ops.per_channel(self.rho + (self.rho.clamp(0.0, 1.0) - self.rho).detach())
        batch = (x - mean) * torch.rsqrt(var + self.eps)
        own = (x - map_mean) * torch.rsqrt(map_var + self.eps)
        return ops.affine(rho * batch + (1.0 - rho) * own, self.weight, self.bias)
