"""Normalization by hand: exact arithmetic, the same numbers in a terminal, pictures, pages and a workbook. No torch."""

from normlab.byhand.exact import NORMS, Batch, Result, Rules, Statistic, calculate, sets
from normlab.byhand.inputs import default_batch, random_batch, read_batch

__all__ = [
    "NORMS",
    "Batch",
    "Result",
    "Rules",
    "Statistic",
    "calculate",
    "default_batch",
    "random_batch",
    "read_batch",
    "sets",
]
