"""What surroundings may not break: a reader that leaves, a full disk, matplotlib's backend and its settings."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from conftest import REPOSITORY
from made_up_runs import crossed

from normlab.record import Record
from normlab.settings import Settings

TINY = ["data=digits", "epochs=2", "train_size=100", "batch_size=50", "threads=1", "accelerator=cpu", "log_dir=a:b"]


def python(
    *words: str, cwd: Path, stdout: Any = subprocess.PIPE, stderr: Any = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    every = {**os.environ, "PYTHONPATH": path, **environment}
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=every, stdout=stdout, stderr=stderr, text=True, timeout=300
    )


def left() -> int:
    """A pipe whose reader has gone."""
    reads, writes = os.pipe()
    os.close(reads)
    return writes


def study_in(folder: Path) -> Path:
    crossed(folder, {("bn", 0.0): 0.95, ("ln", 0.0): 0.97}, seeds=3)
    return folder


def test_training_goes_on_without_a_reader(tmp_path: Path) -> None:
    """As in `2>&1 | head -1`; also by a backend that is not there, and into a folder with a colon in its name."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    pipe = left()
    result = python("-m", "normlab.train", *TINY, cwd=tmp_path, stdout=pipe, stderr=pipe, MPLBACKEND="no such backend")
    os.close(pipe)
    assert result.returncode == 0
    [folder] = [file.parent for file in tmp_path.glob("a:b/runs/*/result.json")]
    assert Record.load(folder).status == "completed"
    assert "could not be drawn" not in (folder / "train.log").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
@pytest.mark.parametrize("module", ["normlab.train", "normlab.calculate"])
def test_a_full_device_is_one_line(tmp_path: Path, module: str) -> None:
    words = [*TINY, "epochs=1"] if module == "normlab.train" else ["--norm", "ln"]
    words = [word for word in words if word != "epochs=2"]
    with open("/dev/full", "w") as full:
        result = python("-m", module, *words, cwd=tmp_path, stdout=full)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "normlab: what was printed is lost (No space left on device)"
    assert "Traceback" not in result.stderr
    if module == "normlab.train":
        [file] = tmp_path.glob("a:b/runs/*/result.json")
        assert json.loads(file.read_text())["status"] == "completed"


@pytest.mark.usefixtures("undrawn")
def test_run_goes_on_without_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: Settings) -> None:
    """From Python too, where no command line has prepared the process."""
    from normlab.training import run

    monkeypatch.setattr(sys, "stderr", open(left(), "w", encoding="utf-8"))  # noqa: SIM115
    try:
        status = run(quick, tmp_path).status
    except KeyboardInterrupt:  # which would end pytest too
        status = "stopped"
    with pytest.raises(BrokenPipeError):
        sys.stderr.close()
    assert status == "completed"


@pytest.mark.parametrize("closed", [None, "closed pipe"])
def test_a_report_and_a_calculation_without_a_reader(tmp_path: Path, closed: str | None) -> None:
    study_in(tmp_path / "study")
    for words in (["normlab.report", str(tmp_path / "study"), "--no-figures"], ["normlab.calculate", "--step"]):
        if closed is None:  # >&-
            line = f"exec {sys.executable} -m {words[0]} {' '.join(words[1:])} >&-"
            result = subprocess.run(["sh", "-c", line], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
        else:
            pipe = left()
            result = python("-m", *words, cwd=tmp_path, stdout=pipe)
            os.close(pipe)
        assert (result.returncode, result.stderr) == (0, ""), words


@pytest.mark.parametrize(
    ("backend", "kept"), [("module://no_such_package.backend", None), ("module://rich.console", ...), ("pdf", ...)]
)
def test_a_notebook_names_a_backend_that_is_not_here(tmp_path: Path, backend: str, kept: object) -> None:
    result = python("-c", "import normlab, os; print(os.environ.get('MPLBACKEND'))", cwd=tmp_path, MPLBACKEND=backend)
    assert result.stdout.strip() == (backend if kept is ... else "None")


RC = {"text.usetex": True, "font.size": 30.0, "savefig.dpi": 20, "axes.grid": True, "figure.facecolor": "red"}


def shown(folder: Path) -> dict[str, bytes]:
    """TensorBoard's pictures by tag and step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), {"images": 0})
    events.Reload()
    return {
        f"{tag} {image.step}": image.encoded_image_string
        for tag in events.Tags()["images"]
        for image in events.Images(tag)
    }


def by_run(folder: Path) -> dict[str, bytes]:
    from normlab.settings.plan import load
    from normlab.training import run

    assert run(load(*[word for word in TINY if not word.startswith("log_dir")]), folder).status == "completed"
    assert "WARNING" not in (folder / "train.log").read_text()
    return shown(folder)


def by_report(folder: Path) -> dict[str, bytes]:
    from normlab.report import report

    report(study_in(folder / "study"), out=folder / "out")
    return {file.name: file.read_bytes() for file in (folder / "out" / "figures").iterdir()}


def by_calculation(folder: Path) -> dict[str, bytes]:
    from normlab.calculate import main

    assert main(["--norm", "bn,gn", "--out", str(folder), "--shape", "2,2,2,2"]) == 0
    return {file.name: file.read_bytes() for file in folder.glob("*.[ps][nv]g")}


@pytest.mark.parametrize("draw", [by_run, by_report, by_calculation], ids=lambda draw: draw.__name__)
def test_pictures_do_not_depend_on_a_matplotlibrc(tmp_path: Path, draw: Callable[[Path], dict[str, bytes]]) -> None:
    usual = draw(tmp_path / "usual")
    with matplotlib.rc_context(RC):
        own = draw(tmp_path / "own")
        assert matplotlib.rcParams["text.usetex"]
    assert len(usual) > 3
    assert own == usual


def test_a_picture_that_cannot_be_drawn_fails_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: Settings
) -> None:
    from normlab.training import run

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no font")

    for name in ("filters", "gallery", "confusions"):
        monkeypatch.setattr(f"normlab.analysis.image_figures.{name}", fails)
    assert run(quick, tmp_path).status == "completed"
    log = (tmp_path / "train.log").read_text()
    for tag in ("filters/first_layer", "test/misclassified", "test/confusion"):
        assert f"WARNING normlab: {tag} could not be drawn" in log
    assert "RuntimeError: no font" in log


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_how_long_a_waiting_thread_keeps_its_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: str
) -> None:
    """Set for commands, before torch is there, unless the user has set it. The speed: benchmarks/beside.py."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):  # a test before may have called `command` in this process
        monkeypatch.delenv(name, raising=False)
    script = """if True:
        import os, sys
        from normlab.output import command
        command(lambda _: print(os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules) or 0)
    """
    assert python("-c", script, cwd=tmp_path, **given).stdout == f"{expected} False\n"
