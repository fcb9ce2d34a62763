"""One page that holds a whole report: no script, no file beside it, nothing fetched."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from normlab.analysis.words import Table

__all__ = ["Section", "Shown", "render"]


@dataclass(frozen=True)
class Shown:
    """A figure on the page: its SVG in base64, its width in CSS pixels, the line below it."""

    svg: str
    width: int
    caption: str

    @classmethod
    def of(cls, svg: bytes, caption: str, widest: int) -> "Shown":
        """Takes the width, up to the widest that it may have, from the SVG: matplotlib writes points, 72 an inch."""
        found = re.search(rb'<svg[^>]* width="([\d.]+)pt"', svg)
        width = round(float(found[1]) * 100 / 72) if found else widest
        return cls(base64.b64encode(svg).decode(), min(width, widest), caption)


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it. verdict: the column of its tables that says what came out."""

    id: str
    heading: str
    intro: str = ""
    tables: Sequence[Table] = ()
    pictures: list[Shown] = field(default_factory=list)
    verdict: int | None = None


def render(values: Mapping[str, object]) -> str:
    """The page as HTML. Everything in `values` is escaped: a name with markup in it is shown, not obeyed."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html.j2").render(values)
