"""Batch renormalization: batch statistics, pulled towards the running ones that will be used in eval mode."""

import torch
from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import EPS, LARGEST, MOMENTUM, SWITCH, About, Number
from normlab.norms.layer import BatchStatisticsNorm

ABOUT = About(
    family="batch",
    formula="γ · ((x − μ) / √(σ² + ε) · r + d) + β, at first r = 1, d = 0",
    axes=("NHW",),
    options={
        "r_max": Number(1, LARGEST, "1 or more"),
        "d_max": Number(0, LARGEST, "0 or more"),
        "begin": Number(0, LARGEST, "0 or more", whole=True),
        "r_end": Number(1, LARGEST, "1 or more", whole=True),
        "d_end": Number(1, LARGEST, "1 or more", whole=True),
        "eps": EPS,
        "momentum": MOMENTUM,
        "affine": SWITCH,
    },
    ordered=("begin", ("r_end", "d_end")),
    state="running mean and variance of each channel; steps so far",
    modes="train: μ and σ² of the batch, corrected by r and d within limits; eval: the running ones",
    source='Ioffe 2017, "Batch Renormalization", arXiv:1702.03275, algorithm 1',
    colour="#7448CA",
    marker="h",
)


class BatchRenorm2d(BatchStatisticsNorm, about=ABOUT):
    """Batch renormalization.

    While training, with the batch's μ_B and σ_B² and the running μ and σ² as they are before the step:

        y = γ · ((x − μ_B) / σ_B · r + d) + β,   σ = sqrt(σ² + ε)
        r = clip(σ_B / σ, 1 / r_max, r_max),   d = clip((μ_B − μ) / σ, −d_max, d_max), both without a gradient

    With r = 1 and d = 0 it is batch normalization; without limits training would see what eval mode sees. The limits
    widen: up to step `begin` r_max = 1 and d_max = 0, then linearly to `r_max` at step `r_end` and to `d_max` at
    step `d_end`. The paper's 5,000, 40,000 and 25,000 are of some 250,000 steps; the defaults are the same shares of a
    run of 12 epochs. The paper averages σ, this averages σ² as batch normalization does; in eval mode the two are one.
    """

    r_max: float
    d_max: float
    begin: int
    r_end: int
    d_end: int

    def normalize(self, x: Tensor) -> Tensor:
        running_mean, running_var = self.averages()
        steps = self.running.num_batches_tracked
        assert steps is not None
        if not self.training:
            return ops.eval_norm(x, running_mean, running_var, self.weight, self.bias, self.eps)
        dims = [0, -2, -1]
        mean = self.batch_mean(x, dims)
        centred = x - mean
        var = self.batch_mean(centred.square(), dims)
        limits = (self.r_max, self.d_max, self.begin, self.r_end, self.d_end)
        r, d = corrections(mean, var, running_mean, running_var, steps, limits, self.eps)
        self.track(x, mean, var)
        weight, bias = self.weight, self.bias
        shift = d if weight is None else d * weight
        if bias is not None:
            shift = shift + bias
        return ops.affine(centred, weight, shift, ops.per_channel(r) / torch.sqrt(var + self.eps))


@torch.fx.wrap
def corrections(
    mean: Tensor,
    var: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    steps: Tensor,
    limits: tuple[float, float, int, int, int],
    eps: float,
) -> tuple[Tensor, Tensor]:
    """r and d of a batch with this mean and variance per channel, after so many steps; (C,) or (K, C), no gradient."""
    r_max, d_max, begin, r_end, d_end = limits
    since = (steps.double() - begin)[..., None]  # float64: whole numbers divided would be float32
    most_r = 1 + (since / (r_end - begin)).clamp(0, 1) * (r_max - 1)
    most_d = (since / (d_end - begin)).clamp(0, 1) * d_max
    before = torch.sqrt(running_var + eps)
    r = torch.sqrt(var.detach().reshape(before.shape) + eps) / before
    d = (mean.detach().reshape(before.shape) - running_mean) / before
    r = torch.minimum(torch.maximum(r, 1 / most_r), most_r)
    d = torch.minimum(torch.maximum(d, -most_d), most_d)
    return r.to(var.dtype), d.to(var.dtype)
