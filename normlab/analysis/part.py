"""Parts of a report: tables with their columns, figures and notes. Terminal, CSV files and page are views of them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from normlab.analysis.inference import Link, mean_interval
from normlab.analysis.numbers import KEPT, NONE, number, p_word, percent, signed, with_interval

if TYPE_CHECKING:  # matplotlib takes half a second, which a report without figures saves
    from matplotlib.figure import Figure

Row = Mapping[Any, Any]


@dataclass(frozen=True)
class Column:
    """A column as people read it.

    Attributes:
        show: a row of the frame as text. by: the frame's column that it is sorted by; "": by its text.
        number: whether it is set flush right. verdict: whether it says what came out.
    """

    heading: str
    show: Callable[[Row], str]
    by: str = ""
    number: bool = True
    verdict: bool = False


class TableCell(NamedTuple):
    """A cell of a table as it is shown, and what it is sorted by: a number, "" for a missing one, None for its text."""

    column: Column
    text: str
    value: str | None


@dataclass(frozen=True)
class Table:
    """A frame in files' units (accuracies in [0, 1], differences in pp), and how it is shown.

    Attributes:
        name: of its CSV file, without the ending; "" for none. columns: none for a table that is only written.
        note: how to read it. first: whether the finding rests on it.
    """

    name: str
    frame: pd.DataFrame
    columns: Sequence[Column] = ()
    note: str = ""
    first: bool = False

    @cached_property
    def cells(self) -> list[list[TableCell]]:
        """The rows, without columns in which no row has anything."""
        rows = self.frame.to_dict("records") if self.columns else []
        cells = [
            [TableCell(each, each.show(row), _sorted_by(row.get(each.by))) for each in self.columns] for row in rows
        ]
        some = [any(cell.text not in (NONE, "") for cell in column) for column in zip(*cells, strict=True)]
        return [[cell for cell, shown in zip(row, some, strict=True) if shown] for row in cells]

    @property
    def shown(self) -> list[Column]:
        """The columns of `cells`."""
        return [cell.column for row in self.cells[:1] for cell in row]

    @property
    def verdict(self) -> int | None:
        """The place of the column that says what came out; None where there is none."""
        return next((at for at, column in enumerate(self.shown) if column.verdict), None)

    @property
    def headings(self) -> list[str]:
        return [column.heading for column in self.shown]

    @property
    def rows(self) -> list[list[str]]:
        return [[cell.text for cell in row] for row in self.cells]

    def csv(self) -> bytes:
        return self.frame.to_csv(index=False, float_format=f"%{KEPT}", lineterminator="\n").encode()


class ImageSet(NamedTuple):
    """The images that predictions are of, uint8 (N, H, W) in file order, None where they are not on this machine, and
    why; and the names of their classes."""

    images: npt.NDArray[np.uint8] | None
    classes: tuple[str, ...]
    missing: str = "the images do not fit the predictions"


@dataclass(frozen=True)
class Picture:
    """A figure with its file name and what a reader has to know to read it.

    Attributes:
        draw: the figure; None where the images that it needs are not on this machine.
        digest: over what it is drawn from, where that is less than all runs.
    """

    name: str
    caption: str
    draw: "Callable[[ImageSet], Figure | None]"
    digest: str = ""


@dataclass(frozen=True)
class Part:
    """A heading with what stands below it.

    Attributes:
        pictures: the figures, to be drawn. folded: whether the page shows it only when opened.
    """

    id: str
    heading: str
    intro: str = ""
    tables: Sequence[Table] = ()
    pictures: Callable[[], Iterable[Picture]] = tuple
    folded: bool = False


def slug(label: str) -> str:
    """A label as part of a file's name."""
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in label)


def named(name: str, factor: float = 1.0, **numbers: float) -> dict[str, float]:
    """Numbers as columns of a frame: mean=0.9, low=0.8 → {name_mean: …, name_low: …}, times a factor."""
    return {f"{name}_{key}": factor * given for key, given in numbers.items()}


def over_seeds(
    name: str, values: Iterable[float], middle: str = "mean", factor: float = 1.0, link: Link = "identity"
) -> dict[str, float]:
    """Their mean with its 95 % t interval as columns, name_mean, name_low and name_high; NaN where there are none."""
    given = [*values]
    numbers = mean_interval(given, link) if given else [math.nan] * 3
    return named(name, factor, **dict(zip((middle, "low", "high"), numbers, strict=True)))


# Columns; one that a frame lacks has nothing to show, and is left out


def text(heading: str, name: str = "", *, verdict: bool = False) -> Column:
    """A column of words."""
    key = name or heading
    return Column(heading, lambda row: str(row[key]), key, number=False, verdict=verdict)


def value(heading: str, name: str, digits: int = 0, factor: float = 1.0) -> Column:
    """A number with so many decimals, times a factor."""
    return Column(heading, lambda row: _word(row, name, digits, factor), name)


def share(heading: str, name: str) -> Column:
    """A share of 1, in whole per cent."""
    return Column(heading, lambda row: percent(row[name]), name)


def p(heading: str, name: str) -> Column:
    return Column(heading, lambda row: p_word(row[name]), name)


def mean_sd(heading: str, name: str, digits: int = 2, factor: float = 100.0) -> Column:
    """99.42 ± 0.06, of the columns name_mean and name_sd."""

    def show(row: Row) -> str:
        mean, sd = (_word(row, f"{name}_{key}", digits, factor) for key in ("mean", "sd"))
        return mean if NONE in (mean, sd) else f"{mean} ± {sd}"

    return Column(heading, show, f"{name}_mean")


def span(heading: str, name: str, digits: int = 2, factor: float = 100.0, *, signs: bool = False) -> Column:
    """99.35 to 99.50, of the columns name_low and name_high; signs: also + before them."""

    def show(row: Row) -> str:
        ends = [factor * row.get(f"{name}_{key}", math.nan) for key in ("low", "high")]
        words = [signed(end, f".{digits}f") if signs else number(end, digits) for end in ends]
        return NONE if NONE in words else " to ".join(words)

    return Column(heading, show, f"{name}_low")


def interval(heading: str, name: str, digits: int = 2, middle: str = "pp") -> Column:
    """+0.12 (+0.05 to +0.19), of the columns name_pp, name_low and name_high."""
    keys = [f"{name}_{key}" for key in (middle, "low", "high")]
    return Column(heading, lambda row: with_interval([row.get(key, math.nan) for key in keys], digits), keys[0])


def _word(row: Row, name: str, digits: int, factor: float) -> str:
    given = row.get(name)
    return number(factor * given, digits) if isinstance(given, (int, float)) else NONE


def _sorted_by(given: object) -> str | None:
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return f"{given:{KEPT}}" if math.isfinite(given) else ""
    return None
