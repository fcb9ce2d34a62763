"""Data sets in memory, by name."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from normlab.data import folder
from normlab.data.published import DIGITS, PUBLISHED, MissingError, contents, folder_at, parse
from normlab.errors import ConfigError

NAMES = (*PUBLISHED, "digits", "folder")


@dataclass(frozen=True, eq=False)
class Images:
    """A data set in memory: N training and M test images, in the order of the files.

    Attributes:
        name: One of `NAMES`.
        train_images: uint8 (N, H, W), or (N, H, W, 3) in colour; 0 is black, of drawn digits the background.
        train_labels: integers (N,), from 0.
        test_images: uint8 (M, H, W) or (M, H, W, 3).
        test_labels: integers (M,).
        classes: What the labels mean.
    """

    name: str
    train_images: npt.NDArray[np.uint8]
    train_labels: npt.NDArray[np.integer]
    test_images: npt.NDArray[np.uint8]
    test_labels: npt.NDArray[np.integer]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Resolved:
    """The data set that a name stands for on this machine; `reason`: what to tell people where `auto` is digits."""

    name: str
    reason: str | None = None


def resolve(name: str, root: str | Path | None = None, *, download: bool = True, size: int | None = None) -> Resolved:
    """Return which data set `name` stands for here, after its files are found and checked, or downloaded.

    `auto` is MNIST if it is on this machine or can be downloaded, else `digits`. With `root`, where MNIST is expected,
    there is no such way out. `root` is the folder to look in, and in no other; `download`: get missing files.
    `size`: as `load` takes it; a folder is checked by the headers of its images.

    Raise `ConfigError` if the name is unknown, `DataError` if the data set is damaged or cannot be had.
    """
    if name == "auto":
        try:
            contents(PUBLISHED["mnist"], root, download=download)
        except MissingError as error:
            if root:
                raise
            return Resolved("digits", f"{error.args[0]}: training on scikit-learn's digits (data=digits)")
        return Resolved("mnist")
    if name in PUBLISHED:
        contents(PUBLISHED[name], root, download=download)
    elif name == "folder":
        folder.check(_root(root), size)
    elif name not in NAMES:
        raise ConfigError(f"data={name} is unknown: choose one of auto, {', '.join(NAMES)}")
    return Resolved(name)


def split(name: str, images: int, train_size: int | None, val_size: int | None) -> tuple[int, int]:
    """Return how many of the training images of a data set are trained on and how many are held out; None: all that are
    left, and 5,000 or a tenth of a smaller set. Raise `ConfigError` if there are not so many."""
    held = min(5000, images // 10) if val_size is None else val_size
    left = images - held
    if left <= 0:
        raise ConfigError(f"val_size={held} leaves none of {images} training images of {name}")
    if train_size is not None and train_size > left:
        raise ConfigError(f"train_size={train_size}: only {left} training images of {name} are not held out")
    return left if train_size is None else train_size, held


def check_split(name: str, root: str | None, size: int | None, train_size: int | None, val_size: int | None) -> None:
    """Raise `ConfigError` if a data set that `resolve` has found has too few images for such a `split`."""
    if train_size is not None or val_size is not None:
        images = folder.check(_root(root), size) if name == "folder" else len(load(name, root).train_labels)
        split(name, images, train_size, val_size)


def load(name: str, root: str | Path | None = None, *, download: bool = True, size: int | None = None) -> Images:
    """Return the data set `name`, one of `NAMES`, every file checked. Arguments and errors are those of `resolve`.

    size: of `folder`, pixels per side to which images are scaled; None: as they are.
    """
    if name == "digits":
        return _digits()
    if name == "folder":
        arrays, classes = folder.read(_root(root), size)
        return Images("folder", *arrays, classes)
    if name not in PUBLISHED:
        raise ConfigError(f"data={name} is unknown: choose one of {', '.join(NAMES)}")
    a, b, c, d = map(parse, contents(PUBLISHED[name], root, download=download))
    return Images(name, a, b, c, d, PUBLISHED[name].classes)


def _root(root: str | Path | None) -> Path:
    if not root:
        raise ConfigError("data=folder needs data.root=…, the folder of your images")
    return folder_at(root)


@cache  # a sixth of a second, and runs only read them
def _digits() -> Images:
    """scikit-learn's copy of the test part of the UCI optical digits (Alpaydin & Kaynak 1998, doi:10.24432/C50P49).

    1,797 images of 8x8 pixels with values 0 to 16, scaled to 28x28 and 0 to 255 by bilinear interpolation. 500 of them,
    stratified by class, are the test images: always the same ones, whatever the seed of a run. Both parts keep the
    order of the file.
    """
    from PIL import Image
    from sklearn.datasets import load_digits  # type: ignore[import-untyped, unused-ignore]
    from sklearn.model_selection import train_test_split  # type: ignore[import-untyped, unused-ignore]

    digits = load_digits()
    levels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    # Pillow scales bytes in integer arithmetic: the same bits on every machine.
    images = np.stack(
        [np.asarray(Image.fromarray(image).resize((28, 28), Image.Resampling.BILINEAR)) for image in levels]
    )
    labels = digits.target.astype(np.uint8)
    train, test = (
        np.sort(part)
        for part in train_test_split(np.arange(len(labels)), test_size=500, stratify=labels, random_state=0)
    )
    return Images("digits", images[train], labels[train], images[test], labels[test], DIGITS)
