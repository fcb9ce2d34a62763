"""The images of a measurement: the same number for every arm, few enough for seconds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from normlab.data.published import NAMES
from normlab.data.sources import Images


def cut(images: Images, train: int, test: int) -> Images:
    """Return the first `train` and `test` images; a set that has fewer is repeated."""

    def first(values: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
        return np.resize(values, (size, *values.shape[1:]))

    return replace(
        images,
        train_images=first(images.train_images, train),
        train_labels=first(images.train_labels, train),
        test_images=first(images.test_images, test),
        test_labels=first(images.test_labels, test),
    )


def write_as_mnist(images: Images, root: Path) -> None:
    """Unpacked idx files where `torchvision.datasets.MNIST(root)` looks for them; it takes any number of images."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    parts = (images.train_images, images.train_labels, images.test_images, images.test_labels)
    for name, part in zip(NAMES, parts, strict=True):
        header = bytes([0, 0, 8, part.ndim]) + np.array(part.shape, ">u4").tobytes()
        (folder / name).write_bytes(header + part.tobytes())
