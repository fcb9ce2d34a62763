"""The loss of a training step as a function of the weights, along its gradient, and as the layers before one move:
Santurkar et al. 2018, "How Does Batch Normalization Help Optimization?"."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import nll_loss

Weights = Mapping[str, torch.Tensor]
Loss = Callable[[Weights], torch.Tensor]

LENGTHS = (0.5, 1.0, 2.0, 4.0)  # times the learning rate: the paper's range for VGG, [1/2, 4] (appendix A)
POINTS = 40  # per run: the curves of a paper, at a cost that does not grow with the length of training


def points(steps: int, count: int = POINTS) -> list[int]:
    """Return at which steps a run is measured: of 0 … steps - 1 the first in each of `count` equal parts; all of them
    where there are no more."""
    parts = min(count, steps)
    return [part * steps // parts for part in range(parts)]


class StepLoss:
    """Cross-entropy of a batch in training mode, L(W; x, y), as often as one likes and always the same function.

    Every call starts from the buffers (running statistics, counters) and the state of the random generators that were
    there when this was made: at every W the network drops the same activations, those that the training step itself
    is about to drop. What a call does to buffers and generators is undone. The L1 penalty is no part of L.

    Args:
        net: a network that gives log-probabilities; it is copied. images, labels: the batch.
    """

    def __init__(self, net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.net = copy.deepcopy(net).train()
        self.images, self.labels = images, labels
        self._buffers = {name: buffer.detach().clone() for name, buffer in net.named_buffers()}
        self._random = torch.get_rng_state(), torch.cuda.get_rng_state(images.device) if images.is_cuda else None

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """W as the network had it, by the parameters' names."""
        return {name: parameter.detach().clone() for name, parameter in self.net.named_parameters()}

    def __call__(self, weights: Weights) -> torch.Tensor:
        """L at these weights: a scalar."""
        with kept_random_state(self.images.device):
            torch.set_rng_state(self._random[0])
            if self._random[1] is not None:
                torch.cuda.set_rng_state(self._random[1], self.images.device)
            state = {**weights, **{name: buffer.clone() for name, buffer in self._buffers.items()}}
            return nll_loss(functional_call(self.net, state, (self.images,)), self.labels)


def gradient(loss: Loss, weights: Weights, of: Iterable[str] | None = None) -> tuple[float, dict[str, torch.Tensor]]:
    """L(W), and ∂L/∂W by name: of all weights, or of some; zeros where L does not depend on one."""
    names = list(weights if of is None else of)
    free = {name: weights[name].detach().clone().requires_grad_() for name in names}
    with torch.enable_grad():
        value = loss({**weights, **free})
        if not value.requires_grad:  # L depends on none of them
            return float(value), {name: torch.zeros_like(values) for name, values in free.items()}
        found = torch.autograd.grad(value, list(free.values()), allow_unused=True, materialize_grads=True)
    return float(value.detach()), dict(zip(names, found, strict=True))


def length(vectors: Weights) -> float:
    """‖·‖₂ of all numbers together, summed in float64."""
    return float(torch.stack([values.double().square().sum() for values in vectors.values()]).sum().sqrt())


def distance(one: Weights, other: Weights) -> float:
    """‖one - other‖₂ over the names of `one`."""
    return length({name: values - other[name] for name, values in one.items()})


def kept_random_state(device: torch.device) -> AbstractContextManager[None]:
    """Return a context after which torch's generators stand where they stood before, whatever is drawn inside."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def along_gradient(loss: Loss, weights: Weights, steps: Sequence[float]) -> dict[str, float]:
    """Return what is met on the way w - ηg from a point w, with g = ∇L(w), on the batch that `loss` holds.

    - "loss": L(w). "gradient_norm": ‖g‖₂.
    - "loss_min", "loss_max": the least and the largest L(w - ηg), which shows how Lipschitz the loss is.
    - "change_min", "change_max": of ‖∇L(w - ηg) - g‖₂, how predictive the gradient is.
    - "smoothness": the effective β-smoothness, the largest ‖∇L(w - ηg) - g‖₂ / (η‖g‖₂). NaN where g is 0.

    Section 3.2, figure 4 of the paper.

    Args:
        loss: L, a function of all weights. weights: w. steps: the step sizes η > 0.
    """
    value, g = gradient(loss, weights)
    norm = length(g)
    losses, changes = [], []
    for step in steps:
        value_there, g_there = gradient(loss, {name: values - step * g[name] for name, values in weights.items()})
        losses.append(value_there)
        changes.append(distance(g_there, g))
    ratios = [change / (step * norm) for change, step in zip(changes, steps, strict=True) if step * norm]
    return {
        "loss": value,
        "loss_min": min(losses),
        "loss_max": max(losses),
        "change_min": min(changes),
        "change_max": max(changes),
        # a NaN is never hidden
        "smoothness": max(ratios, key=lambda ratio: (ratio != ratio, ratio), default=float("nan")),
        "gradient_norm": norm,
    }


def covariate_shift(
    loss: Loss,
    before: Weights,
    after: Weights,
    layers: Mapping[str, Sequence[str]],
    measured: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, dict[str, float]]:
    """Return the internal covariate shift of every layer but the first, whose inputs no layer moves.

    G_i = ∇_{W_i} L(W_1(t), …, W_k(t)), and G'_i is the same gradient after the layers before i have been updated:
    ∇_{W_i} L(W_1(t+1), …, W_{i-1}(t+1), W_i(t), …, W_k(t)). Definition 2.1 of the paper. "l2": ‖G - G'‖₂, ideally 0;
    "cosine": of the angle between G and G', ideally 1, NaN where one of them is 0; "gradient_norm": ‖G‖₂.

    Args:
        loss: L on the batch of step t. before, after: all weights at t and at t + 1.
        layers: the names of each layer's weights, in the order of the forward pass.
        measured: those of a layer whose gradient is G; all of the layer's unless given.
    """
    measured = layers if measured is None else measured
    _, g = gradient(loss, before, [name for names in measured.values() for name in names])
    found: dict[str, dict[str, float]] = {}
    mixed = dict(before)
    for index, (layer, names) in enumerate(layers.items()):
        if index:
            own = {name: g[name] for name in measured[layer]}
            _, moved = gradient(loss, mixed, measured[layer])
            found[layer] = {"l2": distance(own, moved), "cosine": _cosine(own, moved), "gradient_norm": length(own)}
        mixed |= {name: after[name] for name in names}
    return found


def _cosine(one: Weights, other: Weights) -> float:
    dot = torch.stack([(values.double() * other[name].double()).sum() for name, values in one.items()]).sum()
    lengths = length(one) * length(other)
    return float(dot) / lengths if lengths else float("nan")
