"""Any network whose factory takes `norm_layer` and `num_classes`, such as torchvision's ResNets."""

import importlib
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from normlab.nets.convolutions import CONVOLUTIONS
from normlab.nets.fit import FitImages
from normlab.nets.net import Net
from normlab.nets.network import Network, NormFactory

__all__ = ["Other", "make_net"]

NAMED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")  # "package.module:Name"


def make_net(
    name: str = "small",
    target: str | None = None,
    options: Mapping[str, Any] | None = None,
    channels: int | None = None,
    size: int | None = None,
    *,
    norm: str | Callable[[int], nn.Module] = "bn",
    norm_options: Mapping[str, Any] | None = None,
    norm_target: str | None = None,
    num_classes: int = 10,
    image: tuple[int, int, int] = (1, 28, 28),
    dropout: float = 0.0,
    placement: str = "post",
    weight_standardization: bool = False,
) -> Network:
    """Return the network that the settings of the group `net` describe, for images of the shape `image`, (C, H, W).

    One state of torch's generator gives every norm the same weights of convolutions and linear layers.

    Args:
        name: "small" for `Net`; every other network has a target.
        target: "package.module:factory": a function or class that is called with `norm_layer` (a function from the
            number of channels to a module), `num_classes` and `options`, and returns a module from images to scores
            (N, num_classes). Importing it runs its code. Options such as "package.module:Name" stand for that object.
        channels, size: of the images that the network takes; None: the data's. See `FitImages`.
        norm, norm_options, norm_target: of the normalization layers, as in `Net`.
        dropout, placement, weight_standardization: of `Net`.

    Raise `ValueError`, in one line, where the network cannot be built or does not fit.
    """
    norms = {"norm": norm, "norm_options": norm_options, "norm_target": norm_target}
    sides = None if size is None else (size, size)
    if target is None:
        if name != "small":
            raise ValueError(f"net={name} needs net.target=package.module:factory")
        return Net(
            **norms,  # type: ignore[arg-type]  # each of its type
            dropout=dropout,
            placement=placement,
            weight_standardization=weight_standardization,
            num_classes=num_classes,
            image=image,
            channels=channels,
            size=sides,
        )
    if dropout or weight_standardization or placement != "post":
        raise ValueError(f"dropout, placement and weight_standardization go with net=small, not with net={name}")
    wanted = (channels or image[0], *(sides or image[1:]))
    return Other(target, options or {}, norms, num_classes, image, wanted)


class Other(Network, nn.Sequential):
    """A network made by a factory, between `FitImages` (where it is needed) and log-softmax.

    Args: as those of `make_net`; norms: what `NormFactory` takes, by the names there. wanted: (C, H, W) that the factory's network takes.
    """

    def __init__(
        self,
        target: str,
        options: Mapping[str, Any],
        norms: Mapping[str, Any],
        num_classes: int,
        image: tuple[int, int, int],
        wanted: tuple[int, int, int],
    ) -> None:
        fit = OrderedDict[str, nn.Module]() if wanted == image else OrderedDict(fit=FitImages(image, wanted))

        def make(norm_layer: NormFactory) -> nn.Module:
            return _call(target, {**options, "num_classes": num_classes, "norm_layer": norm_layer})

        # The factory is called twice: first with norms that draw nothing, for the weights that all norms share, the
        # sizes of the maps and the order of the layers; then with the real ones, whose draws move nothing else.
        shared = NormFactory(Placeholder)
        plain = make(shared)
        order, sizes = _passed_through(plain, shared, wanted, num_classes, target)
        with torch.random.fork_rng(devices=[]):
            build = NormFactory(norms["norm"], norms["norm_options"], norms["norm_target"], sizes)
            body = make(build)
            if len(build.made) != len(shared.made):
                raise ValueError(f"net.target={target} calls norm_layer more or less often with another norm")
            _copy_weights(plain, body)
            if (kind := CONVOLUTIONS[build.conv]) is not nn.Conv2d:
                _replace_convolutions(body, kind)
        super().__init__(fit | OrderedDict(body=body, log_probs=nn.LogSoftmax(dim=1)))
        self.know(build, [*fit, *(f"body.{name}" for name in order), "log_probs"], image, num_classes)

    def label(self, name: str) -> str:
        return name.removeprefix("body.")


class Placeholder(nn.Module):
    """The norm of the first call of a factory: y = x, with a scale and a shift that a factory may initialise."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.zeros(num_channels)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def _call(target: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Call a factory; `ValueError` in one line for whatever goes wrong in it."""
    factory = _named(target)
    try:
        net = factory(**{key: _resolved(value) for key, value in arguments.items()})
    except Exception as error:  # a factory of one's own may raise anything
        message = next(iter(str(error).splitlines()), "no message")
        raise ValueError(f"net.target={target} raised {type(error).__name__}: {message}") from error
    if not isinstance(net, nn.Module):
        raise ValueError(f"net.target={target} gave a {type(net).__name__}, not a torch.nn.Module")
    return net


def _resolved(value: Any) -> Any:
    """The value of an option, with the object in the place of its "package.module:Name"."""
    if isinstance(value, str) and NAMED.fullmatch(value):
        return _named(value)
    if isinstance(value, Mapping):
        return {key: _resolved(item) for key, item in value.items()}
    return [_resolved(item) for item in value] if isinstance(value, list) else value


def _named(target: str) -> Any:
    """The object that "package.module:Name" names; `ValueError` in one line where there is none."""
    if not NAMED.fullmatch(target):
        raise ValueError(f"net.target={target!r}: write package.module:factory")
    module_name, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # a module of one's own may raise anything while it is imported
        message = next(iter(str(error).splitlines()), "no message")
        raise ValueError(f"net: {target} cannot be imported ({type(error).__name__}: {message})") from error


def _passed_through(
    net: nn.Module, norms: NormFactory, image: tuple[int, int, int], num_classes: int, target: str
) -> tuple[list[str], list[tuple[int, int] | None]]:
    """The names of a network's layers in the order in which a batch passes them, and (H, W) at each of its norms.

    Raise `ValueError` where the images do not pass, or come out as anything but scores of the classes.
    """
    order: dict[str, None] = {}
    inputs: dict[int, torch.Size] = {}

    def note(name: str, module: nn.Module, x: torch.Tensor) -> None:
        order.setdefault(name)
        inputs[id(module)] = x.shape

    leaves = [(name, module) for name, module in net.named_modules() if not [*module.children()]]
    hooks = [
        module.register_forward_pre_hook(lambda module, given, name=name: note(name, module, given[0]))
        for name, module in leaves
    ]
    images = "images of {}x{}x{}".format(*image)
    like = next(net.parameters())
    try:
        with torch.no_grad():
            scores = net.eval()(torch.zeros(2, *image, dtype=like.dtype, device=like.device))
    except Exception as error:
        message = next(iter(str(error).splitlines()), "no message")
        raise ValueError(
            f"net.target={target} does not take {images} ({type(error).__name__}: {message}): set net.channels or "
            "net.size"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
        net.train()
    if not isinstance(scores, torch.Tensor) or scores.shape != (2, num_classes):
        shape = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ValueError(f"net.target={target} gives {shape} for 2 {images}: it has to give scores (2, {num_classes})")
    if not norms.made:
        raise ValueError(f"net.target={target} never calls norm_layer: there is nothing in it to compare")
    sizes: list[tuple[int, int] | None] = []
    for layer, _ in norms.made:
        shape = inputs.get(id(layer))
        if shape is not None and (len(shape) != 4 or shape[1] != len(layer.weight)):  # type: ignore[arg-type]
            raise ValueError(
                f"net.target={target}: a norm of {len(layer.weight)} channels meets {tuple(shape)}: norms here are for "  # type: ignore[arg-type]
                "maps (N, C, H, W)"
            )
        sizes.append(None if shape is None else (shape[2], shape[3]))
    return [*order], sizes


@torch.no_grad()
def _copy_weights(source: nn.Module, net: nn.Module) -> None:
    """Give a network the numbers of another, but for those of norms."""
    norms = [f"{name}." for name, module in source.named_modules() if isinstance(module, Placeholder)]
    state = net.state_dict()
    for name, values in source.state_dict().items():
        if not name.startswith(tuple(norms)):
            state[name].copy_(values)


def _replace_convolutions(net: nn.Module, kind: type) -> None:
    """Put convolutions of another kind, with the same weights, in the place of all that are torch's own."""
    for module in [*net.modules()]:
        for name, child in module.named_children():
            if type(child) is nn.Conv2d:
                setattr(module, name, kind.of(child))  # type: ignore[attr-defined]
