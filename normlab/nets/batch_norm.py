"""Batch normalization that gains from CPU threads: torch's layer, with another way through the same formula."""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

__all__ = ["BatchNorm2d"]


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d`: the same parameters, state and results to rounding, in train and eval mode.

    torch's channels_last kernel takes longer on two CPU threads than on one, since with ten or twenty channels the
    threads' sums share a cache line. While training on several threads, this layer computes y = γ · (x - μ) / sqrt(σ² +
    ε) + β and its gradient (Ioffe & Szegedy 2015, section 3) over rows of several pixels instead, wide enough for
    vector instructions. Everywhere else it is torch's own.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """y of the shape of x: (N, C, H, W)."""
        if not self._rows_pay(x):
            return super().forward(x)
        y, mean, var = _RowBatchNorm.apply(x, self.weight, self.bias, self.eps)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            count = x.numel() / x.shape[1]
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean, self.momentum)  # type: ignore[arg-type]  # None: see _rows_pay
                self.running_var.lerp_(var * (count / (count - 1)), self.momentum)  # type: ignore[arg-type]
        return y  # type: ignore[no-any-return]

    def _rows_pay(self, x: torch.Tensor) -> bool:
        return (
            self.training
            and self.affine
            and self.momentum is not None
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype
            and torch.get_num_threads() > 1
            and x.dim() == 4
            and x.shape[1] > 1
            and x.is_contiguous(memory_format=torch.channels_last)
            and x.numel() > x.shape[1]  # one number a channel: torch's layer says why that cannot be
        )


def _rows(x: torch.Tensor) -> torch.Tensor:
    """A channels_last (N, C, H, W) as (N · H · W / k, k · C): k pixels a row, without a copy."""
    pixels = x.numel() // x.shape[1]
    k = next(k for k in (16, 8, 4, 2, 1) if pixels % k == 0)
    return x.permute(0, 2, 3, 1).reshape(-1, k * x.shape[1])


def _per_channel(rows: torch.Tensor, channels: int) -> torch.Tensor:
    """Sums over pixels: (C,)."""
    return rows.sum(0).view(-1, channels).sum(0)


class _RowBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows, channels, count = _rows(x), x.shape[1], x.numel() // x.shape[1]
        k = rows.shape[1] // channels
        mean = _per_channel(rows, channels) / count
        centred = rows - mean.repeat(k)
        var = _per_channel(centred.square(), channels) / count
        scale = (var + eps).rsqrt()
        y = torch.addcmul(bias.repeat(k), centred, (weight * scale).repeat(k))
        ctx.save_for_backward(centred, weight, scale)
        ctx.mark_non_differentiable(mean, var)
        return _maps(y, x), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
        centred, weight, scale = ctx.saved_tensors
        channels, count = len(weight), grad.numel() // len(weight)
        rows, k = _rows(grad), centred.shape[1] // channels
        grad_bias = _per_channel(rows, channels)
        grad_weight = _per_channel(rows * centred, channels) * scale
        # dx = γ/σ · (dy - mean(dy) - x̂ · mean(dy · x̂)), with x̂ = centred/σ
        slope = weight * scale
        shift, tilt = -slope * grad_bias / count, -slope * scale * grad_weight / count
        grad_x = torch.addcmul(shift.repeat(k), centred, tilt.repeat(k)).addcmul_(rows, slope.repeat(k))
        return _maps(grad_x, grad), grad_weight, grad_bias, None


def _maps(rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Rows of pixels as channels_last maps of the shape of `like`."""
    n, c, h, w = like.shape
    return rows.view(n, h, w, c).permute(0, 3, 1, 2)
