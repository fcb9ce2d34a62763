"""The norms that there are: one file each in this folder, described without torch; and layers by their name."""

import ast
import importlib
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normlab.errors import first_line
from normlab.norms import about
from normlab.norms.about import FAMILIES, About

if TYPE_CHECKING:
    from torch import nn


def _read(file: Path) -> About | None:
    """Return what a norm's file says of it: the value of its `ABOUT`, the title with which its docstring begins and the
    name of its class; None where there is no `ABOUT`. Nothing of the file is run."""
    tree = ast.parse(file.read_bytes(), str(file))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ABOUT":
            entry: About = _value(node.value)
            title = (ast.get_docstring(tree) or "").partition(":")[0].removesuffix(".")
            lower = title.partition(" ")[0][1:].islower()  # not EvoNorm-B0, L1
            title = title[0].lower() + title[1:] if lower else title
            layer = [each.name for each in tree.body if isinstance(each, ast.ClassDef)][-1]
            return replace(entry, name=file.stem.rstrip("_"), title=title, layer=layer)  # in_.py: `in` is a keyword
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


_ENTRIES = sorted(
    filter(None, map(_read, Path(__file__).parent.glob("*.py"))),
    key=lambda entry: (FAMILIES.index(entry.family), len(entry.name), entry.name),
)
CATALOGUE: dict[str, About] = {entry.name: entry for entry in _ENTRIES}


def load_class(target: str, setting: str = "norm.target", what: str = "Class") -> Callable[..., "nn.Module"]:
    """Return the class or function that "package.module:Class" names; importing it runs its code. Raise `ValueError`,
    in one line, where there is none. setting: what holds the target. what: what it should be."""
    module_name, _, attribute = target.partition(":")
    if not (module_name and attribute):
        raise ValueError(f"{setting}={target!r}: write package.module:{what}")

    def refuse(reason: str) -> ValueError:
        return ValueError(f"{setting}={target}: {reason}")

    try:
        module = importlib.import_module(module_name)
    except SyntaxError as error:
        raise refuse(f"{Path(error.filename or module_name).name} cannot be read as Python: {error}") from error
    except Exception as error:  # a user's module may raise anything while it is imported
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise refuse(
                f"there is no module {module_name} here; write package.module:{what}, as it would be imported from "
                "this folder"
            ) from error
        raise refuse(f"importing {module_name} failed: {first_line(error)}") from error
    layer = getattr(module, attribute, None)
    if not callable(layer):
        own = [name for name, each in vars(module).items() if getattr(each, "__module__", "") == module_name]
        kinds = "classes" if what == "Class" else "classes and functions"
        raise refuse(f"{module_name} has no {attribute}; its {kinds}: {', '.join(sorted(own)) or 'none'}")
    return layer  # type: ignore[no-any-return]  # a class is checked when it is called
