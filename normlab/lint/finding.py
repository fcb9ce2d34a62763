"""What the linter says: one thing in a sentence or two, with the settings concerned and what to do."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "names"]

Code = Literal[
    "constant", "ghost", "schedule", "batch", "groups",  # a setting that is not what its name says
    "parameters", "confounded", "selection", "learning-rate", "seeds",  # a comparison
    "chance", "lost", "predictions", "machine",  # what came out
]  # fmt: skip

SHOWN = 6  # names in a list; the others are counted


@dataclass(frozen=True)
class Finding:
    """code: the rule. message: what a reader has to know, in one line. note: whether nothing has to be done."""

    code: Code
    message: str
    note: bool = False


def names(labels: Iterable[str]) -> str:
    """ "bn, ln, gn": each once, and of a long list the first ones."""
    each = list(dict.fromkeys(labels))
    more = f" and {len(each) - SHOWN + 1} more" if len(each) > SHOWN else ""
    return ", ".join(each[: SHOWN - 1] if more else each) + more
