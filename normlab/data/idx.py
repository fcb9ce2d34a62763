"""The idx format of the MNIST family: files found by their names and read in memory, packed or not.

An idx file is a magic number (0x08 for unsigned bytes, then the number of dimensions), one big-endian 32-bit length
per dimension, and the values in C order (LeCun et al. 1998, http://yann.lecun.com/exdb/mnist/).
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from normlab.errors import DataError

# Training images and labels, then test images and labels.
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
UNREADABLE = (OSError, EOFError, zlib.error, ValueError)  # what reading a file and unpacking it may raise


def folder_at(root: str | Path) -> Path:
    """Return `data.root` as a path. Raise `DataError` if it is not a folder."""
    path = Path(root).expanduser()
    if not path.is_dir():
        raise DataError(f"data.root={root} is not a folder: make it, or set data.root to another one")
    return path


def candidates(name: str, folder: Path) -> list[Path]:
    """Return the files in `folder` that may be `name`: with or without `.gz`, also as Kaggle names and nests them."""
    names = [f"{stem}{suffix}" for stem in (name, name.replace("-idx", ".idx")) for suffix in (".gz", "")]
    paths = [path for each in names for path in (folder / each, folder / each / each)]
    return [path for path in paths if path.is_file()]


def unpack(content: bytes) -> bytes:
    """Return content without gzip, whatever its file is called. Raise one of `UNREADABLE` if it is damaged."""
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def parse(content: bytes) -> npt.NDArray[np.uint8]:
    """Return the values of an idx file, packed or not: writable, of the shape that its header states.

    Raise one of `UNREADABLE` if it is damaged, not an idx file, or one of other values than unsigned bytes.
    """
    content = unpack(content)
    if content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise ValueError("not an idx file of unsigned bytes")
    start, shape = 4 + 4 * content[3], np.frombuffer(content, ">u4", content[3], 4).tolist()
    if len(content) != start + math.prod(shape):
        raise ValueError(f"{len(content):,} bytes, where its header states {start + math.prod(shape):,}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()
