"""The house: imports run downwards, and what must open at once imports nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import normlab

PACKAGE = Path(normlab.__file__).parent

# From the ground up: a room may import from lower floors only, and from its own room.
FLOORS = [
    {"errors", "places"},
    {"settings", "arms", "claim"},
    {"record"},
    {"study"},
    {"config"},
    {"custom", "grouping", "randomness", "nets", "analysis", "progress"},
    {"data", "byhand", "probes"},
    {"training", "lint"},
    {"summary", "job"},
    {"sweep", "launcher"},
    {"cluster"},
    {"train", "report", "calculate", "probe"},
]
ALLOWED_LATE = {("custom", "nets")}  # inside a function: torch is imported only for a layer that is there


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "normlab"


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("normlab"):
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "normlab" else [node.module]
            )
            found |= {room(name) for name in names}
        elif isinstance(node, ast.Import):
            found |= {room(alias.name) for alias in node.names if alias.name.startswith("normlab.")}
    return found


FILES = sorted(
    file.relative_to(PACKAGE) for file in PACKAGE.rglob("*.py") if file.name != "__init__.py" or file.parent != PACKAGE
)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_run_downwards(file: Path) -> None:
    here = file.parts[0].removesuffix(".py")
    floor = {name: level for level, names in enumerate(FLOORS) for name in names}
    assert here in floor, f"{file}: give {here} a floor"
    for other in imports(PACKAGE / file) - {here}:
        assert floor[other] < floor[here] or (here, other) in ALLOWED_LATE, f"{file} imports {other}"


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import normlab.train", {"torch", "lightning", "torchvision", "sklearn", "matplotlib", "pandas"}),
        ("import normlab.report", {"torch", "lightning", "torchvision", "sklearn", "matplotlib"}),
        (
            "import normlab.calculate",
            {"torch", "lightning", "torchvision", "hydra", "sklearn", "matplotlib", "pandas", "scipy", "openpyxl"},
        ),
        ("import normlab.probe", {"torch", "lightning", "torchvision", "hydra", "sklearn", "matplotlib", "pandas"}),
        ("import normlab.probes", {"lightning", "torchvision", "hydra", "pandas"}),
        ("import normlab.record", {"torch", "lightning", "matplotlib"}),
        ("from normlab.analysis import read", {"torch", "lightning", "matplotlib"}),
        ("import normlab.lint", {"torch", "lightning", "hydra", "matplotlib", "scipy"}),
        ("import normlab.nets", {"lightning", "torchvision", "hydra"}),
    ],
)
def test_opens_without(statement: str, heavy: set[str]) -> None:
    assert not loaded_by(statement) & heavy


def test_no_instantiation_from_files() -> None:
    """conf/ holds values: a file that named code to run would make every configuration a program."""
    for file in (PACKAGE.parent / "conf").rglob("*.yaml"):
        assert "_target_" not in file.read_text(encoding="utf-8"), file
