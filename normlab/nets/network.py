"""What every network here knows of itself: its norms, its layers in order, the role of each parameter."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from normlab.norms import CATALOGUE, is_packaged, make_norm

Role = Literal["conv", "scale", "shift", "other"]
PRODUCTS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


class Network(nn.Module):
    """A network of log-probabilities (N, num_classes) for images (N, C, H, W).

    Attributes:
        num_classes: number of classes. image: (C, H, W) of the images that it takes.
        norms: names of its normalization layers. order: names of its layers in the order of the forward pass.
        roles: what each parameter is, by name: "conv", a weight of a convolution or linear layer; "scale" or "shift" of
            a normalization layer; "shift" also for biases; "other".
    """

    num_classes: int
    image: tuple[int, int, int]
    norms: tuple[str, ...]
    order: tuple[str, ...]
    roles: dict[str, Role]

    if TYPE_CHECKING:  # nn.Module's call is untyped: what a user's code gets from a network would be Any

        def __call__(self, x: torch.Tensor) -> torch.Tensor: ...

    def label(self, name: str) -> str:
        """What figures and tables call a layer."""
        return name

    def register_layers(
        self, built: "NormFactory", order: Iterable[str], image: tuple[int, int, int], num_classes: int
    ) -> None:
        """Set the attributes of a network whose normalization layers are those that `built` made."""
        self.num_classes, self.image, self.order = num_classes, image, tuple(order)
        names = {id(module): name for name, module in self.named_modules()}
        norms = {names[id(layer)]: roles for layer, roles in built.made}
        place = {name: index for index, name in enumerate(self.order)}
        self.norms = tuple(sorted(norms, key=lambda name: place.get(name, len(place))))  # last: one that is never used
        self.roles = {}
        of_product: dict[str, Role] = {"weight": "conv", "bias": "shift", "gain": "scale"}  # gain: of a `FilterConv2d`
        for name, _ in self.named_parameters():
            owner, _, leaf = name.rpartition(".")
            product = isinstance(self.get_submodule(owner), PRODUCTS)
            self.roles[name] = of_product.get(leaf, "other") if product else "other"
        for name, roles in norms.items():
            self.roles |= {f"{name}.{parameter}": role for parameter, role in roles.items()}


class NormFactory:
    """Makes the normalization layers of a network, and remembers them.

    Args:
        norm: a name of the catalogue, "custom", or a function from num_channels to a module.
        options, target: of the named norm, see `make_norm`.
    """

    def __init__(
        self,
        norm: str | Callable[[int], nn.Module],
        options: Mapping[str, Any] | None = None,
        target: str | None = None,
    ) -> None:
        self.norm, self.options, self.target = norm, options, target
        about = CATALOGUE.get(norm) if isinstance(norm, str) else None
        self.conv = about.conv if about else ""  # how the convolutions before the norm are reparametrised
        self.made: list[tuple[nn.Module, dict[str, Role]]] = []

    def __call__(self, num_channels: int, size: tuple[int, int] | None) -> nn.Module:
        """Return a layer for maps (N, num_channels, H, W); size: (H, W), None where it is not known."""
        if callable(self.norm):
            layer = self.norm(num_channels)
        else:
            layer = make_norm(self.norm, num_channels, self.options, size=size, target=self.target)
        self.made.append((layer, _of_norm(layer)))
        return layer


def _of_norm(layer: nn.Module) -> dict[str, Role]:
    """The role of each parameter of a normalization layer that was just made.

    A norm of the catalogue says which are scales. In a custom layer what starts as ones is a scale (whatever its
    name), what starts as zeros a shift; weights of convolutions and linear layers in it count as scales.
    """
    learned = layer.about.learned if is_packaged(layer) else None  # type: ignore[union-attr]
    roles: dict[str, Role] = {}
    for name, values in layer.named_parameters():
        owner, _, leaf = name.rpartition(".")
        if learned is not None:
            roles[name] = "scale" if learned[name].scale else "shift"  # type: ignore[index, union-attr]
        elif (leaf == "weight" and isinstance(layer.get_submodule(owner), PRODUCTS)) or bool((values == 1).all()):
            roles[name] = "scale"
        else:
            roles[name] = "shift" if bool((values == 0).all()) else "other"
    return roles


def norm_layers(net: Network) -> dict[str, nn.Module]:
    """The normalization layers by name, in the order of the forward pass."""
    return {name: net.get_submodule(name) for name in net.norms}


def in_order(net: Network) -> Iterator[tuple[str, nn.Module]]:
    """Every layer by name in the order of the forward pass; a norm's own parts left out."""
    return ((name, net.get_submodule(name)) for name in net.order)
