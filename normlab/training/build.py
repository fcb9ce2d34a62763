"""From settings to the parts of a run: images and network; and which runs can be an array."""

import copy
import itertools
import logging
from collections.abc import Sequence
from functools import cache

import torch
from torch import nn

from normlab.data.datamodule import ImageData
from normlab.errors import ConfigError
from normlab.nets import Network, make_net, uncovered
from normlab.nets.folded import each_alone, fold, unfold
from normlab.nets.stack import Stack
from normlab.norms import CATALOGUE, make_norm
from normlab.randomness import Stream, stream_seed
from normlab.settings import NORM_CHANNELS, Settings
from normlab.settings.arrays import refusal
from normlab.training.classifier import Classifier

__all__ = [
    "bytes_per_image",
    "initial_model",
    "lightning_precision",
    "load_array",
    "load_images",
    "networks_at_once",
    "set_float32_products",
    "unfoldable",
]

log = logging.getLogger("normlab")


def load_array(settings: Sequence[Settings]) -> tuple[list[ImageData], list[Classifier]]:
    """Return the images and initial networks of runs."""
    data = load_images(settings)
    return data, [initial_model(each, own) for each, own in zip(settings, data, strict=True)]


def load_images(settings: Sequence[Settings]) -> list[ImageData]:
    """Return the images of runs of one data set, which are in memory once, whatever the number of runs."""
    data = [ImageData.of(each) for each in settings]
    data[0].setup()
    for other in data[1:]:
        other.hold_as(data[0])
    return data


def initial_model(settings: Settings, data: ImageData | None = None) -> Classifier:
    """Return the network with the weights of its seed, for images such as those of `data` (None: grey, 28 x 28, of 10
    classes). Raise `ConfigError` where it cannot be built, or l1 covers nothing."""
    of_data = (data.num_classes, data.channels, data.size) if data else ()
    torch.manual_seed(stream_seed(Stream.WEIGHTS, settings.seed))
    try:
        model = Classifier.of(settings, *of_data)
    except ValueError as error:  # a user's own norm that cannot be built
        raise ConfigError(str(error)) from error
    if settings.l1:
        _name_what_is_left_out(settings.penalty.scope, tuple(uncovered(model.net, settings.penalty.scope)))
    if settings.l1 and not model.penalised:
        raise ConfigError(f"l1={settings.l1:g} with penalty.scope={settings.penalty.scope} covers no parameter here")
    return model


@cache
def _name_what_is_left_out(scope: str, names: tuple[str, ...]) -> None:
    """Warn, once per process, of parameters that a penalty may be expected to cover."""
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        log.warning(
            "normlab: warning: penalty.scope=%s leaves out %s, neither weights of convolutions or linear layers "
            "nor scales of norms; penalty.scope=all covers everything",
            scope,
            ", ".join(names[:3]) + more,
        )


def lightning_precision(settings: Settings) -> str:
    """The precision by Lightning's word: tf32 is 32-bit training with other products, see `set_float32_products`."""
    return "32-true" if settings.precision == "tf32" else settings.precision


def set_float32_products(settings: Settings, accelerator: str) -> None:
    """How a GPU multiplies float32 numbers: with all 24 bits of their mantissa, or 11 of them where tf32 is asked for.

    Convolutions would take TF32 by default; a comparison should not.
    """
    if accelerator == "gpu":
        torch.set_float32_matmul_precision("high" if settings.precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = settings.precision == "tf32"
        # deterministic mode fills every new tensor by default, a kernel each
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # its module is a class


COPIES, NETWORKS, AT_ONCE, IMAGES, STEPS = 3, 2, 2, 4, 2


def unfoldable(settings: Settings) -> str | None:
    """Return why a run has to be trained on its own, in one line; None where an array gives it the same results.

    A norm of one's own, or another network, is tried: copies with different weights take two training steps and one in
    eval mode, alone and through `torch.func`, two side by side and then the third, as an array does it. Outputs,
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
                own = [[*each.parameters()] for each in some]
                by_inputs, *by_weights = _grads(alone, [inputs, *itertools.chain(*own)], grad)
                count = len(own[0])
                rows = [stack.row(by_weights[count * index : count * (index + 1)]) for index in range(len(some))]
                results += _grads(together, [inputs, weights], grad)
                expected += [by_inputs, torch.stack(rows)]
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


GIB = 2**30


def networks_at_once(net: Network, batch_size: int, networks: int, memory_limit: float | None = None) -> int:
    """Return how many of the networks go through one forward and backward pass of a GPU together: at least 1.

    All of them, since a GPU is never busy enough, within `memory_limit` (GiB; None: half of its memory), by what the
    pass keeps for its way back. What happens to be free does not count: the last bits of a result may depend on this
    number.
    """
    limit = torch.cuda.mem_get_info()[1] / 2 if memory_limit is None else memory_limit * GIB
    return max(1, min(networks, int(limit / (bytes_per_image(net) * batch_size))))


def bytes_per_image(net: Network) -> float:
    """Return what a training step of a network needs beyond its weights, in bytes per image.

    Everything that autograd keeps for the backward pass, measured on two images, and half as much again for what is
    alive in between.
    """
    kept: dict[int, int] = {}

    def note(values: torch.Tensor) -> torch.Tensor:
        kept[values.untyped_storage().data_ptr()] = values.untyped_storage().nbytes()
        return values

    net = copy.deepcopy(net).train()  # running statistics stay as they are
    first = next(net.parameters())
    images = torch.zeros(2, *net.image, dtype=first.dtype, device=first.device)
    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(note, lambda values: values):
        net(images.contiguous(memory_format=torch.channels_last))
    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}
    return 1.5 * sum(size for where, size in kept.items() if where not in weights) / len(images)
