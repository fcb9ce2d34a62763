"""Train: `python -m normlab.train norm=ln` for one run, `-m norm=bn,ln,gn l1=0,1e-3` for a sweep.

Everything about a command line is checked before torch is imported and before anything is written.
"""

import signal
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser  # private, but the only way to read Hydra's flags as Hydra does

from normlab import summary
from normlab.data.sources import check_split, resolve
from normlab.errors import ConfigError, DataError, NormlabError
from normlab.job import job as do
from normlab.job import run_here
from normlab.launcher import check_options
from normlab.output import command
from normlab.record import DONE, DamagedError, Record, read_probes
from normlab.settings import Study, conf_dir
from normlab.settings.custom import check_custom, edited
from normlab.settings.page import as_text
from normlab.settings.plan import CLUSTER, Job, launched, launcher_of, plan, study_of, words
from normlab.sweep import parallel, sweep

__all__ = ["main"]

HELP = """usage: python -m normlab.train [name=value ...]       one run
       python -m normlab.train -m [name=a,b ...]      a sweep: every combination of the values
       python -m normlab.train study=NAME [name=...]  a named study: its own sweep, narrowed or extended by values given

Every setting with its default:

{settings}
Examples:
  python -m normlab.train norm=ln l1=1e-3 seed=3 epochs=20 accelerator=gpu
  python -m normlab.train -m norm=bn,ln,gn l1=0,1e-3 seed=0,1,2
  python -m normlab.train -m norm=bn,ln,gn 'seed=range(8)' batch_size=8 hydra/launcher=array
  python -m normlab.train study=replication_quick
  python -m normlab.train study=replication hydra/launcher=array_slurm hydra.launcher.gpus_per_node=1
  python -m normlab.train norm=custom norm.target=package.module:Class norm.options='{{eps: 1e-3}}'
  python -m normlab.train -m norm=bn,ln,gn,custom norm.target=package.module:Class 'seed=range(5)'
  tensorboard --logdir lightning_logs

Hydra's own flags: python -m normlab.train --hydra-help
"""


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code: 0 when every run completed (or diverged, in a sweep), 1 when one did
    not, 2 when the command line was wrong, 130 when it was stopped."""
    # Hydra's own parser takes -m before the settings only; here it may stand anywhere.
    sweep = [flag for flag in arguments if flag in ("-m", "--multirun")]
    arguments = sweep[:1] + [word for word in arguments if word not in sweep]
    parser = get_args_parser()
    parser.error = _wrong_flag  # type: ignore[method-assign]  # one line instead of a page of usage
    try:
        flags = parser.parse_args(arguments)
    except NormlabError as error:
        print(f"normlab: {error}", file=sys.stderr)
        return 2
    if flags.help:
        print(HELP.format(settings=as_text()))
        return 0
    if flags.cfg or flags.info or flags.hydra_help or flags.shell_completion:
        _by_hydra(arguments)
        return 0
    for flag in ("config_name", "config_path", "config_dir"):
        if getattr(flags, flag):
            shown = flag.replace("_", "-")
            print(f"normlab: --{shown}: settings stand in conf/ and on the command line alone", file=sys.stderr)
            return 2
    signal.signal(signal.SIGTERM, _stop)
    try:
        return _do(flags.overrides, flags.multirun)
    except NormlabError as error:
        print(f"normlab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("normlab: stopped; finished runs are kept, the same command does the rest", file=sys.stderr)
        return 130


def _wrong_flag(message: str) -> NoReturn:
    raise ConfigError(f"{message}: settings are written name=value, and --help shows them")


def _stop(*_: object) -> None:
    """SIGTERM ends a command as Ctrl-C does: workers with it, and what was running is recorded as interrupted."""
    raise KeyboardInterrupt


def _do(overrides: list[str], multirun: bool) -> int:
    overrides = words(overrides)
    study = study_of(overrides)
    multirun = multirun or study is not None or "hydra.mode=MULTIRUN" in overrides
    if not multirun and (launcher := launcher_of(overrides)) not in (None, "basic"):
        raise ConfigError(f"hydra/launcher={launcher} is for several runs: add -m and values, as in -m seed=0,1")
    check_options(overrides)
    hydras = [word for word in overrides if word.lstrip("+~").startswith("hydra")]
    if launcher_of(overrides) in CLUSTER:
        hydras += _on_cluster(overrides)
        if str(launcher_of(overrides)).endswith("_slurm"):
            overrides = [*overrides, *_accelerator_there(overrides)]
    jobs = plan(overrides, multirun=multirun, data=_auto)
    if multirun and (several := max(job.settings.devices for job in jobs)) > 1:
        raise ConfigError(
            f"devices={several}: the runs of a sweep share the machine, each on one device; leave devices out, or "
            "train this run by itself, without -m"
        )
    for each in {job.settings.model_dump_json(include={"norm", "net", "data"}): job.settings for job in jobs}.values():
        if each.net.name != "small":
            from normlab.nets.other import check_net  # torch: only for a network that takes its time anyway

            check_net(each)
        elif each.norm.target is not None:
            check_custom(each.norm)
    if study:
        for folder in {job.folder.parent for job in jobs}:
            _lay_beside(Study.named(study), folder)
    waiting = [job for job in jobs if not _stands(job)]
    _tell_of_probes([job for job in jobs if job not in waiting])
    if waiting:
        _have_data(waiting)
        began = _have_folders(waiting)
        _warn(jobs, Study.named(study) if study else None)
        if study:
            hydras += parallel(overrides, waiting)
        if multirun:
            sweep(jobs, lambda one_by_one: _launch(jobs, hydras, one_by_one), began)
        elif any(word.lstrip("+").startswith("hydra.callbacks") for word in hydras):
            _by_hydra([*jobs[0].words, *[word for word in hydras if word not in jobs[0].words]])
        else:
            run_here(jobs, multirun=False)
    records = [Record.readable(job.folder) for job in jobs]
    summary.show(jobs, records, len(jobs) - len(waiting), study=study is not None)
    for change in {change for job in jobs if (change := edited(job.settings))}:
        print(f"normlab: {change}", file=sys.stderr)
    well = DONE if multirun else ("completed",)  # in a comparison a divergence is a result
    return 0 if all(record is not None and record.status in well for record in records) else 1


def _on_cluster(overrides: list[str]) -> list[str]:
    """What a command line gets whose jobs go to a queue: submitit's options, with our way to wait for the jobs."""
    try:
        from normlab.cluster import check_cluster
    except ModuleNotFoundError:
        raise ConfigError(
            f'hydra/launcher={launcher_of(overrides)}: not installed; pip install "normlab[slurm]" brings it'
        ) from None
    check_cluster(overrides)
    kind = "Slurm" if str(launcher_of(overrides)).endswith("_slurm") else "Local"
    return [f"hydra.launcher._target_=hydra_plugins.normlab_cluster.{kind}Launcher"]


def _warn(jobs: Sequence[Job], study: Study | None) -> None:
    """Tells what may mislead in these runs, before the first one starts. Nothing is stopped by it."""
    from normlab.lint import lint  # pandas: not where nothing is left to do
    from normlab.lint.seeds import spread_of

    standing = [record for job in jobs if (record := Record.readable(job.folder)) and record.done]
    for finding in lint([job.settings for job in jobs], study, spread_of(standing)):
        print(f"normlab: {'note' if finding.note else 'warning'}: {finding.message}", file=sys.stderr)


def _accelerator_there(overrides: Sequence[str]) -> list[str]:
    """What a command line gets whose jobs run elsewhere: what `accelerator=auto` is there, by what they ask for."""
    from normlab.cluster import asks_for_gpu

    named = [word for word in overrides if word.startswith("accelerator=") and word != "accelerator=auto"]
    return [] if named else [f"accelerator={'gpu' if asks_for_gpu(overrides) else 'cpu'}"]


def _launch(jobs: Sequence[Job], hydras: Sequence[str], one_by_one: bool) -> None:
    """Do the runs of a sweep: here, or by one of Hydra's launchers. One by one: a run is handed out when the one before
    has ended, still to a worker."""
    launcher = launcher_of(hydras)
    if launcher in (None, "basic") and not any(word.lstrip("+").startswith("hydra.callbacks") for word in hydras):
        run_here(list(jobs), multirun=True)
        return
    launched[:] = [[word for word in job.words if not word.lstrip("+~").startswith("hydra")] for job in jobs]
    common = [word for word in launched[0] if all(word in words for words in launched)]
    dispatch = ["hydra.launcher.pre_dispatch=1"] * (one_by_one and launcher in ("joblib", "array"))
    _by_hydra(["-m", *common, *hydras, "hydra/sweeper=planned", *dispatch])


def _by_hydra(arguments: Sequence[str]) -> None:
    sys.argv[1:] = arguments
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(do)()


def _lay_beside(study: Study, folder: Path) -> None:
    """Leaves a copy of the study with its runs, also where they all stand: its claims may be new."""
    try:
        standing = Study.find(folder)
    except NormlabError:
        standing = None  # damaged: written anew
    if standing != study:
        try:
            study.save(folder)
        except OSError as error:
            raise ConfigError(
                f"{folder}: nothing can be written there ({error.strerror}): choose another log_dir=…"
            ) from error


def _stands(job: Job) -> bool:
    try:
        Record.find(job.folder)
    except DamagedError as error:
        print(f"normlab: {error}", file=sys.stderr)
    return not job.settings.force and Record.standing(job.folder, job.settings.config_hash()) is not None


def _tell_of_probes(standing: Sequence[Job]) -> None:
    """A finished run is not trained again for a probe, which would change nothing: says so, and what can be done."""
    without = [job.folder for job in standing if set(job.settings.probes) - {row[2] for row in read_probes(job.folder)}]
    if without:
        print(
            f"normlab: {len(without)} finished without these probes, {without[0]} the first: force=true trains again, "
            f"python -m normlab.probe {without[0]} measures its last checkpoint",
            file=sys.stderr,
        )


@cache
def _auto(root: str | None, download: bool) -> str:
    """Return what `data=auto` is here: once for all runs, so that a download which ends halfway through a sweep cannot
    mix two data sets."""
    resolved = resolve("auto", root, download=download)
    if resolved.reason:
        print(f"normlab: {resolved.reason}: training on scikit-learn's digits (data=digits)", file=sys.stderr)
    return resolved.name


def _have_folders(jobs: Sequence[Job]) -> int:
    """Makes every run's folder, so that a place where nothing can be written is known before anything is trained.
    Returns when that was, in nanoseconds of the file system's own clock."""
    began = 0
    for job in jobs:
        try:
            job.folder.mkdir(parents=True, exist_ok=True)
            (job.folder / ".lock").touch()
            began = (job.folder / ".lock").stat().st_mtime_ns
        except OSError as error:
            reason = f"nothing can be written there ({error.strerror})"
            raise ConfigError(f"{job.folder}: {reason}: choose another log_dir=…") from error
    return began


def _have_data(jobs: Sequence[Job]) -> None:
    """Finds or fetches every data set once, before the first run. Raises `DataError` where no run could have its own;
    where some can, the others are recorded as failed in their turn; `ConfigError` where a set has too few images."""
    wanted = {(data.name, data.root, data.size): data for data in (job.settings.data for job in jobs)}
    missing = {}
    for key, data in wanted.items():
        try:
            resolve(data.name, data.root, download=data.download, size=data.size)
        except DataError as error:
            missing[key] = error
    if len(missing) == len(wanted):
        raise next(iter(missing.values()))
    sizes = {(s.data.name, s.data.root, s.data.size, s.train_size, s.val_size) for s in (job.settings for job in jobs)}
    for name, root, size, train_size, val_size in sizes:
        if (name, root, size) not in missing:
            check_split(name, root, size=size, train_size=train_size, val_size=val_size)


if __name__ == "__main__":
    raise SystemExit(command(main))
