"""Where a run's curves also go, by Lightning's own loggers: CSV files, Weights & Biases, MLflow."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, WandbLogger

from normlab.errors import ConfigError, first_line
from normlab.settings import Settings

log = logging.getLogger("normlab")


class Loggers:
    """The loggers of one run, TensorBoard apart. One that fails is warned of and left: no run is lost for it.

    Args:
        before: of a run that resumes, the id of its run in each logger, in which it continues.

    Attributes:
        ids: that of this run in each logger; a run that resumes continues in it.

    Raise `ConfigError` if a logger does not start.
    """

    def __init__(self, settings: Settings, folder: Path, before: Mapping[str, str]) -> None:
        self.each: dict[str, Logger] = {}
        self.ids: dict[str, str] = {}
        for name in settings.logger:
            if name == "tensorboard":
                continue
            try:
                logger = _MAKE[name](folder, before.get(name))
                logger.log_hyperparams(dict(settings.flat()) | {"config_hash": settings.config_hash()})
            except Exception as error:
                self.close(ended=False)
                raise ConfigError(f"logger={name}: it does not start ({first_line(error)[:200]})") from error
            self.each[name], self.ids[name] = logger, str(logger.version)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to curves, by TensorBoard's tag."""
        for name, logger in list(self.each.items()):
            try:
                logger.log_metrics(dict(values), step)
                logger.save()
            except Exception:
                log.warning("logger=%s failed, and is left out from here on", name, exc_info=True)
                del self.each[name]

    def close(self, *, ended: bool) -> None:
        """ended: whether all epochs are done."""
        for name, logger in self.each.items():
            try:
                logger.finalize("success" if ended else "failed")
                if isinstance(logger, WandbLogger):
                    logger.experiment.finish(0 if ended else 1)  # Lightning leaves that to the end of the process
            except Exception:
                log.warning("logger=%s could not be closed", name, exc_info=True)
        self.each.clear()


def _csv(folder: Path, _: str | None) -> Logger:
    """csv/version_0/metrics.csv; a run that resumes has version_1."""
    return CSVLogger(folder, name="csv")


def _wandb(folder: Path, run: str | None) -> Logger:
    """A run of the project that is called after the sweep, grouped by setting. Several runs of one process, as of an
    array, are runs of their own."""
    return WandbLogger(
        name=folder.name,
        save_dir=folder,
        id=run,
        project=os.environ.get("WANDB_PROJECT") or folder.parent.name,
        group=folder.name.rpartition("-seed_")[0] or None,
        reinit="create_new",
        settings={"silent": True},  # what it prints would go through the display of a sweep
    )


def _mlflow(folder: Path, run: str | None) -> Logger:
    """A run of the experiment that is called after the sweep, by default in mlflow.db beside its runs."""
    place = folder.resolve().parent
    with FileLock(place / ".mlflow.lock"):  # processes that make its tables, or an experiment, at the same time
        logger = MLFlowLogger(
            experiment_name=place.name,
            run_name=folder.name,
            tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{place / 'mlflow.db'}",
            artifact_location=(place / "mlartifacts").as_uri(),
            run_id=run,
        )
        _ = logger.experiment
    return logger


_MAKE = {"csv": _csv, "wandb": _wandb, "mlflow": _mlflow}
