"""A run's folder: who may train in it, and what is removed from it before."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from normlab.claim import claim
from normlab.errors import ConfigError
from normlab.record import PLAN, Record
from normlab.settings import Settings

__all__ = ["claimed", "make_room", "remove"]

# Written whole, by way of a hidden file.
RESULTS = ("result.json", "predictions.npz", "support.npz")  # of the end of a run
GROWING = ("metrics.csv", "probes.csv", "last.ckpt", "best.ckpt")  # from its first epoch on
SCRATCH = tuple(f".{name}.*" for name in (*RESULTS, *GROWING))
LOGS = ("train.log", "events.out.tfevents.*")
BEGUN = (".lock", ".hydra", "result.json", PLAN)  # one of them stands in every folder in which a run has begun


@contextmanager
def claimed(settings: Settings, folder: Path) -> Iterator[Record | None]:
    """Holds a run's folder; gives the finished record that stands in it, or None where the run has to be done.

    Raises `ConfigError` where the folder holds a stranger's files, `BusyError` where another process trains in it.
    """
    if not settings.force and (record := Record.standing(folder, settings.config_hash())):
        yield record
        return
    if folder.exists() and any(folder.iterdir()) and not any((folder / name).exists() for name in BEGUN):
        raise ConfigError(f"{folder} holds files that no run has left there: choose a folder of its own for each run")
    folder.mkdir(parents=True, exist_ok=True)
    with claim(folder):
        # looked at again: another process may have finished it just now
        yield None if settings.force else Record.standing(folder, settings.config_hash())


def make_room(folder: Path, *, whole: bool = True) -> None:
    """Removes what an earlier attempt left, once nothing that the user can mend is left to go wrong.

    Its event files above all: two attempts in one folder would be drawn as one zig-zag. `whole`: also what a run that
    goes on needs.
    """
    remove(folder, *RESULTS, *SCRATCH, *((*GROWING, *LOGS) if whole else ()))


def remove(folder: Path, *patterns: str) -> None:
    """Removes the files of a folder whose names match."""
    for pattern in patterns:
        for file in folder.glob(pattern):
            file.unlink(missing_ok=True)
