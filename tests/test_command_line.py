"""The command line as a user meets it: in a process of its own, from a folder of its own. Most of these processes are
forks of one that has imported what they need (warm.py); `in_new_process` says which are not."""

import functools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from warm import python_m

from normlab.record import Record

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `python -m normlab.train …` in an empty folder, offline."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("NORMLAB_DATA", raising=False)

    return functools.partial(python_m, "normlab.train", cwd=tmp_path)


def in_new_process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "normlab.train", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def test_one_run_from_an_empty_folder(train: Command, tmp_path: Path) -> None:
    ask = ["norm=ln", "data=digits", "epochs=1", "threads=1"]
    result = in_new_process(*ask, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "lightning_logs/runs/ln-digits-epochs_1-seed_0"
    record = Record.load(folder)
    assert record.status == "completed"
    assert {".hydra", "train.log", "result.json"} <= {file.name for file in folder.iterdir()}
    for shown in ("digits", f"{100 * record.metrics['test_acc']:.2f}", "lightning_logs/runs/ln-digits-epochs_1-seed_0",
                  "tensorboard --logdir lightning_logs"):  # fmt: skip
        assert shown in result.stdout
    assert "epoch 1/1" in result.stderr

    def written() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in folder.rglob("*")}

    before = written()
    began = time.perf_counter()
    again = in_new_process(*ask, cwd=tmp_path)
    assert again.returncode == 0
    assert "skipped" in again.stdout
    assert written() == before
    assert time.perf_counter() - began < 10, "a finished run is answered without importing torch"

    text = (folder / "result.json").read_text()
    (folder / "result.json").write_text(text.replace(record.config_hash, "0" * 12))
    before = written()
    result = train(*ask)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"normlab: .* another configuration.*\n", result.stderr)
    assert written() == before, "another configuration's result is left alone"


LATE = """
from torch import nn

class Late(nn.GroupNorm):
    def __init__(self, num_channels):
        super().__init__(1, num_channels)

    def forward(self, x):
        if len(x) > 8:  # not where it is tried out, on few images
            raise RuntimeError("too many images")
        return super().forward(x)
"""
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.mark.parametrize(
    ("words", "status", "told", "code"),
    [
        ("norm=custom,gn norm.target=late:Late", "failed", "late:Late failed: RuntimeError: too many images", 1),
        ("data=kmnist,digits data.download=false", "failed", "failed: Kuzushiji-MNIST ", 1),
        ("lr=0.1,1e30 gradient_clip=null schedule=constant", "diverged", "diverged: the ", 0),
        pytest.param("accelerator=gpu,cpu", "unavailable", "finds no GPU", 1, marks=NO_GPU),
    ],
    ids=["layer", "data", "diverges", "device"],
)
def test_a_run_that_does_not_complete_stops_no_other(
    train: Command, tmp_path: Path, words: str, status: str, told: str, code: int
) -> None:
    """A divergence is a result in a comparison, and so no failure of the command."""
    (tmp_path / "late.py").write_text(LATE)
    usual = ["data=digits", "epochs=1", "train_size=256", "threads=1", "accelerator=cpu"]
    result = train("-m", *usual, *words.split())
    assert result.returncode == code
    assert f"2 runs: 1 completed, 1 {status}" in result.stdout
    assert told in result.stdout
    assert "Traceback" not in result.stdout + result.stderr
    found = [Record.load(file.parent).status for file in tmp_path.rglob("result.json")]
    assert sorted(found) == ["completed", status]


def test_auto_without_mnist_says_digits_everywhere(train: Command, tmp_path: Path) -> None:
    result = train("epochs=1", "train_size=256", "threads=1", "data.download=false")
    assert result.returncode == 0, result.stderr
    assert "digits" in result.stderr.splitlines()[0]
    record = Record.load(tmp_path / "lightning_logs/runs/bn-digits-epochs_1-train_size_256-seed_0")
    assert record.data["name"] == record.config["data"]["name"] == "digits"


TWO = "hydra/launcher=processes hydra.launcher.n_jobs=2"
SIGNALS = [(number, sweep) for number in (signal.SIGINT, signal.SIGTERM) for sweep in ("", "-m seed=0,1")]
SIGNALS += [(signal.SIGTERM, "devices=2 accelerator=cpu"), (signal.SIGINT, f"-m seed=0,1 {TWO}")]


@pytest.mark.parametrize(("number", "words"), SIGNALS)
def test_a_signal_ends_the_command_and_is_recorded(train: Command, tmp_path: Path, number: int, words: str) -> None:
    number_of_runs = 2 if "processes" in words else 1

    def after_an_epoch(process: int) -> None:
        deadline = time.monotonic() + 180
        while len(list(tmp_path.rglob("metrics.csv"))) < number_of_runs and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(process, number)

    result = train("data=digits", "epochs=500", "threads=1", *words.split(), meanwhile=after_an_epoch)
    assert result.returncode == 130
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("normlab: stopped")
    statuses = [Record.load(file.parent).status for file in tmp_path.rglob("result.json")]
    assert statuses == ["interrupted"] * number_of_runs
    logs = [file.read_text(encoding="utf-8") for file in tmp_path.rglob("progress.log")]
    assert ["stopped with 0/2 runs done" in log for log in logs] == [True] * ("-m" in words)
