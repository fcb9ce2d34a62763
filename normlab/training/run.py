"""One run, or an array of runs: settings and folders in, files and records out. Knows Lightning, but no Hydra."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console

from normlab.data.datamodule import ImageData
from normlab.data.sources import resolve
from normlab.errors import BusyError, ConfigError, NormlabError
from normlab.record import Record
from normlab.settings import Settings
from normlab.training.array import load_array, train_array
from normlab.training.build import checkpoints, lightning_precision, set_float32_products
from normlab.training.callbacks import DivergenceStop, EpochTable, Reseed, Speed
from normlab.training.classifier import Classifier
from normlab.training.device import choose_accelerator, describe_device, missing_device
from normlab.training.foldable import unfoldable
from normlab.training.logs import log_to
from normlab.training.memory import keep_freed_memory
from normlab.training.outcome import Trained, asked, conclude
from normlab.training.probes import ProbeTable, probe_callbacks
from normlab.training.progress import EpochLine, ProgressLine
from normlab.training.refit import refit
from normlab.training.views import NormViews, show_filters, show_settings

__all__ = ["run", "run_array"]

ALL_THREADS = torch.get_num_threads()  # what torch takes by itself, before a run asks for fewer
# Written whole, by way of a hidden file.
FILES = ("result.json", "metrics.csv", "predictions.npz", "probes.csv", "support.npz")
OUTPUTS = (*FILES, "train.log", "hparams.yaml", "last.ckpt", "best.ckpt")
SCRATCH = ("events.out.tfevents.*", *(f".{name}.*" for name in FILES))
OURS = (".lock", ".hydra", "result.json")  # one of them stands in every folder in which a run has begun


def run(settings: Settings, folder: str | Path, *, console: Console | None = None) -> Record:
    """Trains one network, measures it and leaves the whole run in `folder`; returns what stands in result.json.

    A finished run of the same configuration is returned as it stands, unless `settings.force`. A run that fails while
    it trains is recorded as `failed`, with the traceback in train.log; a loss that is not finite ends it as `diverged`;
    a GPU that is not there makes it `unavailable`; Ctrl-C and SIGTERM leave it `interrupted` and raise
    `KeyboardInterrupt`. `console` is where progress is shown: stderr by default.

    Raises, before a file in the folder is touched: `ConfigError` and `DataError` for what the user can mend,
    `BusyError` where another process trains in the folder.
    """
    folder, console = Path(folder), console or Console(stderr=True)
    settings = with_data(settings, console)
    with _claimed(settings, folder) as standing:
        return standing or _recorded(settings, folder, console)


def run_array(
    settings: Sequence[Settings], folders: Sequence[Path], *, memory_limit: float | None = None
) -> list[Record]:
    """Trains runs that can share a computation (`normlab.grouping.arrays`) as one.

    Gives the records of those that it trained: a run that stands finished is left as it is, one that another process
    trains is left to that, one whose GPU is not there to `run`.

    Every run leaves the folder that `run` leaves, whatever its neighbours do. Ctrl-C and SIGTERM leave all of them
    `interrupted`. Raises what stops all of them, and leaves no record then: each may still be done singly.

    Args:
        memory_limit: GiB for what a step keeps; None: half of a GPU's memory.
    """
    console = Console(quiet=True)
    settings = [with_data(each, console) for each in settings]
    mine: list[tuple[Settings, Path]] = []
    with ExitStack() as claims:
        for each, folder in zip(settings, folders, strict=True):
            if missing_device(each.accelerator, each.devices):
                continue  # never a silent fall-back: alone it is recorded as unavailable
            try:
                if claims.enter_context(_claimed(each, folder)) is None:
                    mine.append((each, folder))
            except BusyError:
                continue  # its record belongs to the process that trains there
        return _train_together(mine, console, memory_limit) if mine else []


@contextmanager
def _claimed(settings: Settings, folder: Path) -> Iterator[Record | None]:
    """Holds a run's folder; gives the finished record that stands in it, or None where the run has to be done."""
    if not settings.force and (record := Record.standing(folder, settings.config_hash())):
        yield record
        return
    if folder.exists() and any(folder.iterdir()) and not any((folder / name).exists() for name in OURS):
        raise ConfigError(f"{folder} holds files that no run has left there: choose a folder of its own for each run")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise BusyError(f"another process trains in {folder}: wait for it, or choose another name=…") from None
    try:
        # looked at again: another process may have finished it just now
        yield None if settings.force else Record.standing(folder, settings.config_hash())
    finally:
        lock.release()


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
        if not ((standing := Record.find(folder)) and standing.done):  # force=true, and the GPU has gone since
            record.save(folder)
        return record
    _prepare(settings)
    gpu = choose_accelerator(settings.accelerator) == "gpu"
    alone = unfoldable(settings) if gpu else None
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
    _make_room(folder)
    with log_to(folder / "train.log") as log:
        if alone is not None:
            log.info("trained without a CUDA graph: %s", alone)
        try:
            record = _train(settings, folder, data, model, console)
        except (KeyboardInterrupt, SystemExit):  # Lightning turns Ctrl-C and SIGTERM into SystemExit
            _interrupted(settings).save(folder)
            raise KeyboardInterrupt from None
        except Exception as error:
            log.exception("the run failed")
            record = _failed(settings, error)
        record.save(folder)
    return record


def _train_together(
    runs: Sequence[tuple[Settings, Path]], console: Console, memory_limit: float | None = None
) -> list[Record]:
    """Trains an array, and saves each record when it is there."""
    settings, folders = [each for each, _ in runs], [folder for _, folder in runs]
    _prepare(settings[0])
    data, models = load_array(settings)
    for folder in folders:
        _make_room(folder)
    records: list[Record] = []
    with log_to(*[folder / "train.log" for folder in folders]) as log:
        line = EpochLine(settings[0].slug(), settings[0].epochs, console)
        try:
            for record in train_array(settings, folders, data, models, memory_limit=memory_limit, told=line):
                record.save(folders[len(records)])
                records.append(record)
        except (KeyboardInterrupt, SystemExit):
            for each, folder in runs[len(records) :]:
                _interrupted(each).save(folder)
            raise KeyboardInterrupt from None
        except Exception:
            log.exception("the array failed")
            raise
    return records


def _prepare(settings: Settings) -> None:
    """Sets the process up for training. Raises `ConfigError` where the device has no such precision."""
    if choose_accelerator(settings.accelerator) == "cpu":
        if settings.precision == "16-mixed":
            # Lightning would take bf16 in its stead, and say so in a log
            raise ConfigError("precision=16-mixed needs a GPU: use precision=bf16-mixed on CPU")
        if settings.precision == "tf32":
            raise ConfigError("precision=tf32 needs a GPU: use precision=32-true on CPU")
    torch.set_num_threads(settings.threads or ALL_THREADS)
    keep_freed_memory()


def _make_room(folder: Path) -> None:
    """Removes what an earlier attempt left, once nothing that the user can mend is left to go wrong.

    Its event files above all: two attempts in one folder would be drawn as one zig-zag.
    """
    for file in [folder / name for name in OUTPUTS] + [file for name in SCRATCH for file in folder.glob(name)]:
        file.unlink(missing_ok=True)


def _interrupted(settings: Settings) -> Record:
    return Record(status="interrupted", error="stopped from outside", **asked(settings))


def _failed(settings: Settings, error: Exception) -> Record:
    told = f"{type(error).__name__}: {error}".splitlines()[0]
    return Record(status="failed", error=f"{told} (the traceback is in train.log)", **asked(settings))


def _train(settings: Settings, folder: Path, data: ImageData, model: Classifier, console: Console) -> Record:
    """By Lightning's loop."""
    trainer, logger, table, speed, divergence = _trainer(settings, folder, data, console)
    show_settings(logger.experiment, settings)
    show_filters(logger.experiment, model.net, 0)
    began = time.perf_counter()
    trainer.fit(model, datamodule=data)
    fitted = time.perf_counter()
    log_prob = {}
    if divergence.epoch is None:
        batches = trainer.predict(model, datamodule=data) or []
        log_prob = {part: torch.cat(found) for part, found in zip(data.predicted, batches, strict=True)}
    trained = Trained(
        model=model,
        data=data,
        logger=logger,
        table=table,
        diverged=divergence.epoch,
        log_prob=log_prob,
        device=describe_device(trainer.strategy.root_device),
        fit_s=fitted - began,
        images_per_s=speed.images_per_s,
        fitted=fitted,
    )
    record = conclude(settings, folder, trained)
    if settings.refit_epochs and record.status == "completed":
        found, seconds = refit(settings, model, data)
        metrics, times = {**record.metrics, **found}, {**record.time, "refit_s": seconds}
        record = replace(record, metrics=metrics, time=times)
    return record


def _trainer(
    settings: Settings, folder: Path, data: ImageData, console: Console
) -> tuple[Trainer, TensorBoardLogger, EpochTable, Speed, DivergenceStop]:
    logger = TensorBoardLogger(folder, name="", version="", default_hp_metric=False)
    table, speed, divergence = EpochTable(folder), Speed(), DivergenceStop()
    callbacks: list[Callback] = [
        Reseed(settings.seed),
        speed,
        divergence,
        NormViews(logger.experiment),
        ProgressLine(settings.slug(), speed, console),
        *probe_callbacks(settings, data, ProbeTable(folder, logger.experiment)),
        *checkpoints(folder, data),
    ]
    accelerator = choose_accelerator(settings.accelerator)
    set_float32_products(settings, accelerator)
    trainer = Trainer(
        accelerator=accelerator,
        devices=settings.devices,
        precision=lightning_precision(settings),  # type: ignore[arg-type]  # one of its words
        max_epochs=settings.epochs,
        gradient_clip_val=settings.gradient_clip,
        deterministic=accelerator == "gpu",  # the same bits twice; on CPU they are anyway
        logger=[logger, table],
        callbacks=callbacks,
        log_every_n_steps=1,  # nothing is logged a step; any larger number warns where an epoch is short
        num_sanity_val_steps=0,
        enable_progress_bar=False,  # ProgressLine is ours
        enable_model_summary=False,
    )
    return trainer, logger, table, speed, divergence
