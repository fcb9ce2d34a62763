"""From settings to the parts of a run: images, network, trainer; and which runs can be an array."""

import copy
import itertools
import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.strategies import DDPStrategy

from normlab.data.datamodule import ImageData
from normlab.errors import ConfigError, first_line
from normlab.nets import Network, network_of, uncovered
from normlab.nets.folded import Stack, StackedState, log_probs
from normlab.norms import CATALOGUE
from normlab.randomness import Stream, stream_seed
from normlab.settings import Settings
from normlab.settings.arrays import why_not_array
from normlab.training.classifier import Classifier
from normlab.training.ranks import Here, Rank

log = logging.getLogger("normlab")


def load_array(settings: Sequence[Settings]) -> tuple[list[ImageData], list[Classifier]]:
    """Return the images and initial networks of runs of one data set."""
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
    """Return the network with the weights of its seed, in its precision, for images such as those of `data` (None:
    grey, 28 x 28, of 10 classes). Raise `ConfigError` where it cannot be built, or l1 covers nothing."""
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
    return model.double() if settings.precision == "64-true" else model


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


def make_trainer(
    settings: Settings,
    callbacks: list[Callback],
    files: CheckpointIO | None = None,
    rank: Rank | None = None,
    **more: Any,
) -> Trainer:
    """Return a Trainer for one of a run's processes, which it sets up for the run's precision.

    A GPU multiplies float32 numbers with all 24 bits of their mantissa, or 11 of them where tf32 is asked for:
    convolutions would take TF32 by default; a comparison should not.

    Args:
        files: where checkpoints go. rank: of this process, if several train the run.
        **more: arguments of `Trainer`.
    """
    accelerator, tf32 = settings.accelerator, settings.precision == "tf32"
    if accelerator == "gpu":
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        # deterministic mode fills every new tensor by default, a kernel each
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # its module is a class
    own: dict[str, Any] = {
        "accelerator": accelerator,
        "devices": rank.processes if rank else 1,
        "strategy": DDPStrategy(process_group_backend=rank.backend) if rank else "auto",
        "use_distributed_sampler": False,  # the data module gives every process its share
        "precision": "32-true" if tf32 else settings.precision,
        "max_epochs": settings.epochs,
        "deterministic": accelerator == "gpu",  # the same bits twice; on CPU they are anyway
        "callbacks": callbacks,
        "plugins": [*([files] if files else []), Here(rank.rank if rank else 0)],
        "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in callbacks),
    }
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    return Trainer(**own | quiet | more)


COPIES, AT_ONCE, IMAGES, STEPS = 3, 2, 4, 2


def unfoldable(settings: Settings) -> str | None:
    """Return why a run has to be trained on its own, in one line; None where an array gives it the same results.

    A custom norm, or another network, is tried: copies of the network with different weights take two training
    steps and one in eval mode, alone and as an array does it, two side by side and then the third; in float64, where no
    rounding decides on which side of a ReLU a number is. Outputs, gradients and buffers have to agree.
    """
    if reason := why_not_array(settings):
        return reason
    norm, net = settings.norm, settings.net
    if net.name == "small" and norm.name in CATALOGUE:
        return None
    name = str(norm.target) if net.name == "small" else f"net={net.name}"
    shape, plain = (net.channels or 1, net.size or 28, net.size or 28), settings.model_copy(update={"dropout": 0.0})
    with torch.random.fork_rng(devices=[]):
        try:
            if _same_in_array([network_of(plain, image=shape).double() for _ in range(COPIES)]):
                return None
        except Exception as error:  # custom code, and torch.func with it, may raise anything
            return f"{name} cannot run for several networks at once ({type(error).__name__}: {first_line(error)})"
    return (
        f"{name} gives other results in an array: does it draw random numbers, or keep values outside of its buffers?"
    )


def _same_in_array(copies: Sequence[Network]) -> bool:
    for parameter in (parameter for each in copies for parameter in each.parameters()):
        size = parameter.data.abs().mean()
        parameter.data += 0.1 * torch.where(size > 0, size, 1.0) * torch.randn_like(parameter)
    stack = Stack(copies)  # with weights of their own: else all copies would be one
    template = copy.deepcopy(copies[0])
    for step in range(STEPS + 1):
        training = step < STEPS
        for low in range(0, len(copies), AT_ONCE):
            rows, some = slice(low, low + AT_ONCE), copies[low : low + AT_ONCE]
            inputs = torch.randn(len(some), IMAGES, *template.image, dtype=torch.float64, requires_grad=True)
            weights = stack.parameters[rows].clone().requires_grad_()
            buffers = {name: values[rows] for name, values in stack.buffers.items()}
            together = log_probs(template, StackedState(stack.named(weights), buffers), inputs, training=training)
            alone = torch.stack([each.train(training)(own) for each, own in zip(some, inputs, strict=True)])
            results, expected = [together, *buffers.values()], [alone]
            expected += [torch.stack([dict(each.named_buffers())[name] for each in some]) for name in buffers]
            if training:
                grad = torch.randn_like(together)
                results += _grads(together, [inputs, weights], grad)
                every = [[*each.parameters()] for each in some]
                by_inputs, *by_weights = _grads(alone, [inputs, *itertools.chain(*every)], grad)
                left = iter(by_weights)
                expected += [by_inputs, torch.stack([stack.row(next(left) for _ in own) for own in every])]
            for one, other in zip(results, expected, strict=True):
                sizes = other.detach().double().nan_to_num(0.0, 0.0, 0.0).abs()
                atol = 1e-5 * sizes.numpy().max(initial=1.0)  # a layer may compute its statistics in float32
                if not torch.allclose(one.double(), other.double(), rtol=1e-3, atol=atol, equal_nan=True):
                    return False
    return True


def _grads(result: torch.Tensor, inputs: Sequence[torch.Tensor], grad: torch.Tensor) -> Sequence[torch.Tensor]:
    """Return gradients; zeros where the result does not depend on an input, or on none of them."""
    if not result.requires_grad:
        return [torch.zeros_like(values) for values in inputs]
    return torch.autograd.grad(result, list(inputs), grad, allow_unused=True, retain_graph=True, materialize_grads=True)


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
