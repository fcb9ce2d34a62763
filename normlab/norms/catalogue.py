"""The norms that there are: one file each in this folder, found and described without torch."""

import ast
from dataclasses import replace
from pathlib import Path

from normlab.norms import about
from normlab.norms.about import FAMILIES, About

__all__ = ["CATALOGUE"]


def _read(file: Path) -> About | None:
    """What a norm's file says of it: the expression assigned to `ABOUT`, evaluated alone with the names of
    `normlab.norms.about`; None where there is none. The rest of the file, with its torch, is not run."""
    for node in ast.parse(file.read_bytes(), str(file)).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ABOUT":
            entry: About = eval(compile(ast.Expression(node.value), str(file), "eval"), dict(vars(about)))
            return replace(entry, name=file.stem.rstrip("_"))  # in_.py: `in` cannot be imported
    return None


def _order(entry: About) -> tuple[int, int, str]:
    return FAMILIES.index(entry.family), len(entry.name), entry.name


_ENTRIES = filter(None, map(_read, Path(__file__).parent.glob("*.py")))
CATALOGUE: dict[str, About] = {entry.name: entry for entry in sorted(_ENTRIES, key=_order)}
