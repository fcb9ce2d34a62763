"""A run's folder: who may train in it, what is removed from it before, and its train.log."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from normlab.claim import claim
from normlab.errors import ConfigError
from normlab.record import Record
from normlab.settings import Settings

# Written whole, by way of a hidden file.
RESULTS = ("result.json", "predictions.npz", "support.npz", "robustness.csv")  # of the end of a run
GROWING = ("metrics.csv", "probes.csv", "last.ckpt", "best.ckpt")  # from its first epoch on
SCRATCH = tuple(f".{name}.*" for name in (*RESULTS, *GROWING))
LOGS = ("train.log", "events.out.tfevents.*")
RUN_FILES = (".lock", ".hydra", "result.json")  # every folder in which a run has begun holds one of these


@contextmanager
def claimed(settings: Settings, folder: Path) -> Iterator[Record | None]:
    """Hold a run's folder. Yield its finished record, or None if the run is still to be done.

    Raise `ConfigError` if the folder holds other files than a run's, `BusyError` if another process trains in it.
    """
    if not settings.force and (record := Record.finished_for(folder, settings.config_hash())):
        yield record
        return
    if folder.exists() and any(folder.iterdir()) and not any((folder / name).exists() for name in RUN_FILES):
        raise ConfigError(f"{folder} holds files that no run has left there: choose a folder of its own for each run")
    folder.mkdir(parents=True, exist_ok=True)
    with claim(folder):
        # looked at again: another process may have finished it just now
        yield None if settings.force else Record.finished_for(folder, settings.config_hash())


def remove_leftovers(folder: Path, *, whole: bool = True) -> None:
    """Remove what an earlier attempt left, once everything that a user can fix has been checked.

    Its event files above all: two attempts in one folder would be drawn as one zig-zag. `whole`: also what a run
    needs to resume.
    """
    for pattern in (*RESULTS, *SCRATCH, *((*GROWING, *LOGS) if whole else ())):
        for file in folder.glob(pattern):
            file.unlink(missing_ok=True)


SOURCES = ("normlab", "lightning.pytorch", "lightning.fabric", "py.warnings")

# Messages that appear in every run and help nobody, each with the reason.
SILENCED = (
    ".*It is recommended to use .*sync_dist=True.*",  # what is logged is that of all devices already
    ".*does not have many workers.*",  # a batch is one indexing call: workers would only copy it
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",  # Lightning's own call into torch
    ".*Checkpoint directory .* exists and is not empty.*",  # a run's folder holds its other files too
)


class LogFile(logging.FileHandler):
    """A log file that drops what a full disk cannot take, instead of ending the run or filling the terminal."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the record."""


@contextmanager
def log_to(*files: Path) -> Iterator[logging.Logger]:
    """While open, send what Lightning, warnings and normlab log to these files only; so too exceptions that end a
    thread, such as the one by which TensorBoard writes."""
    handlers = [LogFile(file, encoding="utf-8") for file in files]
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handler.addFilter(lambda record: "Tip:" not in record.getMessage())  # Lightning's advertisements
    loggers = [logging.getLogger(name) for name in SOURCES]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    shown = warnings.showwarning
    logging.captureWarnings(True)
    captured = warnings.showwarning is shown  # before, by the host
    hook = threading.excepthook
    # whatever depends on a thread that ends with an exception will fail and say so
    threading.excepthook = lambda args: loggers[0].warning("a thread ended: %s", args.exc_value)
    try:
        for logger in loggers:
            logger.handlers[:], logger.propagate = [*handlers], False
            logger.setLevel(logging.INFO)
        with warnings.catch_warnings():
            for message in SILENCED:
                warnings.filterwarnings("ignore", message)
            yield loggers[0]
    finally:
        threading.excepthook = hook
        if not captured:
            logging.captureWarnings(False)
        for logger, (found, propagate, level) in zip(loggers, before, strict=True):
            logger.handlers[:], logger.propagate = found, propagate
            logger.setLevel(level)
        for handler in handlers:
            handler.close()
