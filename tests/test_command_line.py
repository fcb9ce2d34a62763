"""From a command line to planned runs, and the command as a user meets it: in a process of its own, from a folder of
its own. Most of these processes are forks of one that has imported what they need (warm.py), which are what a new
process is; those of `new_python` are none."""

import functools
import hashlib
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from omegaconf import OmegaConf
from warm import FORKS, new_python, python_m

from normlab.errors import ConfigError
from normlab.record import Record
from normlab.settings import Norm, sweep_of
from normlab.settings.plan import Job, load, plan
from normlab.train import main

QUICK = ["data=digits", "epochs=1", "train_size=64", "batch_size=64", "threads=1"]
Command = Callable[..., subprocess.CompletedProcess[str]]


def planned(*typed: str) -> list[Job]:
    return plan([*typed, "data=digits"], multirun=True)


# Folders and values


def test_a_sweep_without_a_name_has_a_folder_of_its_own() -> None:
    """Named by what varies; the same for the same values, however they are ordered, and wherever it runs."""
    [folder] = {job.folder.parent for job in planned("norm=bn,ln", "seed=0,1")}
    assert folder.parent == Path("lightning_logs")
    assert folder.name.startswith("norm-seed-")
    again = planned("seed=0,1", "threads=1", "hydra/launcher=processes", "norm=bn,ln", "force=true")
    assert {job.folder.parent for job in again} == {folder}
    assert planned("norm=bn,ln", "seed=0,1,2")[0].folder.parent != folder
    assert planned("norm=bn,ln", "seed=0,1", "lr=0.2")[0].folder.parent != folder


@pytest.mark.parametrize(
    ("typed", "folders"),
    [
        ("norm=bn,ln name=mine", ["lightning_logs/mine/bn-digits-seed_0", "lightning_logs/mine/ln-digits-seed_0"]),
        ("seed=5,6 hydra.sweep.dir=there", ["there/sweep/bn-digits-seed_5", "there/sweep/bn-digits-seed_6"]),
        ("seed=5,6 hydra.sweep.subdir=${hydra.job.num}", ["lightning_logs/0", "lightning_logs/1"]),
        ("seed=5,6 hydra.sweep.subdir=${hydra.job.override_dirname}", ["seed=5", "seed=6"]),
        ("hydra.sweeper.params.seed=5,6 name=a", ["a/bn-digits-seed_5", "a/bn-digits-seed_6"]),
        ("norm=glob(b*,exclude=b?n) name=a", ["a/bn-digits-seed_0"]),
        ("log_dir=~/x seed=5 name=a", [os.path.expanduser("~/x/a/bn-digits-seed_5")]),
        ("study=null seed=5,6 name=a", ["a/bn-digits-seed_5", "a/bn-digits-seed_6"]),
    ],
)
def test_folders_in_hydras_words(typed: str, folders: list[str]) -> None:
    jobs = planned(*typed.split())
    assert [str(job.folder)[-len(end) :] for job, end in zip(jobs, folders, strict=True)] == folders


def test_values_that_come_to_one_setting_are_one_run() -> None:
    jobs = planned("l1=0,1e-3", "penalty.method=subgradient,proximal")
    names = "bn-digits-seed_0 bn-digits-l1_0.001-seed_0 bn-digits-l1_0.001-method_proximal-seed_0"
    assert [job.folder.name for job in jobs] == names.split()
    assert len(planned("accelerator=auto,cpu")) == 1
    (first,) = planned("test_curve=true,false")
    assert first.settings.test_curve, "no weight depends on it: the first is kept"


def test_auto_is_settled_once_for_all_runs() -> None:
    asked: list[tuple[str | None, bool]] = []

    def digits(root: str | None, download: bool) -> str:
        asked.append((root, download))
        return "digits"

    jobs = plan(["norm=bn,ln", "data.download=false", "name=a"], multirun=True, data=digits)
    assert set(asked) == {(None, False)}
    both = [load(f"norm={norm}", "data=digits", "data.download=false", "name=a") for norm in ("bn", "ln")]
    assert [job.settings for job in jobs] == both
    asked.clear()
    with pytest.raises(ConfigError, match="l1=-1"):
        plan(["l1=0,-1"], multirun=True, data=digits)
    assert not asked, "what is wrong is reported before anything is downloaded"


# A sweep in which one arm is a layer of the user's own

OWN = "norm.target=mine:Scale"


def test_the_layer_goes_to_its_own_arm() -> None:
    jobs = planned("norm=bn,custom", OWN, "seed=0,1", "norm.options={start: 2.0}")
    own = Norm(name="custom", target="mine:Scale", options={"start": 2.0})
    four = [(Norm(name="bn"), 0), (Norm(name="bn"), 1), (own, 0), (own, 1)]
    assert [(job.settings.norm, job.settings.seed) for job in jobs] == four
    assert len({job.folder.parent for job in jobs}) == 1
    assert len({job.folder for job in jobs}) == 4
    alone = load("norm=custom", OWN, "norm.options={start: 2.0}", "data=digits")
    assert jobs[2].settings.config_hash() == alone.config_hash(), "a run that was finished on its own is skipped"
    two = planned("norm=bn,custom", "norm.target=mine:Scale,mine:Other")
    assert [job.settings.norm.target for job in two] == [None, "mine:Scale", "mine:Other"]


def test_a_study_of_ones_own_layer() -> None:
    jobs = plan(["study=custom_layer", OWN, "seed=0"], multirun=False)
    targets = {"bn": None, "ln": None, "gn": None, "custom": "mine:Scale"}
    assert {job.settings.norm.name: job.settings.norm.target for job in jobs} == targets
    assert sweep_of("custom_layer")["seed"] == "range(16)"
    (alone,) = plan(["study=custom_layer", OWN, "norm=custom", "seed=3"], multirun=False)
    assert str(alone.folder) == "lightning_logs/custom_layer/custom_mine.Scale-seed_3"
    again = plan(["study=custom_layer", "norm.target=mine:Other", "seed=0"], multirun=False)
    shared = {job.folder for job in jobs} & {job.folder for job in again}
    assert len(shared) == 3, "a second layer finds the other norms' runs standing"


# Done as planned


def test_a_run_of_a_sweep_leaves_what_hydra_would_and_is_done_once(tmp_path: Path, capsys, undrawn: None) -> None:
    usual = [*QUICK, f"log_dir={tmp_path}", "name=sweep"]
    assert main(["-m", "norm=ln,gn", "seed=0,1", *usual, "hydra.sweeper.max_batch_size=1"]) == 0
    assert "4 runs: 4 completed" in capsys.readouterr().out
    for number, (norm, seed) in enumerate(itertools.product(("ln", "gn"), (0, 1))):
        own = [f"norm={norm}", f"seed={seed}", *usual]
        folder = tmp_path / "sweep" / load(*own).slug()
        record = Record.load(folder)
        assert record.status == "completed"
        assert record.config_hash == load(*own).config_hash()
        config = OmegaConf.load(folder / ".hydra" / "config.yaml")
        assert (config.norm.name, config.seed, config.epochs) == (norm, seed, 1)
        assert OmegaConf.load(folder / ".hydra" / "overrides.yaml") == own
        hydra = OmegaConf.load(folder / ".hydra" / "hydra.yaml").hydra
        assert Path(hydra.runtime.output_dir) == folder
        assert (hydra.mode, hydra.job.num, hydra.sweeper.max_batch_size) == ("MULTIRUN", number, 1)
        assert "INFO" in (folder / "train.log").read_text()
    assert main(["-m", "norm=ln", "seed=0,2", *usual]) == 0
    assert "2 runs: 2 completed (1 finished before, skipped)" in capsys.readouterr().out


def test_the_last_lines_name_the_folder_that_hydras_words_gave(here: Path, capsys, undrawn: None) -> None:
    assert main(["hydra.mode=MULTIRUN", "norm=bn,ln", *QUICK, "hydra.sweep.dir=many"]) == 0
    assert len(list(Path("many").rglob("result.json"))) == 2
    shown = capsys.readouterr().out
    assert "\nTensorBoard: tensorboard --logdir many/sweep\n" in shown
    assert "\nReport:      python -m normlab.report many/sweep\n" in shown
    assert main([*QUICK, "hydra.run.dir=one"]) == 0
    assert Path("one/result.json").is_file()
    assert capsys.readouterr().out.endswith("Files:       one\nTensorBoard: tensorboard --logdir one\n")


@pytest.mark.parametrize(
    "arguments", ["--cfg job", "--cfg hydra --resolve", "--cfg all --resolve", "--cfg job -p norm"]
)
def test_a_configuration_is_shown_as_yaml(here: Path, capsys: pytest.CaptureFixture[str], arguments: str) -> None:
    assert main(["norm=gn", "seed=3", "data=digits", *arguments.split()]) == 0
    shown = OmegaConf.create(capsys.readouterr().out)
    if "-p" in arguments:
        assert shown.num_groups == 2
    elif "hydra" not in arguments:
        assert shown.seed == 3
    if "job" not in arguments:
        assert shown.hydra.run.dir == "lightning_logs/runs/gn-digits-seed_3"


def test_a_command_may_run_in_any_thread(here: Path) -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main([*QUICK, "-m", "seed=0"])))
    thread.start()
    thread.join()
    assert codes == [0]


def test_settings_are_loaded_inside_another_hydra_application(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
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
    result = new_python("app.py", cwd=tmp_path)
    assert result.stdout == "ln 2\napp True\n", result.stderr


# In a process of its own


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `python -m normlab.train …` in an empty folder, offline."""
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("NORMLAB_DATA", raising=False)

    return functools.partial(python_m, "normlab.train", cwd=tmp_path)


LAYER = """
import torch
from torch import nn

class Scale(nn.Module):
    def __init__(self, num_channels, start=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((num_channels, 1, 1), start))
    def forward(self, x):
        if self.training and len(x) == 64:  # in training: as a person would in an editor
            open(__file__, "a").write("# edited")
        return self.weight * x / (x.square().mean((1, 2, 3), keepdim=True) + 1e-5).sqrt()
"""


def test_a_layer_that_is_edited_is_another_question(train: Command, tmp_path: Path) -> None:
    """One command, one folder. Edited while it trains, the layer is recorded as what trained: with its text as it was,
    its run is skipped; with another, refused with the way out."""
    layer = tmp_path / "own_scale.py"
    layer.write_text(LAYER)
    words = ["study=custom_layer_quick", "norm=bn,custom", "norm.target=own_scale:Scale", "seed=0", *QUICK]
    words += ["norm.options={start: 0.5}", "hydra/launcher=basic"]
    done = train(*words)
    assert done.returncode == 0, done.stderr
    place = tmp_path / "lightning_logs" / "custom_layer_quick"
    assert "normlab.report lightning_logs/custom_layer_quick\n" in done.stdout
    found = {file.parent: Record.load(file.parent) for file in place.rglob("result.json")}
    assert [record.status for record in found.values()] == ["completed"] * 2
    [bn, own] = sorted(found, key=lambda folder: str(found[folder].setting["norm"]))
    assert found[bn].config["norm"]["target"] is None
    source = hashlib.sha256(LAYER.encode()).hexdigest()
    asked = {"name": "custom", "target": "own_scale:Scale", "options": {"start": 0.5}}
    assert found[own].config["norm"] == asked | {"source": source}
    assert found[own].parameters == 7614 - 74
    told = "norm.target=own_scale:Scale was edited since it was imported"
    assert told in done.stderr
    assert told in (own / "train.log").read_text()

    layer.write_text(LAYER)
    done = train(*words)
    assert (done.returncode, "(2 finished before, skipped)" in done.stdout) == (0, True)
    layer.write_text(LAYER.replace("1e-5", "1e-4"))
    done = train(*words)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "own_scale:Scale was edited since: choose another name=…, or norm=custom force=true" in done.stderr
    assert {folder: Record.load(folder) for folder in found} == found


def test_one_run_from_an_empty_folder(train: Command, tmp_path: Path) -> None:
    ask = ["norm=ln", "data=digits", "epochs=1", "threads=1"]
    result = new_python("-m", "normlab.train", *ask, cwd=tmp_path, exit_code=0)
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
    again = new_python("-m", "normlab.train", *ask, cwd=tmp_path, exit_code=0)
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


NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.mark.parametrize(
    ("words", "status", "told", "code"),
    [
        ("norm=custom,gn norm.target=layers:Late", "failed", "layers:Late failed: RuntimeError: too many images", 1),
        ("data=kmnist,digits data.download=false", "failed", "failed: Kuzushiji-MNIST ", 1),
        ("lr=0.1,1e30 gradient_clip=null schedule=constant", "diverged", "diverged: the ", 0),
        pytest.param("accelerator=gpu,cpu", "unavailable", "finds no GPU", 1, marks=NO_GPU),
    ],
    ids=["layer", "data", "diverges", "device"],
)
def test_a_run_that_does_not_complete_stops_no_other(train, tmp_path, words, status: str, told: str, code: int) -> None:
    """A divergence is a result in a comparison, and so no failure of the command."""
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


# A fork is what a new process is, its failures first of all

SCRIPTS = {
    "fails": "print('begun'); raise ValueError('the sky fell')",
    "exits": "import sys; print('lost?'); sys.exit(3)",
    "exits with a line": "raise SystemExit('normlab: no')",
    "exits well": "raise SystemExit",
    "stopped": "raise KeyboardInterrupt",
    "killed": "import os; os.kill(os.getpid(), 9)",
    "at exit": "import atexit; atexit.register(print, 'after')",
    "a thread": "import threading, time; threading.Thread(target=lambda: (time.sleep(0.2), print('after'))).start()",
    "a thread fails": "import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
    "what it is": "import sys; print(__name__, sys.argv, sys.modules['__main__'].__spec__.name, __file__)",
    "where it is": "import os, sys; print(os.getcwd(), sys.path[0], os.environ['SAID'], len(os.environ))",
    "what it may import": "import beside, further; print(beside.__file__, further.__file__)",
    "reads": "import sys; print(repr(sys.stdin.read()))",
    "a child": "import subprocess; subprocess.run(['sh', '-c', 'echo $SAID; pwd; exit 2'], check=True)",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_is_what_a_new_process_gives(tmp_path: Path, name: str) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, file in ((here, "beside"), (there, "further")):
        folder.mkdir()
        (folder / f"{file}.py").touch()
    (here / "script.py").write_text(SCRIPTS[name])
    env = os.environ | {"PYTHONPATH": str(there), "SAID": "ü"}
    words = ("script", "norm=ln", "a b")
    command = [sys.executable, "-m", *words]
    new = subprocess.run(command, cwd=here, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    got = python_m(*words, cwd=here, env=env)
    assert (got.args, got.returncode, got.stdout) == (command, new.returncode, new.stdout)
    assert got.stderr.splitlines()[-1:] == new.stderr.splitlines()[-1:]
    assert ("Traceback" in got.stderr) == ("Traceback" in new.stderr)


def test_one_command_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    """Nor do both draw the same numbers: two runs that agree agree by their seed."""
    (tmp_path / "leaves.py").write_text(
        "import os, sys, normlab; from random import random; from numpy.random import rand\n"
        "print(hasattr(normlab, 'left'), 'LEFT' in os.environ, len(sys.path) > 1, random(), rand())\n"
        "normlab.left = 1; sys.path = []; os.environ['LEFT'] = ''"
    )
    first, second = (python_m("leaves", cwd=tmp_path).stdout.split() for _ in range(2))
    assert first[:3] == second[:3] == ["False", "False", "True"]
    assert not set(first[3:]) & set(second[3:])


def test_one_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text("import time; print('begun', flush=True); time.sleep(600)")
    with pytest.raises(subprocess.TimeoutExpired) as told:
        python_m("waits", cwd=tmp_path, timeout=1)
    assert told.value.output == "begun\n" or not FORKS
    assert python_m("json.tool", "--help").returncode == 0, "and the next is answered"
