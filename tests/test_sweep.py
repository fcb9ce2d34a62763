"""A sweep is seen through to its end, whatever happens to a worker; and one display shows how far it is."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console
from warm import python_m

from normlab import sweep as module
from normlab.job import _do
from normlab.progress import SweepProgress, duration, settled
from normlab.record import Record
from normlab.settings.plan import Job, plan
from normlab.sweep import parallel, sweep


def jobs_in(folder: Path, *overrides: str) -> list[Job]:
    jobs = plan(
        ["data=digits", "name=sweep", "epochs=2", f"log_dir={folder}", *(overrides or ["seed=0,1"])], multirun=True
    )
    for job in jobs:
        job.folder.mkdir(parents=True, exist_ok=True)
    return jobs


def leave(job: Job, status: str = "completed", error: str | None = None) -> None:
    """What a run leaves when it ends."""
    settings = job.settings
    Record(
        status=status,
        error=error,
        config=settings.model_dump(),
        config_hash=settings.config_hash(),
        setting=settings.setting(),
        seed=settings.seed,
        metrics={"test_acc": 0.975} if status == "completed" else {},
        time={"fit_s": 100.0} if status == "completed" else {},
    ).save(job.folder)


def statuses(jobs: Sequence[Job]) -> list[str]:
    return [Record.load(job.folder).status for job in jobs]


def launches(do: Callable[[int], None]) -> tuple[Callable[[bool], None], list[bool]]:
    """A launcher that calls `do` with the number of the launch, and a list that says of each if it was one by one."""
    count: list[bool] = []

    def launch(one_by_one: bool) -> None:
        count.append(one_by_one)
        do(len(count) - 1)

    return launch, count


def test_one_launch_does_it_all(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path)
    launch, count = launches(lambda _: [leave(job) for job in jobs] and None)
    sweep(jobs, launch, began=0)
    assert len(count) == 1


def test_what_failed_now_is_not_tried_again(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path)
    launch, count = launches(lambda _: [leave(job, "failed", "no memory") for job in jobs] and None)
    sweep(jobs, launch, began=time.time_ns() - 10**9)
    assert len(count) == 1
    assert statuses(jobs) == ["failed", "failed"]


def test_what_failed_earlier_is(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path)
    for job in jobs:
        leave(job, "failed", "no memory")
        os.utime(job.folder / "result.json", (1, 1))
    launch, count = launches(lambda _: [leave(job) for job in jobs] and None)
    sweep(jobs, launch, began=time.time_ns() - 10**9)
    assert len(count) == 1
    assert statuses(jobs) == ["completed", "completed"]


def test_a_dead_worker_hides_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A worker that is killed takes the whole launch with it; later launches do the rest, however many it takes."""
    jobs = jobs_in(tmp_path, "seed=range(5)")

    def die_after(number: int) -> None:
        leave(jobs[number])
        raise SystemExit(1)

    launch, count = launches(die_after)
    sweep(jobs, launch, began=0)
    assert statuses(jobs) == ["completed"] * 5
    assert len(count) == 5
    assert "going on with the rest" in capsys.readouterr().err


def test_a_run_that_kills_its_process_is_found_and_told(tmp_path: Path) -> None:
    """Four runs train side by side, and the last of them is too much for the machine: it takes all of them along, until
    they are tried one by one."""
    jobs = jobs_in(tmp_path, "seed=0,1,2,3")

    def kill(number: int) -> None:
        only = json.loads(os.environ[module.ONLY] or "[]")
        for job in jobs:
            if not settled(job, 0) and (not only or str(job.folder) in only):
                (job.folder / "train.log").write_text("begun")
                os.utime(job.folder / "train.log", (10**9, 10**9 + number))
                if only and job is not jobs[3]:  # alone, it does well
                    leave(job)
        raise SystemExit(1)

    launch, count = launches(kill)
    sweep(jobs, launch, began=0)
    assert statuses(jobs) == ["completed", "completed", "completed", "failed"]
    assert "died twice" in str(Record.load(jobs[3].folder).error)
    assert count == [False, True]


def test_a_run_is_tried_alone_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """log_dir as it is by default, relative: a worker knows its folder by the whole path, also with a colon in it."""
    monkeypatch.chdir(tmp_path)
    jobs = jobs_in(Path("lo:gs"), "seed=0,1,2")
    told: list[str] = []
    tried: list[Path] = []
    monkeypatch.setattr("normlab.training.run", lambda _, folder, **__: tried.append(folder))

    def kill(number: int) -> None:
        told.append(os.environ[module.ONLY])
        if told[-1]:
            for job in jobs:
                _do(job, sweeps=True)
        else:
            leave(jobs[2])
        for job in jobs[:2]:
            (job.folder / "train.log").write_text("begun")
            os.utime(job.folder / "train.log", (10**9, 10**9 + number))
        raise SystemExit(1)

    sweep(jobs, launches(kill)[0], began=0)
    assert [json.loads(only or "[]") for only in told] == [[], [str(tmp_path / job.folder) for job in jobs[:2]]]
    assert tried == [job.folder for job in jobs[:2]]


def test_a_run_that_comes_further_is_gone_on_with_as_often_as_it_takes(tmp_path: Path) -> None:
    """A job's time may be over many times before a long run is done; each time there is an epoch more."""
    jobs = jobs_in(tmp_path)

    def until_its_time_is_over(number: int) -> None:
        for job in jobs:
            (job.folder / "train.log").write_text("begun")
            os.utime(job.folder / "train.log", (10**9, 10**9 + number))
            (job.folder / "metrics.csv").write_text("epoch\n" + "1\n" * (number + 1))
            leave(job, "completed" if number == 4 else "interrupted", None if number == 4 else "stopped")

    launch, count = launches(until_its_time_is_over)
    sweep(jobs, launch, began=0)
    assert statuses(jobs) == ["completed", "completed"]
    assert count == [False] * 5


def test_a_run_that_is_stopped_before_it_comes_further_is_not_tried_for_ever(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path, "seed=0")

    def stop(number: int) -> None:
        (jobs[0].folder / "train.log").write_text("begun")
        os.utime(jobs[0].folder / "train.log", (10**9, 10**9 + number))
        leave(jobs[0], "interrupted", "stopped")

    launch, count = launches(stop)
    sweep(jobs, launch, began=0)
    assert len(count) == 2
    assert "stopped twice before another epoch was done" in str(Record.load(jobs[0].folder).error)


def test_a_launcher_that_begins_nothing_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def nothing(_: int) -> None:
        raise SystemExit(1)

    launch, count = launches(nothing)
    sweep(jobs_in(tmp_path), launch, began=0)
    assert len(count) == module.IDLE
    assert "2 runs could not be begun" in capsys.readouterr().err


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    launch, count = launches(stop)
    with pytest.raises(KeyboardInterrupt):
        sweep(jobs_in(tmp_path), launch, began=0)
    assert len(count) == 1
    assert "stopped with 0/2" in (tmp_path / "sweep" / "progress.log").read_text(encoding="utf-8")


def test_a_run_that_another_process_left_interrupted_is_done(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path)

    def do(number: int) -> None:
        leave(jobs[0])
        leave(jobs[1], "interrupted" if number == 0 else "completed", "stopped" if number == 0 else None)

    launch, _ = launches(do)
    sweep(jobs, launch, began=0)
    assert statuses(jobs) == ["completed", "completed"]


def test_runs_of_another_process_are_waited_for(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path)
    lock = FileLock(jobs[1].folder / ".lock", thread_local=False)  # another thread lets it go
    lock.acquire()

    def finish() -> None:
        leave(jobs[1])
        lock.release()

    launch, count = launches(lambda _: leave(jobs[0]))
    other = threading.Timer(2.5, finish)
    other.start()
    sweep(jobs, launch, began=0)
    other.join()
    assert statuses(jobs) == ["completed", "completed"]
    assert len(count) == 1


def test_runs_of_a_process_that_dies_are_taken_over(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path)
    lock = FileLock(jobs[1].folder / ".lock", thread_local=False)  # another thread lets it go
    lock.acquire()
    launch, count = launches(lambda number: leave(jobs[number]))
    other = threading.Timer(1.5, lock.release)
    other.start()
    sweep(jobs, launch, began=0)
    other.join()
    assert statuses(jobs) == ["completed", "completed"]
    assert len(count) == 2


def test_a_study_takes_every_core_with_a_thread_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import joblib

    monkeypatch.setattr(joblib, "cpu_count", lambda: 16)
    jobs = jobs_in(tmp_path, "seed=0,1,2", "accelerator=cpu")
    words = parallel([], jobs)
    assert words[:2] == ["hydra/launcher=joblib", "hydra.launcher.n_jobs=3"]
    assert parallel(["hydra/launcher=basic"], jobs) == []
    assert parallel([], jobs[:1]) == [], "one run needs no launcher"
    left = parallel(["hydra.launcher.n_jobs=2"], jobs[:1])
    assert "hydra/launcher=joblib" in left, "with one run left, the same command is still understood"
    assert "hydra.launcher.n_jobs=3" not in parallel(["hydra.launcher.n_jobs=2"], jobs), "who gives a number has it"


def test_a_study_of_small_batches_takes_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import joblib

    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    small = jobs_in(tmp_path, "seed=0,1", "batch_size=2,32", "accelerator=cpu")
    assert parallel([], small) == ["hydra/launcher=array", "hydra.launcher.n_jobs=2"]
    mixed = jobs_in(tmp_path, "seed=0,1", "batch_size=2,33", "accelerator=cpu")
    assert parallel([], mixed)[0] == "hydra/launcher=array"
    large = jobs_in(tmp_path, "seed=0,1", "batch_size=33,64", "accelerator=cpu")
    assert parallel([], large)[0] == "hydra/launcher=joblib"


def test_on_a_gpu_it_is_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normlab.settings.model.device_of", lambda _: "gpu")
    assert parallel([], jobs_in(tmp_path, "seed=0,1,2")) == ["hydra/launcher=array"]
    assert parallel(["hydra/launcher=basic"], jobs_in(tmp_path, "seed=0,1,2")) == []


def test_settled(tmp_path: Path) -> None:
    (job,) = jobs_in(tmp_path, "seed=0")
    now = time.time_ns()
    assert settled(job, 0) is None
    leave(job, "interrupted", "stopped")
    assert settled(job, 0) is None, "whoever was interrupted, the run is to be done"
    leave(job, "failed", "no memory")
    assert settled(job, 0) is not None, "it has failed since"
    assert settled(job, now + 10**10) is None, "it had failed before, and is done again"
    leave(job)
    assert settled(job, now + 10**10) is not None, "finished is finished"
    (forced,) = jobs_in(tmp_path, "seed=0", "force=true")
    assert settled(forced, now + 10**10) is None
    (job.folder / "result.json").write_text("{")
    assert settled(job, 0) is None


def test_the_log_can_be_read(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path)
    console = Console(force_terminal=False, file=open(os.devnull, "w"))  # noqa: SIM115
    log = tmp_path / "progress.log"
    with SweepProgress(jobs, 0, log, console):
        leave(jobs[0])
        (jobs[1].folder / "train.log").touch()
        deadline = time.monotonic() + 20
        while "1/2" not in log.read_text(encoding="utf-8") and time.monotonic() < deadline:
            time.sleep(0.1)
        leave(jobs[1], "failed", "no memory")
    lines = log.read_text(encoding="utf-8").splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
    assert "2 runs, 0 of them finished before" in lines[0]
    assert "1/2 runs done" in lines[1]
    assert "seed=0 completed: test 97.50 % in 2 min" in lines[1]
    assert "seed=1 failed" in lines[2]
    assert "2/2 runs have ended" in lines[-1]


def test_the_live_display(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path, "seed=range(12)")
    console = Console(force_terminal=True, width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with SweepProgress(jobs, 0, tmp_path / "progress.log", console) as shown:
        leave(jobs[0])
        for job in jobs[1:]:
            (job.folder / "metrics.csv").write_text("epoch\n1\n")
        shown._look()
        console.print(shown._display())
    text = console.export_text()
    assert "1/12 runs done, 11 running" in text
    assert "  seed=1  epoch 2/2" in text
    assert "and 3 more" in text
    assert "last: seed=0 completed: test 97.50 %" in text
    assert "54%" in text  # 2 + 11 of 24 epochs


@pytest.mark.parametrize(
    ("seconds", "told"), [(42, "42 s"), (300, "5 min"), (5990, "1 h 40 min"), (11100, "3 h 5 min")]
)
def test_durations(seconds: float, told: str) -> None:
    assert duration(seconds) == told


# With L1 and without.
STUDY = ["study=replication_quick", "norm=bn", "seed=0,1,2", "epochs=2", "train_size=640", "accelerator=cpu"]


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "normlab.train", *STUDY, "hydra.launcher.n_jobs=2", f"log_dir={folder}", *more]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def results(folder: Path) -> list[Path]:
    return sorted(folder.rglob("result.json"))


@pytest.mark.slow
def test_two_processes_share_a_study(tmp_path: Path) -> None:
    """Both end well with all runs done, and both have trained: each has two workers, and more were at work."""
    both = [start(tmp_path) for _ in range(2)]
    told = [process.communicate(timeout=400)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert len(results(tmp_path)) == 6
    for process_told in told:
        assert "6 runs: 6 completed" in process_told
    workers = {file.name.split(".")[-2] for file in tmp_path.rglob("events.out.tfevents.*")}  # their process ids
    assert len(workers) > 2


@pytest.mark.slow
def test_a_run_that_diverges_neither_stops_nor_hides_the_others(tmp_path: Path) -> None:
    """lr=1e30 diverges, which in a comparison is a result; the rest completes, the end lists what became of each."""
    words = [
        "study=replication_quick",
        "norm=bn",
        "seed=0",
        "l1=0",
        "epochs=1",
        "train_size=256",
        "lr=0.1,1e30",
        "accelerator=cpu",
    ]
    words += ["gradient_clip=null", "schedule=constant", f"log_dir={tmp_path}"]
    done = python_m("normlab.train", *words)
    assert done.returncode == 0, done.stderr
    assert "2 runs: 1 completed, 1 diverged" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "diverged: the" in done.stdout
