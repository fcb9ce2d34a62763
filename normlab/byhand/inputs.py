"""Where a batch comes from: the fixed one, random digits, a text file or a .npy file; numbers out of text, exactly."""

import random
import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from math import prod
from pathlib import Path

import numpy as np

from normlab.byhand.exact import Batch, Shape
from normlab.errors import DataError

__all__ = ["DEFAULT", "LARGEST", "default_batch", "number", "random_batch", "read_batch"]

LARGEST = 50_000  # numbers of a batch: beyond it nobody reads along, and a workbook takes minutes
RANGE, PLACES = 10**12, 40  # of a number: its size, its digits after the point

# A line a map, its three rows one after the other; four lines an image. Chosen so that every mean is a whole number or
# a half, and so are the roots of most variances: docs/choose_batch.py finds it again and says how.
DEFAULT = """
    9 3 7  7 8 5  2 4 9
    7 6 5  4 6 9  7 5 5
    6 4 3  3 2 4  5 1 8
    1 2 3  0 1 3  1 2 5

    5 0 2  4 1 7  2 3 3
    3 5 4  4 5 6  4 8 6
    7 9 7  5 6 5  8 9 7
    1 8 7  8 9 7  5 9 9

    9 8 8  5 9 7  9 4 4
    8 9 4  2 9 7  1 8 6
    2 2 1  9 0 7  8 9 7
    4 0 9  1 1 0  0 3 0

    4 6 8  8 6 6  7 5 4
    6 4 8  7 8 9  8 7 6
    2 4 9  9 2 1  1 0 8
    0 9 9  5 9 8  6 9 8
"""


def default_batch() -> Batch:
    """The fixed batch: 4 images of 4 channels of 3x3 digits, chosen so that its statistics can be read."""
    return Batch((4, 4, 3, 3), tuple(Fraction(word) for word in DEFAULT.split()), "the fixed batch")


def random_batch(shape: Shape, seed: int) -> Batch:
    """Random digits 0 to 9. The same shape and seed give the same batch on every machine.

    Raises `DataError` where the shape is too large.
    """
    _limit(prod(shape), "--shape")
    digits = random.Random(seed)
    values = tuple(Fraction(digits.randrange(10)) for _ in range(prod(shape)))
    return Batch(shape, values, f"random digits, seed {seed}")


def read_batch(file: Path, shape: Shape | None = None) -> Batch:
    """A batch from a .npy file, or from a text file of numbers.

    A text file's numbers are separated by commas, semicolons, blanks or line ends, in any layout: they are read from
    left to right and line by line in the order (N, C, H, W), so a line a map, a line an image or one long line all do.
    Blank lines and what follows a # are left out. Numbers are taken exactly as they are written; floats of a .npy file
    as the shortest decimal that means them. A comma is a decimal one where semicolons separate: "1,5;2,5" is 1.5 and
    2.5, "1,2" is 1 and 2, and "1,5 2,5" is refused.

    Args:
        shape: N, C, H, W; a text file needs it, and so does an array that is not four-dimensional.

    Raises `DataError`, in one line, where the file cannot be read as that.
    """
    name = _printable(file.name)
    try:
        with file.open("rb") as stream:
            start = stream.read(6)
            values, found = _array(file, name) if start == b"\x93NUMPY" else (_text(stream, start, name), None)
    except OSError as error:
        raise DataError(
            f"--input {_printable(str(file))}: cannot be read ({error.strerror}): name a .csv or .npy file"
        ) from None
    if not values:
        raise DataError(f"--input {name} holds no numbers: give it at least one")
    if shape is None:
        if found is None or len(found) != 4:
            what = f"{len(values)} numbers" if found is None else f"an array of shape {_comma(found)}"
            raise DataError(f"--input {name} holds {what}: say what they are with --shape N,C,H,W")
        shape = (found[0], found[1], found[2], found[3])
    elif found is not None and len(found) == 4 and tuple(found) != shape:
        raise DataError(
            f"--shape {_comma(shape)} is not that of --input {name}, {_comma(found)}: "
            "leave --shape out, or reshape the array"
        )
    if prod(shape) != len(values):
        raise DataError(
            f"--shape {_comma(shape)} has {prod(shape):,} places and --input {name} holds {len(values):,} numbers: "
            "change one of them"
        )
    return Batch(shape, values, name)


def number(text: str) -> Fraction:
    """The number that a text means, exactly: "1e-5" is 1/100000, and so is "1/100000". A comma is a decimal one.

    Raises `ValueError`, with what is wrong, where it is none, is not finite, or is beyond 10^12 or 40 places.
    """
    text = re.sub(r"(?<=\d),(?=\d)", ".", text.strip(), count=1)
    if match := re.fullmatch(r"([+-]?\d{1,12})/(\d{1,12})", text, re.ASCII):
        if int(match[2]) == 0:
            raise ValueError(f"{text} divides by 0")
        return Fraction(int(match[1]), int(match[2]))
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{_short(text)!r} is not a number") from None
    if not value.is_finite():
        raise ValueError(f"{_short(text)!r} is not a finite number")
    exponent = value.as_tuple().exponent
    # Before it becomes a fraction: 1e999999999 would fill the memory.
    if value and (value.adjusted() > 12 or abs(value) > RANGE or not isinstance(exponent, int) or exponent < -PLACES):
        raise ValueError(f"{_short(text)!r} is out of range: up to 10^12, with up to {PLACES} digits after the point")
    return Fraction(value) if value else Fraction(0)


def _text(stream: Iterable[bytes], start: bytes, name: str) -> tuple[Fraction, ...]:
    if start[:2] == b"PK":
        raise DataError(
            f"--input {name} is a packed file, such as .npz or .xlsx: give a .csv, or a .npy with one array"
        )
    data = start + b"".join(stream)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"--input {name} is no text in UTF-8: give a .csv or .npy file") from None
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    separators = r"\s*;\s*|\s+" if _decimal_commas(lines, name) else r"\s*[,;]\s*|\s+"
    values: list[Fraction] = []
    for i, line in enumerate(lines, 1):
        for word in re.split(separators, line) if line else []:
            if not word:
                raise DataError(f"--input {name}, line {i}: a number is missing between two commas: fill the gap")
            try:
                values.append(number(word))
            except ValueError as error:
                raise DataError(f"--input {name}, line {i}: {error}: correct it, or put # before the line") from None
        _limit(len(values), f"--input {name}")
    return tuple(values)


def _decimal_commas(lines: list[str], name: str) -> bool:
    """Whether commas are decimal ones: "1,5;2,5". Raise `DataError` where nobody can know: "1,5 2,5"."""
    if "." in "".join(lines) or any(re.search(r",\s|\s,|,[^,;\s]*,", line) for line in lines):
        return False
    for i, line in enumerate(lines, 1):
        if (found := re.search(r"(\S*\d,\d\S*)\s+(\S+)", line)) and ";" not in line:
            raise DataError(
                f"--input {name}, line {i}: {_short(found[0])!r} may have decimal commas or one number more: write "
                "decimal points, or semicolons between numbers"
            )
    return any(";" in line for line in lines)


def _array(file: Path, name: str) -> tuple[tuple[Fraction, ...], tuple[int, ...]]:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        if "Object arrays" in str(error) or "Array can't be memory-mapped" in str(error):
            raise DataError(
                f"--input {name} holds Python objects, which are never loaded: save numbers instead"
            ) from None
        raise DataError(f"--input {name} is damaged: save it again with numpy.save") from None
    if array.dtype.kind not in "iuf":
        raise DataError(f"--input {name} holds {array.dtype}, not numbers: save it as integers or floats")
    _limit(array.size, f"--input {name}")
    try:
        values = tuple(number(str(x)) for x in array.ravel())
    except ValueError as error:
        raise DataError(f"--input {name}: {error}: correct the array") from None
    return values, array.shape


def _limit(many: int, what: str) -> None:
    if many > LARGEST:
        raise DataError(f"{what} has more than {LARGEST:,} numbers, too many to follow: take fewer images or channels")


def _comma(shape: Iterable[int]) -> str:
    return ",".join(map(str, shape))


def _short(text: str) -> str:
    text = _printable(text)
    return text if len(text) <= 30 else f"{text[:27]}..."


def _printable(text: str) -> str:
    """Text without control characters and lone surrogates, which a file's name may hold: for a terminal or a page."""
    return "".join(c if c.isprintable() else "?" for c in text)
