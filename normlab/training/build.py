"""From settings to the parts of a run: images and network."""

import logging
from collections.abc import Sequence
from functools import cache

import torch

from normlab.data.datamodule import ImageData
from normlab.errors import ConfigError
from normlab.nets import uncovered
from normlab.randomness import Stream, stream_seed
from normlab.settings import Settings
from normlab.training.classifier import Classifier

__all__ = ["initial_model", "lightning_precision", "load_array", "set_float32_products"]

log = logging.getLogger("normlab")


def load_array(settings: Sequence[Settings]) -> tuple[list[ImageData], list[Classifier]]:
    """Return the images and initial networks of runs. The images are in memory once, whatever their number."""
    data = [ImageData.of(each) for each in settings]
    data[0].setup()
    for other in data[1:]:
        other.hold_as(data[0])
    return data, [initial_model(each, own) for each, own in zip(settings, data, strict=True)]


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
