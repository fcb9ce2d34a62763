"""Switchable normalization."""

import torch
from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import AFFINE, EPS, MOMENTUM, SWITCH, About, Learned
from normlab.norms.layer import BatchStatisticsNorm

ABOUT = About(
    family="mixed",
    formula="γ · (x − Σ w_k · μ_k) / √(Σ w′_k · σ_k² + ε) + β, k = IN, LN, BN",
    axes=("HW", "CHW", "NHW"),
    options={"eps": EPS, "momentum": MOMENTUM, "affine": SWITCH},
    learned={
        **AFFINE,
        "mean_weight": Learned("3", start=1.0, sign="w_k"),
        "var_weight": Learned("3", start=1.0, sign="w′_k"),
    },
    state="running mean and variance of each channel",
    modes="train: the share of BN is of the batch; eval: it is of the running mean and variance",
    source='Luo et al. 2018, "Differentiable Learning-to-Normalize via Switchable Normalization", '
    "arXiv:1806.10779, equations 3 to 5",
    colour="#12608A",
    marker="d",
)


class SwitchNorm2d(BatchStatisticsNorm, about=ABOUT):
    """Switchable normalization: means and variances of instance, layer and batch normalization, mixed.

        y = γ · (x − Σ w_k · μ_k) / sqrt(Σ w′_k · σ_k² + ε) + β,   k = IN (H, W), LN (C, H, W), BN (N, H, W)

    w = softmax(`mean_weight`) and w′ = softmax(`var_weight`), three numbers each in the order IN, LN, BN, alike at the
    start. In eval mode running averages take the place of BN's mean and variance; the authors prefer averages over
    batches after training, which `momentum=null` comes close to. All variances are biased, as in the paper; its code
    has the unbiased one for IN.
    """

    mean_weight: Tensor
    var_weight: Tensor

    def normalize(self, x: Tensor) -> Tensor:
        batch_mean, batch_var = self.statistics(x)
        map_mean, map_var = ops.moments(x, [-2, -1])
        layer_mean, layer_var = ops.moments(x, [-3, -2, -1])
        w = ops.per_channel(torch.softmax(self.mean_weight, -1))
        v = ops.per_channel(torch.softmax(self.var_weight, -1))
        mean = w[..., 0:1, :, :] * map_mean + w[..., 1:2, :, :] * layer_mean + w[..., 2:3, :, :] * batch_mean
        var = v[..., 0:1, :, :] * map_var + v[..., 1:2, :, :] * layer_var + v[..., 2:3, :, :] * batch_var
        return ops.affine(x - mean, self.weight, self.bias, torch.rsqrt(var + self.eps))
