"""Normalization layers: a file each, with its formula, axes, options, learned numbers, source, colour and class.

`CATALOGUE` describes them without torch; what needs torch (`make_norm`, …) is loaded when first used.
"""

from typing import TYPE_CHECKING, Any

from normlab.norms.about import About
from normlab.norms.catalogue import CATALOGUE, load_class

if TYPE_CHECKING:
    from normlab.norms.layer import Norm, synchronise
    from normlab.norms.make import is_packaged, make_norm

__all__ = ["CATALOGUE", "About", "Norm", "is_packaged", "load_class", "make_norm", "synchronise"]

_LAZY = {"Norm": "layer", "synchronise": "layer", "is_packaged": "make", "make_norm": "make"}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
