"""One run: settings and a folder in, files and a record out. Knows Lightning, but no Hydra."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console

from normlab.data.datamodule import ImageData
from normlab.data.sources import resolve
from normlab.errors import BusyError, ConfigError
from normlab.nets import l1_norm, sparsity
from normlab.randomness import Stream, stream_seed
from normlab.record import Record, write_predictions
from normlab.settings import Settings
from normlab.training.callbacks import DivergenceStop, EpochTable, Reseed, Speed
from normlab.training.classifier import Classifier
from normlab.training.device import choose_accelerator, describe_device, missing_device, versions
from normlab.training.logs import log_to
from normlab.training.progress import ProgressLine
from normlab.training.views import NormViews, show_filters, show_hyperparameters, show_result, show_settings

__all__ = ["run"]

ALL_THREADS = torch.get_num_threads()  # what torch takes by itself, before a run asks for fewer
OUTPUTS = ("result.json", "metrics.csv", "predictions.npz", "train.log", "hparams.yaml", "last.ckpt", "best.ckpt")
SCRATCH = ("events.out.tfevents.*", ".result.json.*", ".metrics.csv.*", ".predictions.npz.*")
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
    if not settings.force and (record := Record.standing(folder, settings.config_hash())):
        return record
    if folder.exists() and any(folder.iterdir()) and not any((folder / name).exists() for name in OURS):
        raise ConfigError(f"{folder} holds files that no run has left there: choose a folder of its own for each run")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", blocking=False):
            # looked at again: another process may have finished it just now
            standing = None if settings.force else Record.standing(folder, settings.config_hash())
            return standing or _recorded(settings, folder, console)
    except Timeout:
        raise BusyError(f"another process trains in {folder}: wait for it, or choose another name=…") from None


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
    asked: dict[str, Any] = {
        "config": settings.model_dump(),
        "config_hash": settings.config_hash(),
        "setting": settings.setting(),
        "seed": settings.seed,
        "versions": versions(),
    }
    if missing := missing_device(settings.accelerator, settings.devices):
        record = Record(status="unavailable", error=missing, **asked)
        if not ((standing := Record.find(folder)) and standing.done):  # force=true, and the GPU has gone since
            record.save(folder)
        return record
    if settings.precision == "16-mixed" and choose_accelerator(settings.accelerator) == "cpu":
        # Lightning would take bf16 in its stead, and say so in a log
        raise ConfigError("precision=16-mixed needs a GPU: use precision=bf16-mixed on CPU")
    torch.set_num_threads(settings.threads or ALL_THREADS)
    data = _data(settings)
    data.setup()
    torch.manual_seed(stream_seed(Stream.WEIGHTS, settings.seed))
    model = _model(settings)
    # Nothing that the user can mend is left to go wrong: what an earlier attempt left makes room. Its event files above
    # all: two attempts in one folder would be drawn as one zig-zag.
    for file in [folder / name for name in OUTPUTS] + [file for name in SCRATCH for file in folder.glob(name)]:
        file.unlink(missing_ok=True)
    with log_to(folder / "train.log") as log:
        try:
            record = _train(settings, folder, asked, data, model, console)
        except (KeyboardInterrupt, SystemExit):  # Lightning turns Ctrl-C and SIGTERM into SystemExit
            Record(status="interrupted", error="stopped from outside", **asked).save(folder)
            raise KeyboardInterrupt from None
        except Exception as error:
            log.exception("the run failed")
            told = f"{type(error).__name__}: {error}".splitlines()[0]
            record = Record(status="failed", error=f"{told} (the traceback is in train.log)", **asked)
        record.save(folder)
    return record


def _train(
    settings: Settings, folder: Path, asked: dict[str, Any], data: ImageData, model: Classifier, console: Console
) -> Record:
    trainer, logger, table, speed, divergence = _trainer(settings, folder, data, console)
    writer = logger.experiment
    show_settings(writer, settings)
    show_filters(writer, model.net, 0)
    began = time.perf_counter()
    trainer.fit(model, datamodule=data)
    fitted = time.perf_counter()
    metrics: dict[str, float | None] = {"train_acc": None, "train_ce": None}
    metrics |= {"train_acc_running": table.last("train_acc_running"), "train_ce_running": table.last("train_ce")}
    metrics |= {"val_acc": table.last("val_acc"), "val_ce": table.last("val_ce"), "test_acc": None, "test_ce": None}
    status, error = "completed", None
    if divergence.epoch is not None:
        status, error = "diverged", f"the training loss was not finite in epoch {divergence.epoch}"
    else:
        batches = trainer.predict(model, datamodule=data) or []
        log_prob = {part: torch.cat(found) for part, found in zip(data.predicted, batches, strict=True)}
        if not all(values.isfinite().all() for values in log_prob.values()):
            status, error = "diverged", "the trained network's outputs are not finite"
    if status == "completed":
        for part, values in log_prob.items():
            metrics |= _score(part, values, getattr(data, part).labels)
        metrics |= {"penalty": settings.l1 * float(l1_norm(model.penalised).detach()), **sparsity(model.net)}
        test = log_prob["test"]
        prob_true = test.exp().gather(1, data.test.labels[:, None])[:, 0]
        write_predictions(folder, test.argmax(1).numpy(), prob_true.numpy(), data.test.labels.numpy())
        show_filters(writer, model.net, settings.epochs)
        show_result(
            writer,
            title=f"{settings.slug()} on {data.dataset}",
            images=data.test.images[:, 0],
            labels=data.test.labels,
            log_prob=test,
            classes=data.classes,
            epoch=settings.epochs,
        )
    show_hyperparameters(logger, settings, metrics)
    writer.close()
    return Record(
        status=status,
        error=error,
        data={"name": data.dataset, "train": len(data.train), "val": len(data.val), "test": len(data.test)},
        parameters=sum(p.numel() for p in model.net.parameters()),
        device=describe_device(trainer.strategy.root_device),
        metrics={key: _finite(value) for key, value in metrics.items()},
        time={
            "fit_s": fitted - began,
            "measure_s": time.perf_counter() - fitted,
            "images_per_s": speed.images_per_s,
            "epochs": len(table.rows),
        },
        **asked,
    )


def _data(settings: Settings) -> ImageData:
    return ImageData(
        settings.data.name,
        root=settings.data.root,
        download=settings.data.download,
        batch_size=settings.batch_size,
        val_size=settings.val_size,
        rotation=settings.augment.rotation,
        shift=settings.augment.shift,
        test_curve=settings.test_curve,
        seed=settings.seed,
    )


def _model(settings: Settings) -> Classifier:
    options = dict(settings.norm.options)
    if settings.norm.target is not None:
        options["target"] = settings.norm.target
    try:
        model = Classifier(
            norm=settings.norm.name,
            norm_options=options,
            dropout=settings.dropout,
            placement=settings.placement,
            l1=settings.l1,
            scope=settings.penalty.scope,
            method=settings.penalty.method,
            lr=settings.lr,
            schedule=settings.schedule,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
    except ValueError as error:  # a user's own norm that cannot be built
        raise ConfigError(str(error)) from error
    if settings.l1 and not model.penalised:
        raise ConfigError(f"l1={settings.l1:g} with penalty.scope={settings.penalty.scope} covers no parameter here")
    return model


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
        ModelCheckpoint(folder, filename="last", enable_version_counter=False),
    ]
    if "val" in data.curves:  # without held-out images there is nothing to choose by: the test set chooses nothing
        callbacks.append(
            ModelCheckpoint(folder, filename="best", monitor="acc/val", mode="max", enable_version_counter=False)
        )
    accelerator = choose_accelerator(settings.accelerator)
    if accelerator == "gpu" and settings.precision == "32-true":
        torch.backends.cudnn.allow_tf32 = False  # on by default in convolutions: 10 bits of mantissa, not 23
    trainer = Trainer(
        accelerator=accelerator,
        devices=settings.devices,
        precision=settings.precision,
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


def _score(part: str, log_prob: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Accuracy and cross-entropy of log-probabilities (N, 10), in eval mode and without augmentation."""
    return {
        f"{part}_acc": (log_prob.argmax(1) == labels).double().mean().item(),
        f"{part}_ce": torch.nn.functional.nll_loss(log_prob.double(), labels).item(),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
