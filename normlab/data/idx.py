"""The idx format of the MNIST family: published files, checked and parsed in memory.

An idx file is a magic number (0x08 for unsigned bytes, then the number of dimensions), one big-endian 32-bit length
for each dimension, and the values in C order (LeCun et al. 1998, http://yann.lecun.com/exdb/mnist/).
"""

import gzip
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from normlab.errors import DataError


@dataclass(frozen=True)
class IdxFile:
    """One idx file as its authors publish it.

    Attributes:
        name: File name without `.gz`.
        shape: Lengths of the dimensions: `(N, 28, 28)` for images, `(N,)` for labels.
        md5: Checksum of the published `.gz` file.
        raw_md5: Checksum of the unpacked file; None where nobody states it.
    """

    name: str
    shape: tuple[int, ...]
    md5: str
    raw_md5: str | None = None

    @property
    def header(self) -> bytes:
        """The first bytes of the unpacked file: magic number and lengths."""
        return b"".join(number.to_bytes(4, "big") for number in (0x0800 + len(self.shape), *self.shape))

    @property
    def size(self) -> int:
        """Length of the unpacked file in bytes."""
        return len(self.header) + math.prod(self.shape)

    def path(self, folder: Path) -> Path | None:
        """Where the file is in `folder`: packed rather than unpacked, since every packed one has a checksum."""
        paths = (folder / f"{self.name}.gz", folder / self.name)
        return next((path for path in paths if path.is_file()), None)


def check(file: IdxFile, path: Path) -> bytes:
    """The content of `path` as it is on the disk, after a check that it is `file` as published.

    A packed file must have the published md5 sum; an unpacked one the length, the header and, where known, the md5 sum.

    Raises:
        DataError: If it is not, or cannot be read; the text names the file, what was expected, and what was found.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if path.suffix == ".gz":
        expected: str | None = file.md5
    else:
        _check_header(file, path, content)
        expected = file.raw_md5
    if expected is not None:
        found = md5(content)
        _expect(path, f"md5 {expected}", f"md5 {found} ({len(content):,} bytes)", found == expected)
    return content


def read(file: IdxFile, path: Path) -> npt.NDArray[np.uint8]:
    """The values of `path`, packed or not: uint8 of shape `file.shape`, writable, nothing unpacked to the disk.

    Raises:
        DataError: If the file is not `file` as published, or holds a label above 9.
    """
    content = check(file, path)
    if path.suffix == ".gz":
        content = gzip.decompress(content)
        _check_header(file, path, content)
    values = np.frombuffer(content, np.uint8, offset=len(file.header)).reshape(file.shape).copy()
    if values.ndim == 1:
        _expect(path, "labels of 0 to 9", f"label {values.max()}", bool(values.max() <= 9))
    return values


def md5(content: bytes) -> str:
    """The checksum in hexadecimal; it guards against damage, not against an adversary."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _check_header(file: IdxFile, path: Path, content: bytes) -> None:
    found = content[: len(file.header)]
    _expect(path, f"{file.size:,} bytes", f"{len(content):,} bytes", len(content) == file.size)
    _expect(path, f"header {file.header.hex(' ', 4)}", f"header {found.hex(' ', 4)}", found == file.header)


def _expect(path: Path, expected: str, found: str, good: bool) -> None:
    if not good:
        raise DataError(
            f"{path} is damaged or belongs to another data set: expected {expected}, found {found}. "
            "Delete it (or move it away) and run again; `data=digits` works without it."
        )
