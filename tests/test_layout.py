"""The house: imports run downwards, and what must open at once imports nothing heavy."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from house import ALLOWED_LATE, FLOORS, arrows, fewest, files, imports, picture, room_of

import normlab

PACKAGE = Path(normlab.__file__).parent
DOCS = REPOSITORY / "docs"


PAGE = (DOCS / "architecture.md").read_text(encoding="utf-8")
FLOOR = {name: level for level, names in enumerate(FLOORS) for name in names}


@pytest.mark.parametrize("file", files(), ids=str)
def test_imports_run_downwards(file: Path) -> None:
    here = room_of(file)
    assert here in FLOOR, f"{file}: give {here} a floor in docs/house.py"
    for other, late in imports(PACKAGE / file).items():
        allowed = FLOOR[other] < FLOOR[here] or other == here or (late and (here, other) in ALLOWED_LATE)
        assert allowed, f"{file} imports {other}"


def test_imports_are_found_in_every_form(tmp_path: Path) -> None:
    """`from . import` is not used here."""
    file = tmp_path / "a.py"
    lines = [
        "from normlab import scheduler, record as do",
        "from normlab.nets.net import Net",
        "import normlab.data.published, os",
    ]
    file.write_text("\n".join([*lines, "def f():", "    import normlab.lint", "    from normlab.nets import Net"]))
    assert imports(file) == {"scheduler": False, "record": False, "nets": False, "data": False, "lint": True}
    assert not [
        path for path in PACKAGE.rglob("*.py") if re.search(r"(?m)^\s*from \.", path.read_text(encoding="utf-8"))
    ]


def test_every_room_has_a_floor_and_a_line_on_the_page() -> None:
    rooms = {room_of(file) for file in files()}
    assert rooms == set(FLOOR), "docs/house.py has a floor for each room that is there, and for no other"
    rows = re.findall(r"^\| (\d+) \| `(\w+)(\.py|/)` \| \S", PAGE, re.MULTILINE)
    assert {name: int(level) for level, name, _ in rows} == FLOOR
    assert [int(level) for level, _, _ in rows] == sorted(FLOOR.values(), reverse=True)
    for _, name, kind in rows:
        assert (PACKAGE / name).is_dir() == (kind == "/"), name


def test_the_picture_is_what_the_imports_are_today() -> None:
    assert (DOCS / "house.svg").read_text(encoding="utf-8") == picture(), "python docs/house.py"


def test_what_the_picture_leaves_out_follows_from_what_it_shows() -> None:
    every = arrows()
    shown = set(fewest(every))
    assert len(shown) < len(every) / 2

    def reached(room: str) -> set[str]:
        return {end for start, end in shown if start == room}.union(*(reached(e) for s, e in shown if s == room))

    for start, end in every:
        assert end in reached(start) | FLOORS[0], (start, end)
    for start, end in shown:
        others = {by for first, by in shown if first == start and by != end}
        assert not any(end in reached(by) for by in others), f"{start} reaches {end} by another way"


@pytest.mark.parametrize("word", sorted(set(re.findall(r"`([\w/]+\.py)`", PAGE))))
def test_the_page_names_files_that_are_there(word: str) -> None:
    assert any((place / word).is_file() for place in (REPOSITORY, REPOSITORY / "tests")) or any(PACKAGE.rglob(word))


def test_the_pages_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\((?!https?://|#)([^)#]+)[^)]*\)", PAGE):
        assert (DOCS / link).exists(), link


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
        ("import normlab.probes.layers, normlab.probes.statistics", {"lightning", "torchvision", "hydra", "pandas"}),
        ("import normlab.data.sources", {"torch", "torchvision", "sklearn", "PIL", "rich", "filelock"}),
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
