"""Extended batch normalization."""

from torch import Tensor

from normlab.norms.about import EPS, MOMENTUM, SWITCH, About
from normlab.norms.layer import BatchStatisticsNorm

ABOUT = About(
    family="batch",
    axes=("NHW", "NCHW"),
    statistic=("mean or variance", "means and variances"),
    options={"eps": EPS, "momentum": MOMENTUM, "affine": SWITCH},
    state="running mean of each channel; running variance of all of them",
    modes="train: μ and σ² of the batch; eval: the running ones",
    source='Luo, Zhan & Wang 2020, "Extended Batch Normalization", arXiv:2003.05569, section 3',
    colour="#360672",
    marker="D",
)


class ExtendedBatchNorm2d(BatchStatisticsNorm, about=ABOUT):
    """Extended batch normalization: μ over (N, H, W) for each channel, one σ² over (N, C, H, W); γ and β per channel.

    σ² is the mean of the squared deviations from the own channel's μ, so that the layer forgets a shift of a channel
    as batch normalization does. In eval mode running averages take their place; `running_var` holds σ² once per
    channel, as update_bn and SyncBatchNorm expect it.
    """

    def batch_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.batch_mean(x, [0, -2, -1])
        var = self.batch_mean((x - mean).square(), [0, -2, -1])
        return mean, var.mean(-3, keepdim=True).expand_as(mean)
