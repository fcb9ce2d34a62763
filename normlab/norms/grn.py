"""Global response normalization."""

import torch
from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import EPS, SWITCH, About, Learned
from normlab.norms.layer import Norm

ABOUT = About(
    family="layer",
    formula="γ · x · ‖x_c‖ / (mean‖x_c‖ + ε) + β + x",
    axes=("CHW",),
    statistic=("mean norm of the maps", "mean norms of the maps"),
    centred=False,
    options={"eps": EPS, "affine": SWITCH},
    learned={"weight": Learned(when="affine", scale=True, sign="γ"), "bias": Learned(when="affine", sign="β")},
    source='Woo et al. 2023, "ConvNeXt V2", arXiv:2301.00808, section 3, equations 1 to 3',
    colour="#4E1E12",
    marker="o",
)


class GlobalResponseNorm2d(Norm, about=ABOUT):
    """Global response normalization: y = γ · x · N(x) + β + x, N(x) = ‖x_c‖ / (mean over channels of ‖x_c‖ + ε).

    ‖x_c‖ is the L2 norm of a map, over (H, W) per image and channel. γ and β per channel start at 0: the layer is the
    identity then. affine=false leaves γ = 1 and β = 0: y = x · N(x) + x.
    """

    def normalize(self, x: Tensor) -> Tensor:
        square = x.square().sum([-2, -1], keepdim=True)
        length = torch.where(square > 0, square, 1.0).sqrt() * (square > 0)  # maps of zeros: derivatives of 0, not nan
        response = length / (length.mean(-3, keepdim=True) + self.eps)
        return ops.affine(x * response, self.weight, self.bias) + x
