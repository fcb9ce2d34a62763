"""The networks under study, in plain torch."""

from normlab.nets.factory import make_net, network_of
from normlab.nets.net import PLACEMENTS, Net
from normlab.nets.network import Network, in_order, norm_layers
from normlab.nets.penalty import SCOPES, l1_norm, penalised, sparsity, uncovered

__all__ = [
    "PLACEMENTS", "SCOPES", "Net", "Network", "in_order", "l1_norm", "make_net", "network_of", "norm_layers",
    "penalised", "sparsity", "uncovered",
]  # fmt: skip
