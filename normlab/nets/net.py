"""The network under study: five 3x3 convolutions, each followed by ReLU and a normalization layer."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from normlab.nets.dropout import Dropout
from normlab.nets.norms import make_norm
from normlab.nets.weight_standard import StandardisedConv2d

__all__ = ["PLACEMENTS", "Net"]

PLACEMENTS = ("post", "pre")


class Net(nn.Module):
    """A convolutional network of 7,614 parameters (with bn, ln or gn) for images of shape (N, 1, 28, 28).

    | stage                            | output shape    | conv  | norm |
    |----------------------------------|-----------------|-------|------|
    | block1: conv 3x3, ReLU, norm, do | (N, 10, 26, 26) |    90 |   20 |
    | block2: conv 3x3, ReLU, norm     | (N, 20, 24, 24) | 1,800 |   40 |
    | squeeze: conv 1x1                | (N, 10, 24, 24) |   200 |      |
    | pool: max 2x2                    | (N, 10, 12, 12) |       |      |
    | block3: conv 3x3, ReLU, norm, do | (N, 20, 10, 10) | 1,800 |   40 |
    | block4: conv 3x3, ReLU, norm     | (N, 12, 8, 8)   | 2,160 |   24 |
    | block5: conv 3x3, ReLU, norm, do | (N, 12, 6, 6)   | 1,296 |   24 |
    | head: average pool, conv 1x1     | (N, 10)         |   120 |      |

    Args:
        norm: a name of `normlab.nets.NORMS`, or a function from num_channels to a module.
        dropout: the share of activations that blocks 1, 3 and 5 drop while training (`do` above), in [0, 1).
        placement: "post" puts the norm after ReLU, "pre" before it.
        norm_options: what the named norm is built with, such as {"num_groups": 4}.
        weight_standardization: whether the 3x3 convolutions standardise their filters, see `StandardisedConv2d`.

    No convolution has a bias. `forward` returns log-probabilities of shape (N, 10).

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
    ) -> None:
        super().__init__()
        if placement not in PLACEMENTS:
            raise ValueError(f"placement {placement!r} is unknown: choose one of {', '.join(PLACEMENTS)}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout={dropout} is outside [0, 1)")
        options = dict(norm_options or {})

        def build(num_channels: int, side: int) -> nn.Module:
            if callable(norm):
                return norm(num_channels)
            return make_norm(norm, num_channels, size=(side, side), **options)

        # Every convolution is drawn before the first norm is built, so that one seed gives all norms the same start,
        # a user's layer that draws random numbers included.
        conv = partial(StandardisedConv2d if weight_standardization else nn.Conv2d, kernel_size=3, bias=False)
        convs = [conv(1, 10), conv(10, 20), conv(10, 20), conv(20, 12), conv(12, 12)]
        squeeze = nn.Conv2d(20, 10, kernel_size=1, bias=False)
        classify = nn.Conv2d(12, 10, kernel_size=1, bias=False)

        def block(conv: nn.Conv2d, side: int, p: float) -> nn.Sequential:
            relu_norm = [("relu", nn.ReLU()), ("norm", build(conv.out_channels, side))]
            block = nn.Sequential()
            for name, layer in [("conv", conv), *(relu_norm if placement == "post" else reversed(relu_norm))]:
                block.add_module(name, layer)
            if p > 0:
                block.add_module("dropout", Dropout(p))
            return block

        self.block1 = block(convs[0], 26, dropout)
        self.block2 = block(convs[1], 24, 0.0)
        self.squeeze = squeeze
        self.pool = nn.MaxPool2d(2)
        self.block3 = block(convs[2], 10, dropout)
        self.block4 = block(convs[3], 8, 0.0)
        self.block5 = block(convs[4], 6, dropout)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), classify, nn.Flatten(), nn.LogSoftmax(dim=1))

    if TYPE_CHECKING:  # nn.Module's call is untyped: what a user's code gets from a network would be Any

        def __call__(self, x: torch.Tensor) -> torch.Tensor: ...

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of shape (N, 10) for images of shape (N, 1, 28, 28)."""
        x = self.pool(self.squeeze(self.block2(self.block1(x))))
        x = self.block5(self.block4(self.block3(x)))
        return self.head(x)  # type: ignore[no-any-return]  # nn.Module's call is untyped

    def in_order(self) -> Iterator[tuple[str, nn.Module]]:
        """Every layer by name ("block1.conv", …) in the order of the forward pass; a norm's own parts left out."""
        for name in ("block1", "block2", "squeeze", "pool", "block3", "block4", "block5", "head"):
            stage = getattr(self, name)
            if isinstance(stage, nn.Sequential):
                yield from ((f"{name}.{part}", layer) for part, layer in stage.named_children())
            else:
                yield name, stage

    def norm_layers(self) -> dict[str, nn.Module]:
        """The five normalization layers by name ("block1.norm", …), in the order of the forward pass."""
        return {
            name: module for name, module in self.named_modules() if name.endswith(".norm") and name.count(".") == 1
        }
