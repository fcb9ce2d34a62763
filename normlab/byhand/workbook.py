"""The calculation as an .xlsx workbook of live formulas: change a number, ε, γ, β or the momentum, and all follows.

The sheet `input` holds the batch as blocks, images down and channels across, one row and one column empty between
them. So the numbers of every set are one rectangle of cells, whichever norm it is of, and AVERAGE, VARP and VAR, which
pass over empty cells, take it as it stands. Each norm has a sheet: one row per statistic, then blocks of values.

Only functions that every spreadsheet program has had from the start are used. Each formula's value is stored beside it,
for programs that show a workbook without computing it; those that can compute do so when they open it.
"""

import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from openpyxl import Workbook
from openpyxl.styles import Alignment, Border, Font, PatternFill, Side
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.properties import PageSetupProperties
from openpyxl.worksheet.worksheet import Worksheet

from normlab.byhand import wording
from normlab.byhand.exact import Batch, Result
from normlab.byhand.set_colours import set_colour
from normlab.errors import ConfigError

__all__ = ["Places", "workbook"]

COLUMNS = 16_384  # of a sheet
LEFT, TOP, GAMMA, BETA = 3, 13, 10, 11  # on `input`: first column and row of the numbers, rows of γ and β
EPS, MOMENTUM, START_MEAN, START_VARIANCE = "B4", "B5", "B6", "B7"
FIRST = 6  # on a norm's sheet: row of its first statistic

BOLD, QUIET = Font(bold=True), Font(color="6B6B6B")
EDITABLE = PatternFill("solid", fgColor="FFF6CC")
RIGHT = Alignment(horizontal="right")
EDGE = Border(left=Side("medium", color="FFFFFF"))  # between the maps of one set


@dataclass(frozen=True)
class Places:
    """Where things stand: cells as (row, column), from 1."""

    batch: Batch
    statistics: int

    def number(self, i: int, j: int, r: int, s: int) -> tuple[int, int]:
        """x[i, j, r, s] on the sheet `input`."""
        _, _, h, w = self.batch.shape
        return TOP + i * (h + 1) + r, LEFT + j * (w + 1) + s

    def statistic(self, k: int) -> int:
        """The row of statistic k on its norm's sheet."""
        return FIRST + k

    def block(self, b: int) -> int:
        """The row of the heading of block b on a norm's sheet: 0 is normalised values, 1 the output, 2 eval mode."""
        n, _, h, _ = self.batch.shape
        return FIRST + self.statistics + 2 + b * (n * (h + 1) + 3)

    def value(self, b: int, i: int, j: int, r: int, s: int) -> tuple[int, int]:
        """The value of block b at [i, j, r, s] on a norm's sheet."""
        _, _, h, w = self.batch.shape
        return self.block(b) + 3 + i * (h + 1) + r, LEFT + j * w + s


@dataclass
class Sheet:
    """A worksheet that remembers what its formulas come to. known: by cell name; None: a division by 0."""

    of: Worksheet
    known: dict[str, Fraction | None] = field(default_factory=dict)

    def put(
        self,
        row: int,
        column: int,
        value: str | int | float,
        *,
        font: Font | None = None,
        fill: PatternFill | None = None,
    ) -> None:
        cell = self.of.cell(row, column, value)
        if font:
            cell.font = font
        if fill:
            cell.fill = fill

    def formula(
        self, row: int, column: int, text: str, value: Fraction | None, style: tuple[PatternFill, bool] | None = None
    ) -> None:
        cell = self.of.cell(row, column, f"={text}")
        self.known[cell.coordinate] = value
        if style:
            cell.fill = style[0]
            cell.number_format = "0.0000"
            if style[1]:
                cell.border = EDGE


def workbook(results: Sequence[Result]) -> bytes:
    """The workbook of these results, which share a batch and rules. The same results give the same bytes.

    Raises `ConfigError` where a sheet has too few columns for the batch.
    """
    batch = results[0].batch
    if LEFT + batch.shape[1] * (batch.shape[3] + 1) > COLUMNS:
        raise ConfigError(f"sheet.xlsx is left out: it would have more than {COLUMNS:,} columns")
    book = Workbook()
    book.properties.creator = "normlab"
    assert isinstance(book.active, Worksheet)
    sheets = [Sheet(book.active)]
    _input(sheets[0], results[0])
    for result in results:
        sheets.append(Sheet(book.create_sheet(result.norm)))
        _norm(sheets[-1], result)
    for sheet in sheets:  # on paper: on its side, as wide as a page
        sheet.of.page_setup.orientation = "landscape"
        sheet.of.page_setup.fitToHeight = 0
        sheet.of.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
    stream = io.BytesIO()
    book.save(stream)
    return _finished(stream.getvalue(), sheets)


def _input(sheet: Sheet, result: Result) -> None:
    batch, rules, at = result.batch, result.rules, Places(result.batch, 0)
    n, c, h, w = batch.shape
    sheet.of.title = "input"
    sheet.put(1, 1, f"Normalization by hand: {batch.source}", font=BOLD)
    sheet.put(
        2, 1, "Change a yellow cell: every other sheet follows. Which numbers share a statistic stays.", font=QUIET
    )
    settings = {
        "ε": rules.eps,
        "momentum": rules.momentum,
        "running mean, start": Fraction(0),
        "running variance, start": Fraction(1),
    }
    for row, (name, value) in enumerate(settings.items(), 4):
        sheet.put(row, 1, name)
        sheet.put(row, 2, _plain(value), fill=EDITABLE)
    for row, name in {GAMMA: "scale γ", BETA: "shift β"}.items():
        sheet.put(row, 1, name)
    for j in range(c):
        column = LEFT + j * (w + 1)
        sheet.put(GAMMA - 1, column, f"channel {j + 1}", font=QUIET)
        sheet.put(GAMMA, column, _plain(rules.gamma[j] if rules.gamma else Fraction(1)), fill=EDITABLE)
        sheet.put(BETA, column, _plain(rules.beta[j] if rules.beta else Fraction(0)), fill=EDITABLE)
    values = iter(batch.values)
    for i in range(n):
        sheet.put(at.number(i, 0, 0, 0)[0], 1, f"image {i + 1}", font=QUIET)
        for j in range(c):
            for r in range(h):
                for s in range(w):
                    sheet.put(*at.number(i, j, r, s), _plain(next(values)), fill=EDITABLE)
    sheet.of.column_dimensions["A"].width = 24
    for column in range(LEFT, LEFT + c * (w + 1)):
        sheet.of.column_dimensions[get_column_letter(column)].width = 7 if (column - LEFT) % (w + 1) < w else 3
    sheet.of.freeze_panes = _relative(TOP, LEFT)


def _norm(sheet: Sheet, result: Result) -> None:
    batch, at = result.batch, Places(result.batch, len(result.statistics))
    c, w = batch.shape[1], batch.shape[3]
    sheet.put(1, 1, wording.heading(result), font=BOLD)
    sheet.put(2, 1, f"{wording.facts(result)} {wording.eval_rule(result)}", font=QUIET)
    headings = ["set", "where", "numbers", "sum", "mean μ", "Σ(x - μ)²", "variance σ²", "unbiased σ²"]
    headings += ["√(σ²+ε)", "1/√(σ²+ε)"]
    headings += ["running mean", "running variance", "√(running+ε)"] if result.running else []
    for column, heading in enumerate(headings, 1):
        sheet.put(FIRST - 1, column, heading, font=BOLD)
        if column > 2:
            sheet.of.cell(FIRST - 1, column).alignment = RIGHT
    for k in range(len(result.statistics)):
        _statistic(sheet, result, at, k)
    fills = [PatternFill("solid", fgColor=set_colour(k)[1:]) for k in range(len(result.statistics))]
    plain = "normalised: (x - μ) / √(σ² + ε)", "output: y = γ · normalised + β"
    for b, heading in enumerate([*plain, "output in eval mode"] if result.running else plain):
        _block(sheet, result, at, b, heading, fills)
    sheet.of.column_dimensions["A"].width = 10
    sheet.of.column_dimensions["B"].width = 20
    for column in range(LEFT, max(LEFT + c * w, len(headings) + 1)):
        sheet.of.column_dimensions[get_column_letter(column)].width = 16


def _statistic(sheet: Sheet, result: Result, at: Places, k: int) -> None:
    """One row: what the set is, and its formulas over the one rectangle of `input` that holds its numbers."""
    s, row = result.statistics[k], at.statistic(k)
    c, h, w = result.batch.shape[1:]
    first, last = (divmod(m, c) for m in (s.maps[0], s.maps[-1]))
    start, end = at.number(*first, 0, 0), at.number(*last, h - 1, w - 1)
    area = f"input!{_absolute(*start)}:{_absolute(*end)}"
    fill = PatternFill("solid", fgColor=set_colour(k)[1:])
    sheet.put(row, 1, s.letter, font=BOLD, fill=fill)
    sheet.put(row, 2, s.where)
    eps = f"input!{_locked(EPS)}"
    formulas: list[tuple[str, Fraction | None]] = [
        (f"COUNT({area})", Fraction(s.count)),
        (f"SUM({area})", s.total),
        (f"AVERAGE({area})", s.mean),
        (f"DEVSQ({area})", s.squares),
        (f"VARP({area})", s.variance),
        (f"VAR({area})", s.unbiased),
        (f"SQRT(G{row}+{eps})", s.root),
        (f"1/I{row}", 1 / s.root if s.root else None),
    ]
    if result.running:
        running, m = result.running[k], f"input!{_locked(MOMENTUM)}"
        formulas += [
            (f"(1-{m})*input!{_locked(START_MEAN)}+{m}*E{row}", running.mean),
            (f"(1-{m})*input!{_locked(START_VARIANCE)}+{m}*H{row}", running.variance),
            (f"SQRT(L{row}+{eps})", running.root),
        ]
    for column, (text, value) in enumerate(formulas, 3):
        sheet.formula(row, column, text, value)
        if column > 4:  # in full they would touch; the cell keeps every digit
            sheet.of.cell(row, column).number_format = "0.000000"


def _block(sheet: Sheet, result: Result, at: Places, b: int, heading: str, fills: Sequence[PatternFill]) -> None:
    """A heading, the channels' names, and for each image a row of letters and its values."""
    n, c, h, w = result.batch.shape
    values = iter((result.normalised, result.output, result.evaluated)[b])
    sheet.put(at.block(b), 1, heading, font=BOLD)
    for j in range(c):
        sheet.put(at.block(b) + 1, at.value(b, 0, j, 0, 0)[1], f"channel {j + 1}", font=QUIET)
    for i in range(n):
        sheet.put(at.value(b, i, 0, 0, 0)[0], 1, f"image {i + 1}", font=QUIET)
        for j in range(c):
            k = result.owner[i * c + j]
            row, left = at.value(b, i, j, 0, 0)
            for column in range(left, left + w):  # the row of letters belongs to the set as well
                letter = result.statistics[k].letter if column == left else ""
                sheet.put(row - 1, column, letter, font=BOLD, fill=fills[k])
                if column == left:
                    sheet.of.cell(row - 1, column).border = EDGE
            for r in range(h):
                for s in range(w):
                    text = _value(at, b, (i, j, r, s), k)
                    sheet.formula(*at.value(b, i, j, r, s), text, next(values), (fills[k], s == 0))


def _value(at: Places, b: int, index: tuple[int, int, int, int], k: int) -> str:
    """The formula of one value of block b, over its number, its statistic's row, and its channel's γ and β."""
    row, j, w = at.statistic(k), index[1], at.batch.shape[3]
    column = LEFT + j * (w + 1)
    gamma, beta = (f"input!{_absolute(line, column)}" for line in (GAMMA, BETA))
    x = f"input!{_relative(*at.number(*index))}"
    if b == 0:
        return f"({x}-$E${row})/$I${row}"
    if b == 1:
        return f"{gamma}*{_relative(*at.value(0, *index))}+{beta}"
    return f"{gamma}*({x}-$K${row})/$M${row}+{beta}"


def _finished(content: bytes, sheets: Sequence[Sheet]) -> bytes:
    """Puts the formulas' values into the sheets, which openpyxl cannot, and takes the dates out of the file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            text = old.read(name).decode()
            if match := re.fullmatch(r"xl/worksheets/sheet(\d+)\.xml", name):
                text = _with_values(text, sheets[int(match[1]) - 1].known)
            elif name == "docProps/core.xml":
                text = re.sub(r"(<dcterms:(created|modified)[^>]*>)[^<]*", r"\g<1>2000-01-01T00:00:00Z", text)
            new.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)  # ZipInfo's own date: 1980
    return stream.getvalue()


def _with_values(text: str, known: dict[str, Fraction | None]) -> str:
    """A sheet's XML with a value after each formula: 0 divided by 0 is stored as a spreadsheet program would."""

    def filled(match: re.Match[str]) -> str:
        name, attributes, formula = match.groups()
        value = known[name]
        if value is None:
            return f'<c r="{name}"{attributes} t="e">{formula}<v>#DIV/0!</v></c>'
        return f'<c r="{name}"{attributes}>{formula}<v>{float(value)!r}</v></c>'

    return re.sub(r'<c r="([A-Z]+\d+)"((?: s="\d+")?)>(<f>[^<]*</f>)<v ?(?:/>|></v>)</c>', filled, text)


def _plain(value: Fraction) -> int | float:
    return int(value) if value.denominator == 1 else float(value)


def _relative(row: int, column: int) -> str:
    return f"{get_column_letter(column)}{row}"


def _absolute(row: int, column: int) -> str:
    return f"${get_column_letter(column)}${row}"


def _locked(name: str) -> str:
    return re.sub(r"([A-Z]+)(\d+)", r"$\1$\2", name)
