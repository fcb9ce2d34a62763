"""`hydra/launcher=array`: a sweep's runs trained together where they can be, the others as the joblib launcher does."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from normlab.errors import ConfigError, NormlabError
from normlab.job import BEGAN, ONLY, end_with_parent
from normlab.progress import note, settled
from normlab.record import read_plan, write_plan
from normlab.settings import conf_dir
from normlab.settings.arrays import arrays
from normlab.settings.conf import instead
from normlab.settings.plan import Job, compose_config, parse

__all__ = ["LARGEST", "ArrayLauncher", "ArrayLauncherConf", "check_options", "launcher_options", "planned", "train"]

log = logging.getLogger("normlab")

LARGEST = {"cpu": 24, "gpu": 64}  # runs of an array unless n_per_array says otherwise: benchmarks/study.py


@dataclass
class ArrayLauncherConf:
    """`hydra.launcher` on the command line. `Options` has the ranges."""

    _target_: str = "hydra_plugins.normlab_array.ArrayLauncher"
    n_per_array: int | None = None  # runs of an array at most; null: 24 on CPU, 64 on a GPU
    memory_limit: float | None = None  # GiB for what a step of an array keeps; null: half of a GPU's memory
    n_jobs: int = -1  # processes at the same time; -1: as many as cores, and one on a GPU
    pre_dispatch: str = "2*n_jobs"  # as joblib's


class Options(BaseModel):
    """What the launcher takes, with its ranges."""

    model_config = ConfigDict(extra="forbid")

    n_per_array: int | None = Field(default=None, ge=1)
    memory_limit: float | None = Field(default=None, gt=0)
    n_jobs: int = Field(default=-1, ge=-1)
    pre_dispatch: str = "2*n_jobs"


def check_options(overrides: Sequence[str]) -> None:
    """Raises `ConfigError`, in one line, where the array launcher is chosen and an option of it does not fit."""
    if "hydra/launcher=array" not in overrides:
        return
    start = "hydra.launcher."
    given = [override.lstrip("+").partition("=") for override in overrides if override.lstrip("+").startswith(start)]
    values = {key.removeprefix(start): None if value in ("null", "") else value for key, _, value in given}
    try:
        Options.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{start}{name} is no option: choose one of {', '.join(Options.model_fields)}") from None
        told = first["msg"].replace("Input should", "must")
        raise ConfigError(f"{start}{name}={first['input']}: {told}") from None


def launcher_options(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the options of the launcher that a command line names, as Hydra has them. Raise `ConfigError`, in one
    line, where one does not fit."""
    start = "hydra.launcher."
    chosen = [override for override in overrides if override.startswith("hydra/launcher=")][-1]
    given = [override for override in overrides if override.lstrip("+~").startswith(start)]
    known = OmegaConf.to_container(compose_config([chosen]).hydra.launcher, resolve=False)
    assert isinstance(known, dict)
    for override in given:
        name = override.lstrip("+~").removeprefix(start).partition("=")[0].partition(".")[0]
        if name not in known or name == "_target_":
            names = [str(option) for option in known if option != "_target_"]
            raise ConfigError(f"{start}{name} is no option of {chosen}; {instead(name, names, start)}")
        try:
            with initialize_config_dir(str(conf_dir()), version_base="1.3"):
                compose("config", [chosen, override], return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            name, _, value = override.partition("=")
            quoted = f"; a value with commas is written in quotes, as in '{name}=\"{value}\"'"
            raise ConfigError(f"{override}: {reason}{quoted if 'Ambiguous' in reason else ''}") from None
    options = OmegaConf.to_container(compose_config([chosen, *given]).hydra.launcher, resolve=False)
    assert isinstance(options, dict)
    return {str(key): value for key, value in options.items()}


class ArrayLauncher(JoblibLauncher):  # type: ignore[misc]  # mypy sees only our half of hydra_plugins
    """Trains what can share a computation in arrays; then goes through all runs as the joblib launcher does.

    That skips the runs that are finished by then and does the rest singly.
    """

    def __init__(self, **options: Any) -> None:
        self.options = Options(**options)
        super().__init__(n_jobs=self.options.n_jobs, batch_size=1, pre_dispatch=self.options.pre_dispatch)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        if not os.environ.get(ONLY):  # else what is left is tried one by one, since a process died
            self._train_arrays([self._job(overrides) for overrides in job_overrides])
        return super().launch(job_overrides, initial_job_idx)  # type: ignore[no-any-return]  # the same

    def _job(self, overrides: Sequence[str]) -> Job:
        assert self.hydra_context is not None
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        return Job(parse(config), Path(config.hydra.sweep.dir, config.hydra.sweep.subdir))

    def _train_arrays(self, jobs: Sequence[Job]) -> None:
        waiting = [job for job in jobs if not settled(job, int(os.environ.get(BEGAN, "0")))]
        if not waiting:
            return
        from joblib import cpu_count  # type: ignore[import-untyped, unused-ignore]  # 0.2 seconds

        accelerator = "gpu" if any(job.settings.accelerator == "gpu" for job in waiting) else "cpu"
        usual = 1 if accelerator == "gpu" else cpu_count()
        workers = usual if self.options.n_jobs < 1 else self.options.n_jobs
        self.joblib["n_jobs"] = workers
        runs = planned(jobs, waiting, self._largest(accelerator), workers)
        diary = waiting[0].folder.parent / "progress.log"
        if runs:
            for reason in _in_workers(runs, self.options.memory_limit, min(workers, len(runs)), cpu_count() // workers):
                note(diary, f"an array failed ({reason}): its runs are done singly")
        if all(settled(job, int(os.environ.get(BEGAN, "0"))) for job in jobs):
            self.joblib["n_jobs"] = 1  # nothing is left to do: no workers to start for that

    def _largest(self, accelerator: str) -> int:
        return self.options.n_per_array or LARGEST[accelerator]


def planned(jobs: Sequence[Job], waiting: Sequence[Job], largest: int, workers: int = 1) -> list[list[Job]]:
    """The arrays that a sweep's runs are trained in, each left as its plan with its first run; progress.log says which
    they are, and why other runs are done singly."""
    diary = waiting[0].folder.parent / "progress.log"
    runs = _stopped(jobs, waiting)
    for run in runs:
        note(diary, f"an array of {len(run)} runs goes on: {', '.join(job.folder.name for job in run)}")
    going = {job.folder for run in runs for job in run}
    left = [job for job in waiting if job.folder not in going]
    begun = [job for job in left if (job.folder / "last.ckpt").is_file() and not job.settings.force]
    for job in begun:
        reason = "it was started on its own or in another array, and resumes from there"
        note(diary, f"{job.folder.name} runs individually: {reason}")
    new = [job for job in left if job not in begun]
    groups, single = arrays([job.settings for job in new], largest, workers)
    groups, odd = _without_odd_layers(new, groups)
    for index, reason in sorted((single | odd).items()):
        note(diary, f"{new[index].folder.name} runs individually: {reason}")
    for group in groups:
        run = [new[index] for index in group]
        note(diary, f"an array of {len(run)} runs: {', '.join(job.folder.name for job in run)}")
        if not any(job.settings.force for job in run):
            write_plan(run[0].folder, [(job.folder.name, job.settings.config_hash()) for job in run])
        runs.append(run)
    return runs


def _stopped(jobs: Sequence[Job], waiting: Sequence[Job]) -> list[list[Job]]:
    """The arrays that were planned before and have not ended, the runs of them that have ended included: a network's
    last bits depend on what it shares its products with, so they are left as they were planned."""
    known = {(job.folder.name, job.settings.config_hash()): job for job in jobs if not job.settings.force}
    left = {job.folder for job in waiting}
    plans = [plan for job in known.values() if (plan := read_plan(job.folder)) and set(plan) <= known.keys()]
    found: list[list[Job]] = []
    for array in [[known[run] for run in plan] for plan in plans]:
        folders = {job.folder for job in array}
        if left & folders:
            found.append(array)
            left -= folders
    return found


def _in_workers(groups: Sequence[Sequence[Job]], memory_limit: float | None, workers: int, threads: int) -> list[str]:
    """Trains arrays in processes of their own, so that a death of one does not end the sweep; gives why some failed.

    `threads`: of a process, where the runs leave it open.
    """
    from joblib.externals.loky import ProcessPoolExecutor  # type: ignore[import-untyped, unused-ignore]
    from joblib.externals.loky.process_executor import BrokenProcessPool  # type: ignore[import-untyped, unused-ignore]

    pool = ProcessPoolExecutor(workers, env={"OMP_NUM_THREADS": str(max(1, threads))})
    try:
        found = [pool.submit(train, group, memory_limit) for group in groups]
        return [reason for future in found if (reason := future.result()) is not None]
    except BrokenProcessPool:
        return ["its process died: is there enough memory?"]
    finally:
        pool.shutdown(kill_workers=True)


def train(jobs: Sequence[Job], memory_limit: float | None) -> str | None:
    """Trains an array, in this process; why it failed, in one line, or None."""
    end_with_parent()
    from normlab.training.device import keep_freed_memory
    from normlab.training.run import run_array  # a second or two: torch and Lightning

    keep_freed_memory()
    try:
        run_array([job.settings for job in jobs], [job.folder for job in jobs], memory_limit=memory_limit)
    except NormlabError as error:
        return str(error).splitlines()[0]
    except Exception as error:  # each run may still be done singly, and then says what is wrong with it
        return f"{type(error).__name__}: {next(iter(str(error).splitlines()), 'no message')}"
    return None


def _without_odd_layers(jobs: Sequence[Job], groups: list[list[int]]) -> tuple[list[list[int]], dict[int, str]]:
    """The arrays that a user's own layer lets be; why the runs of the others are done singly, by their index."""
    fit: list[list[int]] = []
    odd: dict[int, str] = {}
    for group in groups:
        settings = jobs[group[0]].settings
        reason = None
        if settings.norm.name == "custom":
            from normlab.training.build import unfoldable  # torch

            reason = unfoldable(settings)
        if reason is None:
            fit.append(group)
        else:
            odd |= dict.fromkeys(group, reason)
    return fit, odd
