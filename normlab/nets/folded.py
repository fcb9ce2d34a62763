"""Many networks in one forward pass: their channels lie side by side, and grouped convolutions keep them apart.

K networks with maps (B, C, H, W) each are one network with maps (B, K · C, H, W) whose convolutions have K groups, in
the manner of HFTA (Wang et al. 2021, "Horizontally Fused Training Array"). Norms fold in the same way: group norm has K
times the groups, batch norm K times the channels. Nothing of one network ever reaches another: not in a sum, not as a
product with zero, so that a network which diverges to nan leaves its neighbours as they are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from normlab.nets.dropout import Dropout
from normlab.nets.folded_layers import LAYERS, Call, each_alone, fold, unfold, vmapped
from normlab.nets.net import Net
from normlab.nets.network import Network, in_order

__all__ = ["LAYERS", "Numbers", "apply", "fold", "log_probs", "unfold"]

Masks = Callable[[torch.Tensor], torch.Tensor]  # folded maps -> a dropout mask of their shape


@dataclass(frozen=True)
class Numbers:
    """Parameters and buffers of K networks, by name: (K, …). Buffers change in place where a layer changes them."""

    parameters: Mapping[str, torch.Tensor]
    buffers: Mapping[str, torch.Tensor]

    def of(self, layer: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Those of one layer, by their names within it."""
        prefix = f"{layer}."
        return tuple(  # type: ignore[return-value]  # two of them
            {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
            for values in (self.parameters, self.buffers)
        )


def log_probs(
    net: Network, numbers: Numbers, images: torch.Tensor, *, training: bool, masks: Masks | None = None
) -> torch.Tensor:
    """Return the log-probabilities of K networks for their own images: (K, B, num_classes) for (K, B, C, H, W).

    The small network is folded; any other goes through `torch.func` whole.

    Args:
        net: of the networks' shape; its own numbers are not used.
        numbers: theirs. In training, batch norm moves the running statistics in `numbers.buffers` in place.
        masks: gives the dropout masks of the small network while training; None: no dropout.
    """
    if not isinstance(net, Net):
        return each_alone(net.train(training), numbers.parameters, numbers.buffers, images)
    networks = len(images)
    x = fold(images)
    for name, layer in in_order(net):
        if isinstance(layer, Dropout):
            x = x * masks(x) if training and masks is not None else x
        else:
            x = apply(layer, *numbers.of(name), x, networks, training=training)
    return F.log_softmax(x.view(x.shape[0], networks, -1), dim=2).transpose(0, 1)


def apply(
    layer: nn.Module,
    parameters: dict[str, torch.Tensor],
    buffers: dict[str, torch.Tensor],
    x: torch.Tensor,
    networks: int,
    *,
    training: bool,
) -> torch.Tensor:
    """One layer on folded maps: each of K networks with its own numbers, (K, …) a name.

    `LAYERS` says how; what is not in it goes through `torch.func`, and may raise what that raises.
    """
    return LAYERS.get(type(layer), vmapped)(Call(layer, parameters, buffers, networks, training), x)
