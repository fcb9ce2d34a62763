"""What a command prints, and what surroundings may not break: a reader that leaves, a full disk, matplotlib's backend
and its settings. A call of the library leaves its process as it was, and needs no script of a certain form."""

import ctypes
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from made_up_runs import crossed
from same_bits import stopped
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from warm import new_python

from normlab.calculate import main as calculate
from normlab.record import Record
from normlab.report import report
from normlab.settings import Settings
from normlab.settings.plan import Job, load, plan
from normlab.summary import show
from normlab.training import run, run_array
from normlab.training.callbacks import Speed
from normlab.training.checkpoint import probe_checkpoint

TINY = ["data=digits", "epochs=1", "train_size=100", "batch_size=50", "threads=1", "accelerator=cpu"]


def left() -> int:
    """A pipe whose reader has gone."""
    reads, writes = os.pipe()
    os.close(reads)
    return writes


def study_in(folder: Path) -> Path:
    crossed(folder, {("bn", 0.0): 0.95, ("ln", 0.0): 0.97}, seeds=3)
    return folder


# The table at the end


def ended(job: Job, test_acc: float) -> Record:
    metrics, took = {"test_acc": test_acc, "test_ce": 0.5}, {"fit_s": 10.0, "images_per_s": 1000.0}
    return Record.of(job.settings, "completed", data={"name": "digits"}, metrics=metrics, time=took)


def shown(jobs: list[Job], records: list[Record | None], capsys: pytest.CaptureFixture[str]) -> list[str]:
    show(jobs, records, 0, sweep=len(jobs) > 1)
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.strip()]


def test_settings_are_summed_up_over_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = plan(["norm=bn,ln", "l1=0,0.1", "seed=0,1", "data=digits", "name=a"], multirun=True)
    records: list[Record | None] = [ended(job, acc) for job, acc in zip(jobs, [0.97, 0.99] * 4, strict=True)]
    records[-1] = replace(records[-2], status="failed", error="no memory")  # type: ignore[type-var]
    records[2] = None
    lines = shown(jobs, records, capsys)
    assert lines[:2] == ["Accuracy on digits", "setting n train % val % test % test ce seconds"]
    assert lines[2] == "bn l1=0 2 – – 98.00 ± 1.41 0.5000 ± 0.0000 10.0"
    assert lines[3] == "bn l1=0.1 1 – – 99.00 0.5000 10.0"
    assert lines[5] == "ln l1=0.1 1 – – 97.00 0.5000 10.0"
    assert lines[6:8] == ["ln l1=0.1 seed=1 failed: no memory", "8 runs: 6 completed, 1 failed, 1 no result"]
    assert lines[-3:] == [
        "Files: lightning_logs/a",
        "TensorBoard: tensorboard --logdir lightning_logs/a",
        "Report: python -m normlab.report lightning_logs/a",
    ]


def test_runs_of_one_seed_have_a_row_each(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = plan(["norm=bn,ln", "data=digits", "name=a"], multirun=True)
    lines = shown(jobs, [ended(job, 0.5) for job in jobs], capsys)
    assert lines[2:4] == [f"{norm} completed – – 50.00 0.5000 10.0 1,000" for norm in ("bn", "ln")]


# What is printed, and where nobody reads it


def test_training_goes_on_without_a_reader(tmp_path: Path) -> None:
    """As in `2>&1 | head -1`; also by a backend that is not there, and into a folder with a colon in its name."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    pipe = left()
    words = ["-m", "normlab.train", *TINY, "log_dir=a:b"]
    new_python(*words, cwd=tmp_path, stdout=pipe, stderr=pipe, MPLBACKEND="no such backend", exit_code=0)
    os.close(pipe)
    [folder] = [file.parent for file in tmp_path.glob("a:b/runs/*/result.json")]
    assert Record.load(folder).status == "completed"
    assert "could not be drawn" not in (folder / "train.log").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
@pytest.mark.parametrize("words", [["normlab.train", *TINY], ["normlab.calculate", "--norm", "ln"]], ids=" ".join)
def test_a_full_device_is_one_line(tmp_path: Path, words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        result = new_python("-m", *words, cwd=tmp_path, stdout=full, exit_code=1)
    assert result.stderr.splitlines()[-1] == "normlab: what was printed is lost (No space left on device)"
    assert "Traceback" not in result.stderr
    statuses = [json.loads(file.read_text())["status"] for file in tmp_path.rglob("result.json")]
    assert statuses == ["completed"] * (words[0] == "normlab.train")


@pytest.mark.usefixtures("undrawn")
def test_run_goes_on_without_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: Settings) -> None:
    """From Python too, where no command line has prepared the process."""
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
            result = new_python("-m", *words, cwd=tmp_path, stdout=pipe)
            os.close(pipe)
        assert (result.returncode, result.stderr) == (0, ""), words


@pytest.mark.parametrize(
    ("backend", "kept"), [("module://no_such_package.backend", None), ("module://rich.console", ...), ("pdf", ...)]
)
def test_a_notebook_names_a_backend_that_is_not_here(tmp_path: Path, backend: str, kept: object) -> None:
    code = "import normlab, os; print(os.environ.get('MPLBACKEND'))"
    told = new_python("-c", code, cwd=tmp_path, MPLBACKEND=backend).stdout.strip()
    assert told == (backend if kept is ... else "None")


RC = {"text.usetex": True, "font.size": 30.0, "savefig.dpi": 20, "axes.grid": True, "figure.facecolor": "red"}


def by_run(folder: Path) -> dict[str, bytes]:
    assert run(load(*TINY, "epochs=2"), folder).status == "completed"
    assert "WARNING" not in (folder / "train.log").read_text()
    events = EventAccumulator(str(folder), {"images": 0})
    events.Reload()
    found = ((tag, image) for tag in events.Tags()["images"] for image in events.Images(tag))
    return {f"{tag} {image.step}": image.encoded_image_string for tag, image in found}


def by_report(folder: Path) -> dict[str, bytes]:
    report(study_in(folder / "study"), out=folder / "out")
    return {file.name: file.read_bytes() for file in (folder / "out" / "figures").iterdir()}


def by_calculation(folder: Path) -> dict[str, bytes]:
    assert calculate(["--norm", "bn,gn", "--out", str(folder), "--shape", "2,2,2,2"]) == 0
    return {file.name: file.read_bytes() for file in folder.glob("*.[ps][nv]g")}


@pytest.mark.parametrize("draw", [by_run, by_report, by_calculation], ids=lambda draw: draw.__name__)
def test_pictures_do_not_depend_on_a_matplotlibrc(tmp_path: Path, draw: Callable[[Path], dict[str, bytes]]) -> None:
    usual = draw(tmp_path / "usual")
    with matplotlib.rc_context(RC):
        own = draw(tmp_path / "own")
        assert matplotlib.rcParams["text.usetex"]
    assert len(usual) > 3
    assert own == usual


def test_a_picture_that_cannot_be_drawn_fails_no_run(tmp_path: Path, monkeypatch, quick: Settings) -> None:
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
    ("given", "expected"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")]
)
def test_how_long_a_waiting_thread_keeps_its_core(tmp_path: Path, monkeypatch, given, expected: str) -> None:
    """Set for commands, before torch is there, unless the user has set it. The speed: benchmarks/beside.py."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):  # a test before may have called `command` in this process
        monkeypatch.delenv(name, raising=False)
    told = 'print(os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules)'
    script = f"import os, sys; from normlab.output import command; command(lambda _: {told} or 0)"
    assert new_python("-c", script, cwd=tmp_path, **given).stdout == f"{expected} False\n"


# The process of a call


LOGGERS = [*map(logging.getLogger, ("", "normlab", "lightning.pytorch", "lightning.fabric", "py.warnings"))]
STATES: dict[str, Callable[[], Any]] = {
    "threads": torch.get_num_threads,
    "default type": torch.get_default_dtype,
    "products of float32": torch.get_float32_matmul_precision,
    "cudnn": lambda: (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark),
    "deterministic": torch.get_deterministic_debug_mode,
    "filled memory": lambda: torch.utils.deterministic.fill_uninitialized_memory,
    "torch's stream": lambda: torch.get_rng_state().tolist(),
    "numpy's stream": lambda: [str(part) for part in np.random.get_state()],  # noqa: NPY002
    "Python's stream": random.getstate,
    "environment": lambda: dict(os.environ),
    "signals": lambda: {number: signal.getsignal(number) for number in signal.valid_signals()},
    "hooks": lambda: (sys.excepthook, threading.excepthook, sys.unraisablehook),
    "loggers": lambda: [(log.handlers[:], log.level, log.propagate, log.filters[:]) for log in LOGGERS],
    "warnings": lambda: (warnings.filters[:], warnings.showwarning),
    "output": lambda: (sys.stdout, sys.stderr, sys.argv[:], Path.cwd()),
    "threads that run": lambda: {thread.name for thread in threading.enumerate()},
    "memory": lambda: asked_of_glibc.count("mallopt"),
}
asked_of_glibc: list[str] = []


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process with settings of its own, none of them those of a run."""

    class Library(ctypes.CDLL):
        def __getattr__(self, name: str) -> Any:
            asked_of_glibc.append(name)
            return super().__getattr__(name)

    monkeypatch.setattr(ctypes, "CDLL", Library)
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True, warn_only=True)
    logging.captureWarnings(True)
    handler = signal.signal(signal.SIGTERM, lambda *_: None)
    random.seed(1)
    yield
    signal.signal(signal.SIGTERM, handler)
    logging.captureWarnings(False)
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(1)


@pytest.mark.usefixtures("undrawn", "host")
@pytest.mark.parametrize("call", ["run", "stopped", "run_array", "probe_checkpoint"])
def test_a_call_leaves_its_process_as_it_was(call: str, tmp_path: Path, finished: tuple[Path, Any]) -> None:
    settings = load(*TINY, "dropout=0.1")
    asked_of_glibc.clear()
    before = {name: state() for name, state in STATES.items()}
    if call == "run":
        run(settings, tmp_path)
    elif call == "stopped":
        with stopped(1, Speed, "on_train_batch_end"):
            run(settings, tmp_path)
    elif call == "run_array":
        run_array([load(*TINY, f"seed={seed}", "dropout=0.1") for seed in (0, 1)], [tmp_path / "0", tmp_path / "1"])
    else:
        for name in ("result.json", "last.ckpt"):
            (tmp_path / name).write_bytes((finished[0] / name).read_bytes())
        probe_checkpoint(tmp_path, ["landscape"])
    for name, state in STATES.items():
        assert state() == before[name], name


SCRIPT = """
import sys, threading
from normlab.errors import NormlabError
from normlab.settings.plan import load
from normlab.training import run

print("script")
def main():
    try:
        print(run(load(*sys.argv[2:]), sys.argv[1]).status)
    except NormlabError as error:
        print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "told"),
    [
        ("main()", 'ConfigError: devices=2: every process imports {script}, which must not train then: put what it '
         'does below if __name__ == "__main__":'),
        ('if __name__ == "__main__":\n    thread = threading.Thread(target=main); thread.start(); thread.join()',
         "completed"),
    ],
    ids=["unguarded", "in a thread"],
)  # fmt: skip
def test_two_devices_from_a_script(tmp_path: Path, form: str, told: str) -> None:
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT + form)
    result = new_python(script, tmp_path / "run", *TINY, "devices=2", cwd=tmp_path)
    assert result.stdout.splitlines()[-1] == told.format(script=script), result.stderr
    assert "Traceback" not in result.stderr
    if form == "main()":
        assert result.stderr == ""
        assert not (tmp_path / "run" / "result.json").exists()


def test_the_console_script_finds_a_layer_in_the_folder_as_python_m_does(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("x = 1\n")
    script = Path(sys.executable).with_name("normlab")
    for command in ([str(script), "train"], [sys.executable, "-m", "normlab.train"]):
        words = [*command, "norm=custom", "norm.target=mine:Layer", "data=digits"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr == "normlab: norm.target=mine:Layer: mine has no Layer; its classes: none\n"
