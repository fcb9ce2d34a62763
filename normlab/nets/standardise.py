"""y = γ · (x - μ) / sqrt(σ² + ε) + β on channels_last maps, by few passes over memory: where torch's kernels are slow.

On CPU torch has no good channels_last kernel for statistics over a batch, for more than a handful of groups, or for
single channels. Here the pixels of an image lie as rows of several pixels, wide enough for vector
instructions, and every pass runs in place over one buffer.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

__all__ = ["rows_fit", "standardise"]

WIDEST = 640  # numbers in a row of several pixels


def rows_fit(x: torch.Tensor, weight: torch.Tensor | None) -> bool:
    """Whether `standardise` takes x as it lies in memory: channels_last maps on CPU, of the parameters' dtype."""
    return (
        x.device.type == "cpu"
        and x.dim() == 4
        and x.shape[1] > 1
        and x.is_contiguous(memory_format=torch.channels_last)
        and (weight is None or weight.dtype == x.dtype)
    )


def standardise(
    x: torch.Tensor, groups: int | None, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """y of the shape of x, (N, C, H, W), with the means and the biased variances of the sets that share them.

    `groups`: so many groups of channels in each image share their statistics (means and variances: (N, groups)); None:
    each channel, over the batch ((C,)). γ = `weight` and β = `bias` are (C,), or None for 1 and 0.
    """
    return _Standardise.apply(x, groups, weight, bias, eps)  # type: ignore[no-any-return]


class _Sets:
    """Which numbers share a statistic, and how per-channel values meet rows of k pixels: (N, H · W / k, k · C)."""

    def __init__(self, shape: torch.Size, groups: int | None) -> None:
        self.n, self.c, h, w = shape
        self.k = next(k for k in (16, 8, 4, 2, 1) if (h * w) % k == 0 and (k * self.c <= WIDEST or k == 1))
        self.groups = groups
        self.count = self.n * h * w if groups is None else h * w * (self.c // groups)

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1).reshape(self.n, -1, self.k * self.c)

    def maps(self, rows: torch.Tensor, like: torch.Size) -> torch.Tensor:
        n, c, h, w = like
        return rows.view(n, h, w, c).permute(0, 3, 1, 2)

    def per_channel(self, rows: torch.Tensor) -> torch.Tensor:
        """Sums over pixels, and over images where the batch shares: (C,) or (N, C)."""
        sums = rows.sum((0, 1) if self.groups is None else 1)
        return sums if self.k == 1 else sums.view(*sums.shape[:-1], self.k, self.c).sum(-2)

    def share(self, sums: torch.Tensor) -> torch.Tensor:
        """Means over the sets from sums per channel: (C,) or (N, groups)."""
        return (sums if self.groups is None else sums.view(self.n, self.groups, -1).sum(2)) / self.count

    def spread(self, shared: torch.Tensor) -> torch.Tensor:
        """A value per set, for each of its channels: (C,) or (N, C)."""
        return shared if self.groups is None else shared.repeat_interleave(self.c // self.groups, 1)

    def wide(self, values: torch.Tensor) -> torch.Tensor:
        """(C,) or (N, C), as they meet rows."""
        if self.k == 1:
            return values if values.dim() == 1 else values.unsqueeze(1)
        return values.repeat(self.k) if values.dim() == 1 else values.repeat(1, self.k).unsqueeze(1)


class _Standardise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        groups: int | None,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        eps: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        sets = _Sets(x.shape, groups)
        rows = sets.rows(x)
        mean = sets.share(sets.per_channel(rows))
        centre = sets.spread(mean)
        y = torch.sub(rows, sets.wide(centre))
        var = sets.share(sets.per_channel(y.square_()))
        scale = sets.spread((var + eps).rsqrt())
        slope = scale if weight is None else weight * scale
        shift = -centre * slope if bias is None else bias - centre * slope
        torch.addcmul(sets.wide(shift), rows, sets.wide(slope), out=y)
        ctx.save_for_backward(rows, centre, scale, weight)
        ctx.sets, ctx.shape, ctx.has_bias = sets, x.shape, bias is not None
        ctx.mark_non_differentiable(mean, var)
        return sets.maps(y, x.shape), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
        rows, centre, scale, weight = ctx.saved_tensors
        sets: _Sets = ctx.sets
        dy = sets.rows(grad)
        d = torch.sub(rows, sets.wide(centre)).mul_(dy)
        by_weight, by_bias = sets.per_channel(d) * scale, sets.per_channel(dy)
        # dx = γ/σ · dy - (mean(γ · dy) + x̂ · mean(γ · dy · x̂)) / σ, with x̂ = (x - μ)/σ
        gamma = torch.ones_like(scale) if weight is None else weight.expand_as(scale)
        tilt = -scale.square() * sets.spread(sets.share(by_weight * gamma))
        shift = -scale * sets.spread(sets.share(by_bias * gamma)) - centre * tilt
        torch.addcmul(sets.wide(shift), rows, sets.wide(tilt), out=d)
        d.addcmul_(dy, sets.wide(gamma * scale))
        if sets.groups is not None:
            by_weight, by_bias = by_weight.sum(0), by_bias.sum(0)
        grads = (None if weight is None else by_weight, by_bias if ctx.has_bias else None)
        return sets.maps(d, ctx.shape), None, *grads, None
