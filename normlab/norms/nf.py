"""Scaled weight standardization, no norm."""

from normlab.norms.about import About, Learned
from normlab.norms.none import NoNorm

ABOUT = About(
    family="weights",
    formula="x, of convolutions by g · √(2 / (1 − 1/π)) · (w − μ) / √(n · σ²)",
    centred=False,
    learned={"gain": Learned(start=1.0, scale=True, sign="g")},
    conv="scaled_standard",
    source='Brock, De & Smith 2021, "Characterizing Signal Propagation to Close the Performance Gap in Unnormalized '
    'ResNets", arXiv:2101.08692, section 4.1',
    colour="#4E4E2A",
    marker="d",
)


class ScaledWeightStandardization(NoNorm, about=ABOUT):
    """Scaled weight standardization: this layer is the identity; the convolution before it has standardized filters.

        ŵ = √(2 / (1 − 1/π)) · g · (w − μ) / √(n · σ²), μ and σ² over the n numbers of each filter

    The gain g, one per filter, is learned by the convolution and starts at 1; the factor restores the variance that a
    ReLU takes away.
    """
