"""train.log: everything that a run's libraries say, kept out of the terminal."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["log_to"]

SOURCES = ("normlab", "lightning.pytorch", "lightning.fabric", "py.warnings")

# Said once a run and of no use to its reader, each for a reason.
SILENCED = (
    ".*It is recommended to use .*sync_dist=True.*",  # what is logged is that of all devices already
    ".*does not have many workers.*",  # a batch is one indexing call: workers would only copy it
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",  # Lightning's own call into torch
    ".*Checkpoint directory .* exists and is not empty.*",  # a run's folder holds its other files too
)


def no_advert(record: logging.LogRecord) -> bool:
    """Lightning advertises its services as tips."""
    return "Tip:" not in record.getMessage()


class LogFile(logging.FileHandler):
    """A log that a full disk leaves short: what it cannot hold is no reason to end a run, or to fill the terminal."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Lets the line go."""


def thread_failed(args: threading.ExceptHookArgs) -> None:
    """A hook for threads that end with an exception: whatever depends on them will fail and say so."""
    logging.getLogger(SOURCES[0]).warning("a thread ended: %s", args.exc_value)


@contextmanager
def log_to(*files: Path) -> Iterator[logging.Logger]:
    """While it is open, what Lightning, warnings and normlab log goes to these files, and only there; so does what
    ends a thread, such as TensorBoard's, which writes by one of its own."""
    handlers = [LogFile(file, encoding="utf-8") for file in files]
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handler.addFilter(no_advert)
    loggers = [logging.getLogger(name) for name in SOURCES]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    shown = warnings.showwarning
    logging.captureWarnings(True)
    captured = warnings.showwarning is shown  # before, by the host
    hook = threading.excepthook
    threading.excepthook = thread_failed
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
