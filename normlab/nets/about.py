"""What is known of each norm of the registry and cannot be computed from its layer; docs/norms.md shows it."""

from dataclasses import dataclass

__all__ = ["ABOUT", "About"]

STANDARDISED = "γ · (x − μ) / √(σ² + ε) + β"
ROOT_MEAN_SQUARE = "x / √(mean(x²) + ε)"
RUNNING = "running mean and variance of each channel"
TWO_MODES = "train: μ and σ² of the batch; eval: the running ones"


@dataclass(frozen=True, kw_only=True)
class About:
    """A norm in words.

    Attributes:
        title: its name in words.
        formula: y, of x and the learned numbers.
        over: the axes that a statistic is taken over: of N (images), V (the images of a ghost batch), C (channels), C/G
            (the channels of a group), H and W; empty where there is no statistic.
        centred: whether a mean is subtracted; otherwise a statistic is a mean square alone.
        state: what it keeps from step to step, as buffers; empty where it keeps nothing.
        modes: how train and eval mode differ; empty where they do not.
        source: the paper, and where in it.
    """

    title: str
    formula: str = STANDARDISED
    over: tuple[str, ...] = ()
    centred: bool = True
    state: str = ""
    modes: str = ""
    source: str = ""

    @property
    def count(self) -> str:
        """How many statistics there are, as a formula: what is left of N, C, H and W; "0" where there are none."""
        if not self.over:
            return "0"
        left = {"N": "N / V" if "V" in self.over else "N", "C": "G" if "C/G" in self.over else "C", "H": "H", "W": "W"}
        factors = [many for axis, many in left.items() if axis not in self.over]
        return " · ".join(factors) or "1"

    def values(self, channels: int, size: tuple[int, int], groups: int = 1) -> int:
        """How many numbers of one image go into a statistic; 0 where there is none."""
        many = 1 if self.over else 0
        for axis, length in {"C": channels, "C/G": channels // groups, "H": size[0], "W": size[1]}.items():
            many *= length if axis in self.over else 1
        return many


ABOUT: dict[str, About] = {
    "none": About(title="no normalization", formula="x", centred=False, source="the control"),
    "bn": About(
        title="batch normalization",
        over=("N", "H", "W"),
        state=RUNNING,
        modes=TWO_MODES,
        source="Ioffe & Szegedy 2015, arXiv:1502.03167, section 3",
    ),
    "gbn": About(
        title="ghost batch normalization",
        over=("V", "H", "W"),
        state=RUNNING,
        modes="train: μ and σ² of V images of the batch; eval: the running ones",
        source="Hoffer, Hubara & Soudry 2017, arXiv:1705.08741, algorithm 1",
    ),
    "brn": About(
        title="batch renormalization",
        formula="γ · ((x − μ) / √(σ² + ε) · r + d) + β",
        over=("N", "H", "W"),
        state=f"{RUNNING}; steps so far",
        modes="train: μ and σ² of the batch, corrected by r and d within limits; eval: the running ones",
        source="Ioffe 2017, arXiv:1702.03275, algorithm 1",
    ),
    "ln": About(
        title="layer normalization",
        over=("C", "H", "W"),
        source="Ba, Kiros & Hinton 2016, arXiv:1607.06450; as in Wu & He 2018, section 3.1",
    ),
    "ln_elem": About(
        title="layer normalization, γ and β for every position",
        over=("C", "H", "W"),
        source="Ba, Kiros & Hinton 2016, arXiv:1607.06450, equations 3 and 4",
    ),
    "ln2d": About(
        title="layer normalization of each pixel",
        over=("C",),
        source="Liu et al. 2022 (ConvNeXt), arXiv:2201.03545, section 2.6",
    ),
    "gn": About(
        title="group normalization", over=("C/G", "H", "W"), source="Wu & He 2018, arXiv:1803.08494, section 3.1"
    ),
    "in": About(
        title="instance normalization",
        over=("H", "W"),
        source="Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022, equation 2",
    ),
    "rms": About(
        title="root mean square normalization",
        formula=f"γ · {ROOT_MEAN_SQUARE}",
        over=("C", "H", "W"),
        centred=False,
        source="Zhang & Sennrich 2019, arXiv:1910.07467, equation 4",
    ),
    "frn": About(
        title="filter response normalization",
        formula=f"max(γ · {ROOT_MEAN_SQUARE} + β, τ)",
        over=("H", "W"),
        centred=False,
        source="Singh & Krishnan 2020, arXiv:1911.09737, equations 1 to 4",
    ),
    "dyt": About(
        title="dynamic tanh",
        formula="γ · tanh(α · x) + β",
        centred=False,
        source="Zhu et al. 2025, arXiv:2503.10622, section 4",
    ),
}
