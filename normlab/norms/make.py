"""A layer by its name: from the catalogue, with the options of conf/norm/, or a custom layer."""

import importlib
import keyword
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from normlab.errors import first_line
from normlab.norms.catalogue import CATALOGUE, load_class


def make_norm(
    name: str,
    num_channels: int,
    options: Mapping[str, Any] | None = None,
    /,
    *,
    size: tuple[int, int] | None = None,
    target: str | None = None,
    **more: Any,
) -> nn.Module:
    """Return a normalization layer for maps of shape (N, num_channels, H, W).

    Args:
        name: one of `CATALOGUE`, or "custom": the class or function `target` ("package.module:Class"), called as
            `Class(num_channels, **options)`; importing it runs its code.
        num_channels: how many channels the maps have.
        options: keyword arguments of the layer; those left out are as in conf/norm/<name>.yaml.
        size: (H, W) of the maps; needed by ln_elem alone.
        target: "package.module:Class", with name "custom".
        **more: options, written out where no name clashes.

    Returns:
        A module that maps (N, C, H, W) to y of the same shape and type.

    Raises:
        ValueError: in one line, where the name or an option is unknown or does not fit, and where each statistic would
            be of one number of an image (as far as the size is known).

    >>> make_norm("gn", 20, num_groups=4)
    GroupNorm(20, num_groups=4, channels_per_group=None, eps=1e-05, affine=True)
    """
    from normlab.settings.conf import group_values, instead  # settings import norms

    options = {**(options or {}), **more}
    if name == "custom":
        return _custom(num_channels, target or "", options)
    if name not in CATALOGUE:
        raise ValueError(f"norm {name!r} is unknown: {instead(name, [*CATALOGUE, 'custom'])}")
    about = CATALOGUE[name]
    about.check(options, [num_channels])
    options = {key: value for key, value in group_values("norm", name).items() if key != "name"} | options
    needs_size = any(number.shape == "C·H·W" for number in about.learned.values())
    if needs_size and size is None:
        raise ValueError(f"norm {name!r} has numbers for every position: give size=(H, W) of its maps")
    layer = layer_class(name)(num_channels, **({"size": size} if needs_size else {}), **options)
    # A number minus its own mean is 0. Statistics of the batch are also over images: training refuses those of one
    # number when it sees the batch.
    axes = about.axes[-1:] if about.chained else () if about.of_batch else about.axes
    if replace(about, axes=axes).values(num_channels, size or (2, 2), options) == 1:
        maps = f" on maps of {size[0]}x{size[1]}" if size else ""
        of_squares = about.statistic[0] == "mean square"
        left = "only the sign of x is left" if of_squares else "x is not normalized"
        left = "y is β whatever x is" if about.centred else left
        raise ValueError(f"norm {name!r} of {num_channels} channels{maps}: each statistic is of one number, so {left}")
    return layer


def layer_class(name: str) -> type[nn.Module]:
    """The class of a norm of the catalogue."""
    module = importlib.import_module(f"normlab.norms.{name + '_' * keyword.iskeyword(name)}")
    return getattr(module, CATALOGUE[name].layer)  # type: ignore[no-any-return]  # a module's attributes are Any


def is_packaged(layer: nn.Module) -> bool:
    """Whether a layer's own class is of the catalogue, so that K of them can be applied at once (`Norm`). A class
    derived from one of these may compute something else."""
    about = vars(type(layer)).get("about")
    return about is not None and type(layer).__module__.startswith("normlab.norms.")


def _custom(num_channels: int, target: str, options: Mapping[str, Any]) -> nn.Module:
    layer = load_class(target)
    try:
        module = layer(num_channels, **options)
    except Exception as error:
        call = f"{target.partition(':')[2]}({num_channels}{''.join(f', {k}={v!r}' for k, v in options.items())})"
        raise ValueError(f"norm.target={target}: {call} raised {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise ValueError(f"norm.target={target} gave a {type(module).__name__}, not a torch.nn.Module")
    return module
