"""From planned runs to tasks, by the launcher that a command line names."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode

from normlab.scheduler.options import Processes, Queue, cores, default_launcher, launcher_options, launcher_overrides
from normlab.scheduler.progress import log_progress
from normlab.scheduler.schedule import Backend, Ended, InProcess, Schedule, announce
from normlab.scheduler.task import Callbacks, Task, do_run, hydra_task, one_line
from normlab.settings.arrays import arrays
from normlab.settings.plan import Job, hydra_config, launcher_of, own_hydra

LARGEST = {"cpu": 24, "gpu": 64}  # runs of an array unless n_per_array says otherwise: benchmarks/study.py


def run_single(job: Job) -> None:
    """Do one run in this process."""
    config = hydra_config(job, multirun=False)
    callbacks = Callbacks(config)
    callbacks.call("on_run_start", config=config, config_name="config")
    do_run(job, callbacks, None)
    callbacks.call("on_run_end", reverse=True, config=config, config_name="config", job_return=None)


class Sweep:
    """The runs of a command line with the launcher that it names. Worker processes begin to start at once.

    Args:
        jobs: All runs.
        waiting: Those that are not finished.
        overrides: The command line.
        started_at: When this command began, in nanoseconds of the file system's clock.
        study: Whether it names a study, which uses the whole machine unless a launcher is named.
        more: Returns all runs that are wanted when these have ended; None where these are all.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        waiting: Sequence[Job],
        overrides: Sequence[str],
        started_at: int,
        *,
        study: bool,
        more: Callable[[], Sequence[Job]] | None = None,
    ) -> None:
        self.jobs, self.started_at, self.more = jobs, started_at, more
        self.config = hydra_config(jobs[0], multirun=True)
        self.callbacks = Callbacks(self.config)
        words = launcher_overrides(overrides)
        name = default_launcher(overrides, waiting) if study else launcher_of(overrides)
        self.options = launcher_options(name, words, jobs[0].overrides)
        self.workers = 1  # that share the arrays: on a cluster, as few as possible
        self.backend: Backend
        if isinstance(self.options, Processes):
            from normlab.scheduler.workers import Workers

            self.workers = self.options.workers(waiting)
            self.backend = Workers(self.workers, max(1, cores() // self.workers))
        elif isinstance(self.options, Queue):
            from normlab.scheduler.cluster import Cluster  # submitit

            self.backend = Cluster(self.options, waiting[0].folder.parent / "progress.log")
        elif name in (None, "basic"):
            self.backend = InProcess()
        else:
            self.backend = OtherLauncher(jobs, words, started_at, self.callbacks)

    def run(self) -> None:
        """Do the runs, until all have ended."""
        self.callbacks.call("on_multirun_start", config=self.config, config_name="config")
        Schedule(self.jobs, self.backend, self.started_at, self._divide, self.more).run()
        self.callbacks.call("on_multirun_end", reverse=True, config=self.config, config_name="config")

    def _divide(self, runs: Sequence[Job], single: bool) -> list[Task]:
        """Return arrays as planned, then the other runs. With `single`, each run on its own."""
        together: list[list[Job]] = []
        if self.options and self.options.n_per_array != 1 and not single:
            gpu = any(job.settings.accelerator == "gpu" for job in runs)
            largest = self.options.n_per_array or LARGEST["gpu" if gpu else "cpu"]
            together = planned(runs, largest, self.workers)
        limit = self.options.memory_limit if self.options else None
        grouped = {job.folder for array in together for job in array}
        return [
            *(Task(array, self.started_at, self.callbacks, together=True, memory_limit=limit) for array in together),
            *(Task([job], self.started_at, self.callbacks) for job in runs if job.folder not in grouped),
        ]


def planned(jobs: Sequence[Job], largest: int, workers: int = 1) -> list[list[Job]]:
    """Return the arrays, of so many runs at most, in which `workers` processes train these runs together; progress.log
    has them, and says why the other runs are trained individually."""
    log = jobs[0].folder.parent / "progress.log"
    groups, single = arrays([job.settings for job in jobs], largest, workers)
    together: list[list[Job]] = []
    for group in groups:
        if reason := _why_not_array(jobs[group[0]]):
            single |= dict.fromkeys(group, reason)
        else:
            together.append([jobs[index] for index in group])
            log_progress(log, f"an array of {len(group)} runs: {', '.join(job.folder.name for job in together[-1])}")
    for index, reason in sorted(single.items()):
        log_progress(log, f"{jobs[index].folder.name} runs individually: {reason}")
    return together


def _why_not_array(job: Job) -> str | None:
    """Return why a custom layer or network cannot be trained in an array; None where it can."""
    if job.settings.norm.name != "custom" and job.settings.net.name == "small":
        return None
    from normlab.training.build import unfoldable  # torch

    return unfoldable(job.settings)


class OtherLauncher(Backend):
    """Runs through another package's launcher, all at once, by Hydra's own mechanism."""

    def __init__(self, jobs: Sequence[Job], words: Sequence[str], started_at: int, callbacks: Callbacks) -> None:
        super().__init__()
        self.started_at, self.callbacks, self.log = started_at, callbacks, jobs[0].folder.parent / "progress.log"
        common = [word for word in jobs[0].overrides if all(word in job.overrides for job in jobs)]
        self.words = [*common, *(word for word in words if word not in common)]

    def start(self, tasks: Sequence[Task]) -> None:
        try:
            self._launch([job for task in tasks for job in task.jobs])
        except (Exception, SystemExit) as error:  # of any kind
            announce(self.log, f"the launcher failed: {one_line(error)}")
        self.ends += map(Ended, tasks)

    def _launch(self, jobs: Sequence[Job]) -> None:
        with own_hydra() as hydra:
            loader = hydra.config_loader()
            config = loader.load_configuration("config", list(self.words), run_mode=RunMode.MULTIRUN)
            HydraConfig.instance().set_config(config)
            launcher = Plugins.instance().instantiate_launcher(
                hydra_context=HydraContext(config_loader=loader, callbacks=self.callbacks),  # type: ignore[arg-type]
                task_function=partial(hydra_task, started_at=self.started_at),
                config=config,
            )
            for job_return in launcher.launch([_words(job) for job in jobs], initial_job_idx=0):
                _ = job_return.return_value  # raises what the job raised


def _words(job: Job) -> list[str]:
    """Return a run's words, with the folder that it was planned with: the numbers of a launch are its own."""
    words = [word for word in job.overrides if not word.lstrip("+~").startswith("hydra")]
    return [*words, f"hydra.sweep.dir={_quoted(job.folder.parent)}", f"hydra.sweep.subdir={_quoted(job.folder.name)}"]


def _quoted(value: Path | str) -> str:
    text = str(value).replace("\\'", "\\\\'").replace("'", "\\'")
    return f"'{text}'"
