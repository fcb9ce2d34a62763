"""The networks under study, in plain torch."""

from normlab.nets.net import PLACEMENTS, Net
from normlab.nets.network import Network, in_order, norm_layers
from normlab.nets.other import make_net
from normlab.nets.penalty import (
    METHODS,
    SCOPES,
    adamw_scale,
    add_subgradient_,
    l1_norm,
    penalised,
    proximal_threshold,
    soft_threshold_,
    sparsity,
    uncovered,
)

__all__ = [
    "METHODS",
    "PLACEMENTS",
    "SCOPES",
    "Net",
    "Network",
    "adamw_scale",
    "add_subgradient_",
    "in_order",
    "l1_norm",
    "make_net",
    "norm_layers",
    "penalised",
    "proximal_threshold",
    "soft_threshold_",
    "sparsity",
    "uncovered",
]
