"""The workbook: a formula evaluator, and LibreOffice where it is installed, compute what the exact arithmetic says."""

import functools
import io
import re
import shutil
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import formulas
import numpy as np
import openpyxl
import pytest
import schedula
from openpyxl.utils import get_column_letter, range_boundaries

from normlab.byhand import NORMS, Batch, Result, Rules, calculate, default_batch, random_batch
from normlab.byhand.workbook import Norm, number_cell, workbook

REFERENCE = re.compile(r"(?:(\w+)!)?(\$?[A-Z]{1,3}\$?\d+(?::\$?[A-Z]{1,3}\$?\d+)?)")


@functools.cache
def compiled(formula: str) -> Any:
    return formulas.Parser().ast(formula)[1].compile()


class Evaluated:
    """A workbook whose formulas are computed by the package `formulas`, from the input cells alone."""

    def __init__(self, content: bytes) -> None:
        self.book = openpyxl.load_workbook(io.BytesIO(content))
        self.known: dict[tuple[str, str], Any] = {}

    def value(self, sheet: str, name: str) -> Any:
        """What a cell shows: a float, text, an error such as "#DIV/0!", or None where it is empty."""
        key = sheet, name
        if key not in self.known:
            self.known[key] = self._computed(sheet, self.book[sheet][name].value)
        return self.known[key]

    def _computed(self, sheet: str, content: Any) -> Any:
        if not (isinstance(content, str) and content.startswith("=")):
            return content
        arguments: list[Any] = []

        def placed(match: re.Match[str]) -> str:
            """A formula of one form is compiled once: references become A1, B1, … and their values its arguments."""
            where, name = match[1] or sheet, match[2].replace("$", "")
            letter = chr(ord("A") + len(arguments))
            if ":" not in name:
                arguments.append(self.value(where, name))
                return f"{letter}1"
            left, top, right, bottom = range_boundaries(name)
            columns, rows = range(left, right + 1), range(top, bottom + 1)
            cells = [[self.value(where, f"{get_column_letter(c)}{r}") for c in columns] for r in rows]
            empty = [[schedula.EMPTY if cell is None else cell for cell in row] for row in cells]
            arguments.append(np.array(empty, object))
            return f"{letter}1:{letter}2"

        formula = REFERENCE.sub(placed, content)
        if any(argument == "#DIV/0!" for argument in arguments if isinstance(argument, str)):
            return "#DIV/0!"
        value = np.asarray(compiled(formula)(*arguments), object).ravel()[0]
        return str(value) if str(value).startswith("#") else float(value)


def expected(result: Result) -> Iterator[tuple[str, Fraction | None]]:
    """Every formula cell of a norm's sheet, with its exact value."""
    sheet = Norm(result)
    for row, s in enumerate(result.statistics, sheet.statistics):
        yield f"C{row}", Fraction(s.count)
        yield f"D{row}", s.total
        for name, value in s.values.items():
            yield f"{get_column_letter(sheet.columns[name])}{row}", value
    for row, running in enumerate(result.running, sheet.averages):
        for column, value in enumerate(running.values(), 3):
            yield f"{get_column_letter(column)}{row}", value
    blocks = [result.normalised, result.output, *([result.evaluated] if result.running else [])]
    for b, block in enumerate(blocks):
        for place, value in zip(np.ndindex(result.batch.shape), block, strict=True):
            row, column = sheet.value_cell(b, place)
            yield f"{get_column_letter(column)}{row}", value


def same(found: Any, value: Fraction | None) -> bool:
    if value is None:
        return found == "#DIV/0!"
    return isinstance(found, int | float) and bool(np.isclose(found, float(value), rtol=1e-12, atol=1e-13))


LEFT_OUT = ("grn", "seednorm", "bcn")


def results(batch: Batch, rules: Rules) -> list[Result]:
    """Every norm that cells can hold; of a large batch those of the first networks."""
    norms = ("bn", "gn") if len(batch.values) > 100 else [norm for norm in NORMS if norm not in LEFT_OUT]
    return [calculate(norm, batch, rules) for norm in norms]


GAMMA, BETA = tuple(map(Fraction, (1, 2, "-0.5", "1/3"))), tuple(map(Fraction, (0, 1, -1, 2)))
SCALED = Rules(4, Fraction(0), GAMMA, BETA, Fraction("0.3"), 1, {"ρ": Fraction(1, 3)})
CASES = {
    "fixed": (default_batch(), Rules()),
    "scaled": (random_batch((2, 4, 2, 1), 3), SCALED),
    "other shape": (random_batch((3, 6, 2, 1), 1), Rules(3, Fraction("0.01"))),
    "one number": (random_batch((1, 2, 1, 1), 0), Rules()),
    "undefined": (Batch((2, 2, 1, 2), tuple(map(Fraction, (3, 3, 1, 2, 3, 3, 1, 2)))), Rules(eps=Fraction(0))),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[list[Result], bytes]:
    found = results(*CASES[request.param])
    return found, workbook(found)[0]


def test_every_formula_computes_to_the_exact_value_which_stands_beside_it(case: tuple[list[Result], bytes]) -> None:
    """Beside it for viewers that compute nothing."""
    found, content = case
    book, stored = Evaluated(content), openpyxl.load_workbook(io.BytesIO(content), data_only=True)
    for result in found:
        cells = dict(expected(result))
        for name, value in cells.items():
            shown = book.value(result.norm, name)
            formula = f"{result.norm}!{name} = {book.book[result.norm][name].value}"
            assert same(shown, value), f"{formula} = {shown}, not {value}"
            assert same(stored[result.norm][name].value, value), formula
        there = [cell.value for row in book.book[result.norm].iter_rows() for cell in row]
        assert sum(isinstance(cell, str) and cell.startswith("=") for cell in there) == len(cells)


def test_formulas_are_live() -> None:
    """Another number, ε, γ, β and momentum in the input cells: what follows is what the arithmetic says of them."""
    batch = random_batch((2, 4, 1, 2), 5)
    plain = results(batch, Rules())
    book = Evaluated(workbook(plain)[0])
    sheet = book.book["input"]
    sheet.cell(*number_cell(batch.shape, (1, 2, 0, 1))).value = -7
    sheet["B4"] = 0.5
    values = list(batch.values)
    values[(1 * 4 + 2) * 2 + 1] = Fraction(-7)
    gamma, beta = tuple(map(Fraction, (2, -1, 0, 3))), tuple(Fraction(1 - j) for j in range(4))
    given = {"ε": Fraction(1, 4), "τ": Fraction(1, 2), "ρ": Fraction(1, 8), "v": Fraction(3)}
    for result in plain:
        sheet = book.book[result.norm]
        for row, (sign, start) in enumerate(result.given.items(), 5):
            assert sheet.cell(row, 1).value == sign
            other = {"γ": gamma, "β": beta, **{sign: (value,) * 4 for sign, value in given.items()}}.get(sign, start)
            for column, value in enumerate(other[: len(start)], 3):
                sheet.cell(row, column).value = float(value)
    rules = Rules(None, given["ε"], gamma, beta, Fraction(1, 2), learned=given)
    for result in results(Batch(batch.shape, tuple(values)), rules):
        for name, value in expected(result):
            assert same(book.value(result.norm, name), value), f"{result.norm}!{name}"


def test_what_cells_cannot_hold_is_left_out_and_told() -> None:
    found = [calculate(norm, default_batch()) for norm in NORMS]
    content, missing = workbook(found)
    assert missing == f" for {', '.join(n for n in NORMS if n in LEFT_OUT)}: cells cannot hold every step"
    assert set(openpyxl.load_workbook(io.BytesIO(content)).sheetnames) == {"input", *NORMS} - set(LEFT_OUT)
    assert workbook([calculate("bcn", default_batch())])[0] == b""
    assert workbook([calculate("ln2d", random_batch((1, 31, 1, 1), 0))])[0] == b"", "a function of 31 arguments"


def test_large_batches_are_whole() -> None:
    """Sets of many maps are one rectangle each: no formula grows with the batch."""
    found = [calculate("bn", random_batch((130, 2, 2, 3), 0)), calculate("gn", random_batch((130, 2, 2, 3), 0))]
    content, _ = workbook(found)
    stored = openpyxl.load_workbook(io.BytesIO(content), data_only=True)
    book = Evaluated(content)
    for result in found:
        for i, (name, value) in enumerate(expected(result)):
            assert same(stored[result.norm][name].value, value)
            assert len(str(book.book[result.norm][name].value)) < 80
            assert i % 97 or same(book.value(result.norm, name), value)


def test_text_from_outside_is_no_formula() -> None:
    batch = Batch((1, 1, 1, 2), (Fraction(1), Fraction(2)), '=HYPERLINK("x")')
    book = openpyxl.load_workbook(io.BytesIO(workbook([calculate("ln", batch)])[0]))
    assert all(cell.data_type != "f" for row in book["input"].iter_rows() for cell in row)


@pytest.mark.skipif(not shutil.which("soffice"), reason="LibreOffice (soffice) is not on PATH")
@pytest.mark.slow
def test_libreoffice_computes_the_same(case: tuple[list[Result], bytes], tmp_path: Path) -> None:
    found, content = case
    bare = openpyxl.load_workbook(io.BytesIO(content))
    (tmp_path / "in").mkdir()
    bare.save(tmp_path / "in" / "sheet.xlsx")  # saved by openpyxl: formulas without their values
    home = f"-env:UserInstallation={(tmp_path / 'home').as_uri()}"
    command = ["soffice", home, "--headless", "--convert-to", "xlsx", "--outdir", str(tmp_path), "in/sheet.xlsx"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=180)
    computed = openpyxl.load_workbook(tmp_path / "sheet.xlsx", data_only=True)
    for result in found:
        for name, value in expected(result):
            assert same(computed[result.norm][name].value, value), f"{result.norm}!{name}"
