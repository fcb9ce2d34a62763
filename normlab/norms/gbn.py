"""Ghost batch normalization: the statistics of a small batch, whatever the size of the real one."""

import torch
from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import EPS, LARGEST, MOMENTUM, SWITCH, About, Number
from normlab.norms.layer import BatchStatisticsNorm
from normlab.norms.processes import counts, sum_over_processes

ABOUT = About(
    family="batch",
    axes=("VHW",),
    options={
        "virtual_batch_size": Number(1, LARGEST, "1 or more", whole=True),
        "eps": EPS,
        "momentum": MOMENTUM,
        "affine": SWITCH,
    },
    state="running mean and variance of each channel",
    modes="train: μ and σ² of V images of the batch; eval: the running ones",
    source='Hoffer, Hubara & Soudry 2017, "Train longer, generalize better", arXiv:1705.08741, algorithm 1',
    colour="#3E81C9",
    marker="8",
)


class GhostBatchNorm2d(BatchStatisticsNorm, about=ABOUT):
    """Batch normalization over ghost batches of `virtual_batch_size` images.

    While training, images 0 … v−1, v … 2v−1, … are normalized as batches of their own; images that are left over make
    a smaller last one. In eval mode it is batch normalization. n ghost batches move the running averages by their
    weighted sum, with m = `momentum` (None: by their mean):

        running ← (1 − m)^n · running + Σ m · (1 − m)^(n − i) · ghost_i,   i = 1 … n

    Where several processes share a batch, each cuts its own share into ghost batches; synchronised, the running
    averages take in those of all processes, in their order.

    Raises `ValueError` while training where a ghost batch has one number per channel: it has no variance.
    """

    virtual_batch_size: int

    def normalize(self, x: Tensor) -> Tensor:
        mean, var = self.averages()
        if not self.training:
            return ops.eval_norm(x, mean, var, self.weight, self.bias, self.eps)
        factor = self.step(x)
        momentum = self.running.momentum
        if not ops.is_scripting() and self.over_processes():
            return self._synced(x, mean, var, factor)
        size = self.virtual_batch_size
        if momentum is not None:
            return ghost_batch_norm(x, size, mean, var, self.weight, self.bias, factor, False, self.eps)
        own_mean, own_var = torch.zeros_like(mean), torch.zeros_like(var)
        y = ghost_batch_norm(x, size, own_mean, own_var, self.weight, self.bias, 0.0, True, self.eps)
        ops.track_(mean, own_mean, factor)
        ops.track_(var, own_var, factor)
        return y

    @torch.jit.unused
    def _synced(self, x: Tensor, mean: Tensor, var: Tensor, factor: float) -> Tensor:
        own, size = (torch.zeros_like(mean), torch.zeros_like(var)), self.virtual_batch_size
        cumulative = self.running.momentum is None
        y = ghost_batch_norm(x, size, *own, self.weight, self.bias, factor, cumulative, self.eps)
        ghosts, rank = counts(-(-len(x) // size), mean, self.group), torch.distributed.get_rank(self.group)
        if cumulative:
            share = factor * ghosts[rank] / ghosts.sum()
            keep = torch.ones_like(share) - factor
        else:
            keep, share = (1 - factor) ** ghosts.sum(), (1 - factor) ** ghosts[rank + 1 :].sum()
        with torch.no_grad():
            for average, moved in zip((mean, var), own, strict=True):
                average.mul_(keep).add_(sum_over_processes(moved * share, self.group))
        return y


@torch.fx.wrap
def ghost_batch_norm(
    x: Tensor,
    size: int,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    cumulative: bool,
    eps: float,
) -> Tensor:
    """A training step in ghost batches of `size` images; the averages move in place, by one ghost after the other.

    cumulative: ghost i enters with 1 / i instead of `momentum`, so that all count the same.
    """
    least = x.shape[0] % size
    least = min(size, x.shape[0]) if least == 0 else least
    if least * x.shape[-2] * x.shape[-1] < 2:
        raise ValueError(
            f"virtual_batch_size={size} makes a ghost batch of one of {x.shape[0]} images: on maps of 1x1 that is one "
            "number per channel, which has no variance: choose another virtual_batch_size, or larger maps"
        )
    parts: list[Tensor] = []
    for ghost in torch.split(x, size):
        factor = 1.0 / (len(parts) + 1) if cumulative else momentum
        parts.append(ops.batch_norm(ghost, mean, var, weight, bias, factor, eps))
    return parts[0] if len(parts) == 1 else torch.cat(parts)
