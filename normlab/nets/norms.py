"""Normalization layers: one registry, one signature `norm(num_channels, **options) -> module`.

Every layer computes `y = γ · (x - μ) / sqrt(σ² + ε) + β` on maps of shape (N, C, H, W); they differ in the set of
numbers that shares one μ and one (biased) σ². γ and β are one number per channel.

| name   | statistics over                | how many     | in eval mode      |
|--------|--------------------------------|--------------|-------------------|
| `bn`   | N, H, W, per channel           | C            | running averages  |
| `ln`   | C, H, W, per image             | N            | the same          |
| `gn`   | C / G, H, W, per image, group  | N · G        | the same          |
| `in`   | H, W, per image and channel    | N · C        | the same          |
| `none` | nothing: the control           | 0            | the same          |
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from normlab.nets.batch_norm import BatchNorm2d
from normlab.nets.group_norm import InstanceNorm2d

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


def layer_norm(num_channels: int, *, eps: float = 1e-5, affine: bool = True) -> nn.Module:
    """Layer normalization of an image: μ and σ² over (C, H, W) for each image; γ and β per channel.

    The same as group normalization with one group (Wu & He 2018, "Group Normalization", section 3.1), after Ba, Kiros
    & Hinton 2016. `nn.LayerNorm([C, H, W])` is another layer: it has a γ and a β for every position.
    """
    return nn.GroupNorm(1, num_channels, eps=eps, affine=affine)


def group_norm(num_channels: int, *, num_groups: int = 2, eps: float = 1e-5, affine: bool = True) -> nn.Module:
    """Group normalization: μ and σ² over (C / num_groups, H, W) for each image and group of channels.

    Raises `ValueError` where num_groups does not divide num_channels. Source: Wu & He 2018, section 3.1.
    """
    if num_groups < 1 or num_channels % num_groups:
        raise ValueError(f"num_groups={num_groups} does not divide {num_channels} channels")
    return nn.GroupNorm(num_groups, num_channels, eps=eps, affine=affine)


def instance_norm(num_channels: int, *, eps: float = 1e-5, affine: bool = True) -> nn.Module:
    """Instance normalization: μ and σ² over (H, W) for each image and channel, in eval mode too.

    Source: Ulyanov, Vedaldi & Lempitsky 2016, "Instance Normalization", equation 2.
    """
    return InstanceNorm2d(num_channels, eps=eps, affine=affine)


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
    "ln": layer_norm,
    "gn": group_norm,
    "in": instance_norm,
    "custom": custom,
}


def make_norm(name: str, num_channels: int, **options: Any) -> nn.Module:
    """A normalization layer by name for maps of shape (N, num_channels, H, W).

    Raises `ValueError`, with the choices, where the name or an option is unknown or does not fit.

    >>> make_norm("gn", 20, num_groups=4)
    GroupNorm(4, 20, eps=1e-05, affine=True)
    """
    if name not in NORMS:
        raise ValueError(f"norm {name!r} is unknown: choose one of {', '.join(NORMS)}")
    build = NORMS[name]
    parameters = inspect.signature(build).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        unknown = sorted(set(options) - set(known))
        if unknown:
            takes = f"takes {', '.join(known)}" if known else "takes no options"
            raise ValueError(f"norm {name!r} has no option {', '.join(unknown)}: it {takes}")
    return build(num_channels, **options)
