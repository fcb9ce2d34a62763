"""What is measured inside a network, while it trains or afterwards: plain torch, and nothing of the network changes."""

from normlab.probes.landscape import Landscape, along_gradient
from normlab.probes.layers import dead_share, layer_statistics, moments, stable_rank
from normlab.probes.loss import StepLoss, gradient
from normlab.probes.points import points
from normlab.probes.shift import Shift, covariate_shift

__all__ = [
    "Landscape",
    "Shift",
    "StepLoss",
    "along_gradient",
    "covariate_shift",
    "dead_share",
    "gradient",
    "layer_statistics",
    "moments",
    "points",
    "stable_rank",
]
