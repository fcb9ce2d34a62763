"""A batch, and where it comes from: the fixed one, random digits, text or a .npy file; numbers out of text, exactly."""

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from math import prod
from pathlib import Path

import numpy as np

from normlab.errors import ConfigError, DataError

LARGEST = 50_000  # numbers of a batch: beyond it nobody reads along, and a workbook takes minutes
RANGE, PLACES = 10**12, 40  # of a number: its size, its digits after the point

Shape = tuple[int, int, int, int]

# One image per line, one map per word. Chosen so that every mean is a whole number or a half, and so are the roots of
# most variances: docs/choose_batch.py finds it again and says how.
DEFAULT = """
    937785249 765469755 643324518 123013125
    502417233 354456486 797565897 187897599
    988597944 894297186 221907897 409110030
    468866754 648789876 249921108 099598698
"""


@dataclass(frozen=True)
class Batch:
    """N images of C channels of H x W numbers, flat and in row-major order. source: where they are from, for people.

    Raise `ConfigError` where shape and values do not fit.
    """

    shape: Shape
    values: tuple[Fraction, ...]
    source: str = ""

    def __post_init__(self) -> None:
        n, c, h, w = self.shape
        if min(self.shape) < 1 or n * c * h * w != len(self.values):
            raise ConfigError(f"{len(self.values)} numbers are not a batch of shape {n},{c},{h},{w}")

    @property
    def area(self) -> int:
        """H · W, the numbers of one map: those of map m = i · C + j are values[m · area : (m + 1) · area]."""
        return self.shape[2] * self.shape[3]


def default_batch() -> Batch:
    """The fixed batch: 4 images of 4 channels of 3x3 digits, chosen so that its statistics can be read."""
    return Batch((4, 4, 3, 3), tuple(Fraction(digit) for digit in "".join(DEFAULT.split())), "the fixed batch")


def random_batch(shape: Shape, seed: int) -> Batch:
    """Random digits 0 to 9. The same shape and seed give the same batch on every machine.

    Raise `DataError` where the shape is too large.
    """
    _limit(prod(shape), "--shape")
    digits = random.Random(seed)
    values = tuple(Fraction(digits.randrange(10)) for _ in range(prod(shape)))
    return Batch(shape, values, f"random digits, seed {seed}")


def read_batch(file: Path, shape: Shape | None = None) -> Batch:
    """A batch from a .npy file, or from a text file of numbers.

    A text file's numbers are separated by commas, semicolons, blanks or line ends, in any layout: they are read from
    left to right and line by line in the order (N, C, H, W), so one line per map, one per image or one in all will do.
    Blank lines and what follows a # are left out. Numbers are taken exactly as they are written; floats of a .npy file
    as the shortest decimal that means them. A comma is a decimal one where semicolons separate: "1,5;2,5" is 1.5 and
    2.5, "1,2" is 1 and 2, and "1,5 2,5" is refused.

    shape: N, C, H, W; a text file needs it, and so does an array that is not four-dimensional. Raise `DataError`, in
    one line, where the file cannot be read as that.
    """
    name = f"--input {_printable(file.name)}"
    try:
        with file.open("rb") as stream:
            start = stream.read(6)
            array = start == b"\x93NUMPY"
            values, found = _array(file, name) if array else (_text(start + stream.read(), name), None)
    except OSError as error:
        path = _printable(str(file))
        raise DataError(f"--input {path}: cannot be read ({error.strerror}): name a .csv or .npy file") from None
    if not values:
        raise DataError(f"{name} holds no numbers: give it at least one")
    if shape is None:
        if found is None or len(found) != 4:
            what = f"{len(values)} numbers" if found is None else f"an array of shape {_comma(found)}"
            raise DataError(f"{name} holds {what}: say what they are with --shape N,C,H,W")
        shape = (found[0], found[1], found[2], found[3])
    elif found is not None and len(found) == 4 and found != shape:
        fix = "leave --shape out, or reshape the array"
        raise DataError(f"--shape {_comma(shape)} is not that of {name}, {_comma(found)}: {fix}")
    if prod(shape) != len(values):
        many = f"has {prod(shape):,} places and {name} holds {len(values):,} numbers"
        raise DataError(f"--shape {_comma(shape)} {many}: change one of them")
    return Batch(shape, values, _printable(file.name))


def number(text: str) -> Fraction:
    """The number that a text means, exactly: "1e-5" is 1/100000, and so is "1/100000". A comma is a decimal one.

    Raise `ValueError`, with what is wrong, where it is none, is not finite, or is beyond 10^12 or 40 places.
    """
    text = re.sub(r"(?<=\d),(?=\d)", ".", text.strip(), count=1)
    if match := re.fullmatch(r"([+-]?\d{1,12})/(\d{1,12})", text, re.ASCII):
        if not int(match[2]):
            raise ValueError(f"{text} divides by 0")
        return Fraction(text)
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


def _text(data: bytes, name: str) -> tuple[Fraction, ...]:
    if data[:2] == b"PK":
        raise DataError(f"{name} is a packed file, such as .npz or .xlsx: give a .csv, or a .npy with one array")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{name} is no text in UTF-8: give a .csv or .npy file") from None
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    separators = r"\s*;\s*|\s+" if _decimal_commas(lines, name) else r"\s*[,;]\s*|\s+"
    values: list[Fraction] = []
    for i, line in enumerate(lines, 1):
        for word in re.split(separators, line) if line else []:
            if not word:
                raise DataError(f"{name}, line {i}: a number is missing between two commas: fill the gap")
            try:
                values.append(number(word))
            except ValueError as error:
                raise DataError(f"{name}, line {i}: {error}: correct it, or put # before the line") from None
        _limit(len(values), name)
    return tuple(values)


def _decimal_commas(lines: list[str], name: str) -> bool:
    """Whether commas are decimal ones: "1,5;2,5". Raise `DataError` where nobody can know: "1,5 2,5"."""
    if "." in "".join(lines) or any(re.search(r",\s|\s,|,[^,;\s]*,", line) for line in lines):
        return False
    for i, line in enumerate(lines, 1):
        if (found := re.search(r"(\S*\d,\d\S*)\s+(\S+)", line)) and ";" not in line:
            fix = "may have decimal commas or one number more: write decimal points, or semicolons between numbers"
            raise DataError(f"{name}, line {i}: {_short(found[0])!r} {fix}")
    return any(";" in line for line in lines)


def _array(file: Path, name: str) -> tuple[tuple[Fraction, ...], tuple[int, ...]]:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        if "Object arrays" in str(error) or "Array can't be memory-mapped" in str(error):
            raise DataError(f"{name} holds Python objects, which are never loaded: save numbers instead") from None
        raise DataError(f"{name} is damaged: save it again with numpy.save") from None
    if array.dtype.kind not in "iuf":
        raise DataError(f"{name} holds {array.dtype}, not numbers: save it as integers or floats")
    _limit(array.size, name)
    try:
        return tuple(number(str(x)) for x in array.ravel()), array.shape
    except ValueError as error:
        raise DataError(f"{name}: {error}: correct the array") from None


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
