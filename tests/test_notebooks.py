"""The notebooks run, and are committed as they ran: with outputs, without errors, paths of a machine or bulk."""

import ast
import base64
import importlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from conftest import MNIST, REPOSITORY
from execute import execute, smaller, tidy
from made_up_runs import crossed
from PIL import Image

from normlab.analysis.axes_picture import axes
from normlab.analysis.drawing import png
from normlab.settings import Study

FOLDER = REPOSITORY / "notebooks"
RESULTS = REPOSITORY / "lightning_logs" / "replication"
NOTEBOOKS = sorted(file.name for file in FOLDER.glob("*.ipynb"))
BY_HAND, STUDY, OWN, BATCH = NOTEBOOKS[:4]
ABSOLUTE = re.compile(r"(?<![\w.:/<])/(?:home|root|tmp|work|Users|usr|opt|var|mnt|private)/|\b[A-Z]:\\\\")
needs_results = pytest.mark.skipif(not RESULTS.is_dir(), reason="lightning_logs/replication is not in this clone")


@pytest.fixture(autouse=True)
def this_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel imports the package that is tested here, wherever it starts."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))


def loaded(name: str) -> Any:
    return nbformat.read(FOLDER / name, as_version=4)


def code(name: str) -> list[Any]:
    return [cell for cell in loaded(name).cells if cell.cell_type == "code"]


def outputs(notebook: Any) -> Iterator[Any]:
    for cell in notebook.cells:
        yield from cell.get("outputs", [])


def shown(notebook: Any) -> list[str]:
    """What it printed."""
    return [output.text for output in outputs(notebook) if output.output_type == "stream"]


def picture(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")


def pictures(notebook: Any) -> list[Image.Image]:
    found = [output.data["image/png"] for output in outputs(notebook) if "image/png" in output.get("data", {})]
    return list(map(picture, found))


def apart(one: Image.Image, other: Image.Image) -> float:
    """How far two pictures of a size are apart: the mean over pixels, of 255."""
    return float(np.abs(np.asarray(one, int) - np.asarray(other, int)).mean())


def with_parameters(notebook: Any, **values: object) -> Any:
    """The notebook with lines added to its cell of parameters: a run on small settings."""
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    cell.source += "".join(f"\n{name} = {value}" for name, value in values.items())
    return notebook


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_is_committed_as_it_ran(name: str) -> None:
    """Every cell once, from top to bottom, nothing in red; small, and without a word of the machine."""
    if name == STUDY and not RESULTS.is_dir():
        pytest.skip("lightning_logs/replication is not in this clone: there is nothing that it could have shown")
    notebook, cells = loaded(name), code(name)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    found = list(outputs(notebook))
    assert len(found) > 5
    assert pictures(notebook)
    assert not [output for output in found if output.output_type == "error" or output.get("name") == "stderr"]
    assert (FOLDER / name).stat().st_size < 300_000
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)
    texts = [cell.source for cell in notebook.cells] + shown(notebook)
    texts += [text for each in found for kind, text in each.get("data", {}).items() if kind != "image/png"]
    for text in texts:
        assert not ABSOLUTE.search(text), text[:200]
        assert not re.search(r"<\w[\w.]* (object )?at 0x", text), text[:200]


def test_paths_of_machines_are_recognised() -> None:
    for bad in ("in /" + "home/me/x.py", "'/" + "tmp/a'", "C:\\\\Users"):
        assert ABSOLUTE.search(bad), bad
    for good in ("../lightning_logs/tmp/x", "https://a.org/" + "home/x", "H / W", "</var>"):
        assert not ABSOLUTE.search(good), good


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_calls_public_functions_only(name: str) -> None:
    for cell in code(name):
        if cell.source.startswith("%%"):
            continue
        source = "\n".join(line for line in cell.source.split("\n") if not line.startswith("%"))
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("normlab"):
                module = importlib.import_module(str(node.module))
                public = getattr(module, "__all__", None) or [
                    name for name, value in vars(module).items()
                    if not name.startswith("_") and getattr(value, "__module__", node.module) == node.module
                ]  # fmt: skip
                assert {alias.name for alias in node.names} <= set(public), node.module
            elif isinstance(node, ast.Attribute):
                assert not node.attr.startswith("_") or node.attr == "__name__", node.attr


@needs_results
@pytest.mark.parametrize("start", [FOLDER, REPOSITORY], ids=["notebooks", "root"])
@pytest.mark.parametrize(("name", "found"), [(STUDY, "results"), (OWN, "root"), (BATCH, "root")])
def test_places_are_found_from_both_folders(start: Path, name: str, found: str, monkeypatch) -> None:
    """Its cell of parameters is the only one that asks where it is."""
    monkeypatch.chdir(start)
    (parameters,) = [cell.source for cell in code(name) if "parameters" in cell.metadata.get("tags", [])]
    assert sum("cwd()" in cell.source for cell in code(name)) == 1
    scope: dict[str, Any] = {"Path": Path}
    exec(parameters, scope)
    assert scope[found].resolve() == {"results": RESULTS, "root": REPOSITORY}[found]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "start", "said", "times"),
    [
        (BY_HAND, REPOSITORY, "agrees to 1e-6 in train mode", 4),
        pytest.param(STUDY, FOLDER, "180 runs", 1, marks=needs_results),
        (BATCH, REPOSITORY, "changes by at most 0.000000 when 2 images become 8", 3),
    ],
)
def test_it_runs_and_shows_what_it_showed_when_it_was_committed(name: str, start: Path, said: str, times: int) -> None:
    """From its own folder or from the root. Fonts and edges may differ with matplotlib's release, no more."""
    notebook = loaded(name)
    printed, drawn = shown(notebook), pictures(notebook)
    ran = tidy(execute(notebook, start, 300))
    assert shown(ran) == printed
    assert "".join(printed).count(said) == times
    for new, old in zip(pictures(ran), drawn, strict=name != STUDY or bool(MNIST)):  # images only where MNIST is
        assert np.allclose(new.size, old.size, rtol=0.03), "run notebooks/execute.py"
        assert apart(new.resize((200, 200)), old.resize((200, 200))) < 3, "run notebooks/execute.py"


@pytest.mark.slow
def test_02_runs_on_any_study(tmp_path: Path) -> None:
    """On made-up runs in the study's form: no results have to be in the clone for that."""
    folder = tmp_path / "replication"
    crossed(folder, {(norm, l1): 0.9 - 20 * l1 for norm in ("bn", "ln", "gn") for l1 in (0.0, 1e-3)}, seeds=3)
    Study.named("replication").save(folder)
    ran = execute(with_parameters(loaded(STUDY), results=f"Path({str(folder)!r})"), tmp_path, 300)
    said = "".join(shown(ran))
    assert "18 runs, 18 completed" in said
    assert "seed 2 alone:" in said


@pytest.mark.slow
def test_03_runs(tmp_path: Path) -> None:
    notebook = with_parameters(loaded(OWN), epochs=1, seeds=2, folder='Path("logs/own")')
    (study,) = [cell for cell in notebook.cells if cell.source.startswith("words = ")]
    study.source += '\nwords += ["train_size=200", "hydra/launcher=basic"]'  # in one process: torch is imported once
    ran = execute(notebook, tmp_path, 300)
    said = "".join(shown(ran))
    assert "{'completed': 8}" in said
    assert "my_norm has no HalfAndHalve; its classes: HalfAndHalf" in said
    # so few steps may leave it at chance, and then it has no verdict
    verdict = r"custom \(my_norm:HalfAndHalf\): |Not every run trained with [^\n]*custom"
    assert re.search(verdict, said)
    assert "Mind: " in said, "two seeds decide little, and the linter says so"
    assert (tmp_path / "my_norm.py").exists()
    assert len(list((tmp_path / "logs/own").rglob("result.json"))) == 8


def test_pictures_lose_bytes_and_nothing_that_one_sees() -> None:
    before = base64.b64encode(png(axes())).decode()
    after = smaller(before)
    assert len(after) < 0.6 * len(before)
    assert picture(before).size == picture(after).size
    assert apart(picture(before), picture(after)) < 1
