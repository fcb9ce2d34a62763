"""Run a sweep to its end: a process or a run that fails stops no other."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from normlab.board import Means
from normlab.claim import busy
from normlab.errors import NormlabError
from normlab.record import Record
from normlab.scheduler.progress import SweepProgress, epochs_done, final_record, log_progress, modified
from normlab.scheduler.task import Task
from normlab.settings.plan import Job

NEXT = {"again": "tried once more, on its own", "failed": "recorded as failed", "further": "it resumes"}
IDLE = 2  # ends in a row in which no run was begun: then nothing more is started


@dataclass
class Ended:
    """The end of a task: why runs could not be done, by folder; what else there is to tell; and whether its process
    died while it held the task."""

    task: Task
    reasons: dict[Path, str] = field(default_factory=dict)
    message: str | None = None
    died: bool = False


class Backend:
    """Where tasks are done. This one does them at once, so they have ended when `start` returns.

    Attributes:
        isolated: Whether tasks that run at the same time cannot harm each other.
        ends: Tasks that have ended, not yet returned by `wait`.
    """

    isolated = False

    def __init__(self) -> None:
        self.ends: list[Ended] = []

    def room(self) -> int:
        """Return how many tasks can be started."""
        return sys.maxsize

    def start(self, tasks: Sequence[Task]) -> None:
        """Start tasks, as many as there is room for."""
        raise NotImplementedError

    def wait(self, seconds: float) -> list[Ended]:
        """Return the tasks that have ended, after so many seconds at most."""
        ends, self.ends = self.ends, []
        if not ends:
            time.sleep(seconds)
        return ends

    def stop(self) -> None:
        """End what is running; its runs are recorded as interrupted."""


class InProcess(Backend):
    """Tasks one after the other in this process."""

    def room(self) -> int:
        return 1

    def start(self, tasks: Sequence[Task]) -> None:
        self.ends += [Ended(task, task()) for task in tasks]


@dataclass(frozen=True)
class State:
    """A run's files before an attempt: when they were written, and how many epochs they have."""

    log: int
    result: int
    epochs: int

    @classmethod
    def of(cls, folder: Path) -> "State":
        return cls(modified(folder / "train.log"), modified(folder / "result.json"), epochs_done(folder))


@dataclass
class Schedule:
    """The runs of a sweep, done until all have ended, here or in another process that works on the same folders.

    A run whose process died, or that was stopped, before it completed one more epoch is tried once more on its own,
    after the others; then it is recorded as failed.

    Args:
        jobs: All runs, those that are finished included.
        started_at: When this command began, in nanoseconds of the file system's clock: what has ended since then is not
            tried again, unless it was interrupted.
        divide: Returns the tasks that do some runs; with True, each run on its own.
        more: When all runs have ended, returns all that are wanted by now; the sweep ends when these have ended too.
    """

    jobs: Sequence[Job]
    backend: Backend
    started_at: int
    divide: Callable[[Sequence[Job], bool], list[Task]]
    more: Callable[[], Sequence[Job]] | None = None

    def __post_init__(self) -> None:
        self.log = self.jobs[0].folder.parent / "progress.log"
        self.pending: list[Task] = []
        self.alone: list[Job] = []  # to be tried on their own, after the others
        self.running: dict[Task, dict[Path, State]] = {}
        self.over: set[Path] = set()  # runs that are not to be done any more
        self.strikes: Counter[Path] = Counter()  # attempts that came no further
        self.solo = False  # a run is tried on its own: nothing is started beside it

    def run(self) -> None:
        """Do the runs."""
        try:
            self._round()
            while self.more is not None and len(wanted := self.more()) > len(self.jobs):
                self.jobs = wanted
                self._round()
        finally:
            self.backend.stop()

    def _round(self) -> None:
        self.means = Means(self.jobs)
        with SweepProgress(self.jobs, self.started_at, self.log):
            self._loop()

    def _loop(self) -> None:
        idle = 0
        while (left := self._left()) or self.running:
            if idle < IDLE:
                self._start(left)
            elif not self.running:
                print(f"normlab: {len(left)} runs could not be started: see the messages above", file=sys.stderr)
                return
            if ends := self.backend.wait(1.0):  # runs of other processes are looked at again after that
                begun = [self._end(end) for end in ends]
                self.means.update(self.over)
                idle = 0 if any(begun) else idle + 1

    def _left(self) -> list[Job]:
        self.over |= {
            job.folder for job in self.jobs if job.folder not in self.over and final_record(job, self.started_at)
        }
        return [job for job in self.jobs if job.folder not in self.over]

    def _start(self, left: Sequence[Job]) -> None:
        """Start what there is room for. Runs of other processes are left alone until they end or are released."""
        if self.solo and self.running:
            return
        held = {job.folder for task in (*self.pending, *self.running) for job in task.jobs}
        held |= {job.folder for job in self.alone}
        if free := [job for job in left if job.folder not in held and not busy(job.folder)]:
            self.pending += self.divide(free, False)
        tasks: list[Task] = []
        open_ = {job.folder for job in left}
        while self.pending and len(tasks) < self.backend.room():
            task = self.pending.pop(0)
            if any(job.folder in open_ and not busy(job.folder) for job in task.jobs):
                tasks.append(task)
        self.solo = False
        if self.alone and not tasks and not self.pending and (self.backend.isolated or not self.running):
            several = len(self.alone) if self.backend.isolated else 1
            tasks, self.solo = self.divide(self.alone[:several], True), not self.backend.isolated
            del self.alone[:several]
        if tasks:
            self.running |= {task: {job.folder: State.of(job.folder) for job in task.jobs} for task in tasks}
            self.backend.start(tasks)

    def _end(self, end: Ended) -> bool:
        """Decide what becomes of each run of a task that has ended. Return whether any of them was begun."""
        before = self.running.pop(end.task)
        ends = [self._outcome(job, before[job.folder], end) for job in end.task.jobs]
        if end.message:
            parts = [f"{end.task.name}: {end.message}", *(NEXT[outcome] for outcome in NEXT if outcome in ends)]
            announce(self.log, "; ".join(parts))
        for job in end.task.jobs:
            if reason := end.reasons.get(job.folder):
                announce(self.log, f"{job.folder.name}: {reason}")
        return any(outcome != "not begun" for outcome in ends)

    def _outcome(self, job: Job, before: State, end: Ended) -> str:
        folder = job.folder
        now = State.of(folder)
        # by the clock, which may have been put back, a new record may be old
        if final_record(job, self.started_at if now.result == before.result else 0):
            self.over.add(folder)
            return "ended"
        if busy(folder):  # another process was faster
            return "elsewhere"
        if folder in end.reasons:  # and no record: it would be the same again
            self.over.add(folder)
            return "reported"
        if now.log == before.log and not end.died:
            return "not begun"
        if now.epochs > before.epochs:
            if self.strikes[folder]:
                self.alone.append(job)
            return "further"
        self.strikes[folder] += 1
        if self.strikes[folder] == 1:
            self.alone.append(job)
            return "again"
        self.over.add(folder)
        _give_up(job)
        return "failed"


def _give_up(job: Job) -> None:
    record = Record.readable(job.folder)
    if record is not None and record.status == "interrupted":
        reason = "it was stopped twice before it completed another epoch: do jobs have enough time?"
    else:
        reason = "the process that trained it died twice: is there enough memory?"
    try:
        Record.of(job.settings, "failed", reason).save(job.folder)
    except NormlabError as error:  # a full disk: the other runs may still be done
        print(f"normlab: {error}", file=sys.stderr)


def announce(log: Path, line: str) -> None:
    """Print a line, and add it to a sweep's progress.log."""
    print(f"normlab: {line}", file=sys.stderr)
    log_progress(log, line)
