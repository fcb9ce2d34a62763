"""`hydra/launcher=submitit_slurm` and `array_slurm`: a sweep's runs as jobs of a cluster, one run or one array a job.

Submitit talks to the queue. What a job does, and what is said of its end, stands here. `submitit_local` and
`array_local` take the same way with processes of this machine. Imported only where the extra `slurm` is installed.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf, LocalQueueConf, SlurmQueueConf
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher

from normlab.claim import STALE, busy
from normlab.errors import ConfigError
from normlab.job import BEGAN, ONLY, wanted
from normlab.launcher import LARGEST, launcher_options, planned, train
from normlab.progress import note, settled
from normlab.settings.plan import Job, parse

__all__ = ["ArrayLocalConf", "ArraySlurmConf", "ClusterLauncher", "asks_for_gpu", "check_cluster"]

TIME_OVER = "its time was over (hydra.launcher.timeout_min): what it has trained is kept"
SENT_AWAY = "it was told to end: what it has trained is kept"
GPUS = ("gpus_per_node", "gpus_per_task", "gres")  # options that ask for a GPU
ONE = ("nodes", "tasks_per_node")  # a run is trained by one process


@dataclass
class ArraySlurmConf(SlurmQueueConf):  # type: ignore[misc]  # mypy sees only our half of hydra_plugins
    """`hydra.launcher` of `array_slurm`: submitit's options, and those of an array."""

    n_per_array: int | None = None  # runs of a job at most; null: 24 on CPU, 64 on a GPU
    memory_limit: float | None = None  # GiB for what a step of an array keeps; null: half of a GPU's memory


@dataclass
class ArrayLocalConf(LocalQueueConf):  # type: ignore[misc]
    """`hydra.launcher` of `array_local`."""

    n_per_array: int | None = None
    memory_limit: float | None = None


def check_cluster(overrides: Sequence[str]) -> None:
    """Raises `ConfigError`, in one line, where a launcher of this module is chosen that cannot do what is asked."""
    options = launcher_options(overrides)
    chosen = [override for override in overrides if override.startswith("hydra/launcher=")][-1]
    for name in ONE:
        if options[name] != 1:
            raise ConfigError(f"hydra.launcher.{name}={options[name]}: a run is trained by one process: leave it at 1")
    for name in ("timeout_min", "n_per_array", "memory_limit", "array_parallelism", "cpus_per_task", "mem_gb"):
        if (value := options.get(name)) is not None and value <= 0:
            raise ConfigError(f"hydra.launcher.{name}={value}: must be above 0")
    if chosen.endswith("_slurm") and (missing := [word for word in ("sbatch", "srun") if not shutil.which(word)]):
        raise ConfigError(f"{chosen}: no {missing[0]} here: start it where jobs are submitted, on a login node")


def asks_for_gpu(overrides: Sequence[str]) -> bool:
    """Whether the jobs of a command line ask their queue for a GPU."""
    options = launcher_options(overrides)
    return any(options.get(name) for name in GPUS)


@dataclass
class Work:
    """What a job does: an array, if it has one, and then each of its runs that is not finished by then. That leaves the
    folder of a single run, Hydra's files included, whichever way a run was trained."""

    launcher: BaseSubmititLauncher
    runs: list[tuple[list[str], Job]]
    together: bool
    memory_limit: float | None
    first: int  # the number of its first run, for Hydra
    environment: dict[str, str]  # a queue may hand on none
    state: Any  # of Hydra's singletons

    @property
    def name(self) -> str:
        first = self.runs[0][1].folder.name
        return f"an array of {len(self.runs)} runs, {first} the first" if self.together else first

    def __call__(self) -> str | None:
        """In the job. What is to be told of it, in a line; its results stand in the folders."""
        os.environ.update(self.environment)
        told = _stop_in_time()
        try:
            return self._do()
        except KeyboardInterrupt:
            if told:
                return told[-1]  # as a result: submitit takes a job that made room for one that comes back
            raise

    def _do(self) -> str | None:
        jobs = [job for _, job in self.runs]
        if self.together and (reason := train(jobs, self.memory_limit)) is not None:
            note(jobs[0].folder.parent / "progress.log", f"an array failed ({reason}): its runs are done singly")
        told = None
        for number, (overrides, _) in enumerate(self.runs, self.first):
            done: JobReturn = self.launcher(overrides, "hydra.sweep.dir", number, f"job_id_for_{number}", self.state)
            try:
                _ = done.return_value
            except Exception as error:
                told = f"{type(error).__name__}: {next(iter(str(error).splitlines()), 'no message')}"
        return told

    def checkpoint(self) -> Any:
        """For submitit, which asks for it where a job is to be queued again: the same work, which then goes on."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _stop_in_time() -> list[str]:
    """A job that is sent away leaves its runs interrupted, as Ctrl-C does, not failed. The list that is returned gets
    the reason, unless submitit has queued the job again."""
    from submitit import JobEnvironment
    from submitit.core.utils import UncompletedJobError

    told: list[str] = []
    warned = signal.Signals[f"SIG{JobEnvironment.USR_SIG}"]
    theirs = signal.getsignal(warned)

    def warn(number: int, frame: FrameType | None) -> None:
        try:
            if callable(theirs):
                theirs(number, frame)  # queues the job again and ends it, or raises
        except UncompletedJobError:
            told.append(TIME_OVER)
            raise KeyboardInterrupt from None

    def stop(*_: object) -> None:
        told.append(SENT_AWAY)
        raise KeyboardInterrupt

    signal.signal(warned, warn)
    signal.signal(signal.SIGTERM, stop)  # scancel's, and that of a job which has to make room
    return told


class ClusterLauncher(BaseSubmititLauncher):  # type: ignore[misc]
    """Submits what is to be done, and waits for the end of every job. What came of a run stands in its folder."""

    _EXECUTOR: ClassVar[str]

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        runs = [(list(overrides), self._job(overrides)) for overrides in job_overrides]
        began = int(os.environ.get(BEGAN, "0"))
        waiting = [job for _, job in runs if not settled(job, began) and not busy(job.folder) and wanted(job.folder)]
        if not waiting:
            return []
        together = "n_per_array" in self.params and not os.environ.get(ONLY)  # else what is left is tried one by one
        arrays = self._arrays([job for _, job in runs], waiting) if together else []
        grouped = {job.folder for array in arrays for job in array}
        words = {job.folder: overrides for overrides, job in runs}
        shares = [*arrays, *[[job] for job in waiting if job.folder not in grouped]]
        works, number = [], initial_job_idx
        for share in shares:
            works.append(self._work([(words[job.folder], job) for job in share], share in arrays, number))
            number += len(share)
        diary = waiting[0].folder.parent / "progress.log"
        try:
            jobs = self._submit(works)
        except (OSError, RuntimeError, ValueError, AssertionError, NameError) as error:  # submitit's ways to say no
            _tell(diary, f"the queue took no job: {_last_line(str(error))}")
            return []
        note(diary, f"{_jobs(len(jobs))} submitted, {jobs[0].job_id} the first")
        self._wait(list(zip(jobs, works, strict=True)), diary)
        return []

    def _job(self, overrides: Sequence[str]) -> Job:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        return Job(parse(config), Path(config.hydra.sweep.dir, config.hydra.sweep.subdir))

    def _arrays(self, jobs: Sequence[Job], waiting: Sequence[Job]) -> list[list[Job]]:
        """As few as can be: more jobs are had by a smaller n_per_array."""
        device = "gpu" if {job.settings.accelerator for job in waiting} == {"gpu"} else "cpu"
        return planned(jobs, waiting, self.params["n_per_array"] or LARGEST[device])

    def _work(self, runs: list[tuple[list[str], Job]], together: bool, first: int) -> Work:
        environment = {name: os.environ.get(name, "") for name in (BEGAN, ONLY)}
        return Work(self, runs, together, self.params.get("memory_limit"), first, environment, Singleton.get_state())

    def _submit(self, works: Sequence[Work]) -> list[Any]:
        import submitit

        params = {name: value for name, value in self.params.items() if name not in ("n_per_array", "memory_limit")}
        shared = {field.name for field in fields(BaseQueueConf)}
        own = {f"{self._EXECUTOR}_{name}": params.pop(name) for name in ("max_num_timeout",) if name in params}
        executor = submitit.AutoExecutor(params.pop("submitit_folder"), cluster=self._EXECUTOR, **own)
        executor.update_parameters(
            **{name if name in shared else f"{self._EXECUTOR}_{name}": value for name, value in params.items()}
        )
        with executor.batch():
            return [executor.submit(work) for work in works]

    def _wait(self, jobs: list[tuple[Any, Work]], diary: Path) -> None:
        left, dead = list(jobs), []
        try:
            while left:
                for job, work in [(job, work) for job, work in left if job.done()]:
                    left.remove((job, work))
                    if not job.paths.result_pickle.exists():
                        dead += [run.folder for _, run in work.runs]
                    if told := _end(job):
                        _tell(diary, f"job {job.job_id} ({work.name}): {told}")
                time.sleep(1 + len(left) / 50 if left else 0)
            # A job that was killed on another machine owns its folders a while longer; before that is over nothing can
            # be said of its runs.
            deadline = time.monotonic() + STALE + 5
            while any(busy(folder) for folder in dead) and time.monotonic() < deadline:
                time.sleep(1)
        except KeyboardInterrupt:
            self._cancel([job for job, _ in left])
            if left:
                _tell(diary, f"{_jobs(len(left))} cancelled")
            raise

    def _cancel(self, jobs: Sequence[Any]) -> None:
        for job in jobs:
            job.cancel(check=False)


class Slurm(ClusterLauncher):
    _EXECUTOR = "slurm"

    def _cancel(self, jobs: Sequence[Any]) -> None:
        if jobs:  # one command for all of them
            subprocess.call(["scancel", *sorted({job.job_id for job in jobs})])


class Local(ClusterLauncher):
    _EXECUTOR = "local"


def _end(job: Any) -> str | None:
    """What is to be told of a job that has ended."""
    from submitit.core.utils import pickle_load

    log = f"its log is {job.paths.stderr if job.paths.stderr.exists() else job.paths.stdout}"
    if not job.paths.result_pickle.exists():
        return f"ended without a result ({job.state}); {log}"
    outcome, told = pickle_load(job.paths.result_pickle)
    return f"{_last_line(told)}; {log}" if outcome == "error" else told


def _jobs(number: int) -> str:
    return f"{number} job{'s' * (number != 1)}"


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no message")


def _tell(diary: Path, line: str) -> None:
    print(f"normlab: {line}", file=sys.stderr)
    note(diary, line)
