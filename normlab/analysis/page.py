"""One page that holds a whole report: nothing beside it, nothing fetched."""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from normlab.analysis.part import Part, Picture

__all__ = ["Section", "Shown", "render"]


@dataclass(frozen=True)
class Shown:
    """A figure on the page: its SVG in base64, its width in CSS pixels, the line below it."""

    svg: str
    width: int
    caption: str

    @classmethod
    def of(cls, svg: bytes, picture: Picture) -> "Shown":
        """Takes the width, up to the widest that it may have, from the SVG: matplotlib writes points, 72 an inch."""
        widest = 540 if picture.name.startswith("confusion") else 1140  # two side by side; the page
        found = re.search(rb'<svg[^>]* width="([\d.]+)pt"', svg)
        width = round(float(found[1]) * 100 / 72) if found else widest
        return cls(base64.b64encode(svg).decode(), min(width, widest), picture.caption)


@dataclass(frozen=True)
class Section:
    """A part with its figures drawn."""

    part: Part
    pictures: list[Shown]


def render(values: Mapping[str, object]) -> str:
    """The page as HTML. Everything in `values` is escaped: a name with markup in it is shown, not obeyed. The one
    script that the page admits is page.js, by its hash."""
    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    script = (here / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    own = {"script": script, "script_hash": f"sha256-{digest}"}
    return environment.get_template("page.html.j2").render({**values, **own})
