"""The loss of one training step as a function of the weights, on a copy that the training never sees."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import nll_loss

__all__ = ["Loss", "StepLoss", "Weights", "distance", "gradient", "kept_random_state", "length"]

Weights = Mapping[str, torch.Tensor]
Loss = Callable[[Weights], torch.Tensor]


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
        self._random = _random_state(images.device)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """W as the network had it, by the parameters' names."""
        return {name: parameter.detach().clone() for name, parameter in self.net.named_parameters()}

    def __call__(self, weights: Weights) -> torch.Tensor:
        """L at these weights: a scalar."""
        with kept_random_state(self.images.device):
            _set_random_state(self._random, self.images.device)
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


@contextmanager
def kept_random_state(device: torch.device) -> Iterator[None]:
    """Whatever is drawn inside, torch's generators stand afterwards where they stood."""
    state = _random_state(device)
    try:
        yield
    finally:
        _set_random_state(state, device)


def _random_state(device: torch.device) -> list[torch.Tensor]:
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])


def _set_random_state(state: list[torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    for more in state[1:]:
        torch.cuda.set_rng_state(more, device)
