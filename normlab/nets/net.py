"""The small network under study: five 3x3 convolutions, each followed by ReLU and a normalization layer."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from normlab.nets.layers import CONVOLUTIONS, Dropout, FitImages
from normlab.nets.network import Network, NormFactory
from normlab.settings.shape import Stage, small_network

PLACEMENTS = ("post", "pre")


class Net(Network, nn.Sequential):
    """A convolutional network of 7,614 parameters (with bn, ln or gn) for images of shape (N, 1, 28, 28).

    ================================  ===============  =====  ====
    stage                             output shape     conv   norm
    ================================  ===============  =====  ====
    block1: conv 3x3, ReLU, norm, do  (N, 10, 26, 26)     90    20
    block2: conv 3x3, ReLU, norm      (N, 20, 24, 24)  1,800    40
    squeeze: conv 1x1                 (N, 10, 24, 24)    200
    pool: max 2x2                     (N, 10, 12, 12)
    block3: conv 3x3, ReLU, norm, do  (N, 20, 10, 10)  1,800    40
    block4: conv 3x3, ReLU, norm      (N, 12, 8, 8)    2,160    24
    block5: conv 3x3, ReLU, norm, do  (N, 12, 6, 6)    1,296    24
    head: average pool, conv 1x1      (N, 10)            120
    ================================  ===============  =====  ====

    No convolution has a bias. The output is log-probabilities (N, num_classes).

    Args:
        norm: a name of the catalogue of norms, or a function from num_channels to a module.
        dropout: the share of activations that blocks 1, 3 and 5 drop while training (`do` above), in [0, 1).
        placement: "post" puts the norm after ReLU, "pre" before it.
        norm_options, norm_target: what the named norm is built with, such as {"num_groups": 4}; the
            "package.module:Class" of norm "custom".
        weight_standardization: whether the 3x3 convolutions standardise their filters, see `StandardisedConv2d`.
        num_classes: the number of classes.
        image: (C, H, W) of the images.
        channels, size: where images are fitted to another number of channels or another (H, W), see `FitImages`.

    Raises:
        ValueError: in one line, where the images have fewer than 18x18 pixels, or an argument is out of range.

    >>> sum(p.numel() for p in Net(norm="gn", dropout=0.05).parameters())
    7614
    """

    def __init__(
        self,
        norm: str | Callable[[int], nn.Module] = "bn",
        dropout: float = 0.0,
        placement: str = "post",
        norm_options: Mapping[str, Any] | None = None,
        weight_standardization: bool = False,
        *,
        norm_target: str | None = None,
        num_classes: int = 10,
        image: tuple[int, int, int] = (1, 28, 28),
        channels: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        if placement not in PLACEMENTS:
            raise ValueError(f"placement {placement!r} is unknown: choose one of {', '.join(PLACEMENTS)}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout={dropout} is outside [0, 1)")
        wanted = (channels or image[0], *(size or image[1:]))
        stages = list(small_network(wanted[0], num_classes, wanted[1:]))
        build = NormFactory(norm, norm_options, norm_target)
        if weight_standardization and build.conv:
            raise ValueError(f"norm={norm} reparametrises the convolutions itself: set weight_standardization=false")
        kind = CONVOLUTIONS["standard" if weight_standardization else build.conv]

        def convolution(stage: Stage) -> nn.Conv2d:
            return (kind if stage.block else nn.Conv2d)(stage.inputs, stage.outputs, stage.kernel, bias=False)

        # Every convolution is drawn before the first norm is built, so that one seed gives all norms the same start,
        # a user's layer that draws random numbers included.
        convs = {stage.name: convolution(stage) for stage in sorted(stages, key=lambda stage: not stage.block)}

        def block(stage: Stage) -> nn.Sequential:
            relu_norm = [("relu", nn.ReLU()), ("norm", build(stage.outputs, stage.size))]
            layers = [("conv", convs[stage.name]), *(relu_norm if placement == "post" else reversed(relu_norm))]
            if stage.dropout and dropout:
                layers.append(("dropout", Dropout(dropout)))
            return nn.Sequential(OrderedDict(layers))

        parts: dict[str, nn.Module] = {} if wanted == image else {"fit": FitImages(image, wanted)}
        for stage in stages:
            if stage.name == "head":
                pool = nn.AdaptiveAvgPool2d(1)
                parts["head"] = nn.Sequential(pool, convs["head"], nn.Flatten(), nn.LogSoftmax(dim=1))
            else:
                parts[stage.name] = block(stage) if stage.block else convs[stage.name]
            if stage.pooled:
                parts["pool"] = nn.MaxPool2d(2)
        super().__init__(OrderedDict(parts))
        order = [
            f"{name}.{layer}" if layer else name
            for name, part in parts.items()
            for layer in (dict(part.named_children()) or [""])
        ]
        self.register_layers(build, order, image, num_classes)

    def label(self, name: str) -> str:
        return name.partition(".")[0]
