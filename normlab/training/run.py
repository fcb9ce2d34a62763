"""One run, or an array of runs: settings and folders in, files and records out. Knows Lightning, but no Hydra."""

import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from rich.console import Console

from normlab.data.sources import resolve
from normlab.errors import BusyError, ConfigError, NormlabError
from normlab.output import steady
from normlab.record import Record, read_probes
from normlab.settings import Settings, needs_gpu
from normlab.settings.custom import edited
from normlab.training.array import load_array, train_array
from normlab.training.device import choose_accelerator, missing_device, set_threads
from normlab.training.epoch_line import EpochLine
from normlab.training.fit import train
from normlab.training.foldable import unfoldable
from normlab.training.folder import ARRAY, claimed, make_room, remove
from normlab.training.logs import log_to
from normlab.training.outcome import asked
from normlab.training.process import restore_process
from normlab.training.ranks import check_shares, end_if_imported
from normlab.training.saving import Begun, begun
from normlab.training.snapshot import SNAPSHOT, Snapshot

__all__ = ["run", "run_array"]


@restore_process()
def run(settings: Settings, folder: str | Path, *, console: Console | None = None) -> Record:
    """Trains one network, measures it and leaves the whole run in `folder`; returns what stands in result.json.

    A finished run of the same configuration is returned as it stands, unless `settings.force`; one that was stopped
    goes on after its last whole epoch, and ends with the bits of one that was not. A run that fails while
    it trains is recorded as `failed`, with the traceback in train.log; a loss that is not finite ends it as `diverged`;
    a GPU that is not there makes it `unavailable`; Ctrl-C and SIGTERM leave it `interrupted` and raise
    `KeyboardInterrupt`. `console` is where progress is shown: stderr by default.

    Raises, before a file in the folder is touched: `ConfigError` and `DataError` for what the user can mend,
    `BusyError` where another process trains in the folder. That is also raised where this process was held up so long
    that another one took the folder over, in which it then writes no more.

    May be called from any thread. The process is left as it was: see `restore_process`.
    """
    end_if_imported()
    folder, console = Path(folder), console or Console(stderr=True, file=steady(sys.stderr))
    settings = with_data(settings, console)
    with claimed(settings, folder) as standing:
        return standing or _recorded(settings, folder, console)


@restore_process()
def run_array(
    settings: Sequence[Settings], folders: Sequence[Path], *, memory_limit: float | None = None
) -> list[Record]:
    """Trains runs that can share a computation (`normlab.settings.arrays.arrays`) as one.

    Where they were stopped as an array, they go on as that. Gives the records of those that it trained: a run that
    stands finished is left as it is, one that another process trains is left to that, one whose GPU is not there to
    `run`.

    Every run leaves the folder that `run` leaves, whatever its neighbours do. Ctrl-C and SIGTERM leave all of them
    `interrupted`. Raises what stops all of them, and leaves no record then: each may still be done singly.

    Args:
        memory_limit: GiB for what a step keeps; None: half of a GPU's memory.
    """
    console = Console(quiet=True)
    mine: list[tuple[Settings, Path]] = []
    ended: list[tuple[Settings, Path]] = []
    with ExitStack() as claims:
        for each, folder in zip([with_data(each, console) for each in settings], folders, strict=True):
            if missing_device(each.accelerator, each.devices):
                continue  # never a silent fall-back: alone it is recorded as unavailable
            try:
                (mine if claims.enter_context(claimed(each, folder)) is None else ended).append((each, folder))
            except BusyError:
                continue  # its record belongs to the process that trains there
        return _train_together(mine, console, memory_limit, ended) if mine else []


def with_data(settings: Settings, console: Console) -> Settings:
    """The settings with `data=auto` resolved to the data set that this machine can have; a fall-back is told."""
    if settings.data.name != "auto":
        return settings
    found = resolve("auto", settings.data.root, download=settings.data.download)
    if found.reason:
        console.print(f"normlab: {found.reason}: training on scikit-learn's digits", highlight=False, soft_wrap=True)
    return settings.model_copy(update={"data": settings.data.model_copy(update={"name": found.name})})


def _recorded(settings: Settings, folder: Path, console: Console) -> Record:
    """Does the run, and records it however it ends."""
    if missing := missing_device(settings.accelerator, settings.devices):
        record = Record(status="unavailable", error=missing, **asked(settings))
        if not ((standing := Record.readable(folder)) and standing.done):  # force=true, and the GPU has gone since
            record.save(folder)
        return record
    _prepare(settings)
    gpu = choose_accelerator(settings.accelerator) == "gpu"
    alone = unfoldable(settings) if gpu else None
    before = None if settings.force else begun(folder, settings.config_hash())
    if gpu and isinstance(before, Begun) and _stopped_array([(settings, folder)], ())[1] is None:
        alone = alone or "it was begun by Lightning's loop, or in an array of several runs"
    if gpu and alone is None:  # the array engine, with an array of one: its steps are replayed
        try:
            [record] = _train_together([(settings, folder)], console)
        except (KeyboardInterrupt, NormlabError):
            raise
        except Exception as error:
            record = _failed(settings, error)
            record.save(folder)
        return record
    [data], [model] = load_array([settings])
    check_shares(settings, data)
    if isinstance(before, Begun) and settings.probes:
        try:
            read_probes(folder)
        except NormlabError:
            before = "probes.csv is damaged"
    make_room(folder, whole=not isinstance(before, Begun))
    remove(folder, *ARRAY)  # of an array that does not go on as one
    with log_to(folder / "train.log") as log:
        if before is not None:
            _tell_of(before, settings, log, console)
        if alone is not None:
            log.info("trained without a CUDA graph: %s", alone)
        try:
            record = train(settings, folder, data, model, console, before if isinstance(before, Begun) else None)
        except (KeyboardInterrupt, SystemExit):  # Lightning turns Ctrl-C and SIGTERM into SystemExit
            _interrupted(settings).save(folder)
            raise KeyboardInterrupt from None
        except (BusyError, ConfigError):  # the folder is another process's now; no run can be had this way
            raise
        except Exception as error:
            log.exception("the run failed")
            record = _failed(settings, error)
        if change := edited(settings):
            log.warning(change)
        record.save(folder)
    return record


def _train_together(
    mine: Sequence[tuple[Settings, Path]],
    console: Console,
    memory_limit: float | None = None,
    ended: Sequence[tuple[Settings, Path]] = (),
) -> list[Record]:
    """Trains an array, and saves each record when it is there. `ended`: runs that have a result, and may have been part
    of the array when it was stopped."""
    runs, before = _stopped_array(mine, ended)
    settings, folders = [each for each, _ in runs], [folder for _, folder in runs]
    _prepare(settings[0])
    data, models = load_array(settings)
    lost = [folder for _, folder in mine if before is None and (folder / "last.ckpt").is_file()]
    for _, folder in mine:
        make_room(folder, whole=before is None)
        if before is None:
            remove(folder, SNAPSHOT)
    records: list[Record] = []
    to_do = [run for run in runs if run in mine]
    with log_to(*[folder / "train.log" for _, folder in to_do]) as log:
        if lost:
            log.warning("%d runs had been begun otherwise, %s the first: they begin anew", len(lost), lost[0].name)
        line = EpochLine(settings[0].slug(), settings[0].epochs, console)
        past = {index for index, run in enumerate(runs) if run not in mine}
        try:
            for record in train_array(
                settings, folders, data, models, memory_limit=memory_limit, told=line, ended=past, before=before
            ):
                record.save(to_do[len(records)][1])
                records.append(record)
            if change := edited(settings[0]):
                log.warning(change)
        except (KeyboardInterrupt, SystemExit):
            for each, folder in to_do[len(records) :]:
                with suppress(BusyError):
                    _interrupted(each).save(folder)
            raise KeyboardInterrupt from None
        except BusyError:
            raise
        except Exception:
            log.exception("the array failed")
            raise
    for folder in folders:
        remove(folder, *ARRAY)
    return records


def _stopped_array(
    mine: Sequence[tuple[Settings, Path]], ended: Sequence[tuple[Settings, Path]]
) -> tuple[Sequence[tuple[Settings, Path]], Snapshot | None]:
    """The runs of an array in its order, and how far it had come: a stopped one's, if all that is to be done was part
    of it and the rest of it has ended; otherwise what is to be done, from the beginning."""
    known = {(folder.name, each.config_hash()): (each, folder) for each, folder in [*ended, *mine]}
    wanted = {(folder.name, each.config_hash()) for each, folder in mine}
    if not any(each.force for each, _ in mine):
        for _, folder in known.values():
            found = Snapshot.load(folder)
            array = [*zip(found.names, found.hashes, strict=True)] if found else []
            if wanted <= set(array) <= known.keys():
                return [known[run] for run in array], found
    return mine, None


def _prepare(settings: Settings) -> None:
    """Sets the process up for training. Raises `ConfigError` where the device has no such precision."""
    if choose_accelerator(settings.accelerator) == "cpu" and (told := needs_gpu(settings.precision)):
        raise ConfigError(told)  # accelerator=auto, on a machine without a GPU
    set_threads(settings)


def _tell_of(before: Begun | str, settings: Settings, log: logging.Logger, console: Console) -> None:
    """Says how a run begins that was begun before."""
    if isinstance(before, Begun):
        told = f"goes on after epoch {before.epoch} of {settings.epochs}"
    else:
        told = f"{before}: training begins anew"
    log.info("%s", told)
    console.print(f"{settings.slug()}  {told}", highlight=False, markup=False, soft_wrap=True)


def _interrupted(settings: Settings) -> Record:
    return Record(status="interrupted", error="stopped from outside", **asked(settings))


def _failed(settings: Settings, error: Exception) -> Record:
    told = f"{type(error).__name__}: {error}".splitlines()[0]
    return Record(status="failed", error=f"{told} (the traceback is in train.log)", **asked(settings))
