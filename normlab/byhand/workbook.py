"""The calculation as an .xlsx workbook of live formulas: change a number, ε, γ, β or the momentum, and all follows.

The sheet `input` holds the batch as blocks, images down and channels across, one row and one column empty between
them. So the numbers of a set that are whole maps are one rectangle of cells, whichever norm it is of, and AVERAGE,
DEVSQ and their like, which pass over empty cells, take it as it stands. Each norm has a sheet: what it takes, one row
per statistic, one per running average, then blocks of values; its formulas are written from the norm's tree.

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
from normlab.byhand.exact import Batch, Result, Statistic
from normlab.byhand.formula import (
    Node,
    axes_of,
    given_signs,
    kept,
    kept_roots,
    label,
    steps,
    symbols,
    symbols_in_eval,
    text,
)
from normlab.byhand.set_colours import set_colour
from normlab.errors import ConfigError

__all__ = ["Places", "workbook"]

COLUMNS = 16_384  # of a sheet
MOST = 30  # arguments that a function has always taken
LEFT, TOP = 3, 10  # first column and row of the numbers on `input`; first column of values on a norm's sheet
MOMENTUM, START = (
    "input!$B$4",
    ("input!$B$5", "input!$B$6"),
)  # on `input`: the momentum, where a running mean and a variance start
GIVEN = 5  # on a norm's sheet: row of the first number that it takes

BOLD, QUIET = Font(bold=True), Font(color="6B6B6B")
EDITABLE = PatternFill("solid", fgColor="FFF6CC")
RIGHT = Alignment(horizontal="right")
EDGE = Border(left=Side("medium", color="FFFFFF"))  # between the maps of one set
FUNCTIONS = {"√": "SQRT", "²": "^2", r"\|([^|]*)\|": r"ABS(\1)", "max": "MAX", "tanh": "TANH", "π": "PI()", "·": "*"}
FUNCTIONS |= {r"sigmoid\(([^()]*)\)": r"(1/(1+EXP(-(\1))))"}  # of a product: no brackets in it


@dataclass(frozen=True)
class Places:
    """Where things stand: cells as (row, column), from 1."""

    batch: Batch
    signs: int = 0
    statistics: int = 0
    running: int = 0

    @classmethod
    def of(cls, result: Result) -> "Places":
        """The places on the sheet of a norm."""
        signs = len(given_signs(result.norm))
        return cls(result.batch, signs, len(result.statistics), len(result.running))

    def number(self, i: int, j: int, r: int, s: int) -> tuple[int, int]:
        """x[i, j, r, s] on the sheet `input`."""
        _, _, h, w = self.batch.shape
        return TOP + i * (h + 1) + r, LEFT + j * (w + 1) + s

    def statistic(self, k: int) -> int:
        """The row of statistic k on its norm's sheet; -1: of the headings."""
        return GIVEN + self.signs + 2 + k

    def average(self, j: int) -> int:
        """The row of the running averages of channel j; -1: of the headings."""
        return self.statistic(self.statistics) + 2 + j

    def block(self, b: int) -> int:
        """The row of the heading of block b on a norm's sheet: 0 is normalised values, 1 the output, 2 eval mode."""
        n, _, h, _ = self.batch.shape
        return self.average(self.running) + 1 + b * (n * (h + 1) + 3)

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


def workbook(results: Sequence[Result]) -> tuple[bytes, str]:
    """The workbook of results that share a batch and rules, and what it leaves out, or nothing.

    The same results give the same bytes; none where a sheet has too few columns, or no norm's steps fit its cells.
    """
    batch = results[0].batch
    if LEFT + batch.shape[1] * (batch.shape[3] + 1) > COLUMNS:
        return b"", f"sheet.xlsx is left out: it would have more than {COLUMNS:,} columns"
    fitting, left = [], []
    for result in results:
        try:
            fitting.append((result, [Column(result, i) for i in range(len(result.about.axes))]))
        except ConfigError:
            left.append(result.norm)
    missing = f"sheet.xlsx is left out for {', '.join(left)}: cells cannot hold every step" if left else ""
    if not fitting:
        return b"", missing
    book = Workbook()
    book.properties.creator = "normlab"
    assert isinstance(book.active, Worksheet)
    sheets = [Sheet(book.active)]
    _input(sheets[0], results[0])
    for result, columns in fitting:
        sheets.append(Sheet(book.create_sheet(result.norm)))
        Norm(sheets[-1], result, columns).write()
    for sheet in sheets:  # on paper: on its side, as wide as a page
        sheet.of.page_setup.orientation = "landscape"
        sheet.of.page_setup.fitToHeight = 0
        sheet.of.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
    stream = io.BytesIO()
    book.save(stream)
    return _finished(stream.getvalue(), sheets), missing


def _input(sheet: Sheet, result: Result) -> None:
    batch, at = result.batch, Places(result.batch)
    n, c, h, w = batch.shape
    sheet.of.title = "input"
    sheet.put(1, 1, f"Normalization by hand: {batch.source}", font=BOLD)
    sheet.put(2, 1, "Change a yellow cell: all follows. Which numbers share a statistic stays.", font=QUIET)
    settings = {
        "momentum": result.rules.momentum,
        "running mean, start": Fraction(0),
        "running variance, start": Fraction(1),
    }
    for row, (name, value) in enumerate(settings.items(), 4):
        sheet.put(row, 1, name)
        sheet.put(row, 2, _plain(value), fill=EDITABLE)
    for j in range(c):
        sheet.put(TOP - 1, LEFT + j * (w + 1), f"channel {j + 1}", font=QUIET)
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
    sheet.of.freeze_panes = _cell(TOP, LEFT)


class Column:
    """The formulas of the statistics over some axes of a norm. Raise `ConfigError` where cells cannot hold them."""

    def __init__(self, result: Result, axes: int) -> None:
        self.result, self.at, self.axes = result, Places.of(result), axes
        self.steps = steps(result.tree, axes)
        first = next(s for s in result.statistics if s.axes == axes)
        for node in self.steps:
            if node[-1][0] in ("mean", "sum"):
                self.gathered(node[-1], first)

    def gathered(self, node: Node, s: Statistic) -> str:
        """A mean over the numbers of a set, as a function of their cells."""
        area = self.area(s)
        match node:
            case ("mean", _, ("x",)):
                return f"AVERAGE({area})"
            case ("mean", _, ("²", ("x",))):
                return f"SUMSQ({area})/COUNT({area})"
            case ("mean", i, ("²", ("-", ("x",), ("called", _, ("mean", j, ("x",)))))):
                if i == j:
                    return f"VARP({area})"
                inner = [t for t in self.result.statistics if t.axes == j and set(t.members) <= set(s.members)]
                return f"({'+'.join(f'DEVSQ({self.area(t)})' for t in inner)})/COUNT({area})"
            case ("mean", i, ("|", ("-", ("x",), ("kept", _, ("called", _, ("mean", j, ("x",))))))) if i == j:
                return f"AVEDEV({area})"
        raise ConfigError(f"no cell holds {text(node, label)}")

    def area(self, s: Statistic) -> str:
        """The cells of a set on `input`: one rectangle where they are whole maps."""
        whole = "H" in self.result.about.axes[s.axes]
        ends = [(s.members[0], s.members[-1])] if whole else [(place, place) for place in s.members]
        if len(ends) > MOST:
            raise ConfigError(f"no function takes {len(ends)} arguments")
        cells = [":".join(_locked(*self.at.number(*self.place(p))) for p in dict.fromkeys(pair)) for pair in ends]
        return ",".join(f"input!{cell}" for cell in cells)

    def place(self, place: int) -> tuple[int, int, int, int]:
        """The indices of a number."""
        _, c, h, w = self.result.batch.shape
        return place // (c * h * w), place // (h * w) % c, place // w % h, place % w


class Norm:
    """A norm's sheet."""

    def __init__(self, sheet: Sheet, result: Result, columns: Sequence[Column]) -> None:
        self.sheet, self.result, self.columns, self.at = sheet, result, columns, Places.of(result)
        self.signs = [sign for sign in result.given if sign in given_signs(result.norm)]
        self.names = list(dict.fromkeys(name for s in result.statistics for name in s.values))
        self.averages = [(f"running {label(node)}", node) for node in kept(result.tree)]
        self.averages += [(text(node, symbols_in_eval), node) for node in kept_roots(result.tree)]
        self.owners = [result.grid(("mean", i, ("x",))).owner for i in range(len(columns))]
        self.first = [next(k for k, s in enumerate(result.statistics) if s.axes == i) for i in range(len(columns))]

    def write(self) -> None:
        result, sheet, at = self.result, self.sheet, self.at
        c, w = result.batch.shape[1], result.batch.shape[3]
        sheet.put(1, 1, wording.heading(result), font=BOLD)
        sheet.put(2, 1, f"{wording.facts(result)} {wording.eval_rule(result)}", font=QUIET)
        sheet.put(3, 1, wording.given(result).partition(";")[0], font=QUIET)
        for row, sign in enumerate(self.signs, GIVEN):
            sheet.put(row, 1, sign, font=BOLD)
            for j, value in enumerate(result.given[sign] * (c if self.spread(sign) else 1), LEFT):
                sheet.put(row, j, _plain(value), fill=EDITABLE)
        if any(map(self.spread, self.signs)):
            for j in range(c):
                sheet.put(GIVEN - 1, LEFT + j, f"channel {j + 1}", font=QUIET)
        headings = ["set", "where", "numbers", "sum", *map(wording.worded, self.names)]
        self.headings(at.statistic(-1), headings)
        for k in range(len(result.statistics)):
            self.statistic(k)
        if result.running:
            self.headings(at.average(-1), ["set", "where", *(name for name, _ in self.averages)])
        for j in range(len(result.running)):
            self.average(j)
        fills = [PatternFill("solid", fgColor=set_colour(k)[1:]) for k in range(len(result.statistics))]
        plain = f"normalised: {text(result.inner, symbols)}", "output y"
        for b, heading in enumerate([*plain, "output in eval mode"] if result.running else plain):
            self.block(b, heading, fills)
        sheet.of.column_dimensions["A"].width = 10
        sheet.of.column_dimensions["B"].width = 26
        for column in range(LEFT, max(LEFT + c * w, len(headings) + 1)):
            sheet.of.column_dimensions[get_column_letter(column)].width = 16

    def spread(self, sign: str) -> bool:
        """Whether a number is one per channel."""
        return sign in ("γ", "β") or len(self.result.given[sign]) > 1

    def headings(self, row: int, names: Sequence[str]) -> None:
        for column, name in enumerate(names, 1):
            self.sheet.put(row, column, name, font=BOLD)
            if column > 2:
                self.sheet.of.cell(row, column).alignment = RIGHT

    def statistic(self, k: int) -> None:
        """One row: what the set is, and its formulas over the cells of `input` that hold its numbers."""
        s, row = self.result.statistics[k], self.at.statistic(k)
        column = self.columns[s.axes]
        self.sheet.put(row, 1, s.letter, font=BOLD, fill=PatternFill("solid", fgColor=set_colour(k)[1:]))
        self.sheet.put(row, 2, s.where)
        area = column.area(s)
        formulas: dict[str, tuple[str, Fraction | None]] = {
            "": (f"COUNT({area})", Fraction(s.count)),
            " ": (f"SUM({area})", s.total),
        }
        for node in column.steps:
            inner = node[-1] if node[0] == "called" else node
            gathered = inner[0] in ("mean", "sum")
            formula = column.gathered(inner, s) if gathered else self.formula(inner, s.members[0], own=inner)
            formulas[label(node)] = formula, s.values[label(node)]
        for node in kept(self.result.tree):
            if node[1] and (name := f"unbiased {label(node)}") in s.values:
                m = sum(self.channel(p) == self.channel(s.members[0]) for p in s.members)
                formulas[name] = f"{self.formula(node[2], s.members[0])}*{m}/{m - 1}", s.values[name]
        for name, (formula, value) in formulas.items():
            column_number = 4 if name == " " else 5 + self.names.index(name) if name else 3
            self.sheet.formula(row, column_number, formula, value)
            if column_number > 4:  # in full they would touch; the cell keeps every digit
                self.sheet.of.cell(row, column_number).number_format = "0.000000"

    def average(self, j: int) -> None:
        """One row: the running averages of a channel, set by set, and the roots of eval mode."""
        row, batch, m = self.at.average(j), self.result.batch, MOMENTUM
        places = [place for place in range(len(batch.values)) if self.channel(place) == j]
        k = self.result.owner[places[0]]
        fill = PatternFill("solid", fgColor=set_colour(k)[1:])
        self.sheet.put(row, 1, self.result.statistics[k].letter, font=BOLD, fill=fill)
        self.sheet.put(row, 2, f"channel {j + 1}")
        for number, (name, node) in enumerate(self.averages, 3):
            if node[0] == "kept":
                (i,) = axes_of(node)
                formula = START[node[1]]
                for owner in dict.fromkeys(self.owners[i][place] for place in places):
                    line = self.at.statistic(self.first[i] + owner)
                    column = 5 + self.names.index("unbiased " * node[1] + label(node))
                    formula = f"(1-{m})*({formula})+{m}*{_cell(line, column)}"
            else:
                formula = self.formula(node, places[0], own=node, evaluating=True)
            self.sheet.formula(row, number, formula, self.result.running[j].values[name])
            self.sheet.of.cell(row, number).number_format = "0.000000"

    def channel(self, place: int) -> int:
        return place // self.result.batch.area % self.result.batch.shape[1]

    def block(self, b: int, heading: str, fills: Sequence[PatternFill]) -> None:
        """A heading, the channels' names, and for each image a row of letters and its values."""
        at, sheet, result = self.at, self.sheet, self.result
        n, c, h, w = result.batch.shape
        values = (result.normalised, result.output, result.evaluated)[b]
        sheet.put(at.block(b), 1, heading, font=BOLD)
        for j in range(c):
            sheet.put(at.block(b) + 1, at.value(b, 0, j, 0, 0)[1], f"channel {j + 1}", font=QUIET)
        for i in range(n):
            sheet.put(at.value(b, i, 0, 0, 0)[0], 1, f"image {i + 1}", font=QUIET)
            for j in range(c):
                start = (i * c + j) * h * w
                row, left = at.value(b, i, j, 0, 0)
                for column in range(left, left + w):  # the row of letters belongs to the set as well
                    letter = wording.letters(result, i * c + j) if column == left else ""
                    sheet.put(row - 1, column, letter, font=BOLD, fill=fills[result.owner[start]])
                    if column == left:
                        sheet.of.cell(row - 1, column).border = EDGE
                for place in range(start, start + h * w):
                    r, s = divmod(place - start, w)
                    tree = result.inner if b == 0 else result.tree
                    formula = self.formula(tree, place, evaluating=b == 2)
                    style = fills[result.owner[place]], s == 0
                    sheet.formula(row + r, left + s, formula, values[place], style)

    def formula(self, node: Node, place: int, own: Node | None = None, evaluating: bool = False) -> str:
        """A part of the norm's formula over cells, for a number. own: the part that its cell itself computes."""
        written = text(node, lambda part: "" if part == own else self.known(part, place, evaluating))
        for sign, function in FUNCTIONS.items():
            written = re.sub(sign, function, written)
        return written.replace(" ", "")

    def known(self, node: Node, place: int, evaluating: bool) -> str:
        """The cell that holds a part of the formula for a number, or a number itself; nothing where there is none."""
        for column, (_, other) in enumerate(self.averages, 3):
            if evaluating and node == other:
                return _locked(self.at.average(self.channel(place)), column)
        over = axes_of(node)
        if node[0] in ("called", "√") and len(over) == 1 and label(node) in self.names:
            (i,) = over
            row = self.at.statistic(self.first[i] + self.owners[i][place])
            return _locked(row, 5 + self.names.index(label(node)))
        match node:
            case ("x",):
                return f"input!{_cell(*self.at.number(*self.columns[0].place(place)))}"
            case ("number", word):
                return str(word)
            case ("given", sign):
                column = LEFT + (self.channel(place) if self.spread(sign) else 0)
                return _locked(GIVEN + self.signs.index(sign), column)
        return ""


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


def _cell(row: int, column: int) -> str:
    return f"{get_column_letter(column)}{row}"


def _locked(row: int, column: int) -> str:
    return f"${get_column_letter(column)}${row}"
