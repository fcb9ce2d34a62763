"""What is measured inside a network, while it trains or afterwards: plain torch, and nothing of the network changes."""

from normlab.probes.gradients import StepLoss, along_gradient, covariate_shift, gradient, points
from normlab.probes.layers import dead_share, layer_statistics, moments, stable_rank

__all__ = [
    "StepLoss", "along_gradient", "covariate_shift", "dead_share", "gradient", "layer_statistics", "moments", "points",
    "stable_rank",
]  # fmt: skip
