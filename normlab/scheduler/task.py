"""What a process does: the runs of one task, each as Hydra would do it. Imports no torch before it has to."""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import run_job
from hydra.types import HydraContext
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console

from normlab.errors import BusyError, NormlabError, first_line
from normlab.record import Record
from normlab.scheduler.progress import final_record, log_progress
from normlab.settings.plan import Job, hydra_config, parse

log = logging.getLogger("normlab")


class Callbacks:
    """Hydra's `hydra.callbacks` of a command line, called as Hydra calls them."""

    def __init__(self, config: DictConfig) -> None:
        self.each = [instantiate(value) for value in (config.hydra.callbacks or {}).values()]

    def call(self, event: str, *, reverse: bool = False, **given: Any) -> None:
        """Call a method of every callback. One that raises is warned of, and stops nothing."""
        for each in reversed(self.each) if reverse else self.each:
            try:
                getattr(each, event)(**given)
            except Exception as error:
                warnings.warn(f"{type(each).__name__}.{event} raised {one_line(error)}", stacklevel=2)

    def on_job_start(self, **given: Any) -> None:
        """For `run_job`."""
        self.call("on_job_start", **given)

    def on_job_end(self, **given: Any) -> None:
        """For `run_job`."""
        self.call("on_job_end", reverse=True, **given)


def do_run(job: Job, callbacks: Callbacks, started_at: int | None) -> None:
    """Do a run in this process, with the configuration that it was planned with, as Hydra does: `.hydra/`, logging, the
    environment of `hydra.job.env_set`. started_at: None where it is no part of a sweep. Raise what the run raises."""
    config = hydra_config(job, multirun=started_at is not None)
    context = HydraContext(config_loader=None, callbacks=callbacks)  # type: ignore[arg-type]  # read by launchers alone
    raised: list[Exception] = []

    def train(_: DictConfig) -> None:
        try:
            _train_job(job, started_at)
        except Exception as error:
            raised.append(error)
            raise

    place, name = ("hydra.run.dir", None) if started_at is None else ("hydra.sweep.dir", "hydra.sweep.subdir")
    run_job(train, config, place, name, context)
    if raised:
        raise raised[0]


def hydra_task(config: DictConfig, *, started_at: int) -> None:
    """Do a run in Hydra's output folder: what other launchers call."""
    _train_job(Job(parse(config), Path(HydraConfig.get().runtime.output_dir)), started_at)


def _train_job(job: Job, started_at: int | None) -> None:
    """Train a run, unless it is finished. A run that fails has a record that says so, and stops no other."""
    settings, folder, sweeps = job.settings, job.folder, started_at is not None
    try:
        if started_at is not None and final_record(job, started_at):
            return
        if not settings.force and Record.finished_for(folder, settings.config_hash()):
            log.info("%s is finished: skipped", folder)
            return
        with Console(stderr=True, quiet=sweeps).status("starting: PyTorch and Lightning are being loaded"):
            from normlab.training import run  # some seconds
            from normlab.training.device import keep_freed_memory

        keep_freed_memory()
        # A sweep has one display of its own, which reads what the runs write.
        run(settings, folder, console=Console(quiet=True) if sweeps else None)
    except BusyError as error:
        if not sweeps:  # a sweep waits for it
            log.warning("%s", error)  # its record belongs to the process that trains there
    except NormlabError as error:
        record = Record.readable(folder)
        if record is not None and record.config_hash != settings.config_hash():
            raise  # never write over the result of another configuration
        try:
            Record.of(settings, "failed", first_line(error)).save(folder)
        except NormlabError as second:  # a full disk: the other runs may still be done
            log.error("%s", second)


@dataclass(eq=False)
class Task:
    """Runs that one process does, one after the other or as an array. It can be pickled.

    Attributes:
        started_at: When the command began, in nanoseconds of the file system's clock.
        together: Whether the runs are an array. Those that are not finished by it are then done individually.
        memory_limit: GiB for what a step of an array keeps on a GPU.
    """

    jobs: Sequence[Job]
    started_at: int
    callbacks: Callbacks
    together: bool = False
    memory_limit: float | None = None

    @property
    def name(self) -> str:
        """Return what messages call it."""
        first = self.jobs[0].folder.name
        return f"an array of {len(self.jobs)} runs, {first} the first" if self.together else first

    def __call__(self) -> dict[Path, str]:
        """Do the task in this process. Return why runs could not be done, by folder; what else became of them is in
        their records."""
        if self.together:
            self._train_array()
        reasons = {}
        for job in self.jobs:
            if self.together and final_record(job, self.started_at) and (job.folder / ".hydra").is_dir():
                continue
            try:
                do_run(job, self.callbacks, self.started_at)  # leaves Hydra's files, whichever way the run was trained
            except Exception as error:
                reasons[job.folder] = one_line(error)
        return reasons

    def _train_array(self) -> None:
        from normlab.training.device import keep_freed_memory
        from normlab.training.run import run_array  # a second or two: torch and Lightning

        keep_freed_memory()
        settings, folders = [job.settings for job in self.jobs], [job.folder for job in self.jobs]
        try:
            run_array(settings, folders, memory_limit=self.memory_limit)
        except Exception as error:  # each run may still be done individually, and then says what is wrong with it
            reason = f"an array failed ({one_line(error)}): its runs are done individually"
            log_progress(folders[0].parent / "progress.log", reason)


def one_line(error: BaseException) -> str:
    """Return an error in one line: the message of a `NormlabError`, else with its type."""
    return ("" if isinstance(error, NormlabError) else f"{type(error).__name__}: ") + first_line(error)
