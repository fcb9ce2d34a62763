"""A calculation in a terminal: the batch with one colour a set, tables, blocks of values, one statistic at a time."""

import re
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from normlab.byhand import wording
from normlab.byhand.exact import Result
from normlab.byhand.set_colours import set_colour
from normlab.byhand.wording import Window, blocks, window

__all__ = ["grid", "show", "walk"]

INK = "#222222"


def show(console: Console, results: Sequence[Result]) -> None:
    """Prints everything: the batch, then each norm with its statistics and values."""
    batch = results[0].batch
    part = window(batch)
    shape = " x ".join(map(str, batch.shape))
    _line(console, f"Normalization by hand: {batch.source}, {shape} (N x C x H x W)", "bold")
    _line(console, wording.ROUNDED)
    if part.line:
        _line(console, f"Mind: {part.line}", "yellow")
    for result in results:
        console.print()
        console.rule(Text(wording.heading(result), "bold"), align="left", characters="─", style="dim")
        _line(console, wording.given(result))
        _line(console, wording.facts(result))
        console.print()
        grid(console, result, blocks(batch.values, batch, part, places=None), part)
        for name, table in wording.tables(result):
            console.print()
            if len(result.about.axes) > 1:
                _line(console, name, "bold")
            _table(console, table)
        _more(console, wording.more_rows(result))
        for heading, values in wording.values_of(result):
            if result.running and values is result.evaluated:
                console.print()
                _line(console, wording.running_rule(result), "bold")
                _table(console, wording.running_table(result))
            console.print()
            _line(console, heading, "bold")
            grid(console, result, blocks(values, batch, part), part)
        console.print()
        _line(console, wording.eval_rule(result))
        for note in wording.notes(result):
            _line(console, f"Mind: {note}", "yellow")


def walk(console: Console, results: Sequence[Result], wait: Callable[[], bool]) -> None:
    """Prints one statistic after the other; before each but the first, `wait()` says whether to go on."""
    first = True
    for result in results:
        for k, statistic in enumerate(result.statistics):
            if not first and not wait():
                return
            first = False
            console.print()
            ground = f"{INK} on {set_colour(k)}"
            console.print(
                Text.assemble((f" {statistic.letter} ", ground), " ", (wording.statistic_title(result, k), "bold"))
            )
            table = RichTable(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 2))
            table.add_column(no_wrap=True, style="dim")
            table.add_column(overflow="fold")
            for name, text in wording.steps(result, k):
                table.add_row(Text(name), Text(text))
            console.print(table)


def grid(console: Console, result: Result, texts: list[list[list[list[str]]]], part: Window) -> None:
    """Blocks of numbers, images down and channels across, on the ground of their set and with its letter above."""
    wide = max(len(text) for image in texts for channel in image for row in channel for text in row) + 1
    block = max(part.columns * wide + 1, 6)
    beside = 9
    across = max((console.width - beside) // (block + 1), 1)
    _, channels, h, w = result.batch.shape
    for start in range(0, part.channels, across):
        some = range(start, min(start + across, part.channels))
        word = "channel" if len(f"channel {part.channels}") <= block else "ch"
        head = "".join(f"{word} {j + 1}".ljust(block + 1) for j in some)
        console.print(Text(" " * beside + head.rstrip(), "dim"), soft_wrap=True)
        for i, image in enumerate(texts):
            for r in range(-1, part.rows):
                line = Text()  # without a style of its own, which the numbers would take
                line.append((f"image {i + 1}" if r == 0 else "").ljust(beside), "dim")
                for j in some:
                    m = i * channels + j
                    owners = result.owner[m * h * w + max(r, 0) * w :][: part.columns]
                    if r < 0:
                        line.append(
                            f" {wording.letters(result, m)}".ljust(block), f"bold {INK} on {set_colour(owners[0])}"
                        )
                    else:
                        cells = [number.rjust(wide) for number in image[j][r]]
                        line.append(" " * (block - 1 - wide * len(cells)), f"on {set_colour(owners[0])}")
                        for k, cell in zip(owners, cells, strict=True):
                            line.append(cell, f"{INK} on {set_colour(k)}")
                        line.append(" ", f"on {set_colour(owners[-1])}")
                    line.append(" " if j < some[-1] else "")
                if console.color_system is None:
                    line.rstrip()
                console.print(line, soft_wrap=True)


def _table(console: Console, table: wording.Table) -> None:
    def shown(narrow: bool) -> RichTable:
        made = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for i, heading in enumerate(table.headings):
            made.add_column(heading, justify="left" if i < table.text else "right", overflow="fold")
        for k, row in zip(table.sets, table.rows, strict=True):
            cells = [Text(re.sub(r" (?=[=≈])", "\n", cell) if narrow else cell) for cell in row]
            cells[0] = Text(f" {row[0]} ", f"{INK} on {set_colour(k)}")
            made.add_row(*cells)
        return made

    wide = shown(False)
    # Where there is no room, the decimal goes below its fraction.
    needed = console.measure(wide, options=console.options.update(max_width=1000)).maximum
    console.print(wide if needed <= console.width else shown(True))


def _more(console: Console, text: str) -> None:
    if text:
        _line(console, f"{text} --out DIR writes a workbook with all of them.")


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style))
