"""Batch normalization, as torch's layer computes it or by `standardise` where that is faster."""

import torch
from torch import nn
from torch.nn import functional as F

from normlab.nets.standardise import rows_fit, standardise
from normlab.nets.synced import synced_batch_norm

__all__ = ["BatchNorm2d", "batch_norm"]


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d`: the same parameters, state and results to rounding, in train and eval mode.

    On channels_last maps torch's CPU kernel has 20 times the float32 error of a sum in two steps; with few channels it
    takes up to twice the time and gains nothing from a second thread. So `standardise` takes its place while training
    on CPU. Everywhere else it is torch's own, but for statistics over several processes (`synced`).
    """

    synced = False  # set by `synchronise`

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """y of the shape of x: (N, C, H, W)."""
        ours = (self.affine or self.synced) and self.momentum is not None and self.running_mean is not None
        if not (self.training and ours):
            return super().forward(x)
        assert self.momentum is not None  # as it was asked for
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        normalize = synced_batch_norm if self.synced else batch_norm
        return normalize(x, self.running_mean, self.running_var, self.weight, self.bias, self.momentum, self.eps)


def batch_norm(
    x: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    momentum: float,
    eps: float,
) -> torch.Tensor:
    """One training step's batch normalization of (N, C, H, W); the running statistics (C,) move in place.

    running = (1 - momentum) · running + momentum · batch, with the unbiased variance of the batch.
    """
    values = x.numel() // x.shape[1]  # one number a channel: torch says why that cannot be
    if running_mean is None or running_var is None or values < 2 or not rows_fit(x, weight):
        return F.batch_norm(x, running_mean, running_var, weight, bias, training=True, momentum=momentum, eps=eps)
    y, mean, var = standardise(x, None, weight, bias, eps)
    with torch.no_grad():
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(var * (values / (values - 1)), momentum)
    return y
