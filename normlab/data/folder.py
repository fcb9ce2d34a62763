"""A person's own images: a folder per class as torchvision's ImageFolder reads it, or four idx files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from normlab.data.published import NAMES, UNREADABLE, candidates, parse
from normlab.errors import DataError

TEST_SHARE = 0.2  # of the images of every class, where root has no test part

Arrays = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]


def read(root: Path, size: int | None) -> tuple[Arrays, tuple[str, ...]]:
    """Return training images and labels, test images and labels, and the names of the classes.

    Images are uint8 (N, H, W) if all are grey, else (N, H, W, 3). Layouts:

    - `root/train/<class>/*.png` with `root/test/<class>/*.png` (or `val`), any format that Pillow reads;
    - `root/<class>/*.png`: a fifth of every class, always the same images, are the test images;
    - the four idx files of `NAMES`, of any number, size and classes.

    Args:
        size: Scale every image so that its shorter side has so many pixels, and crop the longer one about its centre.
            None: take images as they are, all of one size.

    Raise `DataError` if there is no such layout, an image cannot be read or sizes differ.
    """
    return _idx(root, size) if _has_idx(root) else _tree(root, size)


def check(root: Path, size: int | None) -> int:
    """Return how many training images there are. Raise what `read` raises, as far as names, classes and the headers of
    images tell."""
    if _has_idx(root):
        return len(_idx(root, size)[0][1])
    paths, _, where, _ = _listed(root)
    _check_headers(paths, size)
    return len(where[0])


def _has_idx(root: Path) -> bool:
    return any(candidates(name, root) for name in NAMES)


def _idx(root: Path, size: int | None) -> tuple[Arrays, tuple[str, ...]]:
    parts: list[npt.NDArray[Any]] = []
    for name in NAMES:
        path = next(iter(candidates(name, root)), None)
        if path is None:
            raise DataError(f"{root} has idx files but no {name}: it needs {', '.join(NAMES)}, packed or not")
        try:
            values = parse(path.read_bytes())
        except UNREADABLE as error:
            raise DataError(f"{path} cannot be read: {error}") from error
        dimensions = 3 if "images" in name else 1
        if values.ndim != dimensions:
            raise DataError(f"{path} has {values.ndim} dimensions, not {dimensions}")
        if dimensions == 1 and len(values) != len(parts[-1]):
            raise DataError(f"{path} has {len(values)} labels for {len(parts[-1])} images")
        if dimensions == 3 and size is not None:
            from PIL import Image

            values = np.stack([_scaled(Image.fromarray(image), (size, size)) for image in values])
        parts.append(values)
    if parts[0].shape[1:] != parts[2].shape[1:]:
        raise DataError(f"{root}: {_sizes(*(part.shape[:0:-1] for part in (parts[0], parts[2])))}")
    _check_classes(root, len(np.unique(parts[1])))
    labels = max(int(part.max(initial=0)) for part in (parts[1], parts[3])) + 1
    return (parts[0], parts[1], parts[2], parts[3]), tuple(map(str, range(labels)))


def _tree(root: Path, size: int | None) -> tuple[Arrays, tuple[str, ...]]:
    paths, labels, (first, second), classes = _listed(root)
    _check_headers(paths, size)
    arrays = [image_file(path, None if size is None else (size, size)) for path in paths]
    colour = any(array.ndim == 3 for array in arrays)
    images = np.stack([np.repeat(a[..., None], 3, 2) if colour and a.ndim == 2 else a for a in arrays])
    return (images[first], labels[first], images[second], labels[second]), classes


def _listed(root: Path) -> tuple[list[Path], npt.NDArray[Any], Sequence[npt.NDArray[Any]], tuple[str, ...]]:
    """Return image files, their labels, which of them are training and test images, and the names of the classes."""
    from sklearn.model_selection import train_test_split  # type: ignore[import-untyped, unused-ignore]
    from torchvision.datasets import ImageFolder  # type: ignore[import-untyped, unused-ignore]

    test = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    parts = [root / "train", test] if test is not None and (root / "train").is_dir() else [root]
    try:
        trees = [ImageFolder(str(part)) for part in parts]
    except FileNotFoundError as error:  # no class, or one without images
        reason = " ".join(str(error).split())
        layouts = f"{root}/train/<class> with {root}/test/<class>, or {root}/<class>"
        raise DataError(f"{reason}: data=folder reads {layouts}") from error
    if trees[0].classes != trees[-1].classes:
        differ = ", ".join(sorted(set(trees[0].classes) ^ set(trees[1].classes)))
        raise DataError(f"{parts[0]} and {parts[1]} have different classes: {differ} in one only")
    _check_classes(root, len(trees[0].classes))
    samples = [sample for tree in trees for sample in tree.samples]
    labels = np.array([label for _, label in samples])
    where: Sequence[npt.NDArray[Any]]
    if len(trees) > 1:
        where = np.split(np.arange(len(labels)), [len(trees[0].samples)])
    else:
        try:
            drawn = train_test_split(np.arange(len(labels)), test_size=TEST_SHARE, stratify=labels, random_state=0)
        except ValueError as error:
            raise DataError(f"{root}: too few images to hold a fifth of every class for the test: {error}") from error
        where = [np.sort(part) for part in drawn]
    return [Path(path) for path, _ in samples], labels, where, tuple(trees[0].classes)


def _check_classes(root: Path, number: int) -> None:
    if number < 2:
        raise DataError(f"{root} has training images of one class alone: a network needs two to tell apart")


def _check_headers(paths: Sequence[Path], size: int | None) -> None:
    """Raise `DataError` where an image cannot be read or, without `size`, two differ in theirs. No pixel is read."""
    first = None
    for path in paths:
        with _opened(path) as image:
            first = first or image.size
            if size is None and image.size != first:
                raise DataError(f"{paths[0]} and {path}: {_sizes(first, image.size)}")


def image_file(path: Path, size: tuple[int, int] | None, *, grey: bool | None = None) -> npt.NDArray[np.uint8]:
    """Return an image file as uint8, (H, W) if it is to be grey (None: if it is stored so), else (H, W, 3).

    size: (W, H), to which it is scaled and cropped about its centre; None: as it is. Raise `DataError`, in one line, if
    it cannot be read or has more than 8 bits.
    """
    with _opened(path) as image:
        grey = image.mode in ("1", "L", "LA") if grey is None else grey
        return _scaled(image.convert("L" if grey else "RGB"), size)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An image file. Raise `DataError` where it, or what is done with it, cannot be read, or has more than 8 bits."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{path} has more than 8 bits per pixel: save it with 8")
            yield image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image: {' '.join(str(error).split())}") from error


def _scaled(image: Any, size: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    from PIL import Image, ImageOps

    return np.array(image if size is None else ImageOps.fit(image, size, Image.Resampling.BILINEAR))


def _sizes(one: Sequence[int], other: Sequence[int]) -> str:
    """What is wrong with two images of different sizes (W, H)."""
    a, b = (f"{width}x{height}" for width, height in (one, other))
    return f"images have different sizes ({a} and {b} pixels): set data.size, to which all are scaled"
