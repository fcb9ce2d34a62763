"""What people read of a calculation: numbers as text, headings, tables and the steps of one statistic."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from html import escape

from normlab.byhand.exact import NORMS, Batch, Result, Values
from normlab.byhand.formula import Node, axes_of, given_signs, kept, label, symbols, symbols_in_eval, text
from normlab.byhand.formula import steps as of_axes
from normlab.norms.about import AXES, About

__all__ = [
    "PLACES",
    "ROUNDED",
    "Table",
    "Window",
    "amount",
    "blocks",
    "equals",
    "eval_rule",
    "facts",
    "fixed",
    "fraction",
    "given",
    "heading",
    "letters",
    "more_rows",
    "notes",
    "number_text",
    "numbers",
    "running_rule",
    "running_table",
    "statistic_title",
    "steps",
    "tables",
    "values_of",
    "window",
    "worded",
]

ROUNDED = "Sums, means and variances are exact; where it says ≈, and after a root, decimals are rounded."
PLACES = 4  # of a normalised value
UNDEFINED = "undefined"
LONGEST = 13  # signs of a fraction that is still read
WORDS = {"μ": "mean ", "σ": "variance "}  # before what a formula names so
NUMBERS, IMAGES, CHANNELS, SIDE, ROWS = 1024, 8, 8, 8, 64  # that are drawn or listed; a workbook holds everything


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
    grouped = any("G" in over for over in result.about.axes)
    groups = f", {_count(result.groups, 'group')}" if grouped else ""
    return f"{NORMS[result.norm]}{groups}: {_count(len(result.statistics), 'statistic')}"


def facts(result: Result) -> str:
    """What shares a statistic: a sentence for each of the norm's axes."""
    found = []
    for i in range(len(result.about.axes)):
        counts = {s.count for s in result.statistics if s.axes == i}
        many = f"{_count(max(counts), 'number')} {'each' if len(counts) == 1 else 'or fewer'}"
        found.append(f"{over(result.about, i)}: {many}.")
    return " ".join(found)


def sharing(about: About, axes: int) -> str:
    """ "One for each image and group of channels"."""
    over = set(about.axes[axes])
    each = ["ghost batch"] if "V" in over else [] if "N" in over else ["image"]
    each += ["group of channels"] if "G" in over else [] if "C" in over else ["channel"]
    each += [] if "H" in over else ["pixel"]
    if not each:
        return "One for all"
    return "One for each " + (", ".join(each[:-1]) + " and " if len(each) > 1 else "") + each[-1]


def over(about: About, axes: int) -> str:
    """ "One for each channel, over N, H, W"."""
    return f"{sharing(about, axes)}, over {', '.join(AXES[axis] for axis in about.axes[axes])}"


def given(result: Result) -> str:
    """The formula and the numbers that it takes, in a line: "y = …; γ = 1; β = 0; ε = 0.00001"."""
    named = given_signs(result.norm)
    lines = [f"y = {text(result.tree, symbols)}"]
    for sign, values in sorted(result.given.items(), key=lambda item: item[0] == "ε"):
        if sign not in named:
            continue
        written = [number_text(v) if sign == "ε" else fraction(v) or number_text(v) for v in values]
        if len(set(values)) == 1:
            lines.append(f"{sign} = {written[0]}")
        else:
            lines.append(f"{sign} = {', '.join(written)}" if len(values) <= 16 else f"{sign} as given")
    return "; ".join(lines)


def tables(result: Result, most: int = ROWS) -> list[tuple[str, Table]]:
    """For each of the norm's axes: what they are over, and a row per statistic, the first `most` of them."""
    found = []
    for i in range(len(result.about.axes)):
        of = [(k, s) for k, s in enumerate(result.statistics) if s.axes == i]
        names = list(of[0][1].values)
        rows = [
            [s.letter, s.where, str(s.count), number_text(s.total)] + [_cell(*item) for item in s.values.items()]
            for _, s in of[:most]
        ]
        headings = ["set", "where", "numbers", "sum", *map(worded, names)]
        found.append((sharing(result.about, i), Table(headings, rows, [k for k, _ in of[:most]])))
    return found


def running_table(result: Result, most: int = ROWS) -> Table:
    """The running averages after one step: one row per channel."""
    owners = [result.owner[j * result.batch.area] for j in range(len(result.running))][:most]
    rows = [
        [result.statistics[k].letter, r.where, *(_cell(*item) for item in r.values.items())]
        for k, r in zip(owners, result.running, strict=False)
    ]
    return Table(["set", "where", *result.running[0].values], rows, owners)


def running_rule(result: Result) -> str:
    """How a running average moves."""
    m = result.rules.momentum
    keep, take = number_text(1 - m), number_text(m)
    lines = [
        f"running {label(node)} = {keep} · {node[1]} + {take} · {'unbiased ' * node[1]}{label(node)}"
        for node in kept(result.tree)
    ]
    return f"Running averages after one step with momentum {take}: {', '.join(lines)}."


def eval_rule(result: Result) -> str:
    """What the norm does in eval mode, in a sentence."""
    if result.running:
        return f"In eval mode: y = {text(result.tree, symbols_in_eval)}."
    return "In eval mode: the same, from the same statistics; nothing is remembered."


def notes(result: Result) -> list[str]:
    """What is unusual about a calculation."""
    found = []
    flat = [s for s in result.statistics if 0 in [v for name, v in s.values.items() if name[0] == "√"]]
    single = all(s.count == 1 for s in result.statistics)
    if flat:
        where = ", ".join(s.letter for s in flat[:8]) + (", …" if len(flat) > 8 else "")
        found.append(
            f"All numbers of {where} are equal and ε = 0: 0 / 0 is undefined (–). With --eps 1e-5 it would be 0."
        )
    elif single and result.about.centred:
        found.append("A set of one number has variance 0 and is normalised to 0: y = β whatever x is.")
    if any(None in r.values.values() for r in result.running):
        found.append(
            "One number per channel: the unbiased variance is 0 / 0, so there is no running variance and no eval mode. "
            "torch refuses to train on such a batch: give more images or larger maps."
        )
    elif any(0 in [v for name, v in r.values.items() if name[0] == "√"] for r in result.running):
        found.append("A running variance is 0 and ε = 0: eval mode is undefined there (–).")
    return found


def more_rows(result: Result, most: int = ROWS) -> str:
    """The line for what a table leaves out."""
    left = max(sum(s.axes == i for s in result.statistics) for i in range(len(result.about.axes))) - most
    return f"… and {_count(left, 'more statistic')}." if left > 0 else ""


def values_of(result: Result) -> list[tuple[str, Values]]:
    """The blocks of values worth showing, each with its heading: x̂, y where γ and β change it, y in eval mode."""
    plain = result.plain
    inner = text(result.inner, symbols)
    shown = [(f"Normalised{' and output, y = ' if plain else ', '}{inner}", result.normalised)]
    if not plain:
        shown.append((f"Output, y = {text(result.tree, symbols)}", result.output))
    if result.running:
        shown.append(("Output in eval mode", result.evaluated))
    return shown


def letters(result: Result, m: int) -> str:
    """The letter of the set of map m, or the first and the last of its sets: "A", "A–I"."""
    area = result.batch.area
    found = dict.fromkeys(result.statistics[k].letter for k in result.owner[m * area : (m + 1) * area])
    return "–".join(dict.fromkeys((next(iter(found)), next(reversed(found)))))


def worded(name: str) -> str:
    """ "mean μ" for "μ"."""
    return WORDS.get(name[0], "") + name


# One statistic, step by step


def steps(result: Result, k: int) -> Iterator[tuple[str, str]]:
    """What is done for statistic k, in order, as (name of the step, line)."""
    s, batch = result.statistics[k], result.batch
    c, area = batch.shape[1], batch.area
    maps: dict[int, list[int]] = {}
    for place in s.members:
        maps.setdefault(place // area, []).append(place)

    def listed(parts: list[str], sign: str = " + ", most: int = 48) -> str:
        return sign.join(parts[:most]) + (f"{sign}…" if len(parts) > most else "")

    for m, places in list(maps.items())[:8]:
        yield (
            f"image {m // c + 1}, channel {m % c + 1}",
            listed([number_text(batch.values[p]) for p in places], "  ", 25),
        )
    if len(maps) > 8:
        yield "", f"… and {_count(len(maps) - 8, 'more map')}"
    for node in of_axes(result.tree, s.axes):
        name, inner, value = worded(label(node)), node[-1], s.values[label(node)]
        if inner[0] not in ("mean", "sum"):
            written = numbers(result, node if node[0] == "√" else inner, s.members[0], root=False)
            yield name, f"{label(node)} = {written} {equals(value) if node[0] != '√' else f'= {number_text(value)}'}"
            continue
        terms = [result.at(inner[2], place) for place in s.members]
        total = None if None in terms else sum((term for term in terms if term is not None), Fraction(0))
        if inner[2] != ("x",):
            yield name, listed([numbers(result, inner[2], place, 2) for place in s.members], most=6)
        each = listed([f"({number_text(term)})" if term and term < 0 else number_text(term) for term in terms])
        yield ("sum" if inner[2] == ("x",) else ""), f"{'' if inner[2] == ('x',) else '= '}{each} {equals(total)}"
        if inner[0] == "mean":
            yield name if inner[2] == ("x",) else "", f"{number_text(total)} / {s.count} {equals(value)}"
    shown = [(f"y, image {m // c + 1}, channel {m % c + 1}", places) for m, places in list(maps.items())[:8]]
    for i, place in enumerate(s.members[:2]):
        yield "" if i else "normalised", f"{numbers(result, result.inner, place)} = {fixed(result.normalised[place])}"
        if not result.plain:
            yield "", f"y = {numbers(result, result.tree, place)} = {fixed(result.output[place])}"
    for name, places in shown:
        yield name, listed([fixed(result.output[p]) for p in places], "  ", 25)
    yield from _running_steps(result, s.axes, s.members[0])


def numbers(
    result: Result, node: Node, place: int, strength: int = 0, *, root: bool = True, eval_mode: bool = False
) -> str:
    """A part of the formula with the numbers put in that it has at a place. root: roots as numbers, too."""

    def shown(part: Node) -> str:
        known = part[0] in ("x", "given", "kept", "called", "map") or (part[0] == "√" and root)
        return (
            number_text(result.at(part, place, eval_mode))
            if known and part != node
            else symbols(part) * (part[0] == "number")
        )

    return text(node, shown, strength)


def _running_steps(result: Result, axes: int, place: int) -> Iterator[tuple[str, str]]:
    """The running averages of the channel of a number, and its output in eval mode."""
    own = [node for node in kept(result.tree) if axes_of(node) == {axes}]
    m, batch = result.rules.momentum, result.batch
    keep, take = number_text(1 - m), number_text(m)
    channel = place // batch.area % batch.shape[1]
    for node in own:
        name, line, value = label(node), str(node[1]), None
        places = [i for i in range(len(batch.values)) if i // batch.area % batch.shape[1] == channel]
        sets = dict.fromkeys(result.grid(node).owner[i] for i in places)
        for i, k in enumerate(sets):
            of = [p for p in places if result.grid(node).owner[p] == k]
            value = result.at(node, of[0])
            if node[1]:
                count = len(of)
                unbiased = None if count == 1 or value is None else value * count / (count - 1)
                if of[0] <= place <= of[-1] or place in of:
                    yield f"unbiased {name}", f"{number_text(value)} · {count} / {count - 1} {equals(unbiased)}"
                value = unbiased
            line = f"{keep} · {f'({line})' if i else line} + {take} · {_signed(value)}"
        yield f"running {name}", f"{line} {equals(result.at(node, place, True))}"
    if own:
        y = result.evaluated[place]
        written = numbers(result, result.inner if result.plain else result.tree, place, root=False, eval_mode=True)
        yield "eval mode", f"{written} = {UNDEFINED if y is None else fixed(y)}"


def _cell(name: str, value: Fraction | None) -> str:
    return number_text(value) if name[0] == "√" else amount(value)


def _signed(value: Fraction | None) -> str:
    """A number as a term of a sum: a negative one in brackets."""
    return f"({number_text(value)})" if value is not None and value < 0 else number_text(value)


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def statistic_title(result: Result, k: int) -> str:
    """ "Batch norm, statistic 2 of 4: B, channel 2 (36 numbers)"."""
    s = result.statistics[k]
    return (
        f"{NORMS[result.norm]}, statistic {k + 1} of {len(result.statistics)}: {s.letter}, {s.where} "
        f"({_count(s.count, 'number')})"
    )
