"""The shape of the small network, known without torch: `Net` is built from it, settings and lint compute with it."""

from collections.abc import Iterator
from dataclasses import dataclass

# name, channels of its output (None: the classes), kernel in pixels, whether dropout follows, whether the maps are
# halved behind it. Every 3x3 convolution is a block: ReLU and a norm follow.
TABLE = (
    ("block1", 10, 3, True, False),
    ("block2", 20, 3, False, False),
    ("squeeze", 10, 1, False, True),
    ("block3", 20, 3, True, False),
    ("block4", 12, 3, False, False),
    ("block5", 12, 3, True, False),
    ("head", None, 1, False, False),
)


@dataclass(frozen=True)
class Stage:
    """A convolution of the small network, without padding and bias, and what follows it.

    Attributes:
        inputs, outputs: channels. kernel: pixels. size: (H, W) of its output.
        block: ReLU and a norm follow. dropout: so does dropout, if any. pooled: 2x2 max-pooling follows.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int
    size: tuple[int, int]
    block: bool
    dropout: bool
    pooled: bool

    @property
    def weights(self) -> int:
        """Numbers in the convolution."""
        return self.inputs * self.outputs * self.kernel**2


def small_network(channels: int = 1, num_classes: int = 10, size: tuple[int, int] = (28, 28)) -> Iterator[Stage]:
    """The stages in the order of the forward pass. Raise `ValueError` where images of this size are too small."""
    inputs, (height, width) = channels, size
    for name, outputs, kernel, dropout, pooled in TABLE:
        if name == "head":  # behind the global average pool
            height = width = 1
        height, width = height - kernel + 1, width - kernel + 1
        if min(height, width) < 1:
            raise ValueError(f"images of {size[0]}x{size[1]} pixels are too small for net=small: set net.size=28")
        stage = Stage(name, inputs, outputs or num_classes, kernel, (height, width), kernel == 3, dropout, pooled)
        yield stage
        inputs = stage.outputs
        if pooled:
            height, width = height // 2, width // 2


NORM_CHANNELS = tuple(stage.outputs for stage in small_network() if stage.block)
