"""One run of a command line, in this process or in a worker. Imports no torch before it has to."""

import json
import logging
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig
from rich.console import Console

from normlab.errors import BusyError, NormlabError
from normlab.progress import settled
from normlab.record import Record
from normlab.settings.plan import Job, parse, to_run

__all__ = ["BEGAN", "ONLY", "end_with_parent", "job", "run_here", "wanted"]

# The environment of a sweep's workers.
BEGAN = "NORMLAB_BEGAN"  # when it began, ns: what has ended since is not tried again
ONLY = "NORMLAB_ONLY"  # folders of the runs that this launch is for, a JSON list; empty: all

log = logging.getLogger("normlab")


def run_here(jobs: list[Job], *, multirun: bool) -> None:
    """Do planned runs one after the other in this process, each with the configuration that it was planned with, as
    Hydra does: `.hydra/`, logging, the environment of `hydra.job.env_set`."""
    # hydra.callbacks are Hydra's own business: `normlab.train` leaves a command that has any to hydra.main
    silent = SimpleNamespace(on_job_start=lambda **_: None, on_job_end=lambda **_: None)
    context = HydraContext(config_loader=None, callbacks=silent)  # type: ignore[arg-type]  # read by launchers alone
    place, name = ("hydra.sweep.dir", "hydra.sweep.subdir") if multirun else ("hydra.run.dir", None)
    for number, each in enumerate(jobs):
        config = to_run(each, number, multirun=multirun)

        def task(_: Any, each: Job = each) -> None:
            _do(each, sweeps=multirun)

        _ = run_job(task, config, place, name, context).return_value  # raises what the run raised


def job(config: DictConfig) -> None:
    """Do the run in Hydra's output folder: what launchers and `hydra.main` call."""
    hydra = HydraConfig.get()
    _do(Job(parse(config), Path(hydra.runtime.output_dir)), sweeps=hydra.mode == RunMode.MULTIRUN)


def _do(job: Job, *, sweeps: bool) -> None:
    """Do a run, unless it is finished. Whatever happens to it is in its record: a run that fails does not stop the
    sweep that it belongs to."""
    settings, folder = job.settings, job.folder
    end_with_parent()
    try:
        if sweeps and settled(job, int(os.environ.get(BEGAN, time.time_ns()))):
            return
        if sweeps and not wanted(folder):
            return
        if not settings.force and Record.standing(folder, settings.config_hash()):
            log.info("%s is finished: skipped", folder)
            return
        with Console(stderr=True, quiet=sweeps).status("starting: PyTorch and Lightning are being loaded"):
            from normlab.training import run  # some seconds
            from normlab.training.device import keep_freed_memory

        keep_freed_memory()
        # A sweep has one display of its own, which reads what the runs write.
        run(settings, folder, console=Console(quiet=True) if sweeps else None)
    except BusyError as error:
        if not sweeps:  # whose sweep it is comes back for it
            log.warning("%s", error)  # its record belongs to the process that trains there
    except NormlabError as error:
        standing = Record.readable(folder)
        if standing is not None and standing.config_hash != settings.config_hash():
            raise  # never write over the result of another configuration
        try:
            Record.failed(settings, str(error).splitlines()[0]).save(folder)
        except NormlabError as second:  # a full disk: the other runs may still be done
            log.error("%s", second)


def wanted(folder: Path) -> bool:
    """Whether this launch is for the run in a folder, as far as `ONLY` says."""
    only = os.environ.get(ONLY)
    return not only or str(folder.absolute()) in json.loads(only)


_watching: set[int] = set()


def end_with_parent() -> None:
    """Ends this process, if it is a worker, when its parent is gone: killed, a parent cannot end its workers, and they
    would train on unseen."""
    parent = os.getppid()
    if multiprocessing.parent_process() is None or parent in _watching:
        return
    _watching.add(parent)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
