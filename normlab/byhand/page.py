"""The calculation on a page where every number can be changed: one file, nothing fetched, readable without script."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from normlab.analysis.page import as_json, render
from normlab.byhand import wording
from normlab.byhand.exact import NORMS, Result, Rules, default_groups, starts, units
from normlab.byhand.formula import formula
from normlab.norms import CATALOGUE

LIVE = 4096  # numbers that a browser still recomputes while one types


def page(results: Sequence[Result]) -> str:
    """The page as HTML: the results as they are, and in their place, where its script runs, all norms to try.

    Everything from outside is escaped; the page admits its own script, by its hash, and fetches nothing.
    """
    batch, rules = results[0].batch, results[0].rules
    channels = batch.shape[1]
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
    values = {"results": results, "batch": batch, "wording": wording, "norms": NORMS}
    values["divisors"] = [g for g in range(1, channels + 1) if channels % g == 0]
    values["data"] = as_json(data) if len(batch.values) <= LIVE else ""
    return render(values, Path(__file__).parent)


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
