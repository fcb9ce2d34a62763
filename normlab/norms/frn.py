"""Filter response normalization."""

import torch
from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import AFFINE, EPS, SWITCH, About, Learned
from normlab.norms.layer import Norm

ABOUT = About(
    family="group",
    formula="max(γ · x / √(mean(x²) + ε) + β, τ)",
    axes=("HW",),
    statistic=("mean square", "mean squares"),
    centred=False,
    options={"eps": EPS, "affine": SWITCH, "threshold": SWITCH},
    learned={**AFFINE, "tau": Learned(when="threshold", sign="τ")},
    source='Singh & Krishnan 2020, "Filter Response Normalization Layer", arXiv:1911.09737, equations 1 to 4',
    colour="#858C40",
    marker="<",
)


class FilterResponseNorm2d(Norm, about=ABOUT):
    """Filter response normalization with its threshold unit: y = max(γ · x / sqrt(ν² + ε) + β, τ), ν² = mean of x² over
    (H, W) for each image and channel; γ, β and the threshold τ per channel.

    In the paper the unit takes the place of ReLU; it starts as one, with τ = 0. On maps of one pixel y is about
    γ · sign(x) + β: the paper then learns ε, this layer does not.
    """

    tau: Tensor | None

    def normalize(self, x: Tensor) -> Tensor:
        y = ops.affine(x, self.weight, self.bias, (ops.mean_square(x, [-2, -1]) + self.eps).rsqrt())
        tau = self.tau
        return y if tau is None else torch.maximum(y, ops.per_channel(tau))
