"""MNIST, Fashion-MNIST and Kuzushiji-MNIST: found on this machine or downloaded, and checked to the last bit.

`data.root` is the only place searched if it is given; otherwise `$NORMLAB_DATA` comes first, then the user's cache. In
a place, torchvision's layout comes first (such as `MNIST/raw`), then `raw`, then the place itself. A file is accepted
by the md5 sum of its content, published archive or unpacked, so that repacked files and other names for them do no
harm. Nothing is unpacked to disk: a place may be read-only.

A damaged file is an error even if there is an intact copy in a later place. Passed over, and named if the data set is
nowhere else: incomplete folders, and files of another of these sets, which all use the same names.

Their idx files: a magic number (0x08 for unsigned bytes, then the number of dimensions), one big-endian 32-bit length
per dimension, and the values in C order (LeCun et al. 1998, http://yann.lecun.com/exdb/mnist/); packed or not.
"""

import gzip
import hashlib
import math
import os
import sys
import urllib.request
import zlib
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import platformdirs

from normlab.errors import DataError
from normlab.files import write_atomically
from normlab.settings import DATA_TITLES

# Training images and labels, then test images and labels.
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
UNREADABLE = (OSError, EOFError, zlib.error, ValueError)  # what reading a file and unpacking it may raise
DIGITS = tuple("0123456789")
TIMEOUT_S = 10.0  # per network operation: connecting, or waiting for the next bytes
LOCK_S = 600.0  # for another process that downloads the same files
MOST = 64 << 20  # bytes per download: the largest archive has 26 MB


class MissingError(DataError):
    """A data set that is nowhere: `args` are what is missing and why, and what to do. Comes back by pickle."""

    def __str__(self) -> str:
        return ": ".join(self.args)


@dataclass(frozen=True)
class Published:
    """A published data set: `title` is what people call it, `folder` its folder and its class name in torchvision.

    `packed` and `unpacked` are the md5 sums of the archives and of the files in them, in the order of `NAMES`.
    """

    title: str
    folder: str
    packed: tuple[str, ...]
    unpacked: tuple[str, ...]
    classes: tuple[str, ...]


# Sums of archives: torchvision's. Of unpacked files: MNIST's were computed from the archives, Fashion-MNIST's are in
# common use, KMNIST's are git-annex keys of github.com/datasets-mila/datasets--kmnist, where torchvision checked and
# unpacked the archives: not computed again here, and its archives are recognised by their own sums first.
# fmt: off
PUBLISHED = {
    "mnist": Published(  # LeCun, Bottou, Bengio & Haffner 1998, Proc. IEEE 86(11); http://yann.lecun.com/exdb/mnist/
        DATA_TITLES["mnist"], "MNIST",
        ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
         "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c"),
        ("6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624",
         "2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637"),
        DIGITS,
    ),
    "fashion_mnist": Published(  # Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747
        DATA_TITLES["fashion_mnist"], "FashionMNIST",
        ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
         "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310"),
        ("f4a8712d7a061bf5bd6d2ca38dc4d50a", "9018921c3c673c538a1fc5bad174d6f9",
         "8181f5470baa50b63fa0f6fddb340f0a", "15d484375f8d13e6eb1aabb0c3f46965"),
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "kmnist": Published(  # Clanuwat et al. 2018, arXiv:1812.01718
        DATA_TITLES["kmnist"], "KMNIST",
        ("bdb82020997e1d708af4cf47b453dcf7", "e144d726b3acfaa3e44228e80efcd344",
         "5c965bf0a639b31b8f53240b1b52f4d7", "7320c461ea6c1c855c0b718fb2a4b134"),
        ("92be26ec9822e900ac425d0a0aa84ced", "949e75301f8813e0dc5800dcc320fc52",
         "bf305b8cd328700fbc17f5acbc2856d2", "9f55f451c0988b028eccdf7d5cc265ab"),
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
}
# fmt: on


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


def contents(data: Published, root: str | Path | None, *, download: bool) -> list[bytes]:
    """Return what the four files hold, packed or not, each checked. Missing files are downloaded to `root` if it is
    given, else to the user's cache.

    Raise `DataError` if a file is damaged, `MissingError` if the data set cannot be had.
    """
    if root:
        places = [folder_at(root)]
    else:
        variable = os.environ.get("NORMLAB_DATA")
        places = [Path(variable).expanduser()] if variable else []
        places.append(platformdirs.user_cache_path("normlab", appauthor=False) / "data")
    notes = []
    for place in places:
        for folder in (place / data.folder / "raw", place / "raw", place):
            found = [_checked(data, index, folder) for index in range(len(NAMES))]
            good = [each for each in found if isinstance(each, bytes)]
            wrong = [each for each in found if isinstance(each, DataError)]
            if len(good) == len(NAMES):
                return good
            if wrong and (good or root or folder.parent.name == data.folder):
                raise wrong[0]
            if wrong:
                notes.append(f"{folder} has files of another data set")
            elif good:
                notes.append(f"{folder} has {len(good)} of its {len(NAMES)} files")

    target, reason = places[-1] / data.folder / "raw", "downloads are off (data.download=false)"
    if download:
        try:
            return _downloaded(data, target)
        except (OSError, NotImplementedError) as error:  # NotImplementedError: filelock, where there are no locks
            reason = f"cannot be downloaded to {target} ({_reason(error)})"
    here = f" ({'; '.join(notes)})" if notes else ""
    raise MissingError(
        f"{data.title} is not {f'in {root}' if root else 'on this machine'}{here} and {reason}",
        f"put its files ({', '.join(f'{name}.gz' for name in NAMES)}) into a folder and set data.root to it; "
        "data=digits needs no files",
    )


def _checked(data: Published, index: int, folder: Path) -> bytes | DataError | None:
    """Return the content of the file `NAMES[index]` if it is in `folder`, an error if it is not as published."""
    wrong = None
    for path in candidates(NAMES[index], folder):
        try:
            content = path.read_bytes()
            found = _md5(content)
            if found == data.packed[index] or (found := _md5(unpack(content))) == data.unpacked[index]:
                return content
            reason = f"md5 of its content {found}, expected {data.unpacked[index]}"
        except UNREADABLE as error:
            reason = _reason(error)
        wrong = wrong or DataError(
            f"{path} is damaged or not {data.title}'s ({reason}): move or rename it, or set data.root to "
            "another folder; data=digits needs no files"
        )
    return wrong


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()  # guards against damage, not against an adversary


def _downloaded(data: Published, folder: Path) -> list[bytes]:
    """Download the files that are not in `folder` yet, one process at a time, and return the content of all.

    Raise `OSError` if no mirror has a file, or it cannot be written.
    """
    import filelock
    import torchvision  # type: ignore[import-untyped, unused-ignore]

    mirrors = list(getattr(torchvision.datasets, data.folder).mirrors)
    failures: list[str] = []
    folder.mkdir(parents=True, exist_ok=True)
    result = []
    with filelock.FileLock(folder / ".lock", timeout=LOCK_S):
        for index, name in enumerate(NAMES):
            found = _checked(data, index, folder)
            if isinstance(found, DataError):
                raise found
            while found is None:
                if not mirrors:
                    raise OSError("; ".join(failures))
                found = _get(f"{mirrors[0]}{name}.gz", data.packed[index], failures)
                if found is None:
                    del mirrors[0]  # not asked again
                else:
                    write_atomically(folder / f"{name}.gz", found)
            result.append(found)
    return result


def _get(url: str, md5: str, failures: list[str]) -> bytes | None:
    """Return what is at `url` if it has this md5 sum, else None, with the reason added to `failures`."""
    print(f"Downloading {url}", file=sys.stderr, flush=True)
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "normlab"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            content: bytes = response.read(MOST)
    except (OSError, HTTPException) as error:
        reason = _reason(error)
    else:
        if _md5(content) == md5:
            return content
        reason = f"wrong content ({len(content):,} bytes)"
    failures.append(f"{urlsplit(url).hostname}: {reason}")
    return None


def _reason(error: BaseException) -> str:
    """Return what went wrong in a few words on one line."""
    if isinstance(reason := getattr(error, "reason", None), BaseException):  # a URLError wraps what happened
        return _reason(reason)
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
