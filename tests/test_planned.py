"""Runs are done as they were planned: what they leave."""

import itertools
import os
import threading
from pathlib import Path

import pytest
from conftest import REPOSITORY
from omegaconf import OmegaConf
from warm import python_m

from normlab import train
from normlab.errors import ConfigError
from normlab.record import Record
from normlab.settings.plan import load, plan, to_run

QUICK = ["data=digits", "epochs=1", "train_size=64", "batch_size=64", "threads=1"]


@pytest.mark.usefixtures("undrawn")
def test_a_run_of_a_sweep_leaves_what_hydra_would(tmp_path: Path) -> None:
    assert train.main(["-m", "norm=ln,gn", "seed=0,1", *QUICK, f"log_dir={tmp_path}"]) == 0
    for norm, seed in itertools.product(("ln", "gn"), (0, 1)):
        (folder,) = tmp_path.glob(f"norm-seed-*/{norm}-*seed_{seed}")
        record = Record.load(folder)
        assert record.status == "completed"
        asked = load(f"norm={norm}", f"seed={seed}", *QUICK)
        assert record.config_hash == asked.config_hash()
        config = OmegaConf.load(folder / ".hydra" / "config.yaml")
        assert (config.norm.name, config.seed, config.epochs) == (norm, seed, 1)
        assert f"norm={norm}" in (folder / ".hydra" / "overrides.yaml").read_text()
        hydra = OmegaConf.load(folder / ".hydra" / "hydra.yaml").hydra
        assert Path(hydra.runtime.output_dir) == folder
        assert hydra.mode == "MULTIRUN"
        assert "INFO" in (folder / "train.log").read_text()


def test_values_that_come_to_one_setting_are_one_run() -> None:
    jobs = plan(["l1=0,1e-3", "penalty.method=subgradient,proximal", "data=digits"], multirun=True)
    assert [job.folder.name for job in jobs] == [
        "bn-digits-seed_0", "bn-digits-l1_0.001-seed_0", "bn-digits-l1_0.001-method_proximal-seed_0"
    ]  # fmt: skip
    assert len(plan(["accelerator=auto,cpu", "data=digits"], multirun=True)) == 1
    (first,) = plan(["test_curve=true,false", "data=digits"], multirun=True)
    assert first.settings.test_curve, "no weight depends on it: the first is kept"
    with pytest.raises(ConfigError, match="would share"):
        plan(["l1=0,0", "data=digits"], multirun=True)


def test_auto_is_settled_once_for_all_runs() -> None:
    asked: list[tuple[str | None, bool]] = []

    def digits(root: str | None, download: bool) -> str:
        asked.append((root, download))
        return "digits"

    jobs = plan(["norm=bn,ln", "data.download=false", "name=a"], multirun=True, data=digits)
    assert {job.settings.data.name for job in jobs} == {"digits"}
    assert all("data.name=digits" in job.words for job in jobs)
    assert set(asked) == {(None, False)}
    asked.clear()
    with pytest.raises(ConfigError, match="l1=-1"):
        plan(["l1=0,-1"], multirun=True, data=digits)
    assert not asked, "what is wrong is reported before anything is downloaded"
    named = plan(["norm=bn,ln", "data=digits", "data.download=false", "name=a"], multirun=True)
    assert [job.settings for job in named] == [job.settings for job in jobs]
    with pytest.raises(ConfigError, match="name the sets"):
        plan(["data=auto,mnist"], multirun=True, data=digits)


def test_the_configuration_of_a_run_is_what_hydra_would_give() -> None:
    jobs = plan(["norm=gn", "seed=3,4", "l1=0,0.1", "data=digits", "augment=true,false"], multirun=True)
    for number, job in enumerate(jobs):
        config = to_run(job, multirun=True)
        alone = plan([word for word in job.words if not word.startswith("hydra")], multirun=True)[0]
        assert job.settings == alone.settings
        assert list(config.hydra.overrides.task) == list(job.words)
        assert config.hydra.job.num == number


LAYER = """
import torch
from torch import nn

class Scale(nn.Module):
    def __init__(self, num_channels):
        super().__init__()
        self.weight = nn.Parameter(torch.full((num_channels, 1, 1), 1.0))
    def forward(self, x):
        {edit}
        return self.weight * x
"""
# Edits its own file while it trains, as a person would in an editor.
EDIT = "if self.training and len(x) == 64: open(__file__, 'a').write('# edited')"


@pytest.mark.slow
def test_a_layer_that_is_edited_while_it_trains_is_recorded_as_what_trained(tmp_path: Path) -> None:
    (tmp_path / "edited_layer.py").write_text(LAYER.format(edit=EDIT))
    words = ["norm=custom", "norm.target=edited_layer:Scale", "log_dir=logs", *QUICK]
    env = os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{tmp_path}"}
    done = python_m("normlab.train", *words, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    told = "norm.target=edited_layer:Scale was edited since it was imported"
    assert told in done.stderr
    (folder,) = (tmp_path / "logs" / "runs").iterdir()
    assert told in (folder / "train.log").read_text()
    before = Record.load(folder)
    (tmp_path / "edited_layer.py").write_text(LAYER.format(edit=EDIT))
    assert python_m("normlab.train", *words, cwd=tmp_path, env=env).returncode == 0, "as it was: skipped"
    assert Record.load(folder) == before
    (tmp_path / "edited_layer.py").write_text(LAYER.format(edit="pass"))
    assert python_m("normlab.train", *words, cwd=tmp_path, env=env).returncode == 2, "another question"


def test_words_for_hydra_itself_are_not_set_in_a_shared_composition() -> None:
    """Hydra makes its own part read-only when a run begins."""
    first, second = plan(["seed=0,1", "hydra.sweeper.max_batch_size=1", "hydra.verbose=true"], multirun=True)
    for job in (first, second, first):
        config = to_run(job, multirun=True)
        assert (config.seed, config.hydra.sweeper.max_batch_size) == (job.settings.seed, 1)
        OmegaConf.set_readonly(config.hydra, True)


@pytest.mark.parametrize(
    "arguments", ["--cfg job", "--cfg hydra --resolve", "--cfg all --resolve", "--cfg job -p norm"]
)
def test_a_configuration_is_shown_as_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(["norm=gn", "seed=3", "data=digits", *arguments.split()]) == 0
    shown = OmegaConf.create(capsys.readouterr().out)
    if "-p" in arguments:
        assert shown.num_groups == 2
    elif "hydra" not in arguments:
        assert shown.seed == 3
    if "job" not in arguments:
        assert shown.hydra.run.dir == "lightning_logs/runs/gn-digits-seed_3"


def test_a_command_may_run_in_any_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(train.main([*QUICK, "-m", "seed=0"])))
    thread.start()
    thread.join()
    assert codes == [0]
