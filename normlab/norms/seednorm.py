"""Self-rescaled dynamic normalization: by the root mean square, with a scale that depends on the input."""

import torch
from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import EPS, LARGEST, SWITCH, About, Learned, Number
from normlab.norms.layer import Norm

ABOUT = About(
    family="layer",
    formula="(γ + α · tanh(Σ β · x)) · x / √(mean(x²) + ε)",
    axes=("C",),
    statistic=("mean square", "mean squares"),
    centred=False,
    options={"alpha": Number(-LARGEST, LARGEST, "finite"), "eps": EPS, "affine": SWITCH},
    learned={
        "weight": Learned(start=1.0, when="affine", scale=True, sign="γ"),
        "alpha": Learned(start="alpha", scale=True, sign="α"),
        "beta": Learned(sign="β"),
    },
    source='Cai et al. 2025, "SeeDNorm: Self-Rescaled Dynamic Normalization", arXiv:2510.22777, section 3',
    colour="#A26648",
    marker="8",
)


class SeeDNorm2d(Norm, about=ABOUT):
    """Self-rescaled dynamic normalization: y = (γ + α · tanh(Σ β · x)) · x / sqrt(mean(x²) + ε).

    γ, α and β per channel, 1, 1 and 0 at the start: root mean square normalization then. The sum and the mean are over
    the C channels of each pixel, where the paper has the features of a token, as its ConvNeXt does; one head.
    affine=false leaves γ = 1.
    """

    alpha: Tensor
    beta: Tensor

    def normalize(self, x: Tensor) -> Tensor:
        gate = torch.tanh((x * ops.per_channel(self.beta)).sum(-3, keepdim=True))
        y = x * (ops.mean_square(x, [-3]) + self.eps).rsqrt()
        return ops.affine(y, self.weight, None) + y * gate * ops.per_channel(self.alpha)
