"""From planned runs to works, by the launcher that a command line names."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode

from normlab.settings.plan import Job, launcher_of, own_hydra, to_run
from normlab.sweep.arrays import LARGEST, planned
from normlab.sweep.options import Arrays, Processes, Queue, cores, launching, options, usual
from normlab.sweep.schedule import Backend, Ended, InProcess, schedule
from normlab.sweep.work import Callbacks, Work, do, one_line, task

__all__ = ["launch", "run_single"]


def run_single(job: Job) -> None:
    """Do one run in this process."""
    config = to_run(job, multirun=False)
    callbacks = Callbacks(config)
    callbacks.call("on_run_start", config=config, config_name="config")
    do(job, callbacks, None)
    callbacks.call("on_run_end", reverse=True, config=config, config_name="config", job_return=None)


def launch(jobs: Sequence[Job], waiting: Sequence[Job], overrides: Sequence[str], began: int, *, study: bool) -> None:
    """Do the runs of a sweep.

    Args:
        jobs: All of them.
        waiting: Those that are not finished.
        overrides: The command line.
        began: When this command began, in nanoseconds of the file system's clock.
        study: Whether it names a study, which uses the whole machine by itself.
    """
    name = usual(overrides, waiting) if study else launcher_of(overrides)
    words = launching(overrides)
    chosen = options(name, words, jobs[0].words)
    config = to_run(jobs[0], multirun=True)
    callbacks = Callbacks(config)
    backend, workers = _backend(name, words, chosen, jobs, waiting, began, callbacks)
    together = chosen is not None and chosen.n_per_array != 1

    def divide(runs: Sequence[Job], single: bool) -> list[Work]:
        """Return arrays as planned, then the other runs."""
        arrays = []
        if together and not single:
            assert chosen is not None
            kinds = {job.settings.accelerator for job in runs}
            arrays = planned(jobs, runs, chosen.n_per_array or LARGEST["gpu" if "gpu" in kinds else "cpu"], workers)
        grouped = {job.folder for array in arrays for job in array}
        limit = chosen.memory_limit if chosen else None
        return [
            *(Work(array, began, callbacks, together=True, memory_limit=limit) for array in arrays),
            *(Work([job], began, callbacks) for job in runs if job.folder not in grouped),
        ]

    callbacks.call("on_multirun_start", config=config, config_name="config")
    schedule(jobs, backend, began, divide)
    callbacks.call("on_multirun_end", reverse=True, config=config, config_name="config")


def _backend(
    name: str | None,
    words: Sequence[str],
    chosen: Arrays | None,
    jobs: Sequence[Job],
    waiting: Sequence[Job],
    began: int,
    callbacks: Callbacks,
) -> tuple[Backend, int]:
    """Return where the works are done, and in how many processes arrays are divided."""
    if isinstance(chosen, Processes):
        from normlab.sweep.workers import Workers

        workers = chosen.workers(waiting)
        return Workers(workers, max(1, cores() // workers)), workers
    if isinstance(chosen, Queue):
        from normlab.sweep.cluster import Cluster  # submitit

        return Cluster(chosen, waiting[0].folder.parent / "progress.log"), 1  # as few jobs as can be
    return (InProcess() if name in (None, "basic") else OtherLauncher(jobs, words, began, callbacks)), 1


class OtherLauncher(Backend):
    """Runs by a launcher that has come with another package, all at once, in Hydra's own way."""

    def __init__(self, jobs: Sequence[Job], words: Sequence[str], began: int, callbacks: Callbacks) -> None:
        super().__init__()
        self.began, self.callbacks = began, callbacks
        common = [word for word in jobs[0].words if all(word in job.words for job in jobs)]
        self.words = [*common, *(word for word in words if word not in common)]

    def start(self, works: Sequence[Work]) -> None:
        message = None
        try:
            self._launch([job for work in works for job in work.jobs])
        except (Exception, SystemExit) as error:  # of any kind
            message = f"the launcher failed: {one_line(error)}"
        self.ends += [Ended(work, message=message if number == 0 else None) for number, work in enumerate(works)]

    def _launch(self, jobs: Sequence[Job]) -> None:
        with own_hydra() as hydra:
            loader = hydra.config_loader()
            config = loader.load_configuration("config", list(self.words), run_mode=RunMode.MULTIRUN)
            HydraConfig.instance().set_config(config)
            launcher = Plugins.instance().instantiate_launcher(
                hydra_context=HydraContext(config_loader=loader, callbacks=self.callbacks),  # type: ignore[arg-type]
                task_function=partial(task, began=self.began),
                config=config,
            )
            for job_return in launcher.launch([_words(job) for job in jobs], initial_job_idx=0):
                _ = job_return.return_value  # raises what the job raised


def _words(job: Job) -> list[str]:
    """Return a run's words, with the folder that it was planned with: the numbers of a launch are its own."""
    words = [word for word in job.words if not word.lstrip("+~").startswith("hydra")]
    return [*words, f"hydra.sweep.dir={_quoted(job.folder.parent)}", f"hydra.sweep.subdir={_quoted(job.folder.name)}"]


def _quoted(value: Path | str) -> str:
    text = str(value).replace("\\'", "\\\\'").replace("'", "\\'")
    return f"'{text}'"
