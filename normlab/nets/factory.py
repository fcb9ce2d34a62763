"""Any network whose factory takes `norm_layer` and `num_classes`, such as torchvision's ResNets."""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from normlab.errors import ConfigError, first_line
from normlab.nets.layers import CONVOLUTIONS, FitImages
from normlab.nets.net import Net
from normlab.nets.network import Network, NormFactory
from normlab.norms import load_class
from normlab.settings import Settings

NAMED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")  # "package.module:Name"


def network_of(settings: Settings, num_classes: int = 10, image: tuple[int, int, int] = (1, 28, 28)) -> Network:
    """Return the network that the settings describe, for images of the shape `image`: see `make_net`."""
    return make_net(
        **settings.net.model_dump(exclude={"source"}),
        norm=settings.norm.name,
        norm_options=settings.norm.options,
        norm_target=settings.norm.target,
        num_classes=num_classes,
        image=image,
        dropout=settings.dropout,
        placement=settings.placement,
        weight_standardization=settings.weight_standardization,
    )


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
    **of_small: Any,
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
        **of_small: dropout, placement and weight_standardization of `Net`.

    Raise `ValueError`, in one line, where the network cannot be built or does not fit.
    """
    sides = None if size is None else (size, size)
    if target is None:
        if name != "small":
            raise ValueError(f"net={name} needs net.target=package.module:factory")
        return Net(
            norm, norm_options=norm_options, norm_target=norm_target, num_classes=num_classes, image=image,
            channels=channels, size=sides, **of_small,
        )  # fmt: skip
    if any(value not in (0, "post") for value in of_small.values()):
        raise ValueError(f"dropout, placement and weight_standardization go with net=small, not with net={name}")
    wanted = (channels or image[0], *(sides or image[1:]))
    norms = {"norm": norm, "options": norm_options, "target": norm_target}
    return FactoryNet(target, options or {}, norms, num_classes, image, wanted)


def check_net(settings: Settings) -> None:
    """Raise `ConfigError`, in one line, if a network other than the small one does not work with its norm.

    Its code runs: it is made, and given two random images, forward and backward in train mode, then in eval mode. They
    are grey and of 28x28 pixels; images of data=folder may have another shape, which is known once they are read.
    """
    net, norm = settings.net, settings.norm
    image = (net.channels or 3 if settings.data.name == "folder" else 1, 28, 28)
    with torch.random.fork_rng(devices=[]):
        try:
            network = network_of(settings, image=image)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        try:
            network.train()(torch.randn(2, *image)).sum().backward()  # type: ignore[no-untyped-call]
            network.eval()(torch.randn(2, *image))
        except Exception as error:  # a network or a custom norm may raise anything
            raise ConfigError(f"net={net.name} with norm={norm.target or norm.name} raised {_words(error)}") from error


class FactoryNet(Network, nn.Sequential):
    """A network made by a factory, between `FitImages` (where it is needed) and log-softmax.

    The factory is called with `Placeholder` for `norm_layer`, which draws nothing; then norms take the places of the
    placeholders. So what norms draw comes after all other weights are drawn, and changes none of them.

    Args:
        target, options, num_classes, image: as those of `make_net`. norms: the arguments of `NormFactory`, but sizes.
        wanted: (C, H, W) of the images that the factory's network takes.
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
        fit = {} if wanted == image else {"fit": FitImages(image, wanted)}
        body = _call(target, {**options, "num_classes": num_classes, "norm_layer": Placeholder})
        order, sizes = _passed_through(body, wanted, num_classes, target)
        build = NormFactory(**norms)
        try:
            if (kind := CONVOLUTIONS[build.conv]) is not nn.Conv2d:
                _replace(body, nn.Conv2d, kind.of)  # type: ignore[attr-defined]  # of all but nn.Conv2d
            _replace(body, Placeholder, lambda place: place.filled(build, sizes.get(place)))
        except ValueError as error:
            raise ValueError(f"net.target={target}: {error}") from error
        super().__init__(OrderedDict(fit | {"body": body, "log_probs": nn.LogSoftmax(dim=1)}))
        self.register_layers(build, [*fit, *(f"body.{name}" for name in order), "log_probs"], image, num_classes)

    def label(self, name: str) -> str:
        return name.removeprefix("body.")


class Placeholder(nn.Module):
    """The place of a norm while a network is made: y = x, with a scale and a shift that a factory may initialise."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.weight, self.bias = nn.Parameter(torch.ones(num_channels)), nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.no_grad()
    def filled(self, build: NormFactory, size: tuple[int, int] | None) -> nn.Module:
        """Return the norm for this place, for maps of this size, as the factory initialised it."""
        norm = build(self.num_channels, size)
        for name, values, usual in (("weight", self.weight, 1), ("bias", self.bias, 0)):
            own = getattr(norm, name, None)
            if bool((values != usual).any()) and isinstance(own, nn.Parameter) and own.shape == values.shape:
                own.copy_(values)  # such as torchvision's zero_init_residual
        return norm


def _replace(net: nn.Module, kind: type[nn.Module], by: Callable[[Any], nn.Module]) -> None:
    """Put other modules in the place of those of exactly this class."""
    new: dict[int, nn.Module] = {}
    for parent in [*net.modules()]:
        for name, child in [*parent.named_children()]:
            if type(child) is kind:
                if id(child) not in new:
                    new[id(child)] = by(child)
                setattr(parent, name, new[id(child)])


def _call(target: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Call a factory; `ValueError` in one line for whatever goes wrong in it."""
    factory = load_class(target, "net.target", "factory")
    try:
        net: Any = factory(**{key: _resolved(value) for key, value in arguments.items()})
    except Exception as error:  # a custom factory may raise anything
        if isinstance(error, TypeError) and "unexpected keyword argument 'norm_layer'" in str(error):
            raise ValueError(f"net.target={target}: its factory takes no norm_layer") from error
        raise ValueError(f"net.target={target} raised {_words(error)}") from error
    if not isinstance(net, nn.Module):
        raise ValueError(f"net.target={target} gave a {type(net).__name__}, not a torch.nn.Module")
    return net


def _resolved(value: Any) -> Any:
    """Return the value of an option, with the object in the place of its "package.module:Name"."""
    if isinstance(value, str) and NAMED.fullmatch(value):
        return load_class(value, "net.options")
    if isinstance(value, Mapping):
        return {key: _resolved(item) for key, item in value.items()}
    return [_resolved(item) for item in value] if isinstance(value, list) else value


def _passed_through(
    net: nn.Module, image: tuple[int, int, int], num_classes: int, target: str
) -> tuple[list[str], dict[nn.Module, tuple[int, int]]]:
    """The names of a network's layers in the order in which a batch passes them, and (H, W) at its placeholders.

    Raise `ValueError` where the images do not pass, or come out as anything but scores of the classes.
    """
    order: dict[str, nn.Module] = {}
    shapes: dict[nn.Module, torch.Size] = {}

    def note(name: str, module: nn.Module, x: torch.Tensor) -> None:
        order.setdefault(name, module)
        shapes[module] = x.shape

    hooks = [
        module.register_forward_pre_hook(lambda module, inputs, name=name: note(name, module, inputs[0]))
        for name, module in net.named_modules()
        if not [*module.children()]
    ]
    images = "{}x{}x{}".format(*image)
    like = next(net.parameters(), torch.zeros(()))
    try:
        with torch.no_grad():
            scores = net.eval()(torch.zeros(2, *image, dtype=like.dtype, device=like.device))
    except Exception as error:  # whatever it computes
        first = next((each.in_channels for each in order.values() if isinstance(each, nn.Conv2d)), image[0])
        other = "net.channels or net.size" if first == image[0] else f"net.channels={first}"
        raise ValueError(
            f"net.target={target} does not take images of {images} ({_words(error)}): set {other}"
        ) from error
    finally:
        net.train()
        for hook in hooks:
            hook.remove()
    if not isinstance(scores, torch.Tensor) or scores.shape != (2, num_classes):
        shape = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ValueError(f"net.target={target} returns {shape} for 2 images: return scores of shape (2, {num_classes})")
    norms = [module for module in order.values() if isinstance(module, Placeholder)]
    if not norms:
        raise ValueError(f"net.target={target} uses no norm_layer: there is nothing in it to compare")
    for norm in norms:
        if len(shapes[norm]) != 4 or shapes[norm][1] != norm.num_channels:
            raise ValueError(
                f"net.target={target}: a norm of {norm.num_channels} channels gets {tuple(shapes[norm])}, but norms "
                "here are for maps (N, C, H, W)"
            )
    return [*order], {norm: (shapes[norm][2], shapes[norm][3]) for norm in norms}


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
