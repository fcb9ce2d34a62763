"""L1 batch normalization."""

import math

from torch import Tensor

from normlab.norms.about import EPS, MOMENTUM, SWITCH, About
from normlab.norms.layer import BatchStatisticsNorm

ABOUT = About(
    family="batch",
    formula="γ · (x − μ) / √(s² + ε) + β, s = √(π / 2) · mean|x − μ|",
    axes=("NHW",),
    statistic=("mean and mean absolute deviation", "means and mean absolute deviations"),
    options={"eps": EPS, "momentum": MOMENTUM, "affine": SWITCH},
    state="running mean of each channel; running s² in the place of the variance",
    modes="train: μ and s² of the batch; eval: the running ones",
    source='Wu et al. 2018, "L1-Norm Batch Normalization for Efficient Training of Deep Neural Networks", '
    "arXiv:1802.09769, section III",
    colour="#6072AE",
    marker="X",
)


class L1BatchNorm2d(BatchStatisticsNorm, about=ABOUT):
    """Batch normalization by the mean absolute deviation: y = γ · (x − μ) / sqrt(s² + ε) + β, s = √(π/2) · mean|x − μ|.

    Means over (N, H, W) for each channel. √(π/2) makes s the standard deviation of normally distributed numbers; Wu et
    al. leave the factor to γ, Hoffer et al. 2018 (arXiv:1803.01814, section 4) write it as here. Two adaptations: ε
    stands inside the root, as in the other norms (the paper adds it to s), and the running average is of s², with
    n / (n − 1) as for a variance, so that eval mode is batch normalization's.
    """

    def batch_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.batch_mean(x, [0, -2, -1])
        return mean, self.batch_mean((x - mean).abs(), [0, -2, -1]).square() * (math.pi / 2)
