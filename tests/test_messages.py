"""Slips of the hand: one line that says what was meant, before anything is written; and Hydra's own spellings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from normlab.settings.plan import Job, label, labels, plan
from normlab.train import main

SHORT = ["data=digits", "epochs=1", "train_size=50"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "typed_layers.py").write_text("class Layer: ...")
    (tmp_path / "broken.py").write_text("class Layer(:")
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["norm=lnn"], "norm=lnn: did you mean ln?"),
        (["norm=LN"], "norm=LN: did you mean ln?"),
        (["-m", "norm=bn,LN", "data=digits"], "norm=LN: did you mean ln?"),
        (["norm=batch"], "norm=batch: did you mean bn?"),
        (["norm=sparse"], "norm=sparse: choose one of bcn, bin, bn,"),
        (["norm=bn,ln"], "norm=bn,ln: several values need -m (python -m normlab.train -m …)"),
        (["norm"], "norm: choose one of bcn, bin, bn,"),
        (["optimizer=adam"], "optimizer=adam: did you mean adamw?"),
        (["data=MNIST"], "data=MNIST: did you mean mnist?"),
        (["study=replicaton"], "study=replicaton: did you mean replication?"),
        (["norm", "=", "ln"], "norm = ln: write norm=ln, without blanks"),
        (["norm=custom"], "norm=custom needs norm.target=package.module:Class"),
        (["norm=custom", "norm.target=mine.py:RMS"], "norm.target=mine.py:RMS: did you mean norm.target=mine:RMS?"),
        (
            ["norm=custom", "norm.target=my/own.py:RMS"],
            "norm.target=my/own.py:RMS: did you mean norm.target=my.own:RMS?",
        ),
        (["norm=custom", "norm.target=mine.RMS"], "norm.target=mine.RMS: did you mean norm.target=mine:RMS?"),
        (["norm=custom", "norm.target=RMS"], "norm.target=RMS: write norm.target=package.module:Class"),
        (["norm.target=mine:RMS"], "norm.target goes with norm=custom: add norm=custom, or leave norm.target out"),
        (["-m", "norm=bn,ln", "norm.target=mine:RMS"], "norm.target=mine:RMS goes with norm=custom: add custom to"),
        (
            ["norm=custom", "norm.target=a:B", "norm.options={eps:", "1e-3}", *SHORT],
            "norm.options={eps:: the shell split this at a blank: quote it, as in 'norm.options={eps: 1e-3}'",
        ),
        (["probes=[layers,", "shift]"], "probes=[layers,: the shell split this at a blank: quote it, as in 'probes="),
        (["data=digits", "val_size=5000"], "val_size=5000 leaves none of 1297 training images of digits"),
        (["-m", "data=digits", "val_size=10,5000"], "val_size=5000 leaves none of 1297 training images of digits"),
        (["data=digits", "train_size=1290"], "train_size=1290: only 1168 training images of digits are not held out"),
        (["name=a/b"], "name=a/b: a folder's name, without / or \\, and no dot at its end"),
        (
            ["hydra/launcher=array", *SHORT],
            "hydra/launcher=array is for several runs: add -m and values, as in -m seed",
        ),
        (["-m", "hydra/launcher=arry", "seed=0,1"], "hydra/launcher=arry: did you mean array?"),
        (["hydra/launcher=aray"], "hydra/launcher=aray: did you mean array?"),
        (["-m", "norm=bn,", "ln"], "norm=bn, ln: write norm=bn,ln, without blanks"),
        (["norm=", "ln"], "norm= ln: write norm=ln, without blanks"),
        (["-m", "hydra/sweeper=optuna", "seed=0"], "hydra/sweeper=optuna: values are crossed as by Hydra's basic"),
        (["-m", "hydra.sweeper.params=3", "seed=0,1"], "Hydra cannot do this (Error merging override"),
        (["hydra.mode=MULTIRUM"], "hydra.mode=MULTIRUM: did you mean MULTIRUN?"),
        (
            ["norm=custom", "norm.target=/x/mine.py:RMS"],
            "norm.target=/x/mine.py:RMS: write norm.target=mine:RMS, and start the command in /x",
        ),
        (["norm=lnn", "--cfg", "job"], "norm=lnn: did you mean ln?"),
        (["-m", "norm=bn,ln", "--cfg", "job"], "--cfg shows the configuration of one run: leave -m out"),
        (["--cfg", "job", "--package", "nrm"], "--package nrm: there is no such part; choose one of seed, l1,"),
        (["-m", "seed=range(0,0)"], "seed=range(0,0): holds no value, so there is nothing to run"),
        (["--config-name=other"], "--config-name: settings stand in conf/ and on the command line alone"),
        (["--config-dir=."], "--config-dir: settings stand in conf/ and on the command line alone"),
        (["--epochs", "3"], "unrecognized arguments: --epochs: settings are written name=value, and --help shows them"),
        (["devices=2", "sync_batchnorm=false", "probes=[shift]"], "devices=2: probes=[shift] needs a network on one"),
        (["-m", "devices=1,2"], "devices=2: the runs of a sweep share the machine, each on one device; leave devices"),
        (["study=groups_quick", "devices=2"], "devices=2: the runs of a sweep share the machine, each on one device"),
        (["-m", "data=auto,digits"], "data=auto goes with no other data set in one sweep: name the sets"),
        (["log_dir=typed_layers.py"], "typed_layers.py/runs/bn-digits-seed_0: nothing can be written there"),
        (["log_dir=gs://bucket/logs"], "log_dir=gs://bucket/logs: runs are written to a folder of this machine"),
        (
            ["norm=custom", "norm.target=nowhere:Layer"],
            "norm.target=nowhere:Layer: there is no module nowhere here; wr",
        ),
        (["norm=custom", "norm.target=typed_layers:Layr"], "norm.target=typed_layers:Layr: typed_layers has no Layr; "),
        (["-m", "norm=bn,ln", "norm.options={start: 2}"], "norm.options={start: 2} goes with norm=custom: add custom"),
        (["-m", "seed=0,1", "norm.target=mine:RMS"], "norm.target=mine:RMS goes with norm=custom: add custom to"),
        (["study=replication", "norm.target=mine:RMS"], "norm.target=mine:RMS goes with norm=custom: add custom to"),
        (["-m", "norm=bn,custom"], "norm=custom needs norm.target=package.module:Class"),
        (["study=custom_layer"], "norm=custom needs norm.target=package.module:Class"),
        (["-m", "norm=bn,custom", "norm.target=a:B", "norm.eps=1"], "norm.eps is no setting here; "),
        (["-m", "norm=bn,custom", "norm.target=a:B,a:B"], "two runs of this sweep would share "),
        (["-m", "seed=0,0"], "two runs of this sweep would share "),
        (["-m", "l1=0,-1"], "l1=-1: must be greater than or equal to 0"),
        (["-m", "augment=0,1"], "augment=0: write true or false"),
        (["-m", "norm=glob(*)"], "norm=custom needs norm.target=package.module:Class"),
        (["-m", "seed=choice(0,1),2"], "seed=choice(0,1),2: "),
        (["study=../replication"], "study=../replication: did you mean replication?"),
        (["study=replication,replication_quick"], "study=replication,replication_quick: one study at a time"),
        (["study="], "study=: choose one of batch_size, "),
        (
            ["study=replication", "study.margin=0.5"],
            "study.margin=0.5: a study's question and claims stand in its file",
        ),
        (["-m", "seed=0,1", "hydra.launcher.n_jobs=1"], "hydra.launcher.n_jobs=1: hydra/launcher=basic has no options"),
        (["until=decided"], "until=decided goes with a study or a sweep: it gives seeds to several settings"),
        (
            ["study=replication_quick", "until=decided", "max_seeds=1"],
            "max_seeds=1: must be greater than or equal to 2",
        ),
        (["study=replication_quick", "until=soon"], "until=soon: must be 'decided'"),
        (["norm=custom", "norm.target=broken:Layer"], "norm.target=broken:Layer: broken.py cannot be read as Python"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_line_says_what_was_meant(
    here: Path, capsys: pytest.CaptureFixture[str], typed: list[str], line: str
) -> None:
    assert main([*typed, *["data=digits"] * (not any("data" in word.lower() for word in typed))]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"normlab: {line}")
    assert error.count("\n") == 1
    assert {file.name for file in here.iterdir()} <= {"typed_layers.py", "broken.py", "__pycache__"}


def planned(*typed: str) -> list[Job]:
    return plan([*typed, "data=digits"], multirun=True)


def test_a_sweep_without_a_name_has_a_folder_of_its_own() -> None:
    """Named by what varies; the same for the same values, however they are ordered, and wherever it runs."""
    [folder] = {job.folder.parent for job in planned("norm=bn,ln", "seed=0,1")}
    assert folder.parent == Path("lightning_logs")
    assert folder.name.startswith("norm-seed-")
    again = planned("seed=0,1", "threads=1", "hydra/launcher=processes", "norm=bn,ln", "force=true")
    assert {job.folder.parent for job in again} == {folder}
    assert planned("norm=bn,ln", "seed=0,1,2")[0].folder.parent != folder
    assert planned("norm=bn,ln", "seed=0,1", "lr=0.2")[0].folder.parent != folder
    assert planned("norm=bn,ln", "name=mine")[0].folder.parent == Path("lightning_logs/mine")
    assert planned("norm=bn,ln", "hydra.sweep.dir=there")[0].folder == Path("there/sweep/bn-digits-seed_0")


@pytest.mark.parametrize(
    ("typed", "folders"),
    [
        (["hydra.sweep.subdir=${hydra.job.num}", "seed=5,6"], ["lightning_logs/0", "lightning_logs/1"]),
        (["hydra.sweep.subdir=${hydra.job.override_dirname}", "seed=5,6"], ["seed=5", "seed=6"]),
        (["hydra.sweeper.params.seed=5,6", "name=a"], ["a/bn-digits-seed_5", "a/bn-digits-seed_6"]),
        (["norm=glob(b*,exclude=b?n)", "name=a"], ["a/bn-digits-seed_0"]),
        (["log_dir=~/x", "seed=5", "name=a"], [os.path.expanduser("~/x/a/bn-digits-seed_5")]),
        (["study=null", "seed=5,6", "name=a"], ["a/bn-digits-seed_5", "a/bn-digits-seed_6"]),
    ],
)
def test_sweeps_in_hydras_words(typed: list[str], folders: list[str]) -> None:
    assert [str(job.folder)[-len(end) :] for job, end in zip(planned(*typed), folders, strict=True)] == folders


def test_a_sweep_by_its_mode(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hydra.mode=MULTIRUN", "norm=bn,ln", *SHORT, "hydra.sweep.dir=there"]) == 0
    shown = capsys.readouterr().out
    assert len(list((here / "there").rglob("result.json"))) == 2
    assert "\nTensorBoard: tensorboard --logdir there/sweep\n" in shown
    assert "\nReport:      python -m normlab.report there/sweep\n" in shown


def test_the_last_lines_name_the_folder_that_was_used(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "hydra.run.dir=there"]) == 0
    assert (here / "there/result.json").is_file()
    assert capsys.readouterr().out.endswith("Files:       there\nTensorBoard: tensorboard --logdir there\n")


def test_settings_are_loaded_inside_another_hydra_application(here: Path) -> None:
    (here / "app.py").write_text(
        """
import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

@hydra.main(version_base=None, config_path=None)
def main(config):
    from normlab.settings.plan import load, plan
    print(load("norm=ln").norm.name, len(plan(["norm=bn,ln"], multirun=True)))
    print(HydraConfig.get().job.name, GlobalHydra.instance().is_initialized())

main()
"""
    )
    result = subprocess.run([sys.executable, "app.py"], capture_output=True, text=True, check=False)
    assert result.stdout == "ln 2\napp True\n", result.stderr


def test_a_run_is_called_by_what_varies() -> None:
    jobs = planned("norm=bn,gn", "norm.eps=1e-5,1e-3", "epochs=3", "seed=0,1")
    assert [label(each) for each in labels(jobs)][:3] == [
        "bn norm.eps=1e-05 seed=0",
        "bn norm.eps=1e-05 seed=1",
        "bn norm.eps=0.001 seed=0",
    ]
    assert [label(each) for each in labels(planned("epochs=3"))] == ["bn"]
    jobs = planned("norm=gn", "norm.num_groups=1,2")
    assert labels(jobs) == [{"norm.num_groups": "1"}, {"norm.num_groups": "2"}]
