"""What people read of a calculation: numbers as text, headings, tables and the steps of one statistic."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from normlab.byhand.exact import NORMS, Batch, Result, Statistic, Values

__all__ = [
    "PLACES",
    "ROUNDED",
    "Table",
    "Window",
    "affine",
    "amount",
    "blocks",
    "equals",
    "eval_rule",
    "facts",
    "fixed",
    "fraction",
    "heading",
    "more_rows",
    "notes",
    "number_text",
    "running_rule",
    "running_table",
    "statistic_title",
    "statistics_table",
    "steps",
    "values_of",
    "window",
]

ROUNDED = "Sums, means and variances are exact; where it says ≈, and after a root, decimals are rounded."
PLACES = 4  # of a normalised value
UNDEFINED = "undefined"
LONGEST = 13  # signs of a fraction that is still read

OVER = {
    "bn": "one for each channel, over N, H, W",
    "ln": "one for each image, over C, H, W",
    "gn": "one for each image and group of channels, over C/G, H, W",
    "in": "one for each image and channel, over H, W",
}
NUMBERS, IMAGES, CHANNELS, SIDE, ROWS = 1024, 8, 8, 8, 64  # that are drawn or listed; a workbook holds everything


@dataclass(frozen=True)
class Table:
    """Rows of text below headings; the first `text` columns are words, the others numbers."""

    headings: list[str]
    rows: list[list[str]]
    text: int = 2


@dataclass(frozen=True)
class Window:
    """The part of a batch that is drawn: the first so many images, channels, rows and columns. whole: all of it."""

    images: int
    channels: int
    rows: int
    columns: int
    whole: bool

    @property
    def line(self) -> str:
        """What a reader has to know where the window is not the whole."""
        if self.whole:
            return ""
        return (
            f"Shown are the first {_count(self.images, 'image')}, {_count(self.channels, 'channel')}, "
            f"{_count(self.rows, 'row')} and {_count(self.columns, 'column')}; every number takes part."
        )


def window(batch: Batch) -> Window:
    """As much of a batch as is drawn and still read: at most 1,024 numbers."""
    n, c, h, w = batch.shape
    h, w, c = min(h, SIDE), min(w, SIDE), min(c, CHANNELS)
    n = min(n, IMAGES, max(NUMBERS // (h * w * c), 1))
    return Window(n, c, h, w, (n, c, h, w) == batch.shape)


# Numbers


def fraction(value: Fraction) -> str:
    """The exact value, "25/4" or "4"; nothing where it would be too long to read."""
    text = str(value)
    return text if len(text) <= LONGEST else ""


def number_text(value: Fraction | None) -> str:
    """Seven significant digits at most: "6.25", "0.3333333"."""
    if value is None:
        return UNDEFINED
    if value.denominator == 1 and abs(value) < 10**15:
        return str(value)
    text = f"{float(value):.7g}"
    if "e-" in text and abs(value) >= Fraction(1, 10**8):
        return f"{float(value):.14f}".rstrip("0")  # 0.00001 rather than 1e-05
    return text


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
    text = amount(value)
    return text if text.startswith("≈") else f"= {text}"


def fixed(value: Fraction | None, places: int = PLACES) -> str:
    """A decimal with so many places, half rounded to even; never a negative zero."""
    if value is None:
        return UNDEFINED
    scaled = round(value * 10**places)
    digits = f"{abs(scaled):0{places + 1}d}"
    sign = "-" if scaled < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else f"{sign}{digits}"


def blocks(values: Values, batch: Batch, part: Window, *, places: int | None = PLACES) -> list[list[list[list[str]]]]:
    """Text of the values in the window, as [image][channel][row][column]; places None: as they were given."""
    _, c, h, w = batch.shape
    write = number_text if places is None else lambda value: "–" if value is None else fixed(value, places)
    return [
        [
            [[write(values[((i * c + j) * h + r) * w + s]) for s in range(part.columns)] for r in range(part.rows)]
            for j in range(part.channels)
        ]
        for i in range(part.images)
    ]


# Headings and tables


def heading(result: Result) -> str:
    """ "Group norm, 2 groups: 8 statistics"."""
    groups = f", {_count(result.groups, 'group')}" if result.norm == "gn" else ""
    return f"{NORMS[result.norm]}{groups}: {_count(len(result.statistics), 'statistic')}"


def facts(result: Result) -> str:
    """What shares a statistic, in a sentence."""
    many = result.statistics[0].count
    return f"{OVER[result.norm][0].upper()}{OVER[result.norm][1:]}: {_count(many, 'number')} each."


def affine(result: Result) -> str:
    """γ and β, in a line."""
    rules = result.rules
    parts = []
    for sign, values, usual in (("γ", rules.gamma, 1), ("β", rules.beta, 0)):
        if values is None or set(values) == {Fraction(usual)}:
            parts.append(f"{sign} = {usual}")
        elif len(values) > 16:
            parts.append(f"{sign} as given")
        else:
            parts.append(f"{sign} = {', '.join(fraction(v) or number_text(v) for v in values)}")
    each = "" if rules.gamma is None and rules.beta is None else " (a number a channel)"
    return "; ".join(parts) + each


def statistics_table(result: Result, most: int = ROWS) -> Table:
    """A row a statistic, the first `most`: set, where, numbers, Σx, μ, σ², unbiased variance, root and its inverse."""
    rows = []
    for s in result.statistics[:most]:
        inverse = 1 / s.root if s.root else None
        rows.append(
            [s.letter, s.where, str(s.count), number_text(s.total)]
            + [amount(value) for value in (s.mean, s.variance, s.unbiased)]
            + [number_text(s.root), number_text(inverse)]
        )
    headings = ["set", "where", "numbers", "sum", "mean μ", "variance σ²", "unbiased σ²", "√(σ²+ε)", "1/√(σ²+ε)"]
    return Table(headings, rows)


def running_table(result: Result, most: int = ROWS) -> Table:
    """Batch norm's running averages after one step: one row per channel."""
    rows = [
        [s.letter, s.where, amount(r.mean), amount(r.variance), number_text(r.root)]
        for s, r in list(zip(result.statistics, result.running, strict=True))[:most]
    ]
    return Table(["set", "where", "running mean", "running variance", "√(variance+ε)"], rows)


def running_rule(result: Result) -> str:
    """How a running average moves."""
    m = result.rules.momentum
    keep, take = number_text(1 - m), number_text(m)
    return (
        f"Running averages after one step with momentum {take}: mean = {keep} · 0 + {take} · μ, "
        f"variance = {keep} · 1 + {take} · unbiased σ²."
    )


def eval_rule(result: Result) -> str:
    """What the norm does in eval mode, in a sentence."""
    if result.norm == "bn":
        return "In eval mode: y = γ · (x - running mean) / √(running variance + ε) + β."
    return "In eval mode: the same, from the same statistics; nothing is remembered."


def notes(result: Result) -> list[str]:
    """What is unusual about a calculation."""
    found = []
    flat = [s for s in result.statistics if not s.root]
    single = result.statistics[0].count == 1
    if flat:
        where = ", ".join(s.letter for s in flat[:8]) + (", …" if len(flat) > 8 else "")
        found.append(
            f"All numbers of {where} are equal and ε = 0: 0 / 0 is undefined (–). With --eps 1e-5 it would be 0."
        )
    elif single:
        found.append("A set of one number has variance 0 and is normalised to 0: y = β whatever x is.")
    if single and result.norm == "bn":
        found.append(
            "One number a channel: the unbiased variance is 0 / 0, so there is no running variance and no eval mode. "
            "torch refuses to train on such a batch: give more images or larger maps."
        )
    elif any(r.root == 0 for r in result.running):
        found.append("A running variance is 0 and ε = 0: eval mode is undefined there (–).")
    return found


def more_rows(result: Result, most: int = ROWS) -> str:
    """The line for what a table leaves out."""
    left = len(result.statistics) - most
    return f"… and {_count(left, 'more statistic')}." if left > 0 else ""


def values_of(result: Result) -> list[tuple[str, Values]]:
    """The blocks of values worth showing, each with its heading: x̂, y where γ and β change it, y in eval mode."""
    plain = result.plain
    shown = [
        (f"Normalised{' and output' if plain else ''}, {'y = ' if plain else ''}(x - μ) / √(σ² + ε)", result.normalised)
    ]
    if not plain:
        shown.append(("Output, y = γ · (x - μ) / √(σ² + ε) + β", result.output))
    if result.norm == "bn":
        shown.append(("Output in eval mode", result.evaluated))
    return shown


# One statistic, step by step


def steps(result: Result, k: int) -> Iterator[tuple[str, str]]:
    """What is done for statistic k, in order, as (name of the step, line)."""
    s, rules, batch = result.statistics[k], result.rules, result.batch
    c, area = batch.shape[1], batch.area
    numbers = [(m, batch.values[m * area : (m + 1) * area]) for m in s.maps]
    flat = [x for _, values in numbers for x in values]

    def listed(parts: list[str], sign: str = " + ", most: int = 48) -> str:
        return sign.join(parts[:most]) + (f"{sign}…" if len(parts) > most else "")

    for m, values in numbers[:8]:
        yield f"image {m // c + 1}, channel {m % c + 1}", listed([number_text(x) for x in values], "  ", 25)
    if len(numbers) > 8:
        yield "", f"… and {_count(len(numbers) - 8, 'more map')}"
    yield "sum", f"{listed([_signed(x) for x in flat])} {equals(s.total)}"
    yield "mean μ", f"{number_text(s.total)} / {s.count} {equals(s.mean)}"
    squared = [f"({number_text(x)} - {_signed(s.mean)})²" for x in flat]
    yield "squared deviations", f"{listed(squared, most=6)}"
    yield "", f"= {listed([number_text((x - s.mean) ** 2) for x in flat])} {equals(s.squares)}"
    yield "variance σ²", f"{number_text(s.squares)} / {s.count} {equals(s.variance)}"
    unbiased = f"{number_text(s.squares)} / {s.count - 1} {equals(s.unbiased)}"
    yield "unbiased", unbiased + ("" if result.norm == "bn" else " (not used here)")
    yield "root", f"√(σ² + ε) = √({number_text(s.variance)} + {number_text(rules.eps)}) = {number_text(s.root)}"
    if not s.root:
        yield "normalised", "undefined: 0 / 0"
    else:
        yield from _worked(result, k)
        for m, values in numbers[:8]:
            shown = result.output[m * area : m * area + len(values)]
            yield f"y, image {m // c + 1}, channel {m % c + 1}", listed([fixed(y) for y in shown], "  ", 25)
    if result.norm == "bn":
        yield from _running_steps(result, k, flat[0])


def _worked(result: Result, k: int) -> Iterator[tuple[str, str]]:
    """The first two values of a set, with the numbers put into the formula."""
    s, rules, batch = result.statistics[k], result.rules, result.batch
    places = [m * batch.area + i for m in s.maps[:2] for i in range(batch.area)][:2]
    for place in places:
        j = place // batch.area % batch.shape[1]
        gamma = rules.gamma[j] if rules.gamma else Fraction(1)
        beta = rules.beta[j] if rules.beta else Fraction(0)
        plain, y = fixed(result.normalised[place]), fixed(result.output[place])
        line = f"({number_text(batch.values[place])} - {_signed(s.mean)}) / {number_text(s.root)} = {plain}"
        if not result.plain:
            factor = f"({plain})" if plain.startswith("-") else plain
            line += f"; y = {number_text(gamma)} · {factor} + {_signed(beta)} = {y}"
        yield "normalised" if place == places[0] else "", line


def _running_steps(result: Result, k: int, first: Fraction) -> Iterator[tuple[str, str]]:
    s, r, rules = result.statistics[k], result.running[k], result.rules
    keep, take = number_text(1 - rules.momentum), number_text(rules.momentum)
    yield "running mean", f"{keep} · 0 + {take} · {_signed(s.mean)} {equals(r.mean)}"
    if r.variance is None or r.root is None or s.unbiased is None:
        yield "running variance", UNDEFINED
        return
    yield "running variance", f"{keep} · 1 + {take} · {number_text(s.unbiased)} {equals(r.variance)}"
    y = result.evaluated[s.maps[0] * result.batch.area]
    c = result.batch.shape[1]
    gamma = rules.gamma[s.maps[0] % c] if rules.gamma else Fraction(1)
    beta = rules.beta[s.maps[0] % c] if rules.beta else Fraction(0)
    quotient = f"({number_text(first)} - {_signed(r.mean)}) / √({number_text(r.variance)} + {number_text(rules.eps)})"
    scaled = "" if result.plain else f"{number_text(gamma)} · "
    shifted = "" if result.plain else f" + {_signed(beta)}"
    yield "eval mode", f"{scaled}{quotient}{shifted} = {'undefined' if y is None else fixed(y)}"


def _signed(value: Fraction) -> str:
    """A number as a term of a sum: a negative one in brackets."""
    return f"({number_text(value)})" if value < 0 else number_text(value)


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def statistic_title(result: Result, k: int) -> str:
    """ "Batch norm, statistic 2 of 4: B, channel 2 (36 numbers)"."""
    s: Statistic = result.statistics[k]
    return (
        f"{NORMS[result.norm]}, statistic {k + 1} of {len(result.statistics)}: {s.letter}, {s.where} "
        f"({_count(s.count, 'number')})"
    )
