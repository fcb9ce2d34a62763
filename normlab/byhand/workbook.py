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
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
from openpyxl import Workbook
from openpyxl.styles import Alignment, Border, Font, PatternFill, Side
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.properties import PageSetupProperties
from openpyxl.worksheet.worksheet import Worksheet

from normlab.byhand import wording
from normlab.byhand.exact import Result, Statistic, Values
from normlab.byhand.formula import Node, axes_of, label, text
from normlab.byhand.inputs import Batch, Shape
from normlab.errors import ConfigError

Formulas = dict[int, tuple[str, Fraction | None]]  # by column, and what they come to

COLUMNS = 16_384  # of a sheet
MOST = 30  # arguments that a function has always taken
LEFT, TOP = 3, 10  # first column and row of the numbers on `input`; first column of values on a norm's sheet
MOMENTUM, START = "input!$B$4", ("input!$B$5", "input!$B$6")  # and where a running mean and a variance start
GIVEN = 5  # on a norm's sheet: row of the first number that it takes

BOLD, QUIET = Font(bold=True), Font(color="6B6B6B")
EDITABLE = PatternFill("solid", fgColor="FFF6CC")
GROUNDS = [PatternFill("solid", fgColor=colour[1:]) for colour in wording.SET_COLOURS]
RIGHT = Alignment(horizontal="right")
EDGE = Border(left=Side("medium", color="FFFFFF"))  # between the maps of one set
FUNCTIONS = {"√": "SQRT", "²": "^2", r"\|([^|]*)\|": r"ABS(\1)", "max": "MAX", "tanh": "TANH", "π": "PI()", "·": "*"}
FUNCTIONS |= {r"sigmoid\(([^()]*)\)": r"(1/(1+EXP(-(\1))))"}  # of a product: no brackets in it


def workbook(results: Sequence[Result]) -> tuple[bytes, str]:
    """The workbook of results that share a batch and rules, and what it leaves out, or nothing.

    The same results give the same bytes; none where a sheet has too few columns, or no norm's steps fit its cells.
    """
    batch, book = results[0].batch, Workbook()
    if LEFT + batch.shape[1] * (batch.shape[3] + 1) > COLUMNS:
        return b"", f": it would have more than {COLUMNS:,} columns"
    _input(book.worksheets[0], batch, results[0].rules.momentum)
    known: list[Mapping[str, Fraction | None]] = [{}]  # what formulas come to, by sheet and cell
    left = []
    for result in results:
        try:
            norm = Norm(result)
        except ConfigError:
            left.append(result.norm)
        else:
            known.append(norm.written(book.create_sheet(result.norm)))
    missing = f" for {', '.join(left)}: cells cannot hold every step" if left else ""
    if len(known) == 1:
        return b"", missing
    for sheet in book.worksheets:  # on paper: on its side, as wide as a page
        sheet.page_setup.orientation = "landscape"
        sheet.page_setup.fitToHeight = 0
        sheet.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
    book.properties.creator = "normlab"
    stream = io.BytesIO()
    book.save(stream)
    return _finished(stream.getvalue(), known), missing


def put(sheet: Worksheet, row: int, column: int, value: str | Fraction, **style: object) -> str:
    """Write a cell and return its name. style: attributes of `openpyxl.cell.Cell`; None: as they are."""
    exact = isinstance(value, Fraction) and value.denominator == 1
    cell = sheet.cell(row, column, value if isinstance(value, str) else int(value) if exact else float(value))
    for name, chosen in style.items():
        if chosen is not None:
            setattr(cell, name, chosen)
    return str(cell.coordinate)


def widen(sheet: Worksheet, columns: Mapping[int, int]) -> None:
    for column, width in columns.items():
        sheet.column_dimensions[get_column_letter(column)].width = width


def number_cell(shape: Shape, place: Shape) -> tuple[int, int]:
    """Row and column of x[i, j, r, s] on the sheet `input`."""
    (_, _, h, w), (i, j, r, s) = shape, place
    return TOP + i * (h + 1) + r, LEFT + j * (w + 1) + s


def _input(sheet: Worksheet, batch: Batch, momentum: Fraction) -> None:
    n, c, h, w = batch.shape
    sheet.title = "input"
    put(sheet, 1, 1, f"Normalization by hand: {batch.source}", font=BOLD)
    put(sheet, 2, 1, "Change a yellow cell: all follows. Which numbers share a statistic stays.", font=QUIET)
    settings = {"momentum": momentum, "running mean, start": Fraction(0), "running variance, start": Fraction(1)}
    for row, (name, value) in enumerate(settings.items(), 4):
        put(sheet, row, 1, name)
        put(sheet, row, 2, value, fill=EDITABLE)
    for j in range(c):
        put(sheet, TOP - 1, LEFT + j * (w + 1), f"channel {j + 1}", font=QUIET)
    for i in range(n):
        put(sheet, TOP + i * (h + 1), 1, f"image {i + 1}", font=QUIET)
    for place, value in zip(np.ndindex(batch.shape), batch.values, strict=True):
        put(sheet, *number_cell(batch.shape, place), value, fill=EDITABLE)
    widen(sheet, {1: 24, **{LEFT + k: 3 if k % (w + 1) == w else 7 for k in range(c * (w + 1))}})
    sheet.freeze_panes = f"{get_column_letter(LEFT)}{TOP}"


class Norm:
    """The sheet of a norm; rows and columns count from 1. Raise `ConfigError` where cells cannot hold its steps.

    Attributes:
        columns: of what a statistic has, by name. statistics, averages: the row of the first statistic, and of the
        first channel's running averages. places: i, j, r, s of each number.
    """

    def __init__(self, result: Result) -> None:
        self.result, self.formulas, self.places = result, result.formula, list(np.ndindex(result.batch.shape))
        names = dict.fromkeys(name for s in result.statistics for name in s.values)
        self.columns = {name: column for column, name in enumerate(names, 5)}
        self.first = [next(k for k, s in enumerate(result.statistics) if s.axes == i) for i in range(len(result.sets))]
        self.statistics = GIVEN + len(result.given) + 2
        self.averages = self.statistics + len(result.statistics) + 2
        for k in self.first:
            self.statistic(result.statistics[k])

    def written(self, sheet: Worksheet) -> Mapping[str, Fraction | None]:
        """Write the sheet; return what each formula comes to, by the cell's name; None: a division by 0."""
        result, formulas = self.result, self.formulas
        self.sheet, self.known = sheet, dict[str, Fraction | None]()
        put(sheet, 1, 1, wording.heading(result), font=BOLD)
        put(sheet, 2, 1, f"{wording.facts(result)} {wording.eval_rule(result)}", font=QUIET)
        put(sheet, 3, 1, f"y = {formulas.written}", font=QUIET)
        for row, (sign, values) in enumerate(result.given.items(), GIVEN):
            put(sheet, row, 1, sign, font=BOLD)
            for j, value in enumerate(values):
                put(sheet, row, LEFT + j, value, fill=EDITABLE)
                if len(values) > 1:
                    put(sheet, GIVEN - 1, LEFT + j, f"channel {j + 1}", font=QUIET)
        names = ["numbers", "sum", *map(wording.worded, self.columns)]
        self.table(self.statistics, names, [(k, s.where, self.statistic(s)) for k, s in enumerate(result.statistics)])
        if result.running:
            owners = [result.owner[j * result.batch.area] for j in range(len(result.running))]
            rows = [(k, f"channel {j + 1}", self.average(j)) for j, k in enumerate(owners)]
            self.table(self.averages, list(formulas.averages), rows)
        self.block(0, f"normalised: {formulas.written_inner}", formulas.inner, result.normalised)
        self.block(1, "output y", formulas.tree, result.output)
        if result.running:
            self.block(2, "output in eval mode", formulas.tree, result.evaluated)
        values_end = LEFT + result.batch.shape[1] * result.batch.shape[3]
        widen(sheet, {1: 10, 2: 26, **dict.fromkeys(range(LEFT, max(values_end, len(names) + LEFT)), 16)})
        return self.known

    def table(self, top: int, names: list[str], rows: list[tuple[int, str, Formulas]]) -> None:
        """Headings, and below them, from row `top`, a row per set: its letter, where it is, and formulas by column."""
        for column, name in enumerate(["set", "where", *names], 1):
            put(self.sheet, top - 1, column, name, font=BOLD, alignment=RIGHT if column > 2 else None)
        for row, (k, where, formulas) in enumerate(rows, top):
            put(self.sheet, row, 1, self.result.statistics[k].letter, font=BOLD, fill=GROUNDS[k % len(GROUNDS)])
            put(self.sheet, row, 2, where)
            for column, (formula, value) in formulas.items():  # in full they would touch; the cell keeps every digit
                whole = names[column - LEFT] in ("numbers", "sum")
                style = {"number_format": "General" if whole else "0.000000"}
                self.known[put(self.sheet, row, column, f"={formula}", **style)] = value

    def statistic(self, s: Statistic) -> Formulas:
        """The formulas of a statistic, by column, over the cells of `input` that hold its numbers."""
        area, place = self.area(s), s.members[0]
        formulas: Formulas = {3: (f"COUNT({area})", Fraction(s.count)), 4: (f"SUM({area})", s.total)}
        for name, node in self.formulas.steps[s.axes].items():
            inner = node[-1] if node[0] == "called" else node
            gathered = inner[0] in ("mean", "sum")
            formula = self.gathered(inner, s) if gathered else self.formula(inner, place, own=inner)
            formulas[self.columns[name]] = formula, s.values[name]
        for name, node in self.formulas.kept.items():
            if (unbiased := f"unbiased {name}") in s.values:
                m = sum(self.result.channels[p] == self.result.channels[place] for p in s.members)
                formula = f"{self.formula(node[2], place)}*{m}/{m - 1}"
                formulas[self.columns[unbiased]] = formula, s.values[unbiased]
        return formulas

    def average(self, j: int) -> Formulas:
        """The running averages of channel j, set by set, and the roots of eval mode, by column."""
        formulas: Formulas = {}
        for column, (name, node) in enumerate(self.formulas.averages.items(), LEFT):
            if node[0] == "kept":
                (i,) = axes_of(node)
                formula = START[node[1]]
                for places, _ in self.result.taken(node, j):
                    cell = self.statistic_cell(i, places[0], "unbiased " * node[1] + label(node))
                    formula = f"(1-{MOMENTUM})*({formula})+{MOMENTUM}*{cell}"
            else:
                formula = self.formula(node, j * self.result.batch.area, own=node, evaluating=True)
            formulas[column] = formula, self.result.running[j][name]
        return formulas

    def value_cell(self, b: int, place: Shape) -> tuple[int, int]:
        """Row and column of the value at [i, j, r, s] of block b: 0 normalised, 1 the output, 2 eval mode."""
        (n, _, h, w), (i, j, r, s) = self.result.batch.shape, place
        heading = self.averages + len(self.result.running) + 1 + b * (n * (h + 1) + 3)
        return heading + 3 + i * (h + 1) + r, LEFT + j * w + s

    def block(self, b: int, heading: str, tree: Node, values: Values) -> None:
        """A heading, the channels' names, and for each image a row of letters and its values."""
        top, _ = self.value_cell(b, (0, 0, 0, 0))
        put(self.sheet, top - 3, 1, heading, font=BOLD)
        for place, (i, j, r, s) in enumerate(self.places):
            row, column = self.value_cell(b, (i, j, r, s))
            style = {"fill": GROUNDS[self.result.owner[place] % len(GROUNDS)], "border": None if s else EDGE}
            if i == r == s == 0:
                put(self.sheet, top - 2, column, f"channel {j + 1}", font=QUIET)
            if j == r == s == 0:
                put(self.sheet, row, 1, f"image {i + 1}", font=QUIET)
            if r == 0:  # the row of letters belongs to the set as well
                put(self.sheet, row - 1, column, "" if s else wording.letters(self.result, i, j), font=BOLD, **style)
            formula = f"={self.formula(tree, place, evaluating=b == 2)}"
            self.known[put(self.sheet, row, column, formula, number_format="0.0000", **style)] = values[place]

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
        shape = self.result.batch.shape
        cells = [":".join(_locked(*number_cell(shape, self.places[p])) for p in dict.fromkeys(pair)) for pair in ends]
        return ",".join(f"input!{cell}" for cell in cells)

    def formula(self, node: Node, place: int, own: Node | None = None, evaluating: bool = False) -> str:
        """A part of the norm's formula over cells, for a number. own: the part that its cell itself computes."""
        written = text(node, lambda part: "" if part == own else self.cell_of(part, place, evaluating))
        for sign, function in FUNCTIONS.items():
            written = re.sub(sign, function, written)
        return written.replace(" ", "")

    def cell_of(self, node: Node, place: int, evaluating: bool) -> str:
        """The cell that holds a part of the formula for a number, or a number itself; nothing where there is none."""
        over, channel = axes_of(node), self.result.channels[place]
        averages = list(self.formulas.averages.values())
        if evaluating and node in averages:
            return _locked(self.averages + channel, LEFT + averages.index(node))
        if node[0] in ("called", "√") and len(over) == 1 and label(node) in self.columns:
            (i,) = over
            return self.statistic_cell(i, place, label(node))
        match node:
            case ("x",):
                return f"input!{_locked(*number_cell(self.result.batch.shape, self.places[place]))}".replace("$", "")
            case ("number", word):
                return str(word)
            case ("given", sign):
                row = GIVEN + list(self.result.given).index(sign)
                return _locked(row, LEFT + channel % len(self.result.given[sign]))
        return ""

    def statistic_cell(self, axes: int, place: int, name: str) -> str:
        """The cell of what a number shares with its set."""
        return _locked(self.statistics + self.first[axes] + self.result.sets[axes][place], self.columns[name])


def _finished(content: bytes, known: Sequence[Mapping[str, Fraction | None]]) -> bytes:
    """Put the formulas' values into the sheets, which openpyxl cannot, and take the dates out of the file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            text = old.read(name).decode()
            if match := re.fullmatch(r"xl/worksheets/sheet(\d+)\.xml", name):
                text = _with_values(text, known[int(match[1]) - 1])
            elif name == "docProps/core.xml":
                text = re.sub(r"(<dcterms:(created|modified)[^>]*>)[^<]*", r"\g<1>2000-01-01T00:00:00Z", text)
            new.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)  # ZipInfo's own date: 1980
    return stream.getvalue()


def _with_values(text: str, known: Mapping[str, Fraction | None]) -> str:
    """A sheet's XML with a value after each formula: 0 divided by 0 is stored as a spreadsheet program would."""

    def filled(match: re.Match[str]) -> str:
        name, attributes, formula = match.groups()
        value = known[name]
        kind, written = (' t="e"', "#DIV/0!") if value is None else ("", repr(float(value)))
        return f'<c r="{name}"{attributes}{kind}>{formula}<v>{written}</v></c>'

    return re.sub(r'<c r="([A-Z]+\d+)"((?: s="\d+")?)>(<f>[^<]*</f>)<v ?(?:/>|></v>)</c>', filled, text)


def _locked(row: int, column: int) -> str:
    return f"${get_column_letter(column)}${row}"
