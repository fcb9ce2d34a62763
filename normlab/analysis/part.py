"""Parts of a report: tables with their columns, figures and notes. Terminal, CSV files and page are views of them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from normlab.analysis.numbers import NONE, number, p_word, percent, signed

if TYPE_CHECKING:  # matplotlib takes half a second, which a report without figures saves
    from matplotlib.figure import Figure

__all__ = [
    "Column",
    "ImageSet",
    "Part",
    "Picture",
    "Table",
    "interval",
    "mean_sd",
    "p",
    "share",
    "slug",
    "span",
    "text",
    "value",
]  # fmt: skip

Row = Mapping[Any, Any]


@dataclass(frozen=True)
class Column:
    """A column as people read it.

    Attributes:
        show: a row of the frame as text. by: the frame's column that it is sorted by; "": by its text.
        number: whether it is set flush right.
    """

    heading: str
    show: Callable[[Row], str]
    by: str = ""
    number: bool = True


class Cell(NamedTuple):
    """A cell of a table as it is shown, and what it is sorted by."""

    column: Column
    text: str
    value: str | None


@dataclass(frozen=True)
class Table:
    """A frame in files' units (accuracies in [0, 1], differences in pp), and how it is shown.

    Attributes:
        name: of its CSV file, without the ending. columns: none for a table that is only written.
        note: how to read it. verdict: the heading of the column that says what came out.
    """

    name: str
    frame: pd.DataFrame
    columns: Sequence[Column] = ()
    note: str = ""
    verdict: str = ""

    @cached_property
    def shown(self) -> list[Column]:
        """The columns in which a row has something."""
        rows = self.frame.to_dict("records")
        empty = (NONE, "")
        return [column for column in self.columns if any(column.show(row) not in empty for row in rows)]

    @property
    def headings(self) -> list[str]:
        return [column.heading for column in self.shown]

    @property
    def rows(self) -> list[list[str]]:
        return [[cell.text for cell in row] for row in self.cells]

    @property
    def cells(self) -> list[list["Cell"]]:
        """The rows with what each cell is sorted by: a number, "" for a missing one, None for its text."""
        return [
            [Cell(column, column.show(row), _sorted_by(row.get(column.by))) for column in self.shown]
            for row in self.frame.to_dict("records")
        ]

    def csv(self) -> bytes:
        return self.frame.to_csv(index=False, float_format="%.10g", lineterminator="\n").encode()


class ImageSet(NamedTuple):
    """The images that predictions are of, uint8 (N, H, W) in file order, None where they are not on this machine; and
    the names of their classes."""

    images: npt.NDArray[np.uint8] | None
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """A figure with its file name and what a reader has to know to read it.

    figure is None where the images that it needs are not on this machine; `digest` is over what it is drawn from.
    """

    name: str
    caption: str
    figure: "Figure | None"
    digest: str = ""


@dataclass(frozen=True)
class Part:
    """A heading with what stands below it.

    Attributes:
        draw: the figures, drawn when asked for. folded: whether the page shows it only when opened.
    """

    id: str
    heading: str
    intro: str = ""
    tables: Sequence[Table] = ()
    draw: Callable[[ImageSet], Iterable[Picture]] = field(default=lambda _: ())
    folded: bool = False


def slug(label: str) -> str:
    """A label as part of a file's name."""
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in label)


# Columns


def text(heading: str, name: str = "") -> Column:
    """A column of words."""
    key = name or heading
    return Column(heading, lambda row: str(row[key]), key, number=False)


def value(heading: str, name: str, digits: int, factor: float = 1.0) -> Column:
    """A number with so many decimals, times a factor."""

    def show(row: Row) -> str:
        given = row[name]
        return number(factor * given, digits) if isinstance(given, (int, float)) else NONE

    return Column(heading, show, name)


def share(heading: str, name: str) -> Column:
    """A share of 1, in whole per cent."""
    return Column(heading, lambda row: percent(row[name]), name)


def p(heading: str, name: str) -> Column:
    return Column(heading, lambda row: p_word(row[name]), name)


def mean_sd(heading: str, name: str, digits: int = 2, factor: float = 100.0) -> Column:
    """99.42 ± 0.06, of the columns name_mean and name_sd."""

    def show(row: Row) -> str:
        mean, sd = row[f"{name}_mean"], row[f"{name}_sd"]
        if not _there(mean):
            return NONE
        return f"{factor * mean:.{digits}f}" + (f" ± {factor * sd:.{digits}f}" if _there(sd) else "")

    return Column(heading, show, f"{name}_mean")


def span(heading: str, name: str, digits: int = 2, factor: float = 100.0) -> Column:
    """99.35 to 99.50, of the columns name_low and name_high."""

    def show(row: Row) -> str:
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        return f"{factor * low:.{digits}f} to {factor * high:.{digits}f}" if _there(low) and _there(high) else NONE

    return Column(heading, show, f"{name}_low")


def interval(heading: str, name: str, form: str = ".2f", unit: str = "pp") -> Column:
    """+0.12 (+0.05 to +0.19), of the columns name_pp, name_low and name_high."""

    def show(row: Row) -> str:
        mean, low, high = (row[f"{name}_{key}"] for key in (unit, "low", "high"))
        if not _there(mean):
            return NONE
        return signed(mean, form) + (f" ({signed(low, form)} to {signed(high, form)})" if _there(low) else "")

    return Column(heading, show, f"{name}_{unit}")


def _sorted_by(given: object) -> str | None:
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return f"{given:.10g}" if math.isfinite(given) else ""
    return None


def _there(given: object) -> bool:
    return isinstance(given, (int, float)) and math.isfinite(given)
