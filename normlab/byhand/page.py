"""The calculation on a page where every number can be changed: one file, nothing fetched, readable without script."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from normlab.byhand import wording
from normlab.byhand.exact import NORMS, Result, Rules, starts
from normlab.byhand.formula import (
    axes_of,
    formula,
    given_signs,
    inner,
    kept,
    kept_roots,
    label,
    steps,
    symbols,
    symbols_in_eval,
    text,
)
from normlab.byhand.set_colours import SET_COLOURS, set_colour
from normlab.byhand.wording import Table, blocks, window
from normlab.errors import ConfigError
from normlab.files import write_atomically
from normlab.norms import CATALOGUE

__all__ = ["page", "put"]

LIVE = 4096  # numbers that a browser still recomputes while one types
INTRO = (
    "Numbers that share a mean μ and a variance σ² have one colour and one letter. σ² is the biased variance, "
    "Σ(x - μ)² / m; the unbiased one, Σ(x - μ)² / (m - 1), goes into running variances only. " + wording.ROUNDED
)


@dataclass(frozen=True)
class Part:
    """One heading of a norm's section with a table or blocks of values."""

    heading: str
    table: Table | None = None
    texts: list[list[list[list[str]]]] | None = None


def page(results: Sequence[Result]) -> str:
    """The page as HTML: the results as they are, and in their place, where its script runs, all norms to try.

    Everything from outside is escaped; the page admits its own script, by its hash, and fetches nothing.
    """
    batch = results[0].batch
    here = Path(__file__).parent
    script = (here / "page.js").read_text(encoding="utf-8")
    part, live = window(batch), len(batch.values) <= LIVE
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    data = json.dumps(_data(results[0]), ensure_ascii=False, separators=(",", ":"))
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html.j2").render(
        about=f"{batch.source[:1].upper()}{batch.source[1:]}: {' x '.join(map(str, batch.shape))} (N x C x H x W).",
        intro=INTRO,
        mind=part.line,
        sections=[_section(result) for result in results],
        channels=batch.shape[1],
        area=batch.area,
        width=batch.shape[3],
        letters=wording.letters,
        colour=set_colour,
        norms=NORMS,
        chosen=results[0].norm,
        divisors=[g for g in range(1, batch.shape[1] + 1) if batch.shape[1] % g == 0],
        made=f"Made by normlab calculate from {len(batch.values):,} numbers.",
        data=data.replace("<", "\\u003c") if live else "",
        script=script,
        script_hash=f"sha256-{digest}",
    )


def put(file: Path, content: bytes, option: str) -> None:
    """Writes a file, with its folder. Raises `ConfigError` where that cannot be."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content)
    except OSError as error:
        raise ConfigError(f"{option}: nothing can be written there ({error.strerror}): choose another one") from None


def _data(result: Result) -> dict[str, Any]:
    """What the script computes with: the batch, the rules, and of each norm its axes, its formula and what it takes."""
    batch, rules, part = result.batch, result.rules, window(result.batch)
    return {
        "shape": batch.shape,
        "values": [str(value) for value in batch.values],
        "part": [part.images, part.channels, part.rows, part.columns],
        "colours": SET_COLOURS,
        "momentum": wording.number_text(rules.momentum),
        "images": rules.images,
        "groups": rules.groups or Result("gn", batch, rules).groups,
        "norms": {norm: _norm(norm, batch.shape[1], rules) for norm in NORMS},
    }


def _norm(norm: str, channels: int, rules: Rules) -> dict[str, Any]:
    about, tree = CATALOGUE[norm], formula(norm)
    per_channel = {learned.sign for learned in about.learned.values() if not learned.shape.isdecimal()}

    def spread(sign: str, values: tuple[Fraction, ...]) -> list[str]:
        return [str(value) for value in values * (channels if sign in per_channel and len(values) == 1 else 1)]

    taken = starts(norm, rules)
    return {
        "axes": about.axes,
        "tree": tree,
        "inner": inner(norm),
        "written": text(tree, symbols),
        "innerWritten": text(inner(norm), symbols),
        "evalWritten": text(tree, symbols_in_eval),
        "steps": [
            [[label(node), wording.worded(label(node)), node] for node in steps(tree, i)]
            for i in range(len(about.axes))
        ],
        "kept": [[label(node), *axes_of(node), node] for node in kept(tree)],
        "roots": [[text(node, symbols_in_eval), node] for node in kept_roots(tree)],
        "sharing": [wording.sharing(about, i) for i in range(len(about.axes))],
        "facts": ". ".join(wording.over(about, i) for i in range(len(about.axes))) + ".",
        "given": {sign: spread(sign, taken[sign]) for sign in sorted(given_signs(norm), key=list(taken).index)},
    }


def _section(result: Result) -> dict[str, Any]:
    """A norm's part of the page as it is read without the script."""
    more = wording.more_rows(result)
    parts = [
        Part(f"Statistics{f': {name}' if len(result.about.axes) > 1 else ''}{f' ({more})' if more else ''}", table)
        for name, table in wording.tables(result)
    ]
    part = window(result.batch)
    for heading, values in wording.values_of(result):
        if result.running and values is result.evaluated:
            parts.append(Part(wording.running_rule(result), wording.running_table(result)))
        parts.append(Part(heading, texts=blocks(values, result.batch, part)))
    batch = Part("The numbers", texts=blocks(result.batch.values, result.batch, part, places=None))
    return {
        "result": result,
        "heading": wording.heading(result),
        "given": wording.given(result),
        "facts": wording.facts(result),
        "notes": wording.notes(result),
        "parts": [batch, *parts],
        "rule": wording.eval_rule(result),
    }
