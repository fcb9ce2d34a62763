"""`hydra/launcher=array` from the command line: what is grouped, what is not, and what it says of it."""

import os
import subprocess
from pathlib import Path

import pytest
from warm import python_m

from normlab.errors import ConfigError
from normlab.record import Record
from normlab.scheduler.options import options
from normlab.settings.plan import load
from normlab.train import main
from normlab.training.build import unfoldable

REPOSITORY = Path(__file__).resolve().parents[1]

LAYERS = '''
"""Layers of a user's own."""
import inspect
import os
import torch
from torch import nn


class Fits(nn.Module):
    def __init__(self, num_channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels, 1, 1))

    def forward(self, x):
        return self.weight * x * (x.square().mean((1, 2, 3), keepdim=True) + 1e-5).rsqrt()


class Branches(Fits):
    """Looks at its values, which torch.func does not allow."""

    def forward(self, x):
        return super().forward(x) if x.mean() > 0 else x


class Draws(Fits):
    """Random numbers of its own: beside a copy of itself it draws others."""

    def forward(self, x):
        return super().forward(x) + torch.randn_like(x)


class Remembers(Fits):
    """Keeps a value where no buffer is."""

    last = 1.0

    def forward(self, x):
        y = super().forward(x) * self.last
        self.last = self.last + 0.5
        return y


class Kills(Fits):
    """Ends the process that trains it as an array, and only that."""

    def forward(self, x):
        tried = len(x) == 4  # when an array is planned
        if os.environ.get("KILL") and not tried and any(each.function == "run_array" for each in inspect.stack(0)):
            os._exit(9)
        return super().forward(x)
'''


@pytest.fixture
def layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's, importable from here as from a command line in its folder."""
    name = f"own_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(LAYERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def sweep(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["normlab.train", "-m", "hydra/launcher=array", "data=digits", "epochs=1", "batch_size=256", *words]
    path = os.pathsep.join([str(REPOSITORY), str(folder)])
    return python_m(*command, cwd=folder, env=os.environ | {"PYTHONPATH": path} | environment, timeout=400)


def records(folder: Path) -> dict[str, Record]:
    return {file.parent.name: Record.load(file.parent) for file in folder.rglob("result.json")}


@pytest.mark.slow
def test_a_sweep_by_arrays(tmp_path: Path) -> None:
    words = ["norm=bn,gn", "l1=0,1e-3", "seed=0,1", "hydra.launcher.n_jobs=2", "threads=1"]
    done = sweep(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    found = records(tmp_path)
    assert len(found) == 8
    assert all(record.status == "completed" and record.device["array"] == 2 for record in found.values())
    folders = [file.parent for file in tmp_path.rglob("result.json")]
    assert all((folder / ".hydra/config.yaml").exists() for folder in folders), "as Hydra leaves it for a single run"
    assert "8 runs: 8 completed" in done.stdout
    diary = next(tmp_path.rglob("progress.log")).read_text()
    assert diary.count("an array of 2 runs: ") == 4
    assert "runs individually" not in diary
    again = sweep(tmp_path, *words)
    assert again.returncode == 0
    assert "(8 finished before, skipped)" in again.stdout
    report = python_m("normlab.report", str(folders[0].parent), "--no-figures", cwd=REPOSITORY)
    assert report.returncode == 0, report.stderr


@pytest.mark.slow
def test_what_cannot_be_grouped_runs_singly_and_the_log_says_why(tmp_path: Path, layers: str) -> None:
    target = f"norm.target={layers}:Fits,{layers}:Branches"
    done = sweep(tmp_path, "norm=custom", target, "seed=0,1", "hydra.launcher.n_jobs=1", "threads=1")
    assert done.returncode == 0, done.stderr
    found = records(tmp_path)
    fits = {name: record.device.get("array") for name, record in found.items() if "Fits" in name}
    branches = {name: record.device.get("array") for name, record in found.items() if "Branches" in name}
    assert list(fits.values()) == [2, 2]
    assert list(branches.values()) == [None, None]
    diary = next(tmp_path.rglob("progress.log")).read_text()
    for name in branches:
        assert f"{name} runs individually: {layers}:Branches cannot run for several networks at once" in diary


@pytest.mark.slow
def test_an_array_that_kills_its_process_loses_no_run(tmp_path: Path, layers: str) -> None:
    """Its runs are tried one by one then, as after the death of any process."""
    words = ["norm=custom", f"norm.target={layers}:Kills", "seed=0,1,2", "hydra.launcher.n_jobs=2", "threads=1"]
    done = sweep(tmp_path, *words, KILL="1")
    found = records(tmp_path)
    assert len(found) == 3, done.stderr
    assert all(record.status == "completed" and "array" not in record.device for record in found.values()), done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        ("Fits", None),
        ("Branches", "cannot run for several networks at once"),
        ("Draws", "cannot run for several networks at once"),
        ("Remembers", "gives other results in an array"),
    ],
)
def test_a_users_layer_is_tried_out(layers: str, layer: str, told: str | None) -> None:
    reason = unfoldable(load("norm=custom", f"norm.target={layers}:{layer}"))
    if told is None:
        assert reason is None
    else:
        assert reason is not None
        assert reason.startswith(f"{layers}:{layer} ")
        assert told in reason
        assert "\n" not in reason


@pytest.mark.parametrize(
    ("launcher", "word", "message"),
    [
        ("array", "n_per_array=0", "n_per_array=0: must be greater than or equal to 1"),
        ("processes", "memory_limit=-1", "memory_limit=-1: must be greater than 0"),
        ("processes", "n_jobs=two", "n_jobs=two: must be a valid integer"),
        ("array", "n_jobs=1,2", "in quotes, as in 'hydra.launcher.n_jobs=\"1,2\"'"),
        ("array", "size=3", "size is no option of hydra/launcher=array; choose one of n_jobs, "),
        ("processes", "n_job=3", "did you mean hydra.launcher.n_jobs?"),
        ("processes", "_target_=os.system", "_target_ is no option"),
        ("array_local", "timeout_min=soon", "timeout_min=soon: must be a valid integer"),
        ("array_local", "timeout_min=0", "timeout_min=0: must be greater than 0"),
        ("array_slurm", "partion=gpu", "no option of hydra/launcher=array_slurm; did you mean hydra.launcher.partit"),
        ("array_slurm", "_target_=os.system", "_target_ is no option"),
        ("submitit_slurm", "partition=gpu,long", "in quotes, as in 'hydra.launcher.partition=\"gpu,long\"'"),
        ("array_slurm", "nodes=2", "nodes is no option of hydra/launcher=array_slurm; choose one of"),
        ("array_slurm", "tasks_per_node=2", "tasks_per_node is no option of hydra/launcher=array_slurm; "),
    ],
)
def test_a_wrong_option_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    launcher: str,
    word: str,
    message: str,
) -> None:
    if "_" in launcher:
        pytest.importorskip("submitit")
    monkeypatch.chdir(tmp_path)
    assert main(["-m", f"hydra/launcher={launcher}", f"hydra.launcher.{word}", "norm=bn,gn", "data=digits"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not any(tmp_path.iterdir())


def test_options_are_checked_for_the_launchers_of_this_package_alone() -> None:
    assert options("ray", ["hydra.launcher.size=3"]) is None
    with pytest.raises(ConfigError, match="hydra/launcher=basic has no options"):
        options("basic", ["hydra.launcher.size=3"])
    chosen = options("array", ["hydra.launcher.n_jobs=8", "+hydra.launcher.memory_limit=0.5"])
    assert chosen is not None
    assert chosen.model_dump() == {"n_jobs": 8, "memory_limit": 0.5, "n_per_array": None}
    usual = options("processes", [])
    assert usual is not None
    assert usual.model_dump() == {"n_jobs": -1, "memory_limit": None, "n_per_array": 1}
