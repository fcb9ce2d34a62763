"""The command line as a user meets it: in a process of its own, from a folder of its own. Most of these processes are
forks of one that has imported what they need (warm.py); `in_new_process` says which are not."""

import functools
import os
import re
import signal
import subprocess
import sys
import textwrap
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


def refused(result: subprocess.CompletedProcess[str]) -> str:
    """The one line that a wrong command line gets."""
    assert result.returncode == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("normlab: ")
    return lines[0]


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

    written = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    began = time.perf_counter()
    again = in_new_process(*ask, cwd=tmp_path)
    assert again.returncode == 0
    assert "skipped" in again.stdout
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == written
    assert time.perf_counter() - began < 10, "a finished run is answered without importing torch"


def test_a_sweep_leaves_a_folder_a_run_and_skips_what_is_done(train: Command, tmp_path: Path) -> None:
    ask = ["-m", "norm=bn,ln", "l1=0,1e-3", "data=digits", "epochs=1", "threads=1", "name=sweep"]
    result = train(*ask)
    assert result.returncode == 0, result.stderr
    folders = sorted(file.parent for file in (tmp_path / "lightning_logs/sweep").rglob("result.json"))
    assert [folder.name for folder in folders] == [
        f"{norm}-digits{l1}-epochs_1-seed_0" for norm in ("bn", "ln") for l1 in ("", "-l1_0.001")
    ]
    assert {Record.load(folder).status for folder in folders} == {"completed"}
    assert "4 runs: 4 completed" in result.stdout
    again = train(*ask)
    assert again.returncode == 0
    assert "(4 finished before, skipped)" in again.stdout
    more = train("-m", "norm=bn", "seed=0,1", *ask[3:])
    assert "2 runs: 2 completed (1 finished before, skipped)" in more.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_stops_its_own_runs_only(train: Command, tmp_path: Path) -> None:
    result = train("-m", "norm=gn", "accelerator=gpu,cpu", "data=digits", "epochs=1", "threads=1")
    assert result.returncode == 1
    assert "2 runs: 1 completed, 1 unavailable" in result.stdout
    assert "finds no GPU" in result.stdout
    statuses = {f.parent.name: Record.load(f.parent).status for f in tmp_path.rglob("result.json")}
    assert statuses == {
        "gn-digits-epochs_1-accelerator_gpu-seed_0": "unavailable",
        "gn-digits-epochs_1-seed_0": "completed",
    }


def test_a_run_that_fails_does_not_stop_the_others(train: Command, tmp_path: Path) -> None:
    """A layer that does well when it is tried, on few images, and not in training."""
    layer = """
        from torch import nn

        class Late(nn.GroupNorm):
            def __init__(self, num_channels):
                super().__init__(1, num_channels)

            def forward(self, x):
                if len(x) > 8:
                    raise RuntimeError("too many images")
                return super().forward(x)
    """
    (tmp_path / "late.py").write_text(textwrap.dedent(layer))
    result = train("-m", "norm=custom,gn", "norm.target=late:Late", "data=digits", "epochs=1", "threads=1")
    assert result.returncode == 1
    assert "2 runs: 1 completed, 1 failed" in result.stdout
    assert "custom norm.target=late:Late failed: RuntimeError: too many images" in result.stdout
    assert "Traceback" not in result.stderr


def test_a_missing_data_set_does_not_stop_runs_on_another(train: Command, tmp_path: Path) -> None:
    result = train("-m", "data=kmnist,digits", "data.download=false", "epochs=1", "threads=1")
    assert result.returncode == 1
    assert "2 runs: 1 completed, 1 failed" in result.stdout


def test_auto_without_mnist_says_digits_everywhere(train: Command, tmp_path: Path) -> None:
    result = train("epochs=1", "threads=1", "data.download=false")
    assert result.returncode == 0, result.stderr
    assert "digits" in result.stderr.splitlines()[0]
    record = Record.load(tmp_path / "lightning_logs/runs/bn-digits-epochs_1-seed_0")
    assert record.data["name"] == record.config["data"]["name"] == "digits"


def test_a_strict_data_set_that_is_missing_names_files_and_the_way_out(train: Command, tmp_path: Path) -> None:
    result = train("data=mnist", "data.download=false", "threads=1")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    for word in ("data=digits", "train-images-idx3-ubyte.gz", "data.root"):
        assert word in result.stderr
    assert not (tmp_path / "lightning_logs").exists()


def test_a_folder_with_another_configuration_is_refused_and_left_alone(train: Command, tmp_path: Path) -> None:
    assert train("data=digits", "epochs=1", "threads=1").returncode == 0
    folder = tmp_path / "lightning_logs/runs/bn-digits-epochs_1-seed_0"
    text = (folder / "result.json").read_text()
    (folder / "result.json").write_text(text.replace(Record.load(folder).config_hash, "0" * 12))
    written = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert "another configuration" in refused(train("data=digits", "epochs=1", "threads=1"))
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == written


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


def test_help_shows_every_setting_with_its_meaning(train: Command) -> None:
    from normlab.settings import Settings

    result = train("--help", "all")
    assert result.returncode == 0
    for name in Settings.model_fields:
        assert re.search(rf"^  {name}[.:]", result.stdout, re.MULTILINE), name
    for word in ("norm.num_groups: 2", "norm.momentum: 0.1", "data.root: null", "norm.target: null", "Nesterov"):
        assert word in result.stdout
