"""Data sets of 28x28 grey images in ten classes: found on this machine, checked, fetched, held in memory.

Each place is searched in turn: the folder that is asked for (setting `data.root`), `$NORMLAB_DATA`, the user's cache.
In a place, torchvision's layout comes first (`MNIST/raw`, `FashionMNIST/raw`, `KMNIST/raw`), then `raw` and the place
itself, for files put there by hand. Files may be packed (`.gz`) or not; if both are there the packed one counts.
Nothing is unpacked to the disk, so a place may be read-only.

A damaged file is an error, never passed over: not for an intact copy next to it or in a later place, not by `auto`.
Passed over, and named if the data set is nowhere else: a folder with only some of the four files; and loose files none
of which has the right checksum, since all three sets use the same file names.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt
import platformdirs

from normlab.data.fetch import FetchError, fetch
from normlab.data.idx import IdxFile, check, read
from normlab.errors import ConfigError, DataError

NAMES = ("mnist", "fashion_mnist", "kmnist", "digits")
DIGITS = tuple("0123456789")


@dataclass(frozen=True, eq=False)
class Images:
    """A data set in memory; N training and M test images, in the order of the files.

    Attributes:
        name: One of `NAMES`.
        train_images: uint8 (N, 28, 28), 0 is background and 255 full ink.
        train_labels: uint8 (N,), 0 to 9.
        test_images: uint8 (M, 28, 28).
        test_labels: uint8 (M,).
        classes: What the ten labels mean.
    """

    name: str
    train_images: npt.NDArray[np.uint8]
    train_labels: npt.NDArray[np.uint8]
    test_images: npt.NDArray[np.uint8]
    test_labels: npt.NDArray[np.uint8]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Resolved:
    """Which data set a name stands for on this machine.

    Attributes:
        name: One of `NAMES`.
        folder: Where its four files are; None for `digits`, which scikit-learn brings along.
        reason: Why `auto` came to be `digits`, on one line; None otherwise.
    """

    name: str
    folder: Path | None = None
    reason: str | None = None


class MissingError(DataError):
    """A data set that is nowhere: `summary` says so on one line, `fix` what works now and what belongs where."""

    def __init__(self, summary: str, fix: str) -> None:
        super().__init__(summary, fix)  # both: an error in another process of a sweep comes back by pickle
        self.summary = summary
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.summary}. {self.fix}"


@dataclass(frozen=True)
class Published:
    """A data set as published: `title` is its name in prose, `folder` its folder and class name in torchvision.

    `files` are training images and labels, then test images and labels.
    """

    title: str
    folder: str
    files: tuple[IdxFile, IdxFile, IdxFile, IdxFile]
    classes: tuple[str, ...]


def _four(md5s: str, raw_md5s: str = "") -> tuple[IdxFile, IdxFile, IdxFile, IdxFile]:
    """The four files that all three sets have, with checksums in this order."""
    shapes = {
        "train-images-idx3-ubyte": (60_000, 28, 28),
        "train-labels-idx1-ubyte": (60_000,),
        "t10k-images-idx3-ubyte": (10_000, 28, 28),
        "t10k-labels-idx1-ubyte": (10_000,),
    }
    sums = zip_longest(md5s.split(), raw_md5s.split())
    a, b, c, d = (IdxFile(*item, *pair) for item, pair in zip(shapes.items(), sums, strict=True))
    return a, b, c, d


# The md5 sums of packed files are torchvision's. Those of unpacked files are in common use (MNIST's were computed
# again from the packed ones); nobody states them for KMNIST, where length and header must do.
PUBLISHED = {
    "mnist": Published(  # LeCun, Bottou, Bengio & Haffner 1998, Proc. IEEE 86(11); http://yann.lecun.com/exdb/mnist/
        "MNIST",
        "MNIST",
        _four(
            """f68b3c2dcbeaaa9fbdd348bbdeb94873 d53e105ee54ea40749a09fcbcd1e9432
            9fb629c4189551a2d022fa330f9573f3 ec29112dd5afa0611ce80d1b7f02629c""",
            """6bbc9ace898e44ae57da46a324031adb a25bea736e30d166cdddb491f175f624
            2646ac647ad5339dbf082846283269ea 27ae3e4e09519cfbb04c329615203637""",
        ),
        DIGITS,
    ),
    "fashion_mnist": Published(  # Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747
        "Fashion-MNIST",
        "FashionMNIST",
        _four(
            """8d4fb7e6c68d591d4c3dfef9ec88bf0d 25c81989df183df01b3e8a0aad5dffbe
            bef4ecab320f06d8554ea6380940ec79 bb300cfdad3c16e7a12a480ee83cd310""",
            """f4a8712d7a061bf5bd6d2ca38dc4d50a 9018921c3c673c538a1fc5bad174d6f9
            8181f5470baa50b63fa0f6fddb340f0a 15d484375f8d13e6eb1aabb0c3f46965""",
        ),
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "kmnist": Published(  # Clanuwat et al. 2018, arXiv:1812.01718
        "Kuzushiji-MNIST",
        "KMNIST",
        _four(
            """bdb82020997e1d708af4cf47b453dcf7 e144d726b3acfaa3e44228e80efcd344
            5c965bf0a639b31b8f53240b1b52f4d7 7320c461ea6c1c855c0b718fb2a4b134""",
        ),
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
}


def resolve(name: str, root: str | Path | None = None, *, download: bool = True) -> Resolved:
    """Which data set `name` stands for here, its files found and checked, or fetched.

    `auto` is MNIST where it is on the machine or can be fetched, else `digits` with the reason. Files are fetched to
    `root` if given, else to the user's cache.

    Args:
        name: `auto` or one of `NAMES`.
        root: Folder to look in first.
        download: Fetch what is nowhere.

    Raises:
        ConfigError: If the name is unknown.
        DataError: If a file is damaged; or, unless `name` is `auto`, if the data set cannot be had (`MissingError`).
    """
    if name not in ("auto", *NAMES):
        raise ConfigError(f"No data set is called {name!r}: choose auto, {', '.join(NAMES)}.")
    if name == "digits":
        return Resolved("digits")
    strict = "mnist" if name == "auto" else name
    try:
        return Resolved(strict, _folder(strict, root, download))
    except MissingError as error:
        if name == "auto":
            return Resolved("digits", reason=error.summary)
        raise


def load(name: str, root: str | Path | None = None, *, download: bool = True) -> Images:
    """The data set `name` in memory, every file checked; found or fetched as in `resolve`.

    Args:
        name: One of `NAMES`; `auto` is a question for `resolve`.
        root: Folder to look in first.
        download: Fetch what is nowhere.

    Raises:
        ConfigError: If the name is unknown or `auto`.
        DataError: If a file is damaged or the data set cannot be had (`MissingError`).
    """
    if name not in NAMES:
        raise ConfigError(f"No data set is called {name!r}: choose {', '.join(NAMES)}.")
    if name == "digits":
        return _digits()
    folder = _folder(name, root, download)
    files = PUBLISHED[name].files
    a, b, c, d = (read(file, file.path(folder) or folder / file.name) for file in files)
    return Images(name, a, b, c, d, PUBLISHED[name].classes)


def _folder(name: str, root: str | Path | None, download: bool) -> Path:
    """The folder that holds the four files, each checked.

    Raises:
        DataError: If one of them is damaged.
        MissingError: If they are nowhere and cannot be fetched.
    """
    data = PUBLISHED[name]
    cache = platformdirs.user_cache_path("normlab", appauthor=False) / "data"
    given = [Path(place).expanduser() for place in (root, os.environ.get("NORMLAB_DATA")) if place]
    places = list(dict.fromkeys((*given, cache)))
    passed = []
    for place in places:
        for folder in (place / data.folder / "raw", place / "raw", place):
            found = [(file, path) for file in data.files if (path := file.path(folder)) is not None]
            try:
                ours = _belong(found, by_name=folder.parent.name == data.folder)
            except DataError as error:
                raise DataError(f"{error}\nThe four files and their checksums:{_table(data)}") from error
            if found and not ours:
                passed.append(f"{folder} has files of the right names, none with the right checksum")
            elif len(found) == len(data.files):
                return folder
            elif found:
                passed.append(f"{folder} has {len(found)} of its {len(data.files)} files")

    target = (places[0] if root else cache) / data.folder / "raw"
    reason = "is not to be fetched (data.download=false)"
    if download:
        try:
            fetch(data.files, target, _mirrors(data))
        except FetchError as error:
            reason = f"could not be fetched ({error})"
        else:
            return target
    here = f" ({'; '.join(passed)})" if passed else ""
    summary = f"{data.title} is not on this machine{here} and {reason}"
    raise MissingError(
        summary,
        "`data=digits` works without it.\n"
        f"Put these four files into {target}, packed or not:{_table(data)}\n"
        f"Looked in: {', '.join(map(str, places))} (data.root, $NORMLAB_DATA, the user's cache).",
    )


def _table(data: Published) -> str:
    """The four files, a line each, with their md5 sums."""
    return "".join(f"\n  {file.name}.gz  md5 {file.md5}" for file in data.files)


def _belong(found: Sequence[tuple[IdxFile, Path]], *, by_name: bool) -> bool:
    """Whether files belong to the data set: by the name of their folder, else if at least one has a right checksum.

    Raises:
        DataError: If they belong to it and one of them is damaged.
    """
    damage = []
    known = by_name
    for file, path in found:
        try:
            check(file, path)
        except DataError as error:
            damage.append(error)
        else:
            known |= path.suffix == ".gz" or file.raw_md5 is not None  # a right length alone proves nothing
    if known and damage:
        raise damage[0]
    return known


def _mirrors(data: Published) -> Sequence[str]:
    import torchvision  # type: ignore[import-untyped, unused-ignore]

    mirrors: Sequence[str] = getattr(torchvision.datasets, data.folder).mirrors
    return mirrors


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
