"""Jobs of a cluster, one run or one array each: by small scripts that stand in for SLURM (tests/fake_slurm), and by
processes of this machine."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from same_bits import same
from warm import new_python

submitit = pytest.importorskip("submitit", reason="the extra slurm (submitit) is not installed")

from submitit.core.utils import UncompletedJobError, pickle_load  # noqa: E402

from normlab.claim import claim  # noqa: E402
from normlab.record import Record  # noqa: E402
from normlab.scheduler import launch  # noqa: E402
from normlab.scheduler.cluster import SENT_AWAY, TIME_OVER, Cluster, Submitted  # noqa: E402
from normlab.scheduler.options import launcher_options  # noqa: E402
from normlab.scheduler.schedule import Ended  # noqa: E402
from normlab.scheduler.task import Callbacks, Task  # noqa: E402
from normlab.settings.plan import Job, hydra_config, load, plan  # noqa: E402
from normlab.train import main  # noqa: E402
from normlab.training import run, run_array  # noqa: E402
from normlab.training.networks import NetworkArray  # noqa: E402

HERE = Path(__file__).parent
BASE = ["data=digits", "epochs=2", "batch_size=64", "train_size=200", "val_size=100", "threads=1", "accelerator=cpu"]
BASE += ["dropout=0.1", "name=sweep"]
TAIL = load(*BASE).slug().removeprefix("bn").removesuffix("-seed_0")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Commands run in this process: what they set is taken back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the queue keeps its scripts and states."""
    folder = tmp_path / "queue"
    folder.mkdir()
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    monkeypatch.setenv("PATH", f"{HERE / 'fake_slurm'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return folder


def folders() -> dict[str, Path]:
    """The runs of the sweep in this folder, by norm and seed."""
    found = [file.parent for file in Path("lightning_logs/sweep").rglob("result.json")]
    return {f"{Record.load(folder).setting['norm']} {Record.load(folder).seed}": folder for folder in found}


@pytest.mark.slow
def test_arrays_and_single_runs_are_jobs_of_a_queue(queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Planned here, trained there: the bits of an array and of a single run in this process."""
    words = ["-m", *BASE, "norm=bn", "seed=0,1", "hydra/launcher=array_slurm"]
    assert main(words) == 0
    [script] = queue.glob("*.sh")
    assert "--array" not in script.read_text(), "one job: both runs are one array"
    told = capsys.readouterr()
    assert "2 runs: 2 completed" in told.out
    assert "2/2 runs have ended" in told.err
    diary = Path("lightning_logs/sweep/progress.log").read_text()
    assert "an array of 2 runs: " in diary
    assert "1 job submitted, 1000 the first" in diary
    found = folders()
    assert all((folder / ".hydra/config.yaml").exists() for folder in found.values())
    assert not [file for file in Path("lightning_logs/sweep").rglob(".*") if file.name not in (".lock", ".hydra")]
    run_array([load(*BASE, "norm=bn", f"seed={n}") for n in (0, 1)], [Path("here/0"), Path("here/1")])
    for seed in (0, 1):
        Path(f"here/{seed}/.hydra").mkdir()  # the only thing that a sweep's run has beside
        same(found[f"bn {seed}"], Path(f"here/{seed}"))
    assert main(words) == 0
    assert "(2 finished before, skipped)" in capsys.readouterr().out
    assert len(list(queue.glob("*.sh"))) == 1, "nothing was left to submit"


def test_what_fits_no_array_is_a_job_of_its_own(queue: Path) -> None:
    """And nothing is submitted that stands finished or that another process trains."""
    words = ["-m", *BASE, "norm=bn,gn,ln", "seed=0,1", "hydra/launcher=array_slurm", "hydra.launcher.partition=nowhere"]
    jobs = {f"{job.settings.norm.name} {job.settings.seed}": job for job in plan(words[1:], multirun=True)}
    for name in ("gn 0", "ln 1"):
        jobs[name].folder.mkdir(parents=True)
    Record.of(jobs["gn 0"].settings, "completed").save(jobs["gn 0"].folder)
    with claim(jobs["ln 1"].folder):
        assert main(words) == 1
    asked = [pickle_load(file).function.task.name for file in Path("lightning_logs/.submitit").glob("*.pkl")]
    names = {name.replace(TAIL, "") for name in asked}
    assert names == {"an array of 2 runs, bn-seed_0 the first", "gn-seed_1", "ln-seed_0"}


@pytest.mark.slow
def test_a_job_that_dies_is_tried_twice_and_the_rest_goes_on(queue: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE.parent), str(HERE)]))
    words = ["-m", *BASE, "norm=gn,custom", "norm.target=layers:DiesInAJob", "seed=0", "hydra/launcher=submitit_slurm"]
    assert main([*words, "hydra.launcher.array_parallelism=2"]) == 1
    told = capsys.readouterr()
    statuses = {name: Record.load(folder).status for name, folder in folders().items()}
    assert statuses == {"gn 0": "completed", "custom 0": "failed"}
    assert "died twice" in str(Record.load(folders()["custom 0"]).error)
    assert told.err.count("ended without a result (FAILED); its log is ") == 2
    assert "Traceback" not in told.out + told.err
    texts = [file.read_text() for file in sorted(queue.glob("*.sh"))]
    run(load(*BASE, "norm=gn", "seed=0"), "here")
    Path("here/.hydra").mkdir()
    same(folders()["gn 0"], Path("here"))
    assert ["#SBATCH --array=0-1%2" in text for text in texts] == [True, False], "the second time it is alone"


def one_task(folder: Path) -> Task:
    """A job of one run."""
    [job] = plan([*BASE, "norm=gn", f"hydra.run.dir={folder}"], multirun=False)
    job = Job(job.settings, folder, job.overrides)
    return Task([job], 0, Callbacks(hydra_config(job, multirun=True)))


@pytest.mark.parametrize(
    ("number", "queued_again", "told"),
    [(signal.SIGUSR2, False, TIME_OVER), (signal.SIGUSR2, True, None), (signal.SIGTERM, False, SENT_AWAY)],
)
def test_a_job_that_is_sent_away_leaves_its_run_to_go_on(tmp_path, monkeypatch, number, queued_again, told) -> None:
    """When its time is over, when submitit has queued it again, when it has to make room: no failure of the run."""
    task = Submitted(one_task(tmp_path / "stopped"))

    def submitit(*_: Any) -> None:
        if queued_again:
            sys.exit(-1)
        raise UncompletedJobError("Job not requeued because: timed-out too many times.")

    signal.signal(signal.SIGUSR2, submitit)
    real = NetworkArray.training_step
    steps: list[int] = []

    def training_step(networks: NetworkArray, batch: Any, batch_idx: int) -> None:
        steps.append(batch_idx)
        if len(steps) == 6:  # in the second epoch
            os.kill(os.getpid(), number)
        real(networks, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(NetworkArray, "training_step", training_step)
        if queued_again:
            with pytest.raises(KeyboardInterrupt):
                task()
        else:
            assert task() == told
    assert Record.load(tmp_path / "stopped").status == "interrupted"
    assert task.checkpoint().function is task
    assert task() == {}
    assert Record.load(tmp_path / "stopped").time["resumed"] == 1
    run(load(*BASE, "norm=gn"), tmp_path / "whole")
    (tmp_path / "whole" / ".hydra").mkdir()
    same(tmp_path / "stopped", tmp_path / "whole")


def test_ctrl_c_cancels_the_jobs(tmp_path: Path, queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = launcher_options("submitit_slurm", [])
    backend = Cluster(chosen, tmp_path / "progress.log")  # type: ignore[arg-type]
    backend.jobs = [(SimpleNamespace(job_id=f"1000_{n}"), one_task(tmp_path)) for n in (0, 1)]
    backend.stop()
    assert (queue / "cancelled").read_text() == "1000_0 1000_1\n"
    assert capsys.readouterr().err == "normlab: 2 jobs cancelled\n"


def test_where_there_is_no_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    told = "normlab: hydra/launcher=array_slurm: no sbatch on this machine: run the command on a login node\n"
    assert refused(main, ["-m", *BASE, "norm=gn", "hydra/launcher=array_slurm"]) == told


def test_a_queue_that_takes_no_job(queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It was asked with every option, by its own name."""
    options = ["partition=nowhere", "timeout_min=7", "mem_gb=4", "cpus_per_task=2", 'setup=["a b"]', "account=12"]
    options += ["array_parallelism=2", "max_num_timeout=2"]
    words = [f"hydra.launcher.{option}" for option in options]
    words += ["+hydra.launcher.additional_parameters.mail-user=me", "hydra/launcher=submitit_slurm", "log_dir=there"]
    assert main(["-m", *BASE, "norm=gn", "seed=0,1,2", *words]) == 1
    error = capsys.readouterr().err
    assert "the queue refused the jobs: sbatch: error: invalid partition specified: nowhere" in error
    assert "3 runs could not be started" in error
    assert "Traceback" not in error
    place = Path.cwd() / "there" / ".submitit"
    text = next(place.glob(".submission_file_*.sh")).read_text()
    for line in (
        "partition=nowhere", "time=7", "mem=4GB", "cpus-per-task=2", "account=12", "array=0-2%2", "mail-user=me",
        "nodes=1", "signal=USR2@120",
    ):  # fmt: skip
        assert f"#SBATCH --{line}\n" in text, line
    assert "\na b\n" in text
    assert f"srun --unbuffered --output {place}/" in text
    assert {pickle_load(file)._timeout_countdown for file in place.glob("*.pkl")} == {2}


@pytest.mark.parametrize("launcher", ["submitit_slurm", "array_slurm", "array_local"])
def test_without_the_extra(tmp_path: Path, launcher: str) -> None:
    code = "import sys; sys.modules['submitit'] = None; from normlab.train import main; "
    code += f"sys.exit(main(['-m', 'norm=gn,bn', 'data=digits', 'hydra/launcher={launcher}']))"
    told = f'normlab: hydra/launcher={launcher}: submitit is not installed: pip install "normlab[slurm]"\n'
    assert new_python("-c", code, cwd=tmp_path, exit_code=2).stderr == told


@pytest.mark.parametrize(
    ("words", "largest"),
    [
        ([], 24),
        (["hydra.launcher.gpus_per_node=1"], 64),
        (["accelerator=auto", "hydra.launcher.gpus_per_node=1"], 64),
        (["accelerator=cpu", "hydra.launcher.gpus_per_node=1"], 24),
        (["accelerator=gpu"], 64),
        (["hydra.launcher.gres=gpu:1", "hydra.launcher.n_per_array=5"], 5),
    ],
)
def test_the_login_node_needs_no_gpu(queue: Path, monkeypatch, words: list[str], largest: int) -> None:
    """What accelerator=auto is there, and with it how large an array may be, follows from what a job asks for."""
    sizes: list[int] = []
    monkeypatch.setattr(launch, "planned", lambda runs, largest, workers: sizes.append(largest) or [])
    monkeypatch.setattr(Cluster, "start", lambda backend, tasks: backend.ends.extend(map(Ended, tasks)))
    assert main(["-m", "data=digits", "norm=gn", "seed=0,1", "hydra/launcher=array_slurm", *words]) == 1
    assert set(sizes) == {largest}
