"""train.log: everything that a run's libraries say, kept out of the terminal."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["log_to"]

SOURCES = ("normlab", "lightning.pytorch", "lightning.fabric", "py.warnings")

# Said once a run and of no use to its reader, each for a reason.
SILENCED = (
    ".*does not have many workers.*",  # a batch is one indexing call: workers would only copy it
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",  # Lightning's own call into torch
    ".*Checkpoint directory .* exists and is not empty.*",  # a run's folder holds its other files too
)


def no_advert(record: logging.LogRecord) -> bool:
    """Lightning advertises its services as tips."""
    return "Tip:" not in record.getMessage()


@contextmanager
def log_to(*files: Path) -> Iterator[logging.Logger]:
    """While it is open, what Lightning, warnings and normlab log goes to these files, and only there."""
    handlers = [logging.FileHandler(file, encoding="utf-8") for file in files]
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handler.addFilter(no_advert)
    loggers = [logging.getLogger(name) for name in SOURCES]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    logging.captureWarnings(True)
    try:
        for logger in loggers:
            logger.handlers[:], logger.propagate = [*handlers], False
            logger.setLevel(logging.INFO)
        with warnings.catch_warnings():
            for message in SILENCED:
                warnings.filterwarnings("ignore", message)
            yield loggers[0]
    finally:
        logging.captureWarnings(False)
        for logger, (found, propagate, level) in zip(loggers, before, strict=True):
            logger.handlers[:], logger.propagate = found, propagate
            logger.setLevel(level)
        for handler in handlers:
            handler.close()
