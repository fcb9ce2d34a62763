"""Whether a run can be trained inside an array: known for the small network and the catalogue's norms, else tried."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from normlab.nets import Network, make_net
from normlab.nets.folded import each_alone, fold, unfold
from normlab.nets.stack import Stack
from normlab.norms import CATALOGUE, make_norm
from normlab.settings import NORM_CHANNELS, Settings
from normlab.settings.arrays import refusal

__all__ = ["unfoldable"]

COPIES, NETWORKS, AT_ONCE, IMAGES, STEPS = 3, 2, 2, 4, 2


def unfoldable(settings: Settings) -> str | None:
    """Return why a run has to be trained on its own, in one line; None where an array gives it the same results.

    A norm of one's own, or another network, is tried: copies with different weights take two training steps and one in
    eval mode, alone and through `torch.func`, two side by side and then the third, as the engine does it. Outputs,
    gradients and buffers have to agree.
    """
    if reason := refusal(settings):
        return reason
    norm, net = settings.norm, settings.net
    if net.name == "small" and norm.name in CATALOGUE:
        return None
    name = str(norm.target) if net.name == "small" else f"net={net.name}"
    with torch.random.fork_rng(devices=[]):
        try:
            for copies, shape in _copies(settings):
                if not _same_in_array(copies, (IMAGES, *shape)):
                    doubt = "does it draw random numbers, or keep values outside of its buffers?"
                    return f"{name} gives other results in an array: {doubt}"
        except Exception as error:  # code of one's own, and torch.func with it, may raise anything
            message = next(iter(str(error).splitlines()), "no message")
            return f"{name} cannot run for several networks at once ({type(error).__name__}: {message})"
    return None


def _copies(settings: Settings) -> list[tuple[list[nn.Module], tuple[int, int, int]]]:
    """What is tried, with the shape of its inputs: the norm at every width of the small network, or another network, in
    float64, where no rounding decides on which side of a ReLU a number is."""
    norm, net = settings.norm, settings.net
    if net.name == "small":
        return [
            ([make_norm(norm.name, width, norm.options, target=norm.target) for _ in range(COPIES)], (width, 6, 6))
            for width in sorted(set(NORM_CHANNELS))
        ]
    shape = (net.channels or 1, net.size or 28, net.size or 28)
    parts = net.model_dump(include={"name", "target", "options", "channels", "size"})
    parts |= {"norm": norm.name, "norm_options": norm.options, "norm_target": norm.target}
    return [([make_net(**parts, image=shape).double() for _ in range(NETWORKS)], shape)]


def _same_in_array(copies: Sequence[nn.Module], shape: tuple[int, ...]) -> bool:
    """shape: of the inputs of one copy."""
    for parameter in (parameter for each in copies for parameter in each.parameters()):
        size = parameter.data.abs().mean()
        parameter.data += 0.1 * torch.where(size > 0, size, 1.0) * torch.randn_like(parameter)
    stack = Stack(copies)  # with weights of their own: else all copies would be one
    template = copy.deepcopy(copies[0])
    for step in range(STEPS + 1):
        training = step < STEPS
        for low in range(0, len(copies), AT_ONCE):
            some = copies[low : low + AT_ONCE]
            inputs = torch.randn(len(some), *shape, dtype=stack.parameters.dtype, requires_grad=True)
            weights = stack.parameters[low : low + AT_ONCE].clone().requires_grad_()
            buffers = {name: values[low : low + AT_ONCE] for name, values in stack.buffers.items()}
            maps = inputs if isinstance(template, Network) else unfold(fold(inputs), len(some))
            together = each_alone(template, stack.named(weights), buffers, maps, training=training)
            alone = torch.stack([each.train(training)(own) for each, own in zip(some, inputs, strict=True)])
            results, expected = [together, *buffers.values()], [alone]
            expected += [torch.stack([dict(each.named_buffers())[name] for each in some]) for name in buffers]
            if training:
                grad = torch.randn_like(together)
                own = [parameter for each in some for parameter in each.parameters()]
                by_inputs, *by_weights = _grads(alone, [inputs, *own], grad)
                flat = torch.cat([values.flatten() for values in by_weights]) if own else weights.new_zeros(0)
                results += _grads(together, [inputs, weights], grad)
                expected += [by_inputs, flat.view_as(weights)]
            for one, other in zip(results, expected, strict=True):
                if not torch.allclose(one.double(), other.double(), rtol=1e-3, atol=1e-5, equal_nan=True):
                    return False
    return True


def _grads(result: torch.Tensor, inputs: Sequence[torch.Tensor], grad: torch.Tensor) -> list[torch.Tensor]:
    """Gradients; zeros where the result does not depend on an input, or on none of them."""
    if not result.requires_grad:
        return [torch.zeros_like(values) for values in inputs]
    grads = torch.autograd.grad(result, list(inputs), grad, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(v) if g is None else g for v, g in zip(inputs, grads, strict=True)]
