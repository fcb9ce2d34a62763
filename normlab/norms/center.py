"""Mean-only batch normalization."""

from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import MOMENTUM, SWITCH, About
from normlab.norms.layer import BatchStatisticsNorm

ABOUT = About(
    family="batch",
    formula="γ · (x − μ) + β",
    axes=("NHW",),
    statistic=("mean", "means"),
    options={"momentum": MOMENTUM, "affine": SWITCH},
    state="running mean of each channel",
    modes="train: μ of the batch; eval: the running one",
    source='Salimans & Kingma 2016, "Weight Normalization", arXiv:1602.07868, section 4',
    colour="#542472",
    marker=">",
)


class MeanOnlyBatchNorm2d(BatchStatisticsNorm, about=ABOUT):
    """Batch normalization without its division: y = γ · (x − μ) + β; μ over (N, H, W), in eval mode a running average.

    γ and β per channel, so that nothing but the statistic distinguishes it from batch normalization; the paper, where
    weight normalization holds the scale, has β alone.
    """

    def normalize(self, x: Tensor) -> Tensor:
        if self.training:
            mean = self.batch_mean(x, [0, -2, -1])
            self.track(x, mean, None)
        else:
            mean = ops.running(x, self.averages()[0])
        return ops.affine(x - mean, self.weight, self.bias)
