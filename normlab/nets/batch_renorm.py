"""Batch renormalization: batch statistics, pulled towards the running ones that will be used in eval mode."""

import torch
from torch import nn

from normlab.nets.batch_norm import batch_norm
from normlab.nets.synced import batch_moments, synced_batch_norm

__all__ = ["BatchRenorm2d", "batch_renorm"]


class BatchRenorm2d(nn.BatchNorm2d):
    """Batch renormalization (Ioffe 2017, "Batch Renormalization", algorithm 1).

    While training, with the batch's μ_B and σ_B² and the running μ and σ² as they stand before the step:

        y = γ · ((x - μ_B) / σ_B · r + d) + β,   σ = sqrt(σ² + ε)
        r = clip(σ_B / σ, 1 / r_max, r_max),   d = clip((μ_B - μ) / σ, -d_max, d_max), both without a gradient

    With r = 1 and d = 0 it is batch normalization; without limits training would see what eval mode sees. The limits
    widen: up to step `begin` r_max = 1 and d_max = 0, then linearly to `r_max` at step `r_end` and to `d_max` at
    step `d_end`. The paper's 5,000, 40,000 and 25,000 are of some 250,000 steps; the defaults are the same shares of a
    run of 12 epochs. The paper averages σ, this averages σ² as batch normalization does, so that the state is the
    same; in eval mode the two are one.
    """

    synced = False  # statistics over several processes: set by `synchronise`

    def __init__(
        self,
        num_channels: int,
        *,
        r_max: float = 3.0,
        d_max: float = 5.0,
        begin: int = 100,
        r_end: int = 800,
        d_end: int = 500,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
    ) -> None:
        if r_max < 1 or d_max < 0:
            raise ValueError(f"r_max={r_max}, d_max={d_max}: r_max is at least 1, d_max at least 0")
        if not 0 <= begin < min(r_end, d_end):
            raise ValueError(f"begin={begin}, r_end={r_end}, d_end={d_end}: begin comes first, in steps")
        super().__init__(num_channels, eps=eps, momentum=momentum, affine=affine)
        self.r_max, self.d_max = r_max, d_max
        self.begin, self.r_end, self.d_end = begin, r_end, d_end

    def limits(self, step: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """r_max and d_max after so many steps, in float64: whole numbers divided would be float32."""
        since = step.double() - self.begin
        r, d = ((since / (end - self.begin)).clamp(0, 1) for end in (self.r_end, self.d_end))
        return 1 + r * (self.r_max - 1), d * self.d_max

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """y of the shape of x: (N, C, H, W)."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None  # as it was built
        assert self.running_var is not None
        assert self.momentum is not None
        limits = self.limits(self.num_batches_tracked)  # type: ignore[arg-type]
        self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        running = (self.running_mean, self.running_var)
        return batch_renorm(x, *limits, *running, self.weight, self.bias, self.momentum, self.eps, self.synced)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, r_max={self.r_max}, d_max={self.d_max}"  # type: ignore[no-untyped-call]


def batch_renorm(
    x: torch.Tensor,
    r_max: torch.Tensor,
    d_max: torch.Tensor,
    running_mean: torch.Tensor,
    running_var: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    momentum: float,
    eps: float,
    synced: bool = False,
) -> torch.Tensor:
    """A training step of (N, C, H, W); the running statistics (C,) move in place.

    `r_max`, `d_max`: a number, or one a channel. synced: x is this process's share of a batch.
    """
    with torch.no_grad():
        if synced:
            mean, var, _ = batch_moments(x)
        else:
            var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        sigma = (running_var + eps).sqrt()
        r = ((var + eps).sqrt() / sigma).clamp(1 / r_max, r_max).to(x.dtype)
        d = ((mean - running_mean) / sigma).clamp(-d_max, d_max).to(x.dtype)
    scale = r if weight is None else weight * r
    shift = d if weight is None else weight * d
    normalize = synced_batch_norm if synced else batch_norm
    return normalize(x, running_mean, running_var, scale, shift if bias is None else bias + shift, momentum, eps)
