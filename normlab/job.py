"""One run of a command line: what Hydra calls, in this process or in a worker. Imports no torch before it has to."""

import logging
import multiprocessing
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from normlab.config import parse
from normlab.errors import BusyError, NormlabError
from normlab.record import Record

__all__ = ["job"]

log = logging.getLogger("normlab")


def job(config: DictConfig) -> None:
    """Does the run in Hydra's output folder, unless it stands there finished. Whatever happens to it is in its record:
    a run that fails does not stop the sweep that it belongs to."""
    settings = parse(config)
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        if not settings.force and Record.standing(folder, settings.config_hash()):
            log.info("%s is finished: skipped", folder)
            return
        from normlab.training import run  # a second or two: torch and Lightning

        # Several workers share one terminal: each writes whole lines, none draws a bar over the others'.
        alone = multiprocessing.parent_process() is None
        run(settings, folder, console=None if alone else Console(stderr=True, force_terminal=False))
    except BusyError as error:
        log.warning("%s", error)  # its record belongs to the process that trains there
    except NormlabError as error:
        standing = Record.find(folder)
        if standing is not None and standing.config_hash != settings.config_hash():
            raise  # never write over the result of another configuration
        Record(
            status="failed",
            error=str(error).splitlines()[0],
            config=settings.model_dump(),
            config_hash=settings.config_hash(),
            setting=settings.setting(),
            seed=settings.seed,
        ).save(folder)
