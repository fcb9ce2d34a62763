"""One display for a whole sweep, read from the runs' files: it shows the same whoever trains them."""

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

from normlab.errors import NormlabError
from normlab.output import counted
from normlab.record import Record
from normlab.settings.plan import Job, labels, run_label

EVERY = 1.0  # seconds between two looks at the files
STILL_ALIVE = 300.0  # seconds after which a log gets a line though no run has ended


def final_record(job: Job, started_at: int) -> Record | None:
    """Return the record of a run that needs no more work: finished, or failed since `started_at` (ns, file time)."""
    fresh = modified(job.folder / "result.json") >= started_at
    try:
        record = Record.find(job.folder)
    except (OSError, NormlabError):
        return None
    if record is None or record.config_hash != job.settings.config_hash() or record.status == "interrupted":
        return None  # interrupted, by whoever: it is done again
    return record if fresh or (record.done and not job.settings.force) else None


class SweepProgress:
    """While it is open: runs done and running, share of all epochs, time left, the last result.

    On a terminal a live display; elsewhere, and in `log`, a line for each run that ends. Looks at the files of the
    runs from a thread of its own, so it holds up nothing.

    Args:
        jobs: all runs of the sweep, those that were finished before included.
        started_at: when the sweep began, in nanoseconds of the file system's clock.
        log: a file that every line is added to.
    """

    def __init__(self, jobs: Sequence[Job], started_at: int, log: Path, console: Console | None = None) -> None:
        self.jobs, self.started_at, self.log = jobs, started_at, log
        names = (run_label(each) for each in labels(jobs))
        self.names = {job.folder: name for job, name in zip(jobs, names, strict=True)}
        self.console = console or Console(stderr=True)
        self.ended: dict[Path, Record] = {
            job.folder: record for job in jobs if (record := final_record(job, started_at))
        }
        self.running: dict[Path, int] = {}
        self.last = ""
        self.total = sum(job.settings.epochs for job in jobs)
        self.at_start = sum(job.settings.epochs for job in jobs if job.folder in self.ended)
        self.opened_at = self.reported_at = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
            console=self.console,
            expand=True,
        )
        self._task = self._bar.add_task("", total=self.total, left="")
        self._live = Live(console=self.console, auto_refresh=False, transient=True)

    def __enter__(self) -> "SweepProgress":
        # A process that joins another's sweep adds lines of its own: whose they are, the number says.
        known = f"{len(self.ended)} of them finished before"
        waiting = [job for job in self.jobs if job.folder not in self.ended and not job.settings.force]
        if begun := sum((job.folder / "last.ckpt").is_file() for job in waiting):
            known += f", {begun} begun"
        self._tell(f"{counted(len(self.jobs), 'run')}, {known}; process {os.getpid()}")
        if self.console.is_terminal:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        if self._live.is_started:
            self._live.stop()
        if kind is None:
            self._look()
            took = time.monotonic() - self.opened_at
            self._tell(f"{len(self.ended)}/{len(self.jobs)} runs have ended, after {duration(took)}")
        else:
            self._tell(f"stopped with {len(self.ended)}/{len(self.jobs)} runs done")

    def _watch(self) -> None:
        while not self._stop.wait(EVERY):
            self._look()
            if self._live.is_started:
                self._live.update(self._display(), refresh=True)
            elif time.monotonic() - self.reported_at > STILL_ALIVE:
                self._tell(self._state())

    def _look(self) -> None:
        """Read what has changed: results once, and of the other runs the number of epochs in metrics.csv."""
        self.running = {}
        for job in self.jobs:
            if job.folder in self.ended:
                continue
            record = final_record(job, self.started_at)
            if record is not None:
                self.ended[job.folder] = record
                self.last = ended(self.names[job.folder], record)
                self._tell(f"{self._state()}; {self.last}")
            elif modified(job.folder / "train.log", job.folder / "metrics.csv") >= self.started_at:
                self.running[job.folder] = epochs_done(job.folder)

    def _done(self) -> int:
        """Return the epochs trained, those of ended runs counted in full."""
        whole = sum(job.settings.epochs for job in self.jobs if job.folder in self.ended)
        return whole + sum(self.running.values())

    def _left(self) -> str:
        """Return the time left at the pace since the start, with the epochs that this sweep has trained since then."""
        trained = self._done() - self.at_start
        if self.total == self._done():
            return ""
        if trained <= 0:
            return "time left: not known yet"
        return f"about {duration((time.monotonic() - self.opened_at) * (self.total - self._done()) / trained)} left"

    def _state(self) -> str:
        running = f"{len(self.running)} running" if self.running else ""
        return ", ".join(filter(None, [f"{len(self.ended)}/{len(self.jobs)} runs done", running, self._left()]))

    def _display(self) -> Group:
        text = f"{len(self.ended)}/{len(self.jobs)} runs done, {len(self.running)} running"
        self._bar.update(self._task, completed=self._done(), description=text, left=self._left())
        epochs = {job.folder: job.settings.epochs for job in self.jobs}
        lines = [
            f"  {self.names[folder]}  epoch {min(n + 1, epochs[folder])}/{epochs[folder]}"
            for folder, n in self.running.items()
        ]
        most = 8  # more would push the bar off a small screen
        lines = lines[:most] + [f"  and {len(lines) - most} more"] * (len(lines) > most)
        return Group(self._bar, *map(Text, lines), Text(f"  last: {self.last}" if self.last else "", style="dim"))

    def _tell(self, line: str) -> None:
        self.reported_at = time.monotonic()
        if not self.console.is_terminal:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)
        log_progress(self.log, line)


def log_progress(log: Path, line: str) -> None:
    """Add a line with the time to a sweep's progress.log; a full disk drops it."""
    with suppress(OSError), log.open("a", encoding="utf-8") as file:
        file.write(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {line}\n")


def ended(name: str, record: Record) -> str:
    """Return what came of a run, in one line."""
    parts = [
        f"{part} {100 * acc:.2f} %"
        for part in ("val", "test")
        if (acc := record.metrics.get(f"{part}_acc")) is not None
    ]
    took = [f"in {duration(record.time['fit_s'])}"] if "fit_s" in record.time else []
    return " ".join([f"{name} {record.status}{':' if parts else ''}", ", ".join(parts), *took]).strip()


def duration(seconds: float) -> str:
    """Return a duration as text: 42 s, 7 min, 3 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def modified(*files: Path) -> int:
    """Return when one of the files was last written, ns; 0 if there is none."""
    times = [0]
    for file in files:
        with suppress(OSError):
            times.append(file.stat().st_mtime_ns)
    return max(times)


def epochs_done(folder: Path) -> int:
    """Return how many epochs metrics.csv has."""
    try:
        return max((folder / "metrics.csv").read_bytes().count(b"\n") - 1, 0)
    except OSError:
        return 0
