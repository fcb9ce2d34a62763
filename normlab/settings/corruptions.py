"""In what ways test images are corrupted, and how strongly: `evaluate=[shifted,…]`. `normlab.data.augment` does it.

Five strengths of each, from about what augmentation does to where networks fail, in the spirit of Hendrycks &
Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", and of Mu & Gilmer
2019, "MNIST-C"; the values are normlab's own.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

Corrupted = Literal["shifted", "rotated", "noised", "contrast"]
STRENGTHS = range(1, 6)
IMAGES_ADAPTED_TO = 500  # of the corrupted ones: mode `adapted` normalizes by their mean and variance


class Corruption(NamedTuple):
    """What is done to an image.

    Attributes:
        title: of the images. words: how much, with its unit. amounts: at strengths 1 to 5. clean: of an image as it is.
    """

    title: str
    words: str
    amounts: tuple[float, float, float, float, float]
    clean: float = 0.0


CORRUPTIONS: Mapping[Corrupted, Corruption] = {
    "shifted": Corruption("shifted", "shift, pixels of 28", (2, 3, 4, 5, 6)),
    "rotated": Corruption("rotated", "rotation, degrees", (10, 20, 30, 40, 50)),
    "noised": Corruption("noised", "standard deviation of noise", (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": Corruption("of less contrast", "factor of contrast", (0.8, 0.6, 0.4, 0.2, 0.1), 1.0),
}
