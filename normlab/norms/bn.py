"""Batch normalization."""

from typing import ClassVar

import torch
from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import EPS, MOMENTUM, SWITCH, About
from normlab.norms.layer import RunningStatistics, correction, over_processes
from normlab.norms.processes import mean_over, total

ABOUT = About(
    family="batch",
    axes=("NHW",),
    options={"eps": EPS, "momentum": MOMENTUM, "affine": SWITCH},
    state="running mean and variance of each channel",
    modes="train: μ and σ² of the batch; eval: the running ones",
    source='Ioffe & Szegedy 2015, "Batch Normalization", arXiv:1502.03167, section 3',
    colour="#01468F",
    marker="o",
)


class BatchNorm2d(RunningStatistics):
    """`nn.BatchNorm2d`: the same parameters, state and results to rounding, in train and eval mode.

    μ and σ² over (N, H, W) for each channel; in eval mode the running averages take their place,
    running = (1 − momentum) · running + momentum · batch, with the unbiased variance of the batch; momentum None: the
    mean of all batches.

    On channels_last maps torch's CPU kernel has 20 times the float32 error of a sum in two steps; with few channels it
    takes up to twice the time and gains nothing from a second thread. `ops.batch_norm` takes its place while training.
    """

    about: ClassVar[About] = ABOUT

    def forward(self, x: Tensor) -> Tensor:
        """y of the shape and dtype of x."""
        y: Tensor | None = None if ops.is_scripting() else ops.node(self, x)
        if y is not None:
            return y
        mean, var, tracked = self.running_mean, self.running_var, self.num_batches_tracked
        if not self.training and mean is not None and var is not None:
            return ops.eval_norm(x, mean, var, self.weight, self.bias, self.eps)
        factor = 0.0
        if self.training and tracked is not None:
            factor = ops.step_(x, tracked, self.momentum)
        if not ops.is_scripting() and self._over_processes():
            return self._synced(x, factor)
        return ops.batch_norm(x, mean, var, self.weight, self.bias, factor, self.eps)

    @torch.jit.unused
    def _over_processes(self) -> bool:
        return over_processes(self)

    @torch.jit.unused
    def _synced(self, x: Tensor, factor: float) -> Tensor:
        """The batch norm of the whole batch, of this process's share of it."""
        wide, dims = ops.upcast(x), [0, -2, -1]
        mean = mean_over(wide, dims)
        var = mean_over((wide - mean).square(), dims)
        y = ops.affine(wide - mean, self.weight, self.bias, torch.rsqrt(var + self.eps))
        if self.running_mean is not None and self.running_var is not None:
            ops.track_(self.running_mean, mean, factor)
            ops.track_(self.running_var, var * correction(total(wide, dims)), factor)
        return y.to(x.dtype)
