"""Tasks as jobs of a cluster, or of this machine to try that out: submitit talks to the queue. Imported only where the
extra `slurm` is installed."""

import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import submitit
from submitit.core.utils import UncompletedJobError, pickle_load
from submitit.helpers import DelayedSubmission

from normlab.claim import STALE, busy
from normlab.output import counted
from normlab.scheduler.options import Arrays, Queue, Slurm
from normlab.scheduler.progress import log_progress
from normlab.scheduler.schedule import Backend, Ended, announce
from normlab.scheduler.task import Task
from normlab.settings.conf import group_values

TIME_OVER = "it ran out of time (hydra.launcher.timeout_min): completed epochs are kept"
SENT_AWAY = "it was told to stop: completed epochs are kept"


@dataclass
class Submitted:
    """A task as submitit calls it in a job."""

    task: Task

    def __call__(self) -> dict[Path, str] | str:
        """Do the task. Return its result, or what ended it early: results of runs are in their folders."""
        reasons = _stop_in_time()
        try:
            return self.task()
        except KeyboardInterrupt:
            if reasons:
                return reasons[-1]  # as a result: submitit takes a job that made room for one that comes back
            raise

    def checkpoint(self) -> DelayedSubmission:
        """Return the same task, which then resumes: submitit asks for it where a job is to be queued again."""
        return DelayedSubmission(self)


def _stop_in_time() -> list[str]:
    """Record the runs of a job that is stopped as interrupted, as Ctrl-C does, not as failed. Return a list to which
    the reason is added, unless submitit has queued the job again."""
    reasons: list[str] = []
    warned = signal.Signals[f"SIG{submitit.JobEnvironment.USR_SIG}"]
    before = signal.getsignal(warned)

    def warn(number: int, frame: FrameType | None) -> None:
        try:
            if callable(before):
                before(number, frame)  # queues the job again and ends it, or raises
        except UncompletedJobError:
            reasons.append(TIME_OVER)
            raise KeyboardInterrupt from None

    def stop(*_: object) -> None:
        reasons.append(SENT_AWAY)
        raise KeyboardInterrupt

    signal.signal(warned, warn)
    signal.signal(signal.SIGTERM, stop)  # scancel's, and that of a job which has to make room
    return reasons


class Cluster(Backend):
    """Tasks as jobs, submitted together."""

    isolated = True

    def __init__(self, options: Queue, log: Path) -> None:
        super().__init__()
        self.options, self.log, self.queue = options, log, "slurm" if isinstance(options, Slurm) else "local"
        self.jobs: list[tuple[Any, Task]] = []
        self.killed: list[tuple[Ended, float]] = []  # until when their folders may still be claimed

    def start(self, tasks: Sequence[Task]) -> None:
        try:
            executor = self._executor()
            with executor.batch():
                jobs = [executor.submit(Submitted(task)) for task in tasks]
        except (OSError, RuntimeError, ValueError, AssertionError, NameError) as error:  # submitit's ways to refuse
            announce(self.log, f"the queue refused the jobs: {_last_line(str(error))}")
            self.ends += [Ended(task) for task in tasks]
        else:
            log_progress(self.log, f"{counted(len(jobs), 'job')} submitted, {jobs[0].job_id} the first")
            self.jobs += zip(jobs, tasks, strict=True)

    def _executor(self) -> submitit.AutoExecutor:
        shared = group_values("hydra/launcher", "submitit_local")  # other options have the queue's name before theirs
        values = {
            name if name in shared else f"{self.queue}_{name}": value
            for name, value in self.options.model_dump().items()
            if name not in Arrays.model_fields and value is not None
        }
        own = {name: values.pop(name) for name in ("slurm_max_num_timeout",) if name in values}
        executor = submitit.AutoExecutor(values.pop("submitit_folder"), cluster=self.queue, **own)
        executor.update_parameters(nodes=1, tasks_per_node=1, **values)  # a run is trained by one process
        return executor

    def wait(self, seconds: float) -> list[Ended]:
        ends, self.ends = self.ends, []
        for job, task in [(job, task) for job, task in self.jobs if job.done()]:
            self.jobs.remove((job, task))
            outcome = _end(job)
            message = f"job {job.job_id}: {outcome}" if isinstance(outcome, str) else None
            end = Ended(task, {} if isinstance(outcome, str) else outcome, message)
            if job.paths.result_pickle.exists():
                ends.append(end)
            else:
                self.killed.append((end, time.monotonic() + STALE + 5))
        # A job that was killed on another machine owns its folders a while longer.
        for end, until in list(self.killed):
            if time.monotonic() > until or not any(busy(job.folder) for job in end.task.jobs):
                self.killed.remove((end, until))
                ends.append(end)
        if not ends:
            time.sleep(seconds + len(self.jobs) / 50)
        return ends

    def stop(self) -> None:
        if jobs := [job for job, _ in self.jobs]:
            if self.queue == "slurm":  # one command for all of them
                subprocess.call(["scancel", *sorted({job.job_id for job in jobs})])
            else:
                for job in jobs:
                    job.cancel(check=False)
            announce(self.log, f"{counted(len(jobs), 'job')} cancelled")
            self.jobs.clear()


def _end(job: Any) -> str | dict[Path, str]:
    """Return what there is to tell of a job that has ended, or its result."""
    log = f"its log is {job.paths.stderr if job.paths.stderr.exists() else job.paths.stdout}"
    if not job.paths.result_pickle.exists():
        return f"ended without a result ({job.state}); {log}"
    outcome, result = pickle_load(job.paths.result_pickle)
    return f"{_last_line(result)}; {log}" if outcome == "error" else result


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no message")
