"""Train: `python -m normlab.train norm=ln` for one run, `-m norm=bn,ln,gn l1=0,1e-3` for a sweep.

Everything about a command line is checked before torch is imported and before anything is written.
"""

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser  # private, but the only way to read Hydra's flags as Hydra does
from omegaconf import DictConfig, OmegaConf, read_write
from rich.console import Console

from normlab import summary
from normlab.board import Means
from normlab.data.sources import check_split, resolve
from normlab.errors import ConfigError, DataError, NormlabError, in_one_line
from normlab.output import command
from normlab.record import DONE, DamagedError, Record, read_probes, read_robustness
from normlab.scheduler.launch import Sweep, run_single
from normlab.scheduler.options import Slurm, launcher_options, launcher_overrides
from normlab.scheduler.schedule import announce
from normlab.settings import Study, check_loggers, conf_dir
from normlab.settings.corruptions import Corrupted
from normlab.settings.custom import check_custom, edited
from normlab.settings.page import as_text
from normlab.settings.plan import Job, compose_config, launcher_of, load, plain_overrides, plan, study_of

if TYPE_CHECKING:
    import pandas as pd

    from normlab.scheduler.decided import Decided

USUAL = ("norm", "data", "study", "seed", "l1", "epochs", "batch_size", "lr", "accelerator")  # on the first screen
HELP = """usage: normlab train [name=value ...]       one run
       normlab train -m [name=a,b ...]      a sweep: every combination of the values
       normlab train study=NAME [name=...]  a named study: its own sweep, narrowed or extended by values given

Settings that most people change, with their defaults:
{settings}
  normlab train --help all     every setting
  normlab train --help norm    those with "norm" in their name; so for every other word

Examples:
  normlab train norm=ln l1=1e-3 seed=3 epochs=20
  normlab train -m norm=bn,ln,gn l1=0,1e-3 seed=0,1,2 hydra/launcher=array
  normlab train study=replication_quick
  normlab train -m norm=bn,custom norm.target=package.module:Class 'seed=range(5)'

Hydra's own flags: normlab train --hydra-help. The same as a module: python -m normlab.train
"""


@in_one_line("stopped; the same command resumes after the last completed epoch and skips finished runs")
def main(arguments: Sequence[str]) -> int:
    """Do what a command line asks for. Return the exit code: 0 when every run completed (or diverged, in a sweep), 1
    when one did not, 2 when the command line was wrong, 130 when it was stopped."""
    parser = get_args_parser()
    parser.error = _wrong_flag  # type: ignore[method-assign]  # one line instead of a page of usage
    flags = parser.parse_intermixed_args(arguments)  # -m may stand anywhere
    if flags.help:
        print(_help(flags.overrides))
        return 0
    if flags.cfg:
        print(_shown(flags), end="")
        return 0
    if flags.info or flags.hydra_help or flags.shell_completion:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(lambda _: None)()
        return 0
    for flag in ("config_name", "config_path", "config_dir", "experimental_rerun"):
        if getattr(flags, flag):
            raise ConfigError(f"--{flag.replace('_', '-')}: settings stand in conf/ and on the command line alone")
    if threading.current_thread() is threading.main_thread():  # no other thread can set a handler
        # as Ctrl-C: workers end with the command, and what was running is recorded as interrupted
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    return 0 if do_runs(flags.overrides, flags.multirun)[1] else 1


def _help(about: Sequence[str]) -> str:
    """Return one screen; with "all", every setting; with other words, the settings that have one of them in their name.
    Raise `ConfigError` where none has."""
    if not about:
        return HELP.format(settings=as_text(lambda name: name in USUAL))
    if about == ["all"]:
        return as_text()
    found = as_text(lambda name: any(word.partition("=")[0] in name for word in about))
    if not found.strip():
        raise ConfigError(f"no setting has {' or '.join(about)} in its name: normlab train --help all shows every one")
    return found


def _shown(flags: Any) -> str:
    """Return what `--cfg` asks for: Hydra cannot resolve its own part alone. Raise `ConfigError` where there is no one
    configuration."""
    if flags.multirun:
        raise ConfigError("--cfg shows the configuration of one run: leave -m out")
    config = compose_config(plain_overrides(flags.overrides))
    if flags.resolve:
        with read_write(config), read_write(config.hydra):
            OmegaConf.resolve(config)
    parts = {"all": list(config), "hydra": ["hydra"]}.get(flags.cfg, [key for key in config if key != "hydra"])
    shown = OmegaConf.masked_copy(config, parts)
    if flags.package and flags.package != "_global_":
        shown = OmegaConf.select(shown, flags.package)
        if not isinstance(shown, DictConfig):
            raise ConfigError(f"--package {flags.package}: there is no such part; choose one of {', '.join(parts)}")
    return OmegaConf.to_yaml(shown)


def _wrong_flag(message: str) -> NoReturn:
    raise ConfigError(f"{message}: settings are written name=value, and --help shows them")


def sweep(*overrides: str) -> "pd.DataFrame":
    """Train every combination of values, as `normlab train -m` does, and return one row per run: see `normlab.read`.

    `sweep("norm=bn,ln,gn", "seed=0,1,2", "epochs=2")`. Finished runs are not trained again; the same call resumes a
    sweep that was stopped. Raise `NormlabError`, in one line, for what the user can fix.
    """
    jobs, _ = do_runs(overrides, multirun=True)
    import pandas as pd  # half a second

    from normlab.analysis.table import read

    folders = {str(job.folder) for job in jobs}
    table = pd.concat([read(place) for place in {job.folder.parent: None for job in jobs}])
    return table[table["folder"].isin(folders)].reset_index(drop=True)


def study(name: str, *overrides: str) -> "pd.DataFrame":
    """Train a named study, as `normlab train study=NAME` does; see `sweep`. `normlab.compare` says what came out."""
    return sweep(f"study={name}", *overrides)


def do_runs(overrides: Sequence[str], multirun: bool) -> tuple[list[Job], bool]:
    """Do the runs that a command line asks for and print what came of them. Return all of them, also those that were
    finished before, and whether all ended well (in a sweep, a run that diverged did)."""
    overrides = plain_overrides(overrides)
    study = study_of(overrides)
    multirun = multirun or study is not None or "hydra.mode=MULTIRUN" in overrides
    launcher = launcher_of(overrides)
    if not multirun and launcher not in (None, "basic"):
        compose_config(overrides)  # a misspelled name is reported first
        raise ConfigError(f"hydra/launcher={launcher} is for several runs: add -m and values, as in -m seed=0,1")
    chosen = launcher_options(launcher or ("processes" if study else None), launcher_overrides(overrides))
    named = any(word.startswith("accelerator=") and word != "accelerator=auto" for word in overrides)
    if isinstance(chosen, Slurm) and not named:  # what it is there, not on the login node
        overrides = [*overrides, f"accelerator={'gpu' if chosen.gpu else 'cpu'}"]
    with Console(stderr=True).status("reading the settings"):
        overrides, until = _seeds(overrides, study)
        if until and not multirun:
            raise ConfigError("until=decided goes with a study or a sweep: it gives seeds to several settings")
        jobs = plan(overrides, multirun=multirun, data=_auto)
        if until and (seeds := len({job.settings.seed for job in jobs})) != jobs[0].settings.max_seeds:
            jobs = plan([*overrides, f"max_seeds={max(seeds, 2)}"], multirun=multirun, data=_auto)  # seeds were named
    if multirun and (several := max(job.settings.devices for job in jobs)) > 1:
        raise ConfigError(
            f"devices={several}: the runs of a sweep share the machine, each on one device; leave devices out, or "
            "train this run on its own, without -m"
        )
    if ignored := jobs[0].settings.ignore:
        from normlab.lint import check_codes

        check_codes(ignored)
    for job in jobs:
        check_loggers(job.settings)
    for each in {job.settings.model_dump_json(include={"norm", "net", "data"}): job.settings for job in jobs}.values():
        if each.net.name != "small":
            from normlab.nets.factory import check_net  # torch: only for a network that takes its time anyway

            check_net(each)
        elif each.norm.target is not None:
            check_custom(each.norm)
    about = Study.named(study) if study else None
    decided = None
    if until:
        from normlab.scheduler.decided import Decided  # scipy and pandas

        decided = Decided(jobs, about)
        jobs = decided.wanted()
    waiting = [job for job in jobs if not _finished(job)]
    finished = [job for job in jobs if job not in waiting]
    if waiting:
        _find_data(waiting)
    if about:
        for folder in {job.folder.parent for job in jobs}:
            _save_beside(about, folder)
    _report_probes(finished)
    _evaluate(finished)
    if waiting:
        started_at = _make_folders(waiting)
        more = partial(_more, decided) if decided else None
        sweep = Sweep(jobs, waiting, overrides, started_at, study=study is not None, more=more) if multirun else None
        _warn(jobs, about)
        if sweep:
            sweep.run()
        else:
            run_single(jobs[0])
    if decided:
        jobs = decided.wanted()
        if not waiting:
            print(f"normlab: {decided.state()}", file=sys.stderr)
    if multirun:
        Means(jobs).finish()
    records = [Record.readable(job.folder) for job in jobs]
    summary.show(jobs, records, len(finished), sweep=multirun)
    for change in {change for job in jobs if (change := edited(job.settings))}:
        print(f"normlab: {change}", file=sys.stderr)
    well = DONE if multirun else ("completed",)  # in a comparison a divergence is a result
    return jobs, all(record is not None and record.status in well for record in records)


def _seeds(overrides: Sequence[str], study: str | None) -> tuple[list[str], bool]:
    """The words, and whether seeds are given until it is decided: then with every seed that it may come to, unless
    seeds are named."""
    told = [word for word in overrides if word.startswith(("until=", "max_seeds="))]
    settings = load(*([f"study={study}"] if study else []), *told)
    if settings.until is None or any(word.startswith("seed=") for word in overrides):
        return [*overrides], settings.until is not None
    return [*overrides, f"seed=range({settings.max_seeds})"], True


def _more(decided: "Decided") -> list[Job]:
    """Return the runs that are wanted by now; report what is open."""
    wanted = decided.wanted()
    if state := decided.state():
        announce(wanted[0].folder.parent / "progress.log", state)
    for job in wanted:
        job.folder.mkdir(parents=True, exist_ok=True)
    return wanted


def _warn(jobs: Sequence[Job], study: Study | None) -> None:
    """Print what may mislead in these runs, before the first one starts. Nothing is stopped by it."""
    from normlab.lint import lint, spread_of  # pandas: not where nothing is left to do

    done = [record for job in jobs if (record := Record.readable(job.folder)) and record.done]
    for finding in lint([job.settings for job in jobs], study, spread_of(done), jobs[0].settings.ignore):
        print(f"normlab: warning {finding}", file=sys.stderr)


def _save_beside(study: Study, folder: Path) -> None:
    """Save a copy of the study with its runs, also where all are finished: its claims may be new."""
    before = None
    with suppress(NormlabError):  # a damaged one is written anew
        before = Study.find(folder)
    if before != study:
        with _writing_to(folder):
            study.save(folder)


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"nothing can be written there ({error.strerror})"
        raise ConfigError(f"{folder}: {reason}: choose another log_dir=…") from error


def _finished(job: Job) -> bool:
    try:
        Record.find(job.folder)
    except DamagedError as error:
        print(f"normlab: {error}", file=sys.stderr)
    return not job.settings.force and Record.finished_for(job.folder, job.settings.config_hash()) is not None


def _report_probes(finished: Sequence[Job]) -> None:
    """A finished run is not trained again for a probe, which would change nothing: say so, and what can be done."""
    without = [job.folder for job in finished if set(job.settings.probes) - {row[2] for row in read_probes(job.folder)}]
    if without:
        print(
            f"normlab: {len(without)} finished without these probes, {without[0]} the first: force=true trains again, "
            f"python -m normlab.probe {without[0]} measures its last checkpoint",
            file=sys.stderr,
        )


def _evaluate(finished: Sequence[Job]) -> None:
    """Score finished runs on the corrupted test images that they were not scored on; say which runs cannot be."""
    lacking: dict[tuple[Corrupted, ...], list[Job]] = {}
    for job in finished:
        record = Record.readable(job.folder)
        if record is None or record.status != "completed" or not job.settings.corruptions:
            continue
        kept = {row.kind for row in read_robustness(job.folder)}
        if kinds := tuple(kind for kind in job.settings.corruptions if kind not in kept):
            lacking.setdefault(kinds, []).append(job)
    for kinds, jobs in lacking.items():
        from normlab.training.checkpoint import evaluate_checkpoints  # torch and Lightning

        targets = [each for job in jobs for each in (job.settings.norm.target, job.settings.net.target) if each]
        for folder, rows in evaluate_checkpoints([job.folder for job in jobs], kinds, targets, Console(stderr=True)):
            text = f"{rows}" if isinstance(rows, NormlabError) else f"{folder}: evaluated on {', '.join(kinds)} images"
            print(f"normlab: {text}", file=sys.stderr)


@cache
def _auto(root: str | None, download: bool) -> str:
    """Return what `data=auto` is here: once for all runs, so that a download which ends halfway through a sweep cannot
    mix two data sets."""
    resolved = resolve("auto", root, download=download)
    if resolved.reason:
        print(f"normlab: {resolved.reason}", file=sys.stderr)
    return resolved.name


def _make_folders(jobs: Sequence[Job]) -> int:
    """Make every run's folder, so that a place where nothing can be written is known before anything is trained.
    Return when that was, in nanoseconds of the file system's own clock."""
    started_at = 0
    for job in jobs:
        with _writing_to(job.folder):
            job.folder.mkdir(parents=True, exist_ok=True)
            (job.folder / ".lock").touch()
            started_at = (job.folder / ".lock").stat().st_mtime_ns
    return started_at


def _find_data(jobs: Sequence[Job]) -> None:
    """Find or download every data set once, before the first run. Raise `DataError` where no run could have its own;
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
    for each in sizes:
        if each[:3] not in missing:
            check_split(*each)


if __name__ == "__main__":
    raise SystemExit(command(main))
