"""One run, or an array of runs: settings and folders in, files and records out. Knows Lightning, but no Hydra."""

import logging
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from rich.console import Console

from normlab.data.sources import resolve
from normlab.errors import BusyError, ConfigError, first_line
from normlab.output import steady
from normlab.record import Record
from normlab.settings import Settings, check_loggers
from normlab.settings.custom import edited
from normlab.training.build import load_array, unfoldable
from normlab.training.device import missing_device, restore_process, set_threads
from normlab.training.files import ResumePoint, RunFiles, resume_point
from normlab.training.fit import train_members
from normlab.training.folder import claimed, log_to, remove_leftovers
from normlab.training.networks import Member
from normlab.training.ranks import check_shares, end_if_imported


@restore_process()
def run(
    settings: Settings | str | Sequence[str], folder: str | Path | None = None, *, console: Console | None = None
) -> Record:
    """Train one network, measure it and leave the whole run in `folder`; return what result.json holds.

    Args:
        settings: from `load`, or as the command line has them: "norm=ln epochs=2" or ["norm=ln", "epochs=2"].
        folder: of the run; None: where the command line puts it, `lightning_logs/runs/ln-epochs_2-seed_0`.
        console: where progress is shown; stderr by default.

    A finished run of the same configuration is returned as it is, unless `settings.force`; one that was stopped resumes
    after its last completed epoch, and ends with the bits of one that was not. A run that fails while it trains is
    recorded as `failed`, with the traceback in train.log; a loss that is not finite ends it as `diverged`; a GPU that
    is not there makes it `unavailable`; Ctrl-C and SIGTERM leave it `interrupted` and raise `KeyboardInterrupt`.

    Raises:
        ConfigError, DataError: before a file in the folder is touched, for what the user can fix.
        BusyError: likewise, where another process trains in the folder. Also where this process was held up so long
            that another one took the folder over, in which it then writes no more.

    May be called from any thread. The process is left as it was: see `restore_process`.
    """
    end_if_imported()
    if not isinstance(settings, Settings):
        from normlab.settings.plan import load  # Hydra

        settings = load(*(shlex.split(settings) if isinstance(settings, str) else settings))
    console = console or Console(stderr=True, file=steady(sys.stderr))
    settings = with_data(settings, console)
    folder = settings.folder() if folder is None else Path(folder)
    check_loggers(settings)
    with claimed(settings, folder) as standing:
        return standing or _recorded(settings, folder, console)


@restore_process()
def run_array(
    settings: Sequence[Settings], folders: Sequence[Path], *, memory_limit: float | None = None
) -> list[Record]:
    """Train runs that can share a computation (`normlab.settings.arrays.arrays`) as one. Return the records of those
    that it trained: finished runs are left as they are, one that another process trains is left to that, one whose GPU
    is not there to `run`.

    Each run resumes after its last completed epoch, whether it was begun in an array or on its own. It leaves the
    folder that `run` leaves, whatever its neighbours do. Ctrl-C and SIGTERM leave all of them `interrupted`. Raise what
    stops all of them, and leave no record then: each may still be trained on its own.

    Args:
        memory_limit: GiB for what a step keeps on a GPU; None: half of its memory.
    """
    console = Console(quiet=True)
    runs: list[tuple[Settings, Path]] = []
    with ExitStack() as claims:
        for each, folder in zip([with_data(each, console) for each in settings], folders, strict=True):
            if missing_device(each.accelerator, each.devices):
                continue  # never a silent fall-back: alone it is recorded as unavailable
            with suppress(BusyError):  # its record belongs to the process that trains there
                if claims.enter_context(claimed(each, folder)) is None:
                    runs.append((each, folder))
        if not runs:
            return []
        if len(runs) > 1 and (reason := unfoldable(runs[0][0])):
            raise ConfigError(reason)
        return _train_runs(runs, console, memory_limit)


def with_data(settings: Settings, console: Console) -> Settings:
    """Return the settings with `data=auto` resolved to the data set that this machine can have; print a fall-back."""
    if settings.data.name != "auto":
        return settings
    found = resolve("auto", settings.data.root, download=settings.data.download)
    if found.reason:
        console.print(f"normlab: {found.reason}", highlight=False, soft_wrap=True)
    return settings.model_copy(update={"data": settings.data.model_copy(update={"name": found.name})})


def _recorded(settings: Settings, folder: Path, console: Console) -> Record:
    """Do the run, and record it however it ends."""
    if missing := missing_device(settings.accelerator, settings.devices):
        record = Record.of(settings, "unavailable", missing)
        if not ((standing := Record.readable(folder)) and standing.done):  # force=true, and the GPU has gone since
            record.save(folder)
        return record
    [record] = _train_runs([(settings, folder)], console, alone=True)
    return record


def _train_runs(
    runs: Sequence[tuple[Settings, Path]], console: Console, memory_limit: float | None = None, *, alone: bool = False
) -> list[Record]:
    """Train runs as one array, and save each record when it is there. alone: record a run that fails in training, too;
    otherwise raise the error."""
    states = [None if settings.force else resume_point(settings, folder) for settings, folder in runs]
    set_threads(runs[0][0])
    data, models = load_array([settings for settings, _ in runs])
    check_shares(runs[0][0], data[0])
    records: list[Record] = []
    for (_, folder), state in zip(runs, states, strict=True):
        remove_leftovers(folder, whole=not isinstance(state, ResumePoint))
    with log_to(*[folder / "train.log" for _, folder in runs]) as log:
        members: list[Member] = []
        try:
            for (settings, folder), state, images, model in zip(runs, states, data, models, strict=True):
                _tell_of(state, settings, log, console)
                before = state if isinstance(state, ResumePoint) else None
                members.append(Member(settings, images, model, RunFiles(settings, folder, before), before))
            for record in train_members(members, console, memory_limit):
                record.save(runs[len(records)][1])
                records.append(record)
            if change := edited(runs[0][0]):
                log.warning(change)
        except (KeyboardInterrupt, SystemExit):  # Lightning turns Ctrl-C and SIGTERM into SystemExit
            for settings, folder in runs[len(records) :]:
                with suppress(BusyError):
                    Record.of(settings, "interrupted", "stopped from outside").save(folder)
            raise KeyboardInterrupt from None
        except (BusyError, ConfigError):  # a folder is another process's now; no run can be had this way
            raise
        except Exception as error:
            log.exception("training failed")
            if not alone:
                raise
            reason = f"{type(error).__name__}: {first_line(error)}"
            records = [Record.of(runs[0][0], "failed", f"{reason} (the traceback is in train.log)")]
            records[0].save(runs[0][1])
        finally:
            for member in members:
                if member.files is not None:
                    member.files.close()
    return records


def _tell_of(state: ResumePoint | str | None, settings: Settings, log: logging.Logger, console: Console) -> None:
    """Say how a run begins that was begun before."""
    if state is None:
        return
    message = f"{state}: training begins anew"
    if isinstance(state, ResumePoint):
        message = f"resumes after epoch {state.epoch} of {settings.epochs}"
    log.info("%s: %s", settings.slug(), message)
    console.print(f"{settings.slug()}  {message}", highlight=False, markup=False, soft_wrap=True)
