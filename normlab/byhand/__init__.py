"""Normalization by hand: exact arithmetic, its numbers in a terminal, pictures, a page and a workbook. No torch."""

import importlib
from typing import TYPE_CHECKING, Any

from normlab.byhand.exact import NORMS, Batch, Result, Rules, Statistic, calculate, sets
from normlab.byhand.inputs import default_batch, number, random_batch, read_batch
from normlab.byhand.wording import Table, amount, running_table, tables

if TYPE_CHECKING:
    from normlab.analysis.axes_picture import axes
    from normlab.byhand.pictures import overview, picture

__all__ = [
    "NORMS",
    "Batch",
    "Result",
    "Rules",
    "Statistic",
    "Table",
    "amount",
    "axes",
    "calculate",
    "default_batch",
    "number",
    "overview",
    "picture",
    "random_batch",
    "read_batch",
    "running_table",
    "sets",
    "tables",
]


_DRAWN = {  # with matplotlib: loaded when first used
    "axes": "normlab.analysis.axes_picture",
    "overview": "normlab.byhand.pictures",
    "picture": "normlab.byhand.pictures",
}


def __getattr__(name: str) -> Any:
    if name not in _DRAWN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_DRAWN[name]), name)
