"""Weight normalization."""

from normlab.norms.about import About, Learned
from normlab.norms.none import NoNorm

ABOUT = About(
    family="weights",
    formula="x, of convolutions by g · v / ‖v‖",
    centred=False,
    learned={"gain": Learned(scale=True, sign="g")},
    conv="weight_norm",
    source='Salimans & Kingma 2016, "Weight Normalization", arXiv:1602.07868, equation 2',
    colour="#423042",
    marker="8",
)


class WeightNorm(NoNorm, about=ABOUT):
    """Weight normalization: this layer is the identity; the convolution before it has the filters g · v / ‖v‖.

    v is the convolution's weight, the norm is over each filter and the gain g, one per filter, is learned by the
    convolution; it starts as ‖v‖.
    """
