"""Root mean square normalization."""

from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import EPS, ROOT_MEAN_SQUARE, SWITCH, About, Learned
from normlab.norms.layer import Norm

ABOUT = About(
    family="layer",
    formula=ROOT_MEAN_SQUARE,
    axes=("CHW",),
    statistic=("mean square", "mean squares"),
    centred=False,
    options={"eps": EPS, "affine": SWITCH},
    learned={"weight": Learned(start=1.0, when="affine", scale=True, sign="γ")},
    source='Zhang & Sennrich 2019, "Root Mean Square Layer Normalization", arXiv:1910.07467, equation 4',
    colour="#902067",
    marker="v",
)


class RMSNorm2d(Norm, about=ABOUT):
    """Root mean square normalization of an image: y = γ · x / sqrt(mean(x²) + ε), the mean over (C, H, W).

    γ per channel, no shift. `nn.RMSNorm([C, H, W])` has a γ for every position.
    """

    def normalize(self, x: Tensor) -> Tensor:
        return ops.affine(x, self.weight, None, (ops.mean_square(x, [-3, -2, -1]) + self.eps).rsqrt())
