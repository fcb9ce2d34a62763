"""The calculation on a page: Markdown with the pictures beside it, and HTML that holds everything itself."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.console import Console

from normlab.byhand import wording
from normlab.byhand.exact import Result
from normlab.byhand.set_colours import set_colour
from normlab.byhand.terminal import grid
from normlab.byhand.wording import Table, Window, blocks, window

__all__ = ["html", "markdown"]

INTRO = (
    "y = γ · (x - μ) / √(σ² + ε) + β. Numbers that share a mean μ and a variance σ² have one colour and one letter. "
    "σ² is the biased variance, Σ(x - μ)² / m; the unbiased one, Σ(x - μ)² / (m - 1), goes into batch norm's "
    "running variance only. " + wording.ROUNDED
)


@dataclass(frozen=True)
class Part:
    """One heading of a norm's section with a table, blocks of values or both."""

    heading: str
    table: Table | None = None
    texts: list[list[list[list[str]]]] | None = None


def markdown(results: Sequence[Result]) -> str:
    """The page as Markdown; it names the pictures norms.svg, bn.svg, … that stand beside it."""
    batch, part = results[0].batch, window(results[0].batch)
    lines = ["# Normalization by hand", "", _escaped(_about(results)), "", INTRO, ""]
    if part.line:
        lines += [f"**Mind:** {part.line}", ""]
    if len(results) > 1:
        lines += ["![Which numbers share a statistic](norms.svg)", ""]
    for result in results:
        lines += [f"## {wording.heading(result)}", "", wording.facts(result), ""]
        lines += [f"![{wording.heading(result)}]({result.norm}.svg)", ""]
        for piece in _parts(result, part):
            lines += [f"### {piece.heading}", ""]
            if piece.table:
                lines += [*_pipes(piece.table), ""]
            if piece.texts:
                lines += ["```text", _drawn(result, piece.texts, part), "```", ""]
        lines += [wording.eval_rule(result), ""]
        lines += [f"**Mind:** {note}\n" for note in wording.notes(result)]
    lines += ["---", "", f"Made by `python -m normlab.calculate` from {_count(len(batch.values))}.", ""]
    return "\n".join(lines)


def html(results: Sequence[Result], pictures: Mapping[str, bytes]) -> str:
    """The page as HTML: no script, nothing fetched, everything from outside escaped.

    Args:
        pictures: SVG by norm, and as "norms" the overview where there are several norms.
    """
    part = window(results[0].batch)
    sections = [
        {
            "result": result,
            "heading": wording.heading(result),
            "facts": wording.facts(result),
            "picture": _encoded(pictures[result.norm]),
            "width": _width(pictures[result.norm]),
            "parts": _parts(result, part),
            "rule": wording.eval_rule(result),
            "notes": wording.notes(result),
        }
        for result in results
    ]
    overview = pictures.get("norms")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("sheet.html.j2").render(
        about=_about(results),
        intro=INTRO,
        mind=part.line,
        overview=_encoded(overview) if overview else "",
        overview_width=_width(overview) if overview else 0,
        sections=sections,
        part=part,
        channels=results[0].batch.shape[1],
        colour=set_colour,
        made=f"Made by python -m normlab.calculate from {_count(len(results[0].batch.values))}.",
    )


def _about(results: Sequence[Result]) -> str:
    batch, rules = results[0].batch, results[0].rules
    shape = " x ".join(map(str, batch.shape))
    return (
        f"{batch.source[:1].upper()}{batch.source[1:]}: {shape} (N x C x H x W); ε = {wording.number_text(rules.eps)}; "
        f"{wording.affine(results[0])}."
    )


def _parts(result: Result, part: Window) -> list[Part]:
    more = wording.more_rows(result)
    heading = f"Statistics (the first ones; {more[2:-1]} in sheet.xlsx)" if more else "Statistics"
    found = [Part(heading, wording.statistics_table(result))]
    for heading, values in wording.values_of(result):
        if result.norm == "bn" and values is result.evaluated:
            found.append(Part(wording.running_rule(result), wording.running_table(result)))
        found.append(Part(heading, texts=blocks(values, result.batch, part)))
    return found


def _pipes(table: Table) -> list[str]:
    ruler = ["---" if i < table.text else "---:" for i in range(len(table.headings))]
    return ["| " + " | ".join(row) + " |" for row in [table.headings, ruler, *table.rows]]


def _drawn(result: Result, texts: list[list[list[list[str]]]], part: Window) -> str:
    """The blocks as lines of text."""
    console = Console(file=io.StringIO(), width=10_000, color_system=None, highlight=False)
    with console.capture() as captured:
        grid(console, result, texts, part)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _escaped(text: str) -> str:
    """Text that Markdown takes as text: a file's name may hold anything."""
    return re.sub(r"([\\`*_{}\[\]#|~!])", r"\\\1", escape(text, quote=False))


def _encoded(svg: bytes) -> str:
    return base64.b64encode(svg).decode()


def _width(svg: bytes) -> int:
    """CSS pixels, from matplotlib's points."""
    found = re.search(rb'<svg[^>]* width="([\d.]+)pt"', svg)
    return round(float(found[1]) * 100 / 72) if found else 900


def _count(n: int) -> str:
    return f"{n:,} number{'s' * (n != 1)}"
