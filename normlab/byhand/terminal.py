"""A calculation in a terminal: the batch with one colour a set, tables, blocks of values, one statistic at a time."""

import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from normlab.byhand import wording
from normlab.byhand.exact import NORMS, Result, Statistic
from normlab.byhand.formula import Node, axes_of, symbols, text
from normlab.byhand.wording import equals, fixed, number_text, set_colour, worded
from normlab.output import counted

INK = "#222222"


def show(console: Console, results: Sequence[Result]) -> None:
    """Print everything: of each norm the batch, its statistics and its values."""
    batch = results[0].batch
    _line(console, f"Normalization by hand: {wording.source(batch)}", "bold")
    _line(console, wording.ROUNDED)
    if only := wording.shown_only(batch):
        _line(console, f"Mind: {only}", "yellow")
    for result in results:
        console.print()
        console.rule(Text(wording.heading(result), "bold"), align="left", characters="─", style="dim")
        _line(console, wording.given(result))
        _line(console, wording.facts(result))
        for part in wording.parts(result):
            console.print()
            _line(console, part.heading, "bold")
            if part.table:
                _table(console, part.table)
            if part.blocks:
                _grid(console, result, part.blocks)
        console.print()
        _line(console, wording.eval_rule(result))
        for note in wording.notes(result):
            _line(console, f"Mind: {note}", "yellow")


def walk(console: Console, results: Sequence[Result], wait: Callable[[], bool]) -> None:
    """Print one statistic after the other; before each but the first, `wait()` says whether to go on."""
    for result in results:
        for k, s in enumerate(result.statistics):
            if (k > 0 or result is not results[0]) and not wait():
                return
            console.print()
            name, many = NORMS[result.norm], counted(s.count, "number")
            title = f"{name}, statistic {k + 1} of {len(result.statistics)}: {s.letter}, {s.where} ({many})"
            letter = f" {s.letter} ", f"{INK} on {set_colour(k)}"
            console.print(Text.assemble(letter, " ", (title, "bold")))
            table = RichTable(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 2))
            table.add_column(no_wrap=True, style="dim")
            table.add_column(overflow="fold")
            for name, line in steps(result, k):
                table.add_row(Text(name), Text(line))
            console.print(table)


def _grid(console: Console, result: Result, texts: wording.Blocks) -> None:
    """Blocks of numbers, images down and channels across, on the ground of their set and with its letter above."""
    wide = max(len(text) for image in texts for channel in image for row in channel for text in row) + 1
    block = max(len(texts[0][0][0]) * wide + 1, 6)
    beside, channels = 9, len(texts[0])
    across = max((console.width - beside) // (block + 1), 1)
    word = "channel" if len(f"channel {channels}") <= block else "ch"
    for start in range(0, channels, across):
        some = range(channels)[start : start + across]
        heads = "".join(f"{word} {j + 1}".ljust(block + 1) for j in some)
        console.print(Text(" " * beside + heads.rstrip(), "dim"), soft_wrap=True)
        for i, image in enumerate(texts):
            for r in range(-1, len(image[0])):
                line = Text()  # without a style of its own, which the numbers would take
                line.append((f"image {i + 1}" if r == 0 else "").ljust(beside), "dim")
                for j in some:
                    grounds = [set_colour(k) for k in wording.owners(result, i, j, max(r, 0))]
                    if r < 0:
                        letter = f" {wording.letters(result, i, j)}".ljust(block)
                        line.append(letter, f"bold {INK} on {grounds[0]}")
                    else:
                        line.append(" " * (block - 1 - wide * len(image[j][r])), f"on {grounds[0]}")
                        for ground, number in zip(grounds, image[j][r], strict=False):
                            line.append(number.rjust(wide), f"{INK} on {ground}")
                        line.append(" ", f"on {ground}")
                    line.append(" " if j < some[-1] else "")
                if console.color_system is None:
                    line.rstrip()
                console.print(line, soft_wrap=True)


def _table(console: Console, table: wording.Table) -> None:
    widths = [max(map(len, column)) + 2 for column in zip(table.headings, *table.rows, strict=True)]
    narrow = sum(widths) > console.width  # then the decimal goes below its fraction
    made = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, heading in enumerate(table.headings):
        made.add_column(heading, justify="left" if i < table.text else "right", overflow="fold")
    for k, row in zip(table.sets, table.rows, strict=True):
        cells = [Text(re.sub(r" (?=[=≈])", "\n", cell) if narrow else cell) for cell in row]
        made.add_row(Text(f" {row[0]} ", f"{INK} on {set_colour(k)}"), *cells[1:])
    console.print(made)


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style))


def steps(result: Result, k: int) -> Iterator[tuple[str, str]]:
    """What is done for statistic k, in order, as (name of the step, line)."""
    s, c, area = result.statistics[k], result.batch.shape[1], result.batch.area
    first, maps = s.members[0], dict[int, list[int]]()
    for place in s.members:
        maps.setdefault(place // area, []).append(place)
    shown = [(f"image {m // c + 1}, channel {m % c + 1}", places) for m, places in list(maps.items())[:8]]
    for name, places in shown:
        yield name, _listed([number_text(result.batch.values[p]) for p in places], "  ", 25)
    if len(maps) > 8:
        yield "", f"… and {counted(len(maps) - 8, 'more map')}"
    for name, node in result.formula.steps[s.axes].items():
        value, inner = s.values[name], node[-1]
        if inner[0] in ("mean", "sum"):
            yield from _gathering(result, s, name, inner)
        elif node[0] == "√":
            yield worded(name), f"{name} = {_numbers(result, node, first, root=False)} = {number_text(value)}"
        else:
            yield worded(name), f"{name} = {_numbers(result, inner, first, root=False)} {equals(value)}"
    for i, place in enumerate(s.members[:2]):
        inner = _numbers(result, result.formula.inner, place)
        yield "" if i else "normalised", f"{inner} = {fixed(result.normalised[place])}"
        if not result.plain:
            yield "", f"y = {_numbers(result, result.formula.tree, place)} = {fixed(result.output[place])}"
    for name, places in shown:
        yield f"y, {name}", _listed([fixed(result.output[p]) for p in places], "  ", 25)
    yield from _running_steps(result, s.axes, first)


def _gathering(result: Result, s: Statistic, name: str, node: Node) -> Iterator[tuple[str, str]]:
    """A mean or a sum: its terms where they are not x itself, their sum, and that divided by their number."""
    kind, _, inner = node
    terms = [result.at(inner, place) for place in s.members]
    total = None if None in terms else sum((term for term in terms if term is not None), Fraction(0))
    line = f"{_listed(list(map(_signed, terms)))} {equals(total)}"
    if inner == ("x",):
        yield "sum", line
    else:
        yield worded(name), _listed([_numbers(result, inner, place, 2) for place in s.members], most=6)
        yield "", f"= {line}"
    if kind == "mean":
        yield worded(name) * (inner == ("x",)), f"{number_text(total)} / {s.count} {equals(s.values[name])}"


def _running_steps(result: Result, axes: int, place: int) -> Iterator[tuple[str, str]]:
    """The running averages of the channel of a number, and its output in eval mode."""
    own = {name: node for name, node in result.formula.kept.items() if axes_of(node) == {axes}}
    keep, take = number_text(1 - result.rules.momentum), number_text(result.rules.momentum)
    for name, node in own.items():
        line = str(node[1])
        for i, (places, value) in enumerate(result.taken(node, result.channels[place])):
            if node[1] and place in places:
                share = f"{len(places)} / {len(places) - 1}"
                yield f"unbiased {name}", f"{number_text(result.at(node, place))} · {share} {equals(value)}"
            line = f"{keep} · {f'({line})' if i else line} + {take} · {_signed(value)}"
        yield f"running {name}", f"{line} {equals(result.at(node, place, True))}"
    if own:
        tree = result.formula.inner if result.plain else result.formula.tree
        line = _numbers(result, tree, place, root=False, eval_mode=True)
        yield "eval mode", f"{line} = {fixed(result.evaluated[place])}"


def _numbers(
    result: Result, node: Node, place: int, strength: int = 0, *, root: bool = True, eval_mode: bool = False
) -> str:
    """A part of the formula with the numbers put in that it has at a place. root: roots as numbers, too."""

    def shown(part: Node) -> str:
        known = part[0] in ("x", "given", "kept", "called", "map") or (part[0] == "√" and root)
        if known and part != node:
            return number_text(result.at(part, place, eval_mode))
        return symbols(part) if part[0] == "number" else ""

    return text(node, shown, strength)


def _listed(items: list[str], sign: str = " + ", most: int = 48) -> str:
    return sign.join(items[:most]) + (f"{sign}…" if len(items) > most else "")


def _signed(value: Fraction | None) -> str:
    """A number as a term of a sum: a negative one in brackets."""
    return f"({number_text(value)})" if value is not None and value < 0 else number_text(value)
