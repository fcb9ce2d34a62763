"""Normalization layers: one registry, one signature `norm(num_channels, **options) -> module`.

Most of them compute `y = γ · (x - μ) / sqrt(σ² + ε) + β` on maps of shape (N, C, H, W); they differ in the set of
numbers that shares one μ and one (biased) σ². `normlab.nets.about` says what each is made of; docs/norms.md shows it.
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from normlab.nets.about import ABOUT
from normlab.nets.batch_norm import BatchNorm2d
from normlab.nets.batch_renorm import BatchRenorm2d
from normlab.nets.ghost_norm import GhostBatchNorm2d
from normlab.nets.group_norm import InstanceNorm2d
from normlab.nets.layer_norm import LayerNorm2d
from normlab.nets.uncentred import DynamicTanh2d, FilterResponseNorm2d, RMSNorm2d

__all__ = ["NORMS", "load_class", "make_norm"]


def none(num_channels: int) -> nn.Module:
    """No normalization: y = x. The control, without parameters."""
    return nn.Identity(num_channels)


def batch_norm(num_channels: int, *, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True) -> nn.Module:
    """Batch normalization: μ and σ² over (N, H, W) for each channel.

    In eval mode the running averages take their place: running = (1 - momentum) · running + momentum · batch, with the
    unbiased variance of the batch. Source: Ioffe & Szegedy 2015, "Batch Normalization", section 3.
    """
    return BatchNorm2d(num_channels, eps=eps, momentum=momentum, affine=affine)


def ghost_batch_norm(
    num_channels: int,
    *,
    virtual_batch_size: int = 16,
    eps: float = 1e-5,
    momentum: float = 0.1,
    affine: bool = True,
) -> nn.Module:
    """Ghost batch normalization: μ and σ² over (H, W) and `virtual_batch_size` images for each channel.

    Raises `ValueError` where virtual_batch_size is below 1. See `GhostBatchNorm2d`.
    """
    return GhostBatchNorm2d(num_channels, virtual_batch_size, eps=eps, momentum=momentum, affine=affine)


def batch_renorm(
    num_channels: int,
    *,
    r_max: float = 3.0,
    d_max: float = 5.0,
    begin: int = 100,
    r_end: int = 800,
    d_end: int = 500,
    eps: float = 1e-5,
    momentum: float = 0.1,
    affine: bool = True,
) -> nn.Module:
    """Batch renormalization: batch statistics, corrected towards the running ones within limits that widen.

    Raises `ValueError` where a limit or a step does not fit. See `BatchRenorm2d`.
    """
    limits = {"r_max": r_max, "d_max": d_max, "begin": begin, "r_end": r_end, "d_end": d_end}
    return BatchRenorm2d(num_channels, **limits, eps=eps, momentum=momentum, affine=affine)  # type: ignore[arg-type]


def layer_norm(num_channels: int, *, eps: float = 1e-5, affine: bool = True) -> nn.Module:
    """Layer normalization of an image: μ and σ² over (C, H, W) for each image; γ and β per channel.

    The same as group normalization with one group (Wu & He 2018, "Group Normalization", section 3.1), after Ba, Kiros
    & Hinton 2016. `nn.LayerNorm([C, H, W])` is another layer: it has a γ and a β for every position.
    """
    return nn.GroupNorm(1, num_channels, eps=eps, affine=affine)


def layer_norm_elementwise(
    num_channels: int, *, size: tuple[int, int], eps: float = 1e-5, affine: bool = True
) -> nn.Module:
    """Layer normalization as `nn.LayerNorm([C, H, W])`: μ and σ² over (C, H, W); a γ and a β for every position.

    `size`: (H, W), which the network knows. Source: Ba, Kiros & Hinton 2016, "Layer Normalization", equations 3 and 4.
    """
    return nn.LayerNorm([num_channels, *size], eps=eps, elementwise_affine=affine)


def layer_norm_2d(num_channels: int, *, eps: float = 1e-5, affine: bool = True) -> nn.Module:
    """Layer normalization of each pixel: μ and σ² over C; γ and β per channel. See `LayerNorm2d`."""
    return LayerNorm2d(num_channels, eps=eps, elementwise_affine=affine)


def group_norm(
    num_channels: int,
    *,
    num_groups: int = 2,
    channels_per_group: int | None = None,
    eps: float = 1e-5,
    affine: bool = True,
) -> nn.Module:
    """Group normalization: μ and σ² over (C / num_groups, H, W) for each image and group of channels.

    `channels_per_group` takes the place of num_groups: 1 is instance normalization. Raises `ValueError` where either
    does not divide num_channels. Source: Wu & He 2018, "Group Normalization", section 3.1.
    """
    name, given = ("num_groups", num_groups)
    if channels_per_group is not None:
        name, given = ("channels_per_group", channels_per_group)
    if given < 1 or num_channels % given:
        raise ValueError(f"{name}={given} does not divide {num_channels} channels")
    groups = given if channels_per_group is None else num_channels // given
    return nn.GroupNorm(groups, num_channels, eps=eps, affine=affine)


def instance_norm(num_channels: int, *, eps: float = 1e-5, affine: bool = True) -> nn.Module:
    """Instance normalization: μ and σ² over (H, W) for each image and channel, in eval mode too.

    Source: Ulyanov, Vedaldi & Lempitsky 2016, "Instance Normalization", equation 2.
    """
    return InstanceNorm2d(num_channels, eps=eps, affine=affine)


def rms_norm(num_channels: int, *, eps: float = 1e-5, affine: bool = True) -> nn.Module:
    """Root mean square normalization: y = γ · x / sqrt(mean(x²) + ε) over (C, H, W). See `RMSNorm2d`."""
    return RMSNorm2d(num_channels, eps=eps, affine=affine)


def filter_response_norm(
    num_channels: int, *, eps: float = 1e-6, affine: bool = True, threshold: bool = True
) -> nn.Module:
    """Filter response normalization: y = max(γ · x / sqrt(mean(x²) + ε) + β, τ) over (H, W). See
    `FilterResponseNorm2d`."""
    return FilterResponseNorm2d(num_channels, eps=eps, affine=affine, threshold=threshold)


def dynamic_tanh(num_channels: int, *, alpha: float = 0.5, affine: bool = True) -> nn.Module:
    """Dynamic tanh: y = γ · tanh(α · x) + β, `alpha` the start of α. See `DynamicTanh2d`."""
    return DynamicTanh2d(num_channels, alpha=alpha, affine=affine)


def custom(num_channels: int, *, target: str = "", **options: Any) -> nn.Module:
    """A user's own layer: `target` is "package.module:Class", built as `Class(num_channels, **options)`.

    Importing the target runs its code. Raises `ValueError` where it cannot be found, called, or is no `nn.Module`.
    """
    layer = load_class(target)
    try:
        module = layer(num_channels, **options)
    except Exception as error:
        call = f"{target.partition(':')[2]}({num_channels}{''.join(f', {k}={v!r}' for k, v in options.items())})"
        raise ValueError(f"norm.target={target}: {call} raised {type(error).__name__}: {_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise ValueError(f"norm.target={target} gave a {type(module).__name__}, not a torch.nn.Module")
    return module


def load_class(target: str) -> Callable[..., nn.Module]:
    """The class or function that "package.module:Class" names; `ValueError` in one line where there is none."""
    module_name, colon, attribute = target.partition(":")
    if not (module_name and colon and attribute):
        raise ValueError(f"norm.target={target!r}: write package.module:Class")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may raise anything while it is imported
        raise ValueError(f"norm.target={target}: importing {module_name} failed: {_line(error)}") from error
    found = getattr(module, attribute, None)
    if not callable(found):
        raise ValueError(f"norm.target={target}: {module_name} has no class {attribute}")
    return found  # type: ignore[no-any-return]  # a class is checked when it is called


def _line(error: Exception) -> str:
    """The first line of what an exception says."""
    return next(iter(str(error).splitlines()), "no message")


NORMS: dict[str, Callable[..., nn.Module]] = {
    "none": none,
    "bn": batch_norm,
    "gbn": ghost_batch_norm,
    "brn": batch_renorm,
    "ln": layer_norm,
    "ln_elem": layer_norm_elementwise,
    "ln2d": layer_norm_2d,
    "gn": group_norm,
    "in": instance_norm,
    "rms": rms_norm,
    "frn": filter_response_norm,
    "dyt": dynamic_tanh,
    "custom": custom,
}


def make_norm(name: str, num_channels: int, *, size: tuple[int, int] | None = None, **options: Any) -> nn.Module:
    """A normalization layer by name for maps of shape (N, num_channels, H, W).

    `size`: (H, W); only ln_elem needs it. Raises `ValueError`, with the choices, where the name or an option is unknown
    or does not fit, and where each statistic would be of one number of an image (as far as the size is known).

    >>> make_norm("gn", 20, num_groups=4)
    GroupNorm(4, 20, eps=1e-05, affine=True)
    """
    if name not in NORMS:
        raise ValueError(f"norm {name!r} is unknown: choose one of {', '.join(NORMS)}")
    build = NORMS[name]
    parameters = inspect.signature(build).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        taken = [key for key in known if key != "size"]
        unknown = sorted(set(options) - set(taken))
        if unknown:
            takes = f"takes {', '.join(taken)}" if taken else "takes no options"
            raise ValueError(f"norm {name!r} has no option {', '.join(unknown)}: it {takes}")
    if "size" in known:
        if size is None:
            raise ValueError(f"norm {name!r} has numbers for every position: give size=(H, W) of its maps")
        options["size"] = size
    layer = build(num_channels, **options)
    _refuse_single_numbers(name, layer, num_channels, size)
    return layer


def _refuse_single_numbers(name: str, layer: nn.Module, num_channels: int, size: tuple[int, int] | None) -> None:
    """A number less its own mean is 0: torch's group and layer norms would say nothing and give β whatever x is.

    Batch statistics are also over images, so torch refuses what is left to refuse when the batch is there.
    """
    about = ABOUT.get(name)
    if about is None or {"N", "V"} & set(about.over):
        return
    height, width = size or (2, 2)  # a map of several pixels, where it is not known
    if about.values(num_channels, (height, width), getattr(layer, "num_groups", 1)) == 1:
        maps = f" on maps of {height}x{width}" if size else ""
        left = "y is β whatever x is" if about.centred else "only the sign of x is left"
        raise ValueError(f"norm {name!r} of {num_channels} channels{maps}: each statistic is of one number, so {left}")
