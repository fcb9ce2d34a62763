"""From files that runs left to tables and figures, for people. No torch, no Lightning: opens in a second."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from normlab.analysis.table import read

if TYPE_CHECKING:
    from normlab.analysis import image_figures, line_figures, probe_figures, row_figures

__all__ = ["image_figures", "line_figures", "probe_figures", "read", "row_figures"]


def __getattr__(name: str) -> ModuleType:
    """Figures, loaded when first drawn: matplotlib takes half a second, which a report without figures saves."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
