"""The norms that there are: one file each in this folder, found and described without torch."""

import ast
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from normlab.norms import about
from normlab.norms.about import FAMILIES, About

__all__ = ["CATALOGUE"]


def _read(file: Path) -> About | None:
    """What a norm's file says of it: the value of its `ABOUT`; None where there is none. Nothing of the file is run."""
    for node in ast.parse(file.read_bytes(), str(file)).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ABOUT":
            entry: About = _value(node.value)
            return replace(entry, name=file.stem.rstrip("_"))  # in_.py: `in` cannot be imported
    return None


def _value(node: ast.expr | None) -> Any:
    """The value of literals, and of names and calls of what `normlab.norms.about` defines."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return vars(about)[name]
        case ast.Tuple(elts=elements):
            return tuple(map(_value, elements))
        case ast.Dict(keys=keys, values=values):  # a key that is None: **values
            pairs = zip(keys, map(_value, values), strict=True)
            return dict(chain.from_iterable(v.items() if k is None else [(_value(k), v)] for k, v in pairs))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.Call(func=ast.Name(id=name), args=values, keywords=named):
            return vars(about)[name](*map(_value, values), **{str(each.arg): _value(each.value) for each in named})
    raise ValueError(f"ABOUT holds literals and names of normlab.norms.about, not {ast.unparse(node or ast.Pass())}")


def _order(entry: About) -> tuple[int, int, str]:
    return FAMILIES.index(entry.family), len(entry.name), entry.name


_ENTRIES = filter(None, map(_read, Path(__file__).parent.glob("*.py")))
CATALOGUE: dict[str, About] = {entry.name: entry for entry in sorted(_ENTRIES, key=_order)}
