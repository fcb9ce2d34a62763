"""A sweep in which one arm is a layer of the user's own: what goes to that arm alone, and what Hydra makes of it."""

import hashlib
import os
from pathlib import Path

import pytest
from conftest import REPOSITORY
from warm import python_m

from normlab.record import Record
from normlab.settings import Norm, sweep_of
from normlab.settings.plan import load, plan
from normlab.train import main

OWN = "norm.target=mine:Scale"
MIXED = ["norm=bn,custom", OWN, "seed=0,1", "data=digits"]

LAYER = """
import torch
from torch import nn

class Scale(nn.Module):
    def __init__(self, num_channels, start=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((num_channels, 1, 1), start))
    def forward(self, x):
        return self.weight * x / (x.square().mean((1, 2, 3), keepdim=True) + 1e-5).sqrt()
"""


def test_the_layer_goes_to_its_own_arm() -> None:
    jobs = plan([*MIXED, "norm.options={start: 2.0}"], multirun=True)
    own = Norm(name="custom", target="mine:Scale", options={"start": 2.0})
    assert [(job.settings.norm, job.settings.seed) for job in jobs] == [
        (Norm(name="bn"), 0), (Norm(name="bn"), 1), (own, 0), (own, 1)
    ]  # fmt: skip
    assert len({job.folder.parent for job in jobs}) == 1
    assert len({job.folder for job in jobs}) == 4
    alone = load("norm=custom", OWN, "norm.options={start: 2.0}", "data=digits")
    assert jobs[2].settings.config_hash() == alone.config_hash(), "a run that was finished on its own is skipped"
    two = plan(["norm=bn,custom", "norm.target=mine:Scale,mine:Other", "data=digits"], multirun=True)
    assert [job.settings.norm.target for job in two] == [None, "mine:Scale", "mine:Other"]


def test_a_study_of_ones_own_layer() -> None:
    jobs = plan(["study=custom_layer", OWN, "seed=0"], multirun=False)
    assert {job.settings.norm.name: job.settings.norm.target for job in jobs} == {
        "bn": None, "ln": None, "gn": None, "custom": "mine:Scale"
    }  # fmt: skip
    assert sweep_of("custom_layer")["seed"] == "range(10)"
    (alone,) = plan(["study=custom_layer", OWN, "norm=custom", "seed=3"], multirun=False)
    assert str(alone.folder) == "lightning_logs/custom_layer/custom_mine.Scale-seed_3"
    again = plan(["study=custom_layer", "norm.target=mine:Other", "seed=0"], multirun=False)
    shared = {job.folder for job in jobs} & {job.folder for job in again}
    assert len(shared) == 3, "a second layer finds the other norms' runs standing"


@pytest.mark.slow
def test_one_command_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained, skipped the second time, refused with the way out when the layer was edited."""
    (tmp_path / "own_scale.py").write_text(LAYER)
    words = ["study=custom_layer_quick", "norm=bn,custom", "norm.target=own_scale:Scale", "seed=0"]
    words += ["norm.options={start: 0.5}", "epochs=1", "train_size=256", "hydra/launcher=basic"]
    done = python_m("normlab.train", *words, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    assert done.returncode == 0, done.stderr
    assert "normlab.report lightning_logs/custom_layer_quick\n" in done.stdout
    records = [
        Record.load(file.parent) for file in (tmp_path / "lightning_logs/custom_layer_quick").rglob("result.json")
    ]
    found = {str(record.setting["norm"]): record for record in records}
    assert {name: record.status for name, record in found.items()} == {"bn": "completed", "custom": "completed"}
    assert found["bn"].config["norm"]["target"] is None
    norm = dict(found["custom"].config["norm"])
    assert norm.pop("source") == hashlib.sha256(LAYER.encode()).hexdigest()
    assert norm == {"name": "custom", "target": "own_scale:Scale", "options": {"start": 0.5}}
    assert found["custom"].parameters == 7614 - 74

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(words) == 0
    assert "(2 finished before, skipped)" in capsys.readouterr().out
    (tmp_path / "own_scale.py").write_text(LAYER.replace("1e-5", "1e-4"))
    assert main(words) == 0, "this process has the code as it was"
    assert "norm.target=own_scale:Scale was edited since it was imported" in capsys.readouterr().err
    again = python_m("normlab.train", *words, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    assert "own_scale:Scale was edited since: choose another name=…, or norm=custom force=true" in again.stderr
