"""A sweep is seen through to its end, whatever happens to a process; and one display shows how far it is."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from filelock import FileLock
from rich.console import Console
from same_bits import same
from warm import new_python, python_m

from normlab.record import Record, Status
from normlab.scheduler import options
from normlab.scheduler.launch import planned
from normlab.scheduler.progress import SweepProgress, duration
from normlab.scheduler.schedule import Backend, Ended, Schedule
from normlab.scheduler.task import Callbacks, Task, hydra_config
from normlab.settings.plan import Job, plan


def jobs_in(folder: Path, *overrides: str) -> list[Job]:
    usual = ["data=digits", "name=sweep", "epochs=2", f"log_dir={folder}"]
    jobs = plan([*usual, *(overrides or ["seed=0,1"])], multirun=True)
    for job in jobs:
        job.folder.mkdir(parents=True, exist_ok=True)
    return jobs


def leave(job: Job, status: Status = "completed", error: str | None = None) -> None:
    """What a run leaves when it ends."""
    found = {"metrics": {"test_acc": 0.975}, "time": {"fit_s": 100.0}} if status == "completed" else {}
    Record.of(job.settings, status, error, **found).save(job.folder)


def begin(job: Job, epochs: int = 0) -> None:
    """What a run leaves when it is begun, and has come so far."""
    (job.folder / "train.log").write_text("begun")
    os.utime(job.folder / "train.log", ns=(1, time.time_ns()))
    (job.folder / "metrics.csv").write_text("epoch\n" + "1\n" * epochs)


class Made(Backend):
    """A backend in which runs do what is written, a letter for each attempt of a seed, the last one ever after: they
    complete, fail, are stopped, or come an epoch further before (e); their process dies (x); they are not begun (-)."""

    def __init__(self, *written: str, isolated: bool = False, room: int = 100) -> None:
        super().__init__()
        self.written, self.isolated, self.at_once = written, isolated, room
        self.tried = [0] * len(written)
        self.started: list[list[int]] = []  # seeds that were started together
        self.stopped = False

    def room(self) -> int:
        return self.at_once

    def start(self, tasks: Sequence[Task]) -> None:
        self.started.append([task.jobs[0].settings.seed for task in tasks])
        for task in tasks:
            [job] = task.jobs
            written, tried = self.written[job.settings.seed], self.tried[job.settings.seed]
            does = written[min(tried, len(written) - 1)]
            self.attempt(job, does)
            self.tried[job.settings.seed] += 1
            killed = "the process that trained it was killed" if does == "x" else None
            self.ends.append(Ended(task, {}, killed, bool(killed)))

    def attempt(self, job: Job, does: str) -> None:
        if does in "cf":
            leave(job, "completed" if does == "c" else "failed", None if does == "c" else "no memory")
        elif does in "se":
            begin(job, self.tried[job.settings.seed] + 1 if does == "e" else 0)
            leave(job, "interrupted", "stopped")

    def stop(self) -> None:
        self.stopped = True


def sweep(jobs: Sequence[Job], backend: Made, started_at: int = 0) -> list[str]:
    """How the runs ended."""
    callbacks = Callbacks(hydra_config(jobs[0], multirun=True))
    Schedule(jobs, backend, started_at, lambda runs, _: [Task([job], started_at, callbacks) for job in runs]).run()
    assert backend.stopped
    return [record.status if (record := Record.find(job.folder)) else "none" for job in jobs]


def log_of(jobs: Sequence[Job]) -> str:
    return (jobs[0].folder.parent / "progress.log").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("left", "now", "words", "again"),
    [
        ("failed", True, [], False), ("failed", False, [], True), ("interrupted", True, [], True),
        ("completed", False, [], False), ("completed", False, ["force=true"], True), ("damaged", False, [], True),
    ],
)  # fmt: skip
def test_what_is_done_again(tmp_path: Path, left: Any, now: bool, words: list[str], again: bool) -> None:
    """What did not complete before, or is damaged or forced; but not what failed since the command began."""
    [job] = jobs_in(tmp_path, "seed=0", *words)
    leave(job, "completed" if left == "damaged" else left)
    if left == "damaged":
        (job.folder / "result.json").write_text("{")
    if not now:
        os.utime(job.folder / "result.json", (1, 1))
    backend = Made("c")
    assert sweep([job], backend, started_at=time.time_ns() - 10**9) == ["completed" if again else left]
    assert backend.started == [[0]] * again


@pytest.mark.parametrize(("isolated", "again"), [(False, [[1], [3]]), (True, [[1, 3]])])
def test_a_run_whose_process_dies_is_tried_once_more_on_its_own(tmp_path: Path, capsys, isolated: bool, again) -> None:
    """After the others. On one machine nothing runs beside it; jobs of a cluster do not harm each other."""
    jobs, backend = jobs_in(tmp_path, "seed=0,1,2,3,4"), Made("c", "xc", "c", "x", "c", isolated=isolated)
    assert sweep(jobs, backend) == ["completed"] * 3 + ["failed", "completed"]
    assert "the process that trained it died twice: is there enough memory?" in str(Record.load(jobs[3].folder).error)
    assert backend.started == [[0, 1, 2, 3, 4], *again]
    lines = [line for line in capsys.readouterr().err.splitlines() if "was killed" in line]
    assert [line.rpartition("; ")[2] for line in lines] == ["tried once more, on its own"] * 2 + ["recorded as failed"]
    assert lines[0].startswith(f"normlab: {jobs[1].folder.name}: ")
    assert all(line.removeprefix("normlab: ") in log_of(jobs) for line in lines)


def test_a_run_that_comes_further_resumes_as_often_as_it_takes(tmp_path: Path) -> None:
    """A job's time may be over many times before a long run is done; each time there is an epoch more."""
    backend = Made("eeeec", "eeeec")
    assert sweep(jobs_in(tmp_path), backend) == ["completed", "completed"]
    assert backend.started == [[0, 1]] * 5


def test_a_run_that_is_stopped_before_it_comes_further_is_not_tried_for_ever(tmp_path: Path) -> None:
    jobs, backend = jobs_in(tmp_path, "seed=0"), Made("s")
    assert sweep(jobs, backend) == ["failed"]
    assert backend.started == [[0]] * 2
    assert "stopped twice before it completed another epoch" in str(Record.load(jobs[0].folder).error)


def test_a_backend_that_begins_nothing_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its tasks end one by one, as processes that cannot import or jobs on nodes without this package."""

    class OneByOne(Made):
        def wait(self, seconds: float) -> list[Ended]:
            ends, self.ends = self.ends[:1], self.ends[1:]
            return ends

    backend = OneByOne("-", "-", room=2)
    assert sweep(jobs_in(tmp_path), backend) == ["none", "none"]
    assert len(backend.started) <= 3
    assert "2 runs could not be started" in capsys.readouterr().err


def test_a_clock_that_goes_back(tmp_path: Path) -> None:
    """Runs that ended, by the clock, before the command began are not tried for ever."""

    class Before(Made):
        def attempt(self, job: Job, does: str) -> None:
            super().attempt(job, does)
            os.utime(job.folder / "result.json", ns=(1, 1))

    backend = Before("c", "f", "f")
    assert sweep(jobs_in(tmp_path, "seed=0,1,2"), backend, started_at=time.time_ns()) == [
        "completed",
        "failed",
        "failed",
    ]
    assert len(backend.started) == 1


@pytest.mark.parametrize("dies", [False, True])
def test_a_run_of_another_process_is_waited_for_or_taken_over(tmp_path: Path, dies: bool) -> None:
    jobs, backend = jobs_in(tmp_path), Made("c", "c")
    lock = FileLock(jobs[1].folder / ".lock", thread_local=False)  # another thread lets it go
    lock.acquire()

    def end() -> None:
        if not dies:
            leave(jobs[1])
        lock.release()

    other = threading.Timer(1.5, end)
    other.start()
    assert sweep(jobs, backend) == ["completed", "completed"]
    other.join()
    assert backend.started == [[0], *[[1]] * dies]


@pytest.mark.parametrize(
    ("machine", "words", "chosen"),
    [
        (("cpu", 16), ["seed=0,1,2", "batch_size=33"], ("processes", 3)),
        (("cpu", 2), ["seed=0,1", "batch_size=33,64"], ("processes", 2)),
        (("cpu", 2), ["seed=0,1", "batch_size=2,33"], ("array", 2)),
        (("cpu", 2), ["seed=0"], (None, 1)),
        (("gpu", 16), ["seed=0,1,2", "batch_size=64"], ("array", 1)),
    ],
)
def test_a_study_takes_every_core_and_arrays_where_they_pay(tmp_path, monkeypatch, machine, words, chosen) -> None:
    """On a GPU, arrays in one process."""
    monkeypatch.setattr(options, "cores", lambda: machine[1])
    jobs, (launcher, workers) = jobs_in(tmp_path, *words, f"accelerator={machine[0]}"), chosen
    assert options.default_launcher([], jobs) == launcher
    assert options.default_launcher(["hydra/launcher=basic"], jobs) == "basic"
    assert options.default_launcher(["hydra.launcher.n_jobs=2"], jobs[:1]) is not None, (
        "with one run left, it is still understood"
    )
    for n_jobs, expected in ((-1, workers), (2, min(2, len(jobs)))):
        found = options.launcher_options(launcher or "processes", [f"hydra.launcher.n_jobs={n_jobs}"])
        assert isinstance(found, options.Processes)
        assert found.workers(jobs) == expected


def test_one_display_and_a_log_that_can_be_read(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path, "seed=range(12)")
    console = Console(force_terminal=True, width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    log = tmp_path / "progress.log"
    with SweepProgress(jobs, 0, log, console) as progress:
        leave(jobs[0])
        for job in jobs[1:]:
            (job.folder / "metrics.csv").write_text("epoch\n1\n")
        deadline = time.monotonic() + 20
        while "1/12" not in log.read_text(encoding="utf-8") and time.monotonic() < deadline:
            time.sleep(0.1)
        progress._look()
        console.print(progress._display())
        leave(jobs[1], "failed", "no memory")
    text = console.export_text()
    assert "1/12 runs done, 11 running" in text
    assert "  seed=1  epoch 2/2" in text
    assert "and 3 more" in text
    assert "last: seed=0 completed: test 97.50 %" in text
    assert "54%" in text  # 2 + 11 of 24 epochs
    lines = log.read_text(encoding="utf-8").splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
    assert "12 runs, 0 of them finished before" in lines[0]
    assert "1/12 runs done" in lines[1]
    assert "seed=0 completed: test 97.50 % in 2 min" in lines[1]
    assert "seed=1 failed" in lines[2]
    assert "2/12 runs have ended" in lines[-1]


def test_durations() -> None:
    assert [duration(seconds) for seconds in (42, 5990, 11100)] == ["42 s", "1 h 40 min", "3 h 5 min"]


# Real processes

SMALL = ["data=digits", "train_size=256", "batch_size=64", "accelerator=cpu", "threads=1"]
TWO_WORKERS = ["hydra/launcher=processes", "hydra.launcher.n_jobs=2"]


def train(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "tests", folder)))
    variables = os.environ | {"PYTHONPATH": path} | environment
    return python_m("normlab.train", *words, cwd=folder, env=variables, timeout=400)


def records(folder: Path) -> dict[Path, Record]:
    return {file.parent: Record.load(file.parent) for file in folder.rglob("result.json")}


@pytest.mark.slow
def test_a_worker_that_is_killed_names_its_run_and_leaves_the_same_bits(tmp_path: Path) -> None:
    """One is killed once, in its second epoch; another whenever it is trained. The runs beside them go on."""
    words = ["-m", *SMALL, "norm=gn,custom", "norm.target=layers:Kills", "epochs=3"]
    done = train(tmp_path, *words, "+norm.options.step=6,1", *TWO_WORKERS, "name=killed")
    assert done.returncode == 1
    assert "3 runs: 2 completed, 1 failed" in done.stdout
    assert "the process that trained it died twice: is there enough memory?" in done.stdout
    lines = [line for line in done.stderr.splitlines() if "signal 9 (SIGKILL)" in line]
    assert all(line.startswith("normlab: custom_layers.Kills-digits-step_") for line in lines)
    told = sorted((line.partition("step_")[2][0], line.rpartition("; ")[2]) for line in lines)
    assert told == [("1", "recorded as failed"), ("1", "tried once more, on its own"), ("6", "it resumes")]
    assert "Traceback" not in done.stderr
    again = train(tmp_path, *words, "+norm.options.step=6", "hydra/launcher=basic", "name=whole")
    assert "2 runs: 2 completed" in again.stdout
    for killed, record in records(tmp_path / "lightning_logs" / "killed").items():
        if "step_1-" not in killed.name:
            same(killed, tmp_path / "lightning_logs" / "whole" / killed.name)
        if "step_6" in killed.name:
            assert record.time["resumed"] == 1, "an epoch was done before: it is no failure"


@pytest.mark.slow
def test_two_processes_share_a_study(tmp_path: Path) -> None:
    """Both end well with all runs done, and each run is trained once."""
    words = ["study=replication_quick", "norm=bn", "seed=0,1,2", "epochs=2", "evaluate=[]", "accelerator=cpu"]
    command = [sys.executable, "-m", "normlab.train", *words, "hydra.launcher.n_jobs=2", f"log_dir={tmp_path}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    both = [subprocess.Popen(command, text=True, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    told = [process.communicate(timeout=400)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert all("6 runs: 6 completed" in each for each in told)
    events = [list(folder.glob("events.out.tfevents.*")) for folder in records(tmp_path)]
    assert [len(files) for files in events] == [1] * 6  # with L1 and without


@pytest.mark.slow
def test_a_script_without_a_guard_is_not_run_by_its_workers(tmp_path: Path) -> None:
    words = ["-m", "seed=0,1", "norm=gn", "epochs=1", *SMALL, *TWO_WORKERS]
    script = tmp_path / "script.py"
    script.write_text(f"print('script')\nfrom normlab.train import main\nassert main({words}) == 0\n")
    done = new_python(script, cwd=tmp_path, exit_code=0)
    assert done.stdout.count("script") == 1
    assert "2 runs: 2 completed" in done.stdout


@pytest.mark.slow
def test_until_decided_a_study_that_is_killed_after_its_first_look_decides_the_same(tmp_path: Path) -> None:
    words = ["study=replication_quick", "until=decided", "max_seeds=5", "epochs=2", "norm=bn", "l1=0,1e-3"]
    words += ["evaluate=[]", "hydra.launcher.n_jobs=1"]

    def command(name: str) -> list[str]:
        return ["normlab.train", *words, f"log_dir={tmp_path / name}"]

    def looks(name: str) -> list[str]:
        """What progress.log says after each, without the time."""
        log = tmp_path / name / "replication_quick" / "progress.log"
        lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
        return list(dict.fromkeys(line.partition(" after ")[2] for line in lines if " questions " in line))

    def trained(name: str) -> set[str]:
        return {folder.name for folder in records(tmp_path / name)}

    whole = python_m(*command("whole"))
    assert whole.returncode == 0, whole.stderr
    expected = looks("whole")
    assert expected[0].startswith("3 seeds per setting")
    assert " questions are open" in expected[0]
    assert expected[-1] in whole.stderr, "the last line says how it ended"
    assert 2 * 3 < len(trained("whole")) <= 2 * 5, "one look did not decide it"

    def after_a_look(process: int) -> None:
        deadline = time.monotonic() + 180
        while not looks("killed") and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(process, signal.SIGTERM)

    first = python_m(*command("killed"), meanwhile=after_a_look)
    assert first.returncode == 130, first.stderr
    again = python_m(*command("killed"))
    assert again.returncode == 0, again.stderr
    assert looks("killed") == expected
    assert trained("killed") == trained("whole")
    assert expected[-1] in again.stderr


@pytest.mark.slow
def test_until_decided_nothing_can_be_asked_of_settings_that_have_not_trained(tmp_path: Path) -> None:
    words = ["-m", "norm=none", "l1=0,1e-3", "epochs=1", *SMALL, "until=decided", "max_seeds=3", "name=untrained"]
    done = python_m("normlab.train", *words, f"log_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "after 3 seeds per setting nothing can be asked: fewer than two settings have trained" in done.stderr


LAUNCHER = """
from hydra.core.config_store import ConfigStore
from hydra.core.utils import run_job
from hydra.plugins.launcher import Launcher
from omegaconf import open_dict

class Backwards(Launcher):
    def __init__(self, greeting):
        print(greeting)

    def setup(self, *, hydra_context, task_function, config):
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides, initial_job_idx):
        results = []
        for number, words in reversed(list(enumerate(job_overrides, initial_job_idx))):
            config = self.context.config_loader.load_sweep_config(self.config, list(words))
            with open_dict(config):
                config.hydra.job.num = config.hydra.job.id = number
            keys = {"job_dir_key": "hydra.sweep.dir", "job_subdir_key": "hydra.sweep.subdir"}
            results.append(run_job(hydra_context=self.context, task_function=self.task, config=config, **keys))
        return results

node = {"_target_": "hydra_plugins.backwards.Backwards", "greeting": "hello"}
ConfigStore.instance().store(group="hydra/launcher", name="backwards", node=node)
"""
CALLBACK = """
from hydra.experimental.callback import Callback

class Tells(Callback):
    def on_multirun_start(self, config, **kwargs): print("multirun start")
    def on_multirun_end(self, config, **kwargs): print("multirun end")
    def on_run_start(self, config, **kwargs): print("run start")
    def on_run_end(self, config, **kwargs): raise ValueError("no end")
    def on_job_start(self, config, **kwargs): print("job", config.seed)
    def on_job_end(self, config, job_return, **kwargs): print(job_return.status.name)
"""


def test_other_launchers_and_callbacks_work_by_hydras_own_way(tmp_path: Path) -> None:
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins" / "backwards.py").write_text(LAUNCHER)
    (tmp_path / "own_tells.py").write_text(CALLBACK)
    words = ["norm=gn", "epochs=1", *SMALL, "+hydra.callbacks.tells._target_=own_tells.Tells"]
    launcher = ["hydra/launcher=backwards", "hydra.launcher.greeting=hi"]
    done = train(tmp_path, "seed=0,1", *words, "-m", "name='mine, früh'", *launcher)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert told[:7] == ["multirun start", "hi", "job 1", "COMPLETED", "job 0", "COMPLETED", "multirun end"]
    assert {folder.name[-6:] for folder in (tmp_path / "lightning_logs/mine, früh").iterdir()} >= {"seed_0", "seed_1"}
    done = train(tmp_path, *words)
    assert done.stdout.splitlines()[:3] == ["run start", "job 0", "COMPLETED"]
    assert "Tells.on_run_end raised ValueError: no end" in done.stderr
    assert done.returncode == 0


# Arrays


@pytest.mark.slow
def test_an_array_that_kills_its_process_loses_no_run(tmp_path: Path) -> None:
    """Its runs are tried one by one then, as after the death of any process."""
    words = ["-m", *SMALL, "epochs=1", "seed=0,1,2"]
    words += ["norm=custom", "norm.target=layers:KillsArray", "hydra/launcher=array", "hydra.launcher.n_jobs=2"]
    done = train(tmp_path, *words, KILL="1")
    found = records(tmp_path)
    assert len(found) == 3, done.stderr
    assert all(record.status == "completed" and "array" not in record.device for record in found.values()), done.stderr
    assert done.returncode == 0


def test_what_cannot_be_grouped_runs_individually_and_the_log_says_why(tmp_path: Path) -> None:
    """A user's layer is tried out. tests/test_array.py has what is known without."""
    why = dict.fromkeys(("Branches", "Draws"), "cannot run for several networks at once")
    why["Remembers"] = "gives other results in an array"
    targets = ",".join(f"layers:{layer}" for layer in ("Fits", *why))
    jobs = jobs_in(tmp_path, "norm=custom", f"norm.target={targets}", "seed=0,1")
    assert planned(jobs, 24) == [jobs[:2]]
    told = log_of(jobs).splitlines()
    assert len(told) == 1 + len(jobs[2:])
    assert "an array of 2 runs: " in told[0]
    for job in jobs[2:]:
        target = str(job.settings.norm.target)
        named = f"{job.folder.name} runs individually: {target} {why[target.partition(':')[2]]}"
        assert sum(named in line for line in told) == 1
