"""The networks under study, in plain torch."""

from normlab.nets.about import ABOUT, About
from normlab.nets.net import PLACEMENTS, Net
from normlab.nets.network import Network, in_order, norm_layers
from normlab.nets.norms import NORMS, load_class, make_norm
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
from normlab.nets.synced import synchronise

__all__ = [
    "ABOUT",
    "METHODS",
    "NORMS",
    "PLACEMENTS",
    "SCOPES",
    "About",
    "Net",
    "Network",
    "adamw_scale",
    "add_subgradient_",
    "in_order",
    "l1_norm",
    "load_class",
    "make_net",
    "make_norm",
    "norm_layers",
    "penalised",
    "proximal_threshold",
    "soft_threshold_",
    "sparsity",
    "synchronise",
    "uncovered",
]
