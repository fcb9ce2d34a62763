"""A sweep by Hydra, seen through to its end: whatever happens to a worker or a run, the others are done."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from normlab.claim import busy
from normlab.errors import NormlabError
from normlab.job import BEGAN, ONLY
from normlab.progress import SweepProgress, epochs_done, modified, settled
from normlab.record import Record
from normlab.settings.plan import Job

__all__ = ["parallel", "sweep"]

ARRAYS_PAY = 32  # images a step: on CPU an array is the faster way up to here, and no slower above (docs/study.md)
IDLE = 2  # launches that begin nothing before it is no use to launch again


def parallel(overrides: Sequence[str], jobs: Sequence[Job]) -> list[str]:
    """What a study adds to its command line to use the whole machine. Nothing where that says how to launch.

    On a GPU the array launcher; on CPU a process a core, with arrays where some batches are so small that they pay.
    """
    given = {override.lstrip("+").partition("=")[0] for override in overrides}
    options = any(name.startswith("hydra.launcher.") for name in given)  # they need their launcher for one run too
    if any(override.startswith("hydra/launcher=") for override in overrides) or (len(jobs) < 2 and not options):
        return []
    if any(job.settings.accelerator != "cpu" for job in jobs):
        return ["hydra/launcher=array"]
    from joblib import cpu_count  # type: ignore[import-untyped, unused-ignore]  # respects affinity and the limits of containers

    processes = f"hydra.launcher.n_jobs={min(cpu_count(), len(jobs))}"
    if any(job.settings.batch_size <= ARRAYS_PAY for job in jobs):
        words = ["hydra/launcher=array", processes]
    else:
        # A batch of one run: nobody waits behind a queue of runs that another process could have begun.
        words = ["hydra/launcher=joblib", processes, "hydra.launcher.batch_size=1"]
    return [word for word in words if word.partition("=")[0] not in given]


def sweep(jobs: Sequence[Job], launch: Callable[[bool], None], began: int) -> None:
    """Launches the sweep until every run has ended, here or in another process that works on the same folders.

    Args:
        jobs: all runs, those that stand finished included.
        launch: does every run that is not settled and not trained elsewhere; may itself die on the way. With True it
            does them one at a time: a process that dies then takes no other run along.
        began: when this command began, in nanoseconds of the file system's clock: what has ended since then is not
            tried again, unless it was interrupted.
    """
    tried: set[Path] = set()  # ended without a result here: by the clock that may be long ago, if it went back
    # Begun when a process died, left without a record and no further than before: one of them may be the cause.
    suspects: set[Path] = set()
    idle = 0
    with _environment_of_workers(began), SweepProgress(jobs, began, jobs[0].folder.parent / "progress.log"):
        while left := [job for job in jobs if job.folder not in tried and not settled(job, began)]:
            free = [job for job in left if not busy(job.folder)]
            if not free:  # the rest is trained by other processes: done when they are, or taken over when they die
                time.sleep(1)
                continue
            doubtful = [job for job in free if job.folder in suspects]
            logs = {job.folder: modified(job.folder / "train.log") for job in free}
            results = {job.folder: modified(job.folder / "result.json") for job in free}
            epochs = {job.folder: epochs_done(job.folder) for job in free}
            os.environ[ONLY] = json.dumps([str(job.folder.absolute()) for job in doubtful]) if doubtful else ""
            try:
                launch(bool(doubtful))
            except SystemExit as error:  # Hydra's way to say that a worker died; its own lines say more
                if error.code == 130:
                    raise KeyboardInterrupt from None
                print("normlab: the launch ended early; going on with the rest", file=sys.stderr)
            tried |= {job.folder for job in free if _ended(job, results[job.folder])}
            open_ = [
                job for job in free if job.folder not in tried and not settled(job, began) and not busy(job.folder)
            ]
            begun = [job for job in open_ if modified(job.folder / "train.log") != logs[job.folder]]
            stuck = [job for job in begun if epochs_done(job.folder) <= epochs[job.folder]]
            if doubtful:
                for job in stuck:  # it was alone
                    tried.add(job.folder)
                    _give_up(job)
            else:
                suspects |= {job.folder for job in stuck}
            idle = idle + 1 if len(open_) == len(free) and not begun else 0
            if idle == IDLE:
                print(f"normlab: {len(open_)} runs could not be begun: the lines above say why", file=sys.stderr)
                return


@contextmanager
def _environment_of_workers(began: int) -> Iterator[None]:
    """What a launch tells its workers; taken back at the end, for the next command of this process."""
    before = {name: os.environ.get(name) for name in (BEGAN, ONLY)}
    os.environ |= {BEGAN: str(began), ONLY: ""}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ |= {name: value} if value is not None else {}


def _ended(job: Job, before: int) -> bool:
    """Whether a run has got a record since, other than that it was interrupted. before: when it had been written."""
    record = Record.readable(job.folder)
    return modified(job.folder / "result.json") != before and record is not None and record.status != "interrupted"


def _give_up(job: Job) -> None:
    record = Record.readable(job.folder)
    if record is not None and record.status == "interrupted":
        told = "it was stopped twice before another epoch was done: does a job have enough time?"
    else:
        told = "the process that trained it died twice: is there enough memory?"
    try:
        Record.failed(job.settings, told).save(job.folder)
    except NormlabError as error:  # a full disk: the other runs may still be done
        print(f"normlab: {error}", file=sys.stderr)
