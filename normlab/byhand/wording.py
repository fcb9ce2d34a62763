"""What people read of a calculation: numbers as text, headings, tables and blocks of values."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from html import escape

import numpy as np

from normlab.byhand.exact import NORMS, Result, Values, units
from normlab.byhand.inputs import Batch, Shape
from normlab.norms.about import AXES
from normlab.output import counted

ROUNDED = "Sums, means and variances are exact; where it says ≈, and after a root, decimals are rounded."
UNDEFINED = "undefined"
LONGEST = 13  # signs of a fraction that is still read
WORDS = {"μ": "mean ", "σ": "variance "}  # before what a formula names so
NUMBERS, IMAGES, CHANNELS, SIDE, ROWS = 1024, 8, 8, 8, 64  # that are drawn or listed; a workbook holds everything

# One ground per set, for dark text. A search for little chroma found them: any two stay at least 14 CIELAB units apart
# in normal vision and under simulated protanopia, deuteranopia and tritanopia (Machado et al. 2009, full severity), the
# first four at least 32, and dark text (#222222) on each has a contrast of at least 4.7. In a grey print the letter of
# a set says what its colour does. More than sixteen sets take the colours again; no letter comes twice.
SET_COLOURS = [
    "#6891D9", "#FAFAC3", "#A28B4A", "#AEFCFF", "#ACB1C9", "#D6CBD0", "#E999A3", "#DAFFE4",
    "#81AF75", "#839279", "#7CE0FA", "#6EB7E5", "#BD7E9C", "#A083B7", "#F1BDA1", "#CDBB6F",
]  # fmt: skip

Blocks = list[list[list[list[str]]]]  # texts by image, channel, row and column


@dataclass(frozen=True)
class Table:
    """Rows of text below headings; the first `text` columns are words, the others numbers. sets: that of each row."""

    headings: list[str]
    rows: list[list[str]]
    sets: list[int] = field(default_factory=list)
    text: int = 2

    def _repr_html_(self) -> str:
        """The table in a notebook."""
        rows = [("th", self.headings), *(("td", row) for row in self.rows)]
        lines = ["".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) for tag, row in rows]
        return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


@dataclass(frozen=True)
class Section:
    """A heading with a table or with blocks of values."""

    heading: str
    table: Table | None = None
    blocks: Blocks | None = None


# The batch


def source(batch: Batch) -> str:
    """ "the fixed batch, 4 x 4 x 3 x 3 (N x C x H x W)"."""
    return f"{batch.source}, {' x '.join(map(str, batch.shape))} (N x C x H x W)"


def window(batch: Batch) -> Shape:
    """So many images, channels, rows and columns are drawn: at most 1,024 numbers, which are still read."""
    n, c, h, w = batch.shape
    h, w, c = min(h, SIDE), min(w, SIDE), min(c, CHANNELS)
    return min(n, IMAGES, max(NUMBERS // (h * w * c), 1)), c, h, w


def shown_only(batch: Batch) -> str:
    """What a reader has to know where not all of a batch is drawn; else nothing."""
    n, c, h, w = window(batch)
    some = f"{counted(n, 'image')}, {counted(c, 'channel')}, {counted(h, 'row')} and {counted(w, 'column')}"
    return "" if (n, c, h, w) == batch.shape else f"Shown are the first {some}; every number takes part."


def blocks(values: Values, batch: Batch, *, exact: bool = False) -> Blocks:
    """Text of the values in the window of a batch. exact: as they were given."""
    n, c, h, w = window(batch)
    shown = np.array(values, object).reshape(batch.shape)[:n, :c, :h, :w]
    texts: Blocks = np.vectorize(number_text if exact else lambda v: fixed(v, "–"), otypes=[object])(shown).tolist()
    return texts


def owners(result: Result, i: int, j: int, r: int) -> list[int]:
    """The set of each number of row r in image i, channel j."""
    _, c, h, w = result.batch.shape
    start = ((i * c + j) * h + r) * w
    return result.owner[start : start + w]


def letters(result: Result, i: int, j: int) -> str:
    """The letter of the set of a map, or the first and the last of its sets: "A", "A–I"."""
    ends = owners(result, i, j, 0)[0], owners(result, i, j, result.batch.shape[2] - 1)[-1]
    return "–".join(dict.fromkeys(result.statistics[k].letter for k in ends))


def set_colour(k: int) -> str:
    """The ground of set k, as #RRGGBB."""
    return SET_COLOURS[k % len(SET_COLOURS)]


# Numbers


def fraction(value: Fraction) -> str:
    """The exact value, "25/4" or "4"; nothing where it would be too long to read."""
    exact = str(value)
    return exact if len(exact) <= LONGEST else ""


def number_text(value: Fraction | None) -> str:
    """Seven significant digits at most: "6.25", "0.3333333"."""
    if value is None:
        return UNDEFINED
    if value.denominator == 1 and abs(value) < 10**15:
        return str(value)
    rounded = f"{float(value):.7g}"
    if "e-" in rounded and abs(value) >= Fraction(1, 10**8):
        return f"{float(value):.14f}".rstrip("0")  # 0.00001 rather than 1e-05
    return rounded


def amount(value: Fraction | None) -> str:
    """Fraction and decimal in one: "4", "25/4 = 6.25", "324/35 ≈ 9.257143"."""
    if value is None:
        return UNDEFINED
    exact, rounded = fraction(value), number_text(value)
    if exact == rounded:
        return exact
    sign = "=" if Fraction(rounded) == value else "≈"
    return f"{exact} {sign} {rounded}" if exact else f"{'' if sign == '=' else '≈ '}{rounded}"


def equals(value: Fraction | None) -> str:
    """The same as the end of an equation: "= 25/4 = 6.25", "≈ 187810.5"."""
    end = amount(value)
    return end if end.startswith("≈") else f"= {end}"


def fixed(value: Fraction | None, undefined: str = UNDEFINED) -> str:
    """A decimal with four places, half rounded to even; never a negative zero."""
    return undefined if value is None else str(Decimal(f"{round(value * 10_000)}e-4"))


# Headings and tables


def heading(result: Result) -> str:
    """ "Group norm, 2 groups: 8 statistics"."""
    groups = f", {counted(result.groups, 'group')}" if any("G" in over for over in result.about.axes) else ""
    return f"{NORMS[result.norm]}{groups}: {counted(len(result.statistics), 'statistic')}"


def facts(result: Result) -> str:
    """What shares a statistic: a sentence for each of the norm's axes."""
    sentences = []
    for i, axes in enumerate(result.about.axes):
        counts = {s.count for s in result.statistics if s.axes == i}
        many = f"{counted(max(counts), 'number')} {'each' if len(counts) == 1 else 'or fewer'}"
        sentences.append(f"{over(axes)}: {many}.")
    return " ".join(sentences)


def sharing(axes: str) -> str:
    """ "One for each image and group of channels"."""
    each = " and ".join(", ".join(units(axes)).rsplit(", ", 1))
    return f"One for each {each}" if each else "One for all"


def over(axes: str) -> str:
    """ "One for each channel, over N, H, W"."""
    return f"{sharing(axes)}, over {', '.join(AXES[axis] for axis in axes)}"


def given(result: Result) -> str:
    """The formula and the numbers that it takes, in a line: "y = …; γ = 1; β = 0; ε = 0.00001"."""
    items = [f"y = {result.formula.written}"]
    for sign, values in result.given.items():
        written = [number_text(v) if sign == "ε" else fraction(v) or number_text(v) for v in values]
        some = written[:1] if len(set(values)) == 1 else written
        items.append(f"{sign} = {', '.join(some)}" if len(some) <= 16 else f"{sign} as given")
    return "; ".join(items)


def parts(result: Result) -> Iterator[Section]:
    """What is shown of a norm, in order: the numbers, its statistics, then values, and running averages before eval."""
    of, batch = result.formula, result.batch
    yield Section("The numbers", blocks=blocks(batch.values, batch, exact=True))
    for i, table in enumerate(tables(result)):
        many, shown = sum(s.axes == i for s in result.statistics), len(table.rows)
        which = f": {sharing(result.about.axes[i])}" if len(result.about.axes) > 1 else ""
        some = f" (the first {shown} of {many:,}; --out writes a workbook with all)" if shown < many else ""
        yield Section(f"Statistics{which}{some}", table)
    output = " and output, y = " if result.plain else ", "
    yield Section(f"Normalised{output}{of.written_inner}", blocks=blocks(result.normalised, batch))
    if not result.plain:
        yield Section(f"Output, y = {of.written}", blocks=blocks(result.output, batch))
    if result.running:
        keep, take = number_text(1 - result.rules.momentum), number_text(result.rules.momentum)
        rules = [
            f"running {name} = {keep} · {node[1]} + {take} · {'unbiased ' * node[1]}{name}"
            for name, node in of.kept.items()
        ]
        heading = f"Running averages after one step with momentum {take}: {', '.join(rules)}."
        yield Section(heading, running_table(result))
        yield Section("Output in eval mode", blocks=blocks(result.evaluated, batch))


def tables(result: Result) -> list[Table]:
    """For each of the norm's axes a row per statistic, the first 64 of them."""
    found = []
    for i in range(len(result.about.axes)):
        shown = [(k, s) for k, s in enumerate(result.statistics) if s.axes == i][:ROWS]
        rows = [[s.letter, s.where, str(s.count), number_text(s.total), *_cells(s.values)] for _, s in shown]
        headings = ["set", "where", "numbers", "sum", *map(worded, shown[0][1].values)]
        found.append(Table(headings, rows, [k for k, _ in shown]))
    return found


def running_table(result: Result) -> Table:
    """The running averages after one step: one row per channel, the first 64 of them."""
    sets = [result.owner[j * result.batch.area] for j in range(len(result.running))][:ROWS]
    rows = [[result.statistics[k].letter, f"channel {j + 1}", *_cells(result.running[j])] for j, k in enumerate(sets)]
    return Table(["set", "where", *result.running[0]], rows, sets)


def eval_rule(result: Result) -> str:
    """What the norm does in eval mode, in a sentence."""
    if result.running:
        return f"In eval mode: y = {result.formula.written_in_eval}."
    return "In eval mode: the same, from the same statistics; nothing is remembered."


def notes(result: Result) -> Iterator[str]:
    """What is unusual about a calculation."""
    flat = [s.letter for s in result.statistics if _has_zero_root(s.values)]
    if flat:
        where = ", ".join(flat[:8]) + (", …" if len(flat) > 8 else "")
        yield f"All numbers of {where} are equal and ε = 0: 0 / 0 is undefined (–). With --eps 1e-5 it would be 0."
    elif result.about.centred and all(s.count == 1 for s in result.statistics):
        yield "A set of one number has variance 0 and is normalised to 0: y = β whatever x is."
    if any(None in values.values() for values in result.running):
        yield (
            "One number per channel: the unbiased variance is 0 / 0, so there is no running variance and no eval mode. "
            "torch refuses to train on such a batch: give more images or larger maps."
        )
    elif any(map(_has_zero_root, result.running)):
        yield "A running variance is 0 and ε = 0: eval mode is undefined there (–)."


def worded(name: str) -> str:
    """ "mean μ" for "μ"."""
    return WORDS.get(name[0], "") + name


def _has_zero_root(values: dict[str, Fraction | None]) -> bool:
    return any(value == 0 for name, value in values.items() if name[0] == "√")


def _cells(values: dict[str, Fraction | None]) -> list[str]:
    return [number_text(value) if name[0] == "√" else amount(value) for name, value in values.items()]
