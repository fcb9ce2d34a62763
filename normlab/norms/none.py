"""No normalization."""

from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import About
from normlab.norms.layer import Norm

ABOUT = About(
    family="control",
    formula="x",
    centred=False,
    learned={},
    source="the control",
    colour="#222222",
    marker="X",
)


class NoNorm(Norm, about=ABOUT):
    """y = x. The control, without parameters."""

    def forward(self, x: Tensor) -> Tensor:
        """x itself."""
        y: Tensor | None = None if ops.is_scripting() else ops.node(self, x)
        if y is not None:
            return y
        return x
