"""Internal covariate shift: Santurkar et al. 2018, "How Does Batch Normalization Help Optimization?"."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from normlab.probes.loss import Loss, Weights, distance, gradient, length

__all__ = ["Shift", "covariate_shift"]


@dataclass(frozen=True)
class Shift:
    """How far the gradient of one layer moved because the layers before it did.

    Attributes:
        l2: ‖G - G'‖₂, ideally 0. cosine: of the angle between G and G', ideally 1; NaN where one of them is 0.
        gradient: ‖G‖₂.
    """

    l2: float
    cosine: float
    gradient: float


def covariate_shift(
    loss: Loss,
    before: Weights,
    after: Weights,
    layers: Mapping[str, Sequence[str]],
    measured: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Shift]:
    """The internal covariate shift of every layer but the first, whose inputs no layer moves.

    G_i = ∇_{W_i} L(W_1(t), …, W_k(t)), and G'_i is the same gradient after the layers before i have been updated:
    ∇_{W_i} L(W_1(t+1), …, W_{i-1}(t+1), W_i(t), …, W_k(t)). Definition 2.1 of the paper.

    Args:
        loss: L on the batch of step t. before, after: all weights at t and at t + 1.
        layers: the names of each layer's weights, in the order of the forward pass.
        measured: those of a layer whose gradient is G; all of the layer's unless given.
    """
    measured = layers if measured is None else measured
    _, g = gradient(loss, before, [name for names in measured.values() for name in names])
    found: dict[str, Shift] = {}
    mixed = dict(before)
    for index, (layer, names) in enumerate(layers.items()):
        if index:
            g_layer = {name: g[name] for name in measured[layer]}
            _, g_moved = gradient(loss, mixed, measured[layer])
            found[layer] = Shift(distance(g_layer, g_moved), _cosine(g_layer, g_moved), length(g_layer))
        mixed |= {name: after[name] for name in names}
    return found


def _cosine(one: Weights, other: Weights) -> float:
    dot = torch.stack([(values.double() * other[name].double()).sum() for name, values in one.items()]).sum()
    lengths = length(one) * length(other)
    return float(dot) / lengths if lengths else float("nan")
