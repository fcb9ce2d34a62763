"""What the benchmarks' pages share: tables in Markdown, and what was measured on."""

import os
from collections.abc import Collection, Sequence

import torch

from normlab.record import versions
from normlab.training.device import describe_device

BUSY = 0.5  # load before a measurement above which its page says so


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[str] = ()) -> str:
    """Return a table in Markdown; columns of numbers are set flush right."""
    rule = ["---:" if heading in numbers else "---" for heading in headings]
    rows = [[cell.replace("|", "&#124;") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, rule, *rows))


def load() -> float:
    """Return how many processes wanted a core in the last minute; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def processor(device: str = "cpu") -> str:
    """Return the name of the processor that computes."""
    return str(describe_device(torch.device(device))["name"])


def releases() -> str:
    """Return the versions of Python, normlab and its libraries."""
    return ", ".join(f"{name} {number}" for name, number in versions().items())
