"""`hydra/launcher=…`: which launcher runs a sweep, and its checked options. Defaults and meanings are in
conf/hydra/launcher/."""

import math
import os
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from normlab.errors import ConfigError, first_line
from normlab.settings.conf import group_values, instead
from normlab.settings.messages import line
from normlab.settings.plan import Job, compose_config, launcher_of

START = "hydra.launcher."
ARRAYS_PAY = 32  # images per step: on CPU an array is the faster way up to here, and no slower above (docs/study.md)


class Arrays(BaseModel):
    """What every launcher of this package takes. Names are those of its file; here are types and ranges."""

    model_config = ConfigDict(extra="allow")

    n_per_array: int | None = Field(ge=1)
    memory_limit: float | None = Field(gt=0)


class Processes(Arrays):
    """Options of `processes` and `array`."""

    n_jobs: int = Field(ge=-1)

    def workers(self, jobs: Sequence[Job]) -> int:
        """Return how many processes share these runs."""
        usual = 1 if any(job.settings.accelerator == "gpu" for job in jobs) else cores()
        return min(usual if self.n_jobs < 1 else self.n_jobs, len(jobs))


class Queue(Arrays):
    """Options of `submitit_local` and `array_local`, with submitit's names."""

    timeout_min: int = Field(gt=0)
    cpus_per_task: int | None = Field(gt=0)
    gpus_per_node: int | None = Field(ge=0)
    mem_gb: float | None = Field(gt=0)


class Slurm(Queue):
    """Options of `submitit_slurm` and `array_slurm`, with submitit's names."""

    gpus_per_task: int | None = Field(ge=0)
    gres: str | None
    signal_delay_s: int = Field(ge=0)
    max_num_timeout: int = Field(ge=0)
    array_parallelism: int = Field(gt=0)
    setup: list[str] | None
    additional_parameters: dict[str, Any]

    @property
    def gpu(self) -> bool:
        """Whether a job gets a GPU."""
        return any((self.gpus_per_node, self.gpus_per_task, self.gres))


MODELS: dict[str, type[Arrays]] = {
    "processes": Processes,
    "array": Processes,
    "submitit_local": Queue,
    "array_local": Queue,
    "submitit_slurm": Slurm,
    "array_slurm": Slurm,
}


def launcher_overrides(overrides: Sequence[str]) -> list[str]:
    """Return the words of a command line that choose a launcher or its options."""
    return [word for word in overrides if word.lstrip("+~").startswith(("hydra/launcher=", START))]


def launcher_options(launcher: str | None, overrides: Sequence[str], around: Sequence[str] = ()) -> Arrays | None:
    """Return the options of a launcher of this package, as a command line has them; None for another one.

    Raise `ConfigError`, in one line, where an option is unknown or does not fit, or where the launcher cannot work.

    around: Words of a run, whose settings options may refer to.
    """
    words = [word for word in overrides if word.lstrip("+~").startswith(START)]
    if launcher not in MODELS:
        if words and launcher in (None, "basic"):
            raise ConfigError(f"{words[0]}: hydra/launcher=basic has no options; choose another, such as processes")
        return None
    model, chosen = MODELS[launcher], f"hydra/launcher={launcher}"
    if issubclass(model, Queue) and find_spec("submitit") is None:
        raise ConfigError(f'{chosen}: submitit is not installed: pip install "normlab[slurm]"')
    config = compose_config(around)
    values = OmegaConf.create(group_values("hydra/launcher", launcher))
    for word in words:
        _set(values, word, chosen)
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.launcher = values
    try:
        checked = model.model_validate(OmegaConf.to_container(config.hydra.launcher, resolve=True))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{chosen}: {first_line(error)}") from None
    except ValidationError as error:
        raise ConfigError(f"{START}{line(error)}") from None
    if model is Slurm and (missing := [word for word in ("sbatch", "srun") if not shutil.which(word)]):
        raise ConfigError(f"{chosen}: no {missing[0]} on this machine: run the command on a login node")
    return checked


def _set(values: DictConfig, word: str, chosen: str) -> None:
    """Set one option as a command line has it."""
    name = word.lstrip("+~").removeprefix(START).partition("=")[0]
    if name.partition(".")[0] not in values:
        raise ConfigError(f"{START}{name} is no option of {chosen}; {instead(name, map(str, values), START)}")
    try:
        [parsed] = OverridesParser.create().parse_overrides([word])
    except OverrideParseException:
        raise ConfigError(f"{word}: not understood; write {START}name=value") from None
    if parsed.is_sweep_override():
        _, _, value = word.partition("=")
        quoted = f"'{START}{name}=\"{value}\"'"
        raise ConfigError(f"{word}: a value with commas is written in quotes, as in {quoted}")
    OmegaConf.update(values, name, parsed.value(), force_add=True)


def default_launcher(overrides: Sequence[str], jobs: Sequence[Job]) -> str | None:
    """Return the launcher of a study whose command line names none: arrays on a GPU, and on CPU where some batches are
    so small that they pay; else processes. None for a single run without options."""
    if len(jobs) < 2 and not launcher_overrides(overrides):
        return None
    arrays = any(job.settings.accelerator != "cpu" or job.settings.batch_size <= ARRAYS_PAY for job in jobs)
    return launcher_of(overrides) or ("array" if arrays else "processes")


def cores() -> int:
    """Return how many cores this process may use, by its affinity and by the limit of its container."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for quota in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            used, period = " ".join(Path("/sys/fs/cgroup", file).read_text(encoding="ascii") for file in quota).split()
            if int(used) > 0:
                here = min(here, math.ceil(int(used) / int(period)))
        except (OSError, ValueError):  # no such file; "max": no limit
            continue
    return max(1, here)
