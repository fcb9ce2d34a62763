"""Normalization by hand: exact arithmetic, its numbers in a terminal, pictures, a page and a workbook. No torch."""

import importlib
from typing import TYPE_CHECKING, Any

from normlab.byhand.exact import NORMS, Result, Rules, Statistic, calculate
from normlab.byhand.inputs import Batch, default_batch, number, random_batch, read_batch
from normlab.byhand.wording import Table, amount, running_table, tables

if TYPE_CHECKING:
    from normlab.analysis.axes_picture import axes
    from normlab.byhand.pictures import overview, picture

__all__ = [
    "NORMS", "Batch", "Result", "Rules", "Statistic", "Table", "amount", "axes", "calculate", "default_batch", "number",
    "overview", "picture", "random_batch", "read_batch", "running_table", "tables",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """What draws, with matplotlib, is loaded when it is first used."""
    drawn = {"axes": "normlab.analysis.axes_picture", **dict.fromkeys(("overview", "picture"), f"{__name__}.pictures")}
    if name not in drawn:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(drawn[name]), name)
