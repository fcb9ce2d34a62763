"""Whether a run can be trained inside an array: known for the package's own norms, tried out for a user's layer."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from normlab.nets import make_norm
from normlab.nets.folded import apply, fold, unfold
from normlab.nets.stack import Stack
from normlab.settings import NORM_CHANNELS, Settings
from normlab.settings.arrays import refusal

__all__ = ["unfoldable"]

NETWORKS, AT_ONCE, IMAGES, STEPS = 3, 2, 4, 2


def unfoldable(settings: Settings) -> str | None:
    """Why a run has to be trained by itself, in one line; None where an array gives it the same results.

    A user's layer is tried: three copies with different weights take two training steps and one in eval mode, alone and
    through `torch.func`, two side by side and then the third, as the engine does it. Outputs, gradients and buffers
    have to agree.
    """
    if (reason := refusal(settings)) or settings.norm.name != "custom":
        return reason
    target, options = settings.norm.target, settings.norm.options
    with torch.random.fork_rng(devices=[]):
        try:
            for channels in sorted(set(NORM_CHANNELS)):
                layers = [make_norm("custom", channels, target=target, **options) for _ in range(NETWORKS)]
                if not _same_in_array(layers, channels):
                    doubt = "does it draw random numbers, or keep values outside of its buffers?"
                    return f"{target} gives other results in an array: {doubt}"
        except Exception as error:  # a user's layer, and torch.func with it, may raise anything
            told = next(iter(str(error).splitlines()), "no message")
            return f"{target} cannot run for several networks at once ({type(error).__name__}: {told})"
    return None


def _same_in_array(layers: Sequence[nn.Module], channels: int) -> bool:
    for parameter in (parameter for layer in layers for parameter in layer.parameters()):
        parameter.data += 0.1 * torch.randn_like(parameter)  # else both copies would be one layer
    stack = Stack(layers)
    template = copy.deepcopy(layers[0])
    for step in range(STEPS + 1):
        training = step < STEPS
        maps = torch.randn(len(layers), IMAGES, channels, 6, 6, requires_grad=True)
        weights = stack.parameters.clone().requires_grad_()
        parts = []
        for low in range(0, len(layers), AT_ONCE):
            high = low + AT_ONCE
            parameters, buffers = (
                {name: values[low:high] for name, values in of.items()} for of in (stack.named(weights), stack.buffers)
            )
            some = maps[low:high]
            said = apply(template, parameters, buffers, fold(some), len(some), training=training)
            parts.append(unfold(said, len(some)))
        together = torch.cat(parts)
        alone = torch.stack([layer.train(training)(own) for layer, own in zip(layers, maps, strict=True)])
        found = [[together], [alone]]
        if training:
            grad = torch.randn_like(together)
            found[0] += _grads(together, [maps, weights], grad)
            own = [parameter for layer in layers for parameter in layer.parameters()]
            by_maps, *by_weights = _grads(alone, [maps, *own], grad)
            flat = torch.cat([values.flatten() for values in by_weights]) if own else weights.new_zeros(0)
            found[1] += [by_maps, flat.view_as(weights)]
        found[0] += stack.buffers.values()
        found[1] += [torch.stack([dict(layer.named_buffers())[name] for layer in layers]) for name in stack.buffers]
        for got, expected in zip(*found, strict=True):
            if not torch.allclose(got.float(), expected.float(), rtol=1e-3, atol=1e-5, equal_nan=True):
                return False
    return True


def _grads(result: torch.Tensor, inputs: Sequence[torch.Tensor], grad: torch.Tensor) -> list[torch.Tensor]:
    """Gradients; zeros where the result does not depend on an input, or on none of them."""
    if not result.requires_grad:
        return [torch.zeros_like(values) for values in inputs]
    found = torch.autograd.grad(result, list(inputs), grad, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(v) if g is None else g for v, g in zip(inputs, found, strict=True)]
