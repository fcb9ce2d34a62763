"""The L1 penalty λ·Σ|w|: which parameters it covers, how it acts on a step, and how sparse it leaves a network."""

import math
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import nn

from normlab.nets.network import Network

ROLES = {"weights": {"conv", "scale"}, "conv": {"conv"}, "norm": {"scale"}, "all": {"conv", "scale", "shift", "other"}}
SCOPES = tuple(ROLES)

Number = TypeVar("Number", float, torch.Tensor)


def penalised(net: Network, scope: str) -> dict[str, nn.Parameter]:
    """Return the parameters that a penalty of this scope covers, by name, frozen ones included.

    - "conv": the weights of convolutions and linear layers outside of the norms (7,466 numbers in the small network).
    - "norm": the scales γ of the norms, whatever their name (74 numbers with bn, ln, gn).
    - "weights": both.
    - "all": every parameter, shifts β and a user's own included.

    `Network.roles` has the role of each parameter. Raise `ValueError`, with the choices, if the scope is unknown.
    """
    if scope not in SCOPES:
        raise ValueError(f"penalty.scope {scope!r} is unknown: choose one of {', '.join(SCOPES)}")
    return {name: p for name, p in net.named_parameters() if net.roles.get(name, "other") in ROLES[scope]}


def uncovered(net: Network, scope: str) -> list[str]:
    """Return the names of the parameters that a penalty of this scope may be expected to cover and does not.

    They are neither weights of convolutions or linear layers nor scales nor shifts, as far as their module, their name
    and their initial values tell.
    """
    return [name for name, _ in net.named_parameters() if scope != "all" and net.roles.get(name, "other") == "other"]


def l1_norm(parameters: Iterable[torch.Tensor]) -> torch.Tensor:
    """Σ|w| over all parameters: a scalar, zero where there are none."""
    norms = [parameter.abs().sum() for parameter in parameters]
    return torch.stack(norms).sum() if norms else torch.zeros(())


def proximal_threshold(lr: Number, l1: Number, momentum: Number) -> Number:
    """Return the threshold of the proximal step after a step of SGD: lr·λ / (1 - momentum).

    SGD's velocity v ← momentum·v + g adds a lasting gradient up to 1 / (1 - momentum) times: its steps are those of
    lr / (1 - momentum), and the threshold has to follow. Then training rests where 0 ∈ ∇loss + λ·∂|w|, as with
    subgradient steps; lr·λ would have it rest where λ·(1 - momentum) is the penalty. Yun, Lozano & Yang 2021
    ("Adaptive Proximal Gradient Methods for Structured Neural Networks", algorithm 1) threshold by lr·λ, but average
    the gradient, v ← momentum·v + (1 - momentum)·g, which is the same in other units.
    """
    return lr * l1 / (1 - momentum)


def adamw_scale(
    square: torch.Tensor, step: torch.Tensor, beta2: float | torch.Tensor, eps: float | torch.Tensor
) -> torch.Tensor:
    """Return what AdamW divides its step by: √(v / (1 - β₂ᵗ)) + ε (Kingma & Ba 2015, algorithm 1).

    square: v, the running mean of squared gradients, of any shape. step: t, from 1. beta2: β₂; as a tensor in float64.
    """
    corrected = torch.sqrt(1 - beta2 ** step.double())
    return square.sqrt() / corrected.to(square) + eps


@torch.no_grad()
def soft_threshold_(parameters: Iterable[nn.Parameter], threshold: float | torch.Tensor) -> None:
    """Take the proximal step of threshold·Σ|w|, in place: w ← sign(w)·max(|w| - threshold, 0).

    It leaves exact zeros, which subgradient steps never do. A frozen parameter (`requires_grad=False`) is left alone.
    threshold: ≥ 0, of the parameters' shape where each number has its own. `normlab.training.optim.proximal_step_`
    knows which one goes with an optimizer. Source: Parikh & Boyd 2014, "Proximal Algorithms", section 6.5.2.
    """
    for parameter in parameters:
        if parameter.requires_grad:
            parameter.sub_(parameter.clamp(-threshold, threshold))  # type: ignore[arg-type]  # numbers as well


@torch.no_grad()
def sparsity(net: Network, relative: float = 0.01) -> dict[str, float]:
    """How sparse the convolutions of a network are, as shares in [0, 1].

    - "zeros": weights that are exactly 0.
    - "small": weights with |w| ≤ relative · max|w| of their own filter (an all-zero filter counts whole). A norm makes
      a filter's scale meaningless, so an absolute threshold would mislead.
    - "zero_filters": output filters that are all exactly 0.
    - "zero_scales": scales γ of the norms that are exactly 0, of those that there are; nan where there are none.
    """
    filters = [weight.flatten(1) for weight in penalised(net, "conv").values()]
    weights = sum(f.numel() for f in filters)
    scales = list(penalised(net, "norm").values())
    total = sum(s.numel() for s in scales)
    small = sum(int((f.abs() <= relative * f.abs().amax(1, keepdim=True)).sum()) for f in filters)
    return {
        "zeros": sum(int((f == 0).sum()) for f in filters) / weights,
        "small": small / weights,
        "zero_filters": sum(int((f == 0).all(1).sum()) for f in filters) / sum(len(f) for f in filters),
        "zero_scales": sum(int((s == 0).sum()) for s in scales) / total if total else math.nan,
    }
