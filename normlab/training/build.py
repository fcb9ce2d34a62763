"""From settings to the parts of a run: images and network."""

import torch

from normlab.data.datamodule import ImageData
from normlab.errors import ConfigError
from normlab.randomness import Stream, stream_seed
from normlab.settings import Settings
from normlab.training.classifier import Classifier

__all__ = ["image_data", "initial_model", "lightning_precision", "set_float32_products"]


def image_data(settings: Settings) -> ImageData:
    """The images of a run, not yet in memory: `setup` or `hold_as` brings them."""
    return ImageData(
        settings.data.name,
        root=settings.data.root,
        download=settings.data.download,
        size=settings.data.size,
        batch_size=settings.batch_size,
        train_size=settings.train_size,
        val_size=settings.val_size,
        rotation=settings.augment.rotation,
        shift=settings.augment.shift,
        test_curve=settings.test_curve,
        seed=settings.seed,
    )


def initial_model(settings: Settings) -> Classifier:
    """The network with the weights of its seed. Raises `ConfigError` where it cannot be built, or l1 covers nothing."""
    options = dict(settings.norm.options)
    if settings.norm.target is not None:
        options["target"] = settings.norm.target
    torch.manual_seed(stream_seed(Stream.WEIGHTS, settings.seed))
    try:
        model = Classifier(
            norm=settings.norm.name,
            norm_options=options,
            dropout=settings.dropout,
            placement=settings.placement,
            weight_standardization=settings.weight_standardization,
            l1=settings.l1,
            scope=settings.penalty.scope,
            method=settings.penalty.method,
            lr=settings.peak_lr,
            schedule=settings.schedule,
            momentum=getattr(settings.optimizer, "momentum", 0.0),
            weight_decay=settings.optimizer.weight_decay,
        )
    except ValueError as error:  # a user's own norm that cannot be built
        raise ConfigError(str(error)) from error
    if settings.l1 and not model.penalised:
        raise ConfigError(f"l1={settings.l1:g} with penalty.scope={settings.penalty.scope} covers no parameter here")
    return model


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
