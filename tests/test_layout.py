"""The house and its pages: imports run downwards, what must open at once imports nothing heavy, links are good."""

import re
from pathlib import Path

import pytest
from conftest import REPOSITORY
from house import ALLOWED_LATE, FLOORS, arrows, fewest, files, imports, picture, room_of
from warm import new_python

import normlab
from normlab.norms import CATALOGUE
from normlab.settings import GROUPS, Settings, choices
from normlab.settings.page import as_markdown, as_text

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
    file.write_text(
        "from normlab import scheduler, record as do\nfrom normlab.nets.net import Net\n"
        "import normlab.data.published, os\ndef f():\n    import normlab.lint\n    from normlab.nets import Net\n"
    )
    assert imports(file) == {"scheduler": False, "record": False, "nets": False, "data": False, "lint": True}
    texts = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    assert not [path for path, text in texts.items() if re.search(r"(?m)^\s*from \.", text)]


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


PAGES = [file for kind in ("*.md", "[dln]*/*.md", "notebooks/*.ipynb") for file in REPOSITORY.glob(kind)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_pages_and_notebooks_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


def test_the_page_of_settings_is_made_from_them() -> None:
    page = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert page == as_markdown(), "python -m normlab.settings.page > docs/settings.md"


@pytest.mark.parametrize("page", [as_markdown(), as_text()], ids=["markdown", "text"])
def test_every_setting_and_option_is_on_it(page: str) -> None:
    """With its values and meaning: a setting without either would be an empty cell."""
    names = {*Settings.model_fields} - {"penalty", "augment"} | {"penalty.scope", "augment.shift", "optimizer.betas"}
    names |= {f"norm.{option}" for about in CATALOGUE.values() for option in about.options} | {"net.channels"}
    for name in names:
        assert re.search(rf"(?m)^(\| `|  ){re.escape(name)}(` \||:) ", page), name
    for group in GROUPS:
        for name in choices(group):
            assert f"{group}={name}" in page
    settings = page.partition("study=")[0]
    assert not re.search(r"\|  \|", settings), "a cell is empty"
    assert "number, ≥ 0, < 1" in page
    assert "subgradient, proximal" in page


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import normlab.train", "torch lightning torchvision sklearn matplotlib pandas"),
        ("import normlab.report", "torch lightning torchvision sklearn matplotlib"),
        ("import normlab.calculate", "torch lightning torchvision hydra sklearn matplotlib pandas scipy openpyxl"),
        ("import normlab.probe", "torch lightning torchvision hydra sklearn matplotlib pandas"),
        ("import normlab.probes.layers, normlab.probes.statistics", "lightning torchvision hydra pandas"),
        ("import normlab.data.sources", "torch torchvision sklearn PIL rich filelock"),
        ("import normlab.record", "torch lightning matplotlib"),
        ("from normlab.analysis import read", "torch lightning matplotlib"),
        ("import normlab.lint", "torch lightning hydra matplotlib scipy"),
        ("import normlab.nets", "lightning torchvision hydra"),
    ],
)
def test_opens_without(statement: str, heavy: str) -> None:
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    assert not set(new_python("-c", code, exit_code=0).stdout.split()) & set(heavy.split())


def test_no_instantiation_from_files() -> None:
    """conf/ holds values: a file that named code to run would make every configuration a program."""
    for file in (PACKAGE.parent / "conf").rglob("*.yaml"):
        assert "_target_" not in file.read_text(encoding="utf-8"), file
