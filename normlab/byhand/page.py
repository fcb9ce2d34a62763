"""The calculation on a page where every number can be changed: one file, nothing fetched, readable without script."""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from normlab.byhand import wording
from normlab.byhand.exact import NORMS, Result, Rules, default_groups, starts, units
from normlab.byhand.formula import formula
from normlab.norms import CATALOGUE

__all__ = ["page"]

LIVE = 4096  # numbers that a browser still recomputes while one types


def page(results: Sequence[Result]) -> str:
    """The page as HTML: the results as they are, and in their place, where its script runs, all norms to try.

    Everything from outside is escaped; the page admits its own script, by its hash, and fetches nothing.
    """
    batch, rules, here = results[0].batch, results[0].rules, Path(__file__).parent
    channels = batch.shape[1]
    script = (here / "page.js").read_text(encoding="utf-8")
    data = {  # what the script computes with
        "shape": batch.shape,
        "values": list(map(str, batch.values)),
        "part": wording.window(batch),
        "words": wording.WORDS,
        "colours": wording.SET_COLOURS,
        "momentum": wording.number_text(rules.momentum),
        "images": rules.images,
        "groups": rules.groups or default_groups(channels),
        "norms": {norm: _norm(norm, channels, rules) for norm in NORMS},
    }
    written = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    jinja = Environment(loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return jinja.get_template("page.html.j2").render(
        results=results,
        batch=batch,
        wording=wording,
        norms=NORMS,
        divisors=[g for g in range(1, channels + 1) if channels % g == 0],
        data=written if len(batch.values) <= LIVE else "",
        script=script,
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
    )


def _norm(norm: str, channels: int, rules: Rules) -> dict[str, Any]:
    """What the script knows of a norm: its axes, its formula and what it takes."""
    axes = CATALOGUE[norm].axes
    return {
        "axes": axes,
        "units": list(map(units, axes)),
        "sharing": list(map(wording.sharing, axes)),
        "facts": ". ".join(map(wording.over, axes)) + ".",
        "given": {sign: list(map(str, values)) for sign, values in starts(norm, rules, channels).items()},
        **vars(formula(norm)),
    }
