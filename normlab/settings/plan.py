"""From a command line to jobs, by Hydra: each run's typed settings and folder; what does not fit is one line that lists
the choices."""

import hashlib
import itertools
import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.singleton import Singleton
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from normlab.errors import ConfigError, first_line
from normlab.settings.conf import GROUPS, choices, conf_dir, dotted, instead, spell
from normlab.settings.custom import files_digest, source_digest
from normlab.settings.messages import checked, near
from normlab.settings.model import UNHASHED, Settings
from normlab.settings.study import Study, protocol, sweep_of

OF_CUSTOM = ("norm.target", "norm.options")
ALONE = (*OF_CUSTOM, "+norm.target")  # what no other norm takes


def parse(config: DictConfig) -> Settings:
    """Return typed settings from Hydra's configuration. Raise `ConfigError`, in one line, where a value is wrong."""
    try:
        own = {str(key): config[key] for key in config if key not in ("hydra", "study")}
        values = {key: OmegaConf.to_object(each) if OmegaConf.is_config(each) else each for key, each in own.items()}
    except OmegaConfBaseException as error:
        raise ConfigError(first_line(error)) from None
    sources = [source_digest(part.get("target")) for part in (values["norm"], values["net"]) if isinstance(part, dict)]
    data = values["data"]
    if isinstance(data, dict) and data.get("name") == "folder" and isinstance(data.get("root"), str):
        sources.append(files_digest(data["root"]))
    return _parsed(json.dumps(values), *sources)


@lru_cache(maxsize=64)  # the folder's name and the run itself come from the same configuration
def _parsed(values: str, *_: str | None) -> Settings:
    return checked(json.loads(values))


def load(*overrides: str) -> Settings:
    """Return the settings of one run, as the command line would give them: `load("norm=ln", "epochs=2")`.

    Raise `ConfigError` where an override is unknown or out of range.
    """
    return parse(composed(plain_overrides(overrides)))


def compose_config(overrides: Iterable[str]) -> DictConfig:
    """Return Hydra's configuration, its own part included. Raise `ConfigError`, in one line with the choices, where it
    cannot be composed."""
    overrides = list(overrides)
    with own_hydra():
        try:
            config = compose("config", overrides, return_hydra_config=True)
            if any(group not in config for group in GROUPS):  # norm=[]
                raise ValueError("a group has no choice")
            return config
        except (HydraException, OmegaConfBaseException, AttributeError, ValueError, TypeError) as error:
            raise ConfigError(_explain(error, overrides)) from None


@contextmanager
def own_hydra() -> Iterator[GlobalHydra]:
    """Yield Hydra with the files of conf/, also inside another application that uses Hydra."""
    other = Singleton.get_state() if GlobalHydra.instance().is_initialized() else None
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            yield GlobalHydra.instance()
    finally:
        if other is not None:
            Singleton.set_state(other)


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """Return what is wrong with the overrides, in the user's words instead of Hydra's."""
    chosen = dict(override.partition("=")[::2] for override in overrides)
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        ambiguous = "Ambiguous value" in str(error) and not value.startswith(("[", "{", "'", '"'))
        if "," in value and (ambiguous or key in GROUPS):
            return f"{override}: several values need -m (python -m normlab.train -m …)"
        if key in GROUPS and value not in choices(key):
            hint = (
                " (the control without normalization is norm=none)" if key == "norm" and value in ("null", "") else ""
            )
            return f"{override}: {instead(value, choices(key))}{hint}"
        if key == "hydra/launcher" and "hydra/launcher" in str(error):
            launchers = re.findall(r"^[ \t]+(\w+)$", str(error), re.MULTILINE)  # Hydra lists them
            return f"{override}: {instead(value, launchers)}"
        if key == "hydra/sweeper":
            return f"{override}: values are crossed as by Hydra's basic sweeper, and by no other one: leave it out"
        if key == "hydra.mode":
            return f"{override}: {instead(value, [mode.name for mode in RunMode])}"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not understood; write name=value"
    if found := re.search(r"Could not override '([^']+)'", str(error)):
        if found[1] in OF_CUSTOM:
            return f"{found[1]} goes with norm=custom: add norm=custom, or leave {found[1]} out"
        if whole := [key for key in chosen if key not in GROUPS and found[1].startswith(f"{key}.")]:
            return f"{whole[0]}={chosen[whole[0]]} leaves no {found[1]} to set: leave one of the two out"
        return f"{found[1]} is no setting here; {near(found[1], chosen)}"
    if found := re.search(r"In '[^']*': Could not find '([^']+)'", str(error)):
        return f"{found[1]} is no setting; {near(found[1], chosen)}"
    if own := [override for override in overrides if override.lstrip("+~").startswith("hydra")]:
        return f"Hydra cannot do this ({first_line(error)}): look at {' '.join(own)}"
    return first_line(error)


@dataclass(frozen=True)
class Job:
    """A run that a command line asks for, the folder it will be in, its overrides, and its number among the
    runs of the command."""

    settings: Settings
    folder: Path
    overrides: tuple[str, ...] = field(default=(), compare=False)
    number: int = field(default=0, compare=False)


def plan(
    overrides: Sequence[str], *, multirun: bool, data: Callable[[str | None, bool], str] | None = None
) -> list[Job]:
    """Return every run that a command line asks for, in Hydra's order.

    With `multirun`, comma-separated values, `choice(…)` and `range(…)` are crossed, as Hydra's basic sweeper crosses
    them; `norm.target` and `norm.options` go to norm=custom alone. A study brings a sweep of its own, in which values
    of the command line replace the study's. Values that come to one question, as `penalty.method` at l1=0 or
    `test_curve`, are one run: the first.

    `data(root, download)` returns the data set that `data=auto` is on this machine; None leaves it open. Raise
    `ConfigError` at the first run that does not fit, so that nothing starts before everything is valid.
    """
    _compositions.clear()
    overrides = plain_overrides(overrides)
    study = study_of(overrides)
    multirun = multirun or study is not None
    # Words about a launcher change no run. Hydra would hold files of conf/ to what a plugin has under their name.
    launchers = [f"hydra/launcher={name}" for name in choices("hydra/launcher")]
    overrides = [
        each for each in overrides if each not in launchers and not each.lstrip("+").startswith("hydra.launcher.")
    ]
    swept = [f"{key}={value}" for key, value in sweep_of(study).items()] if study else []
    planned: dict[Path, Job] = {}
    if multirun and study is None:
        overrides += _name_of(overrides)
    jobs = drop_custom_overrides(list(_crossed([*swept, *overrides]))) if multirun else [list(overrides)]
    data_sets = {word.partition("=")[2] for job in jobs for word in job if word.startswith("data=")}
    if "auto" in data_sets and len(data_sets) > 1:
        raise ConfigError("data=auto goes with no other data set in one sweep: name the sets, as in data=mnist,digits")
    if data and composed(jobs[0]).data.name == "auto":
        for own in jobs:  # so that what is wrong is reported before anything is downloaded
            parse(composed(own))
    for number, own in enumerate(jobs):
        config = composed(own)
        if data and config.data.name == "auto":
            own = [*own, f"data.name={data(config.data.root, config.data.download)}"]
            config = composed(own)
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.job.num, config.hydra.job.id = number, str(number)
        place = config.hydra.sweep if multirun else config.hydra.run
        job = Job(parse(config), Path(place.dir, *([place.subdir] if multirun else [])), tuple(own), number)
        twin = planned.setdefault(job.folder, job)
        one, other = twin.settings, job.settings
        measured = (one.probes, one.evaluate, one.logger) == (other.probes, other.evaluate, other.logger)
        same = one.config_hash() == other.config_hash() and measured and twin.overrides != job.overrides
        if twin is not job and not same:
            raise ConfigError(
                f"two runs of this sweep would share {job.folder}: leave out the values that repeat ({' '.join(own)})"
            )
    found = list(planned.values())
    if study and (tune := Study.named(study).tune):
        levels = {str(job.settings.flat().get(tune)) for job in found}
        if len(levels) > 1 and any(job.settings.val_size == 0 for job in found):
            raise ConfigError(f"val_size=0: study={study} chooses each {tune} on held-out images; leave val_size out")
    return found


def _name_of(overrides: Sequence[str]) -> list[str]:
    """Return the word that gives a sweep without a name a folder of its own, the same one for the same values, called
    after the settings with several: `name=norm-seed-1f2e3d`."""
    typed = {key: value for key, _, value in (word.lstrip("+~").partition("=") for word in overrides)}
    if {"name", "hydra.sweep.dir", "hydra.sweep.subdir"} & typed.keys():
        return []
    values = sorted(word for word in overrides if not word.lstrip("+~").startswith(("hydra", *UNHASHED)))
    several = sorted(key.rpartition(".")[2] for key, value in typed.items() if "," in value or "(" in value)
    stem = "-".join(re.sub(r"\W", "_", key) for key in several)[:60]
    return [f"name={stem or 'sweep'}-{hashlib.sha256(repr(values).encode()).hexdigest()[:6]}"]


def labels(jobs: Sequence[Job]) -> list[dict[str, str]]:
    """Return for each run what tells it from the others, by the setting's name: {"norm": "bn", "seed": "0"}. A run by
    itself has its norm."""
    every = [job.settings.flat() for job in jobs]
    departing = dict.fromkeys(key for job in jobs for key in job.settings.setting())
    vary = [key for key in (*departing, "seed") if len({spell(values.get(key)) for values in every}) > 1] or ["norm"]
    return [{key: spell(values[key]) for key in vary if values.get(key) is not None} for values in every]


def run_label(differing: Mapping[str, str]) -> str:
    """Return a run's or a setting's `labels` as text: "bn l1=0.001 seed=3"."""
    return " ".join(value if key == "norm" else f"{key}={value}" for key, value in differing.items())


# name=value that chooses no file of conf/: a word, or what Hydra reads as JSON does: a number, true (in a sweep Hydra
# says True), false, null
NUMBER = r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?"
CHOICE = rf"hydra|(?:{'|'.join(GROUPS)}|study)="
PLAIN = re.compile(
    rf"(?!{CHOICE})([a-z]\w*(?:\.\w+)*)=(?:({NUMBER}|[Tt]rue|[Ff]alse|null)|((?!(?:nan|inf)$)[a-z][a-z\d_]*))"
)
_compositions: dict[tuple[str, ...], DictConfig] = {}


def composed(own: Sequence[str]) -> DictConfig:
    """Return the configuration of a run's words, to be used before the next one is composed. Hydra takes a tenth of a
    second, so runs that differ in plain values alone share its work: these choose no file of conf/."""
    matches = [(word, PLAIN.fullmatch(word)) for word in own]
    alike = tuple(plain[1] if plain else word for word, plain in matches)
    names = {word.lstrip("+~").partition("=")[0] for word in own}
    within = any(name.startswith(f"{other}.") for name in names for other in names.difference(GROUPS))
    # given twice, or once in a part of another: the later counts; a folder named by what Hydra computes from the words
    if len(names) < len(own) or within or any("override_dirname" in word for word in own):
        return compose_config(own)
    if alike not in _compositions:
        if len(_compositions) >= 64:  # a script that loads thousands of lists or mappings would keep them all
            _compositions.clear()
        _compositions[alike] = compose_config(own)
    for _, plain in matches:
        if plain:
            OmegaConf.update(_compositions[alike], plain[1], json.loads(plain[2].lower()) if plain[2] else plain[3])
    return _compositions[alike]


def hydra_config(job: Job, *, multirun: bool) -> DictConfig:
    """Return the configuration with which Hydra runs a planned job, without composing or parsing it again."""
    config = composed(job.overrides)
    hydra = config.hydra
    with read_write(hydra), open_dict(hydra):
        hydra.mode = RunMode.MULTIRUN if multirun else RunMode.RUN
        hydra.overrides.task = [word for word in job.overrides if not word.lstrip("+~").startswith("hydra")]
        hydra.run.dir = str(job.folder)
        hydra.sweep.dir, hydra.sweep.subdir = str(job.folder.parent), job.folder.name
        hydra.job.num, hydra.job.id = job.number, str(job.number)
    return config


def drop_custom_overrides(jobs: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the jobs of a sweep, with the words for a user's own layer in those alone that have norm=custom.

    Jobs that differed in such words only become one: `norm=bn,custom norm.target=a:A,b:B` are three runs. Without any
    norm=custom, `+norm.options` is for the package's own norms. Raise `ConfigError` where there are other such words
    and no job has norm=custom.
    """
    if not any("norm=custom" in job or word.startswith(ALONE) for job in jobs for word in job):
        return [list(job) for job in jobs]
    dropped: dict[tuple[str, ...], list[str]] = {}
    result: list[list[str]] = []
    for job in jobs:
        kept = list(job) if "norm=custom" in job else [word for word in job if not _of_custom(word)]
        gone = [word for word in job if word not in kept]
        if not gone or dropped.setdefault(tuple(kept), gone) == gone:  # the same words twice: `plan` refuses them
            result.append(kept)
    if dropped and not any("norm=custom" in job for job in result):
        raise ConfigError(
            f"{next(iter(dropped.values()))[0]} goes with norm=custom: add custom to the norms, or leave it out"
        )
    return result


def _of_custom(word: str) -> bool:
    name = word.lstrip("+~").partition("=")[0]
    return any(name == own or name.startswith(f"{own}.") for own in OF_CUSTOM)


def plain_overrides(overrides: Sequence[str]) -> list[str]:
    """Return the overrides of a command line as Hydra's sweeper would take them: `hydra.sweeper.params.seed=0,1` is
    `seed=0,1`. Raise `ConfigError`, in one line, where a shell has split one of them at a blank."""
    own = []
    for index, word in enumerate(overrides):
        follows = overrides[index + 1 : index + 2]
        if word == "=" or (
            follows and not _open(word) and (word.endswith(",") or (word.endswith("=") and "=" not in follows[0]))
        ):
            parts = overrides[max(0, index - (word == "=")) : index + 2]
            raise ConfigError(f"{' '.join(parts)}: write {''.join(parts)}, without blanks")
        if len(word.split("=")) > 1 and _open(word):
            ends = (end for end in range(index + 1, len(overrides) + 1) if not _open(" ".join(overrides[index:end])))
            whole = " ".join(overrides[index : next(ends, len(overrides))])
            raise ConfigError(f"{word}: the shell split this at a blank: quote it, as in {shlex.quote(whole)}")
        if word == "study=null":  # the default, which Hydra takes for no name
            continue
        name, equals, value = re.sub(r"^\+*hydra\.sweeper\.params\.", "", word).partition("=")
        own.append(name + equals + os.path.expanduser(value))  # most shells expand ~ where a word begins with it
    return own


def _open(text: str) -> bool:
    """Whether a bracket that is opened in a text is not closed in it."""
    return any(text.count(left) > text.count(right) for left, right in ("{}", "[]"))


def launcher_of(overrides: Sequence[str]) -> str | None:
    """The launcher that a command line names."""
    named = [override.partition("=")[2] for override in overrides if override.startswith("hydra/launcher=")]
    return named[-1] if named else None


def study_of(overrides: Sequence[str]) -> str | None:
    """The study that a command line names; `ConfigError` where there is no such study."""
    if inside := [override for override in overrides if override.lstrip("+").startswith("study.")]:
        raise ConfigError(f"{inside[0]}: a study's question and claims stand in its file in conf/study/, not here")
    named = [override.partition("=")[2] for override in overrides if override.startswith(("study=", "+study="))]
    if not named or named[-1] == "null":
        return None
    if named[-1] not in choices("study"):
        several = "," in named[-1]
        hint = "one study at a time" if several else instead(named[-1], choices("study"))
        raise ConfigError(f"study={named[-1]}: {hint}")
    return named[-1]


def _crossed(overrides: Sequence[str]) -> Iterable[list[str]]:
    """Every combination, the last override varying fastest; of a value given twice the last counts, at the
    place of the first: Hydra's basic sweeper does the same."""
    axes: dict[str, list[str]] = {}
    with own_hydra() as hydra:
        parser = OverridesParser.create(hydra.config_loader())  # which glob() looks through
        for text in overrides:
            try:
                (override,) = parser.parse_overrides([text])
                sweeps = override.is_sweep_override()
                key = override.get_key_element()
                axes[key] = [f"{key}={value}" for value in override.sweep_string_iterator()] if sweeps else [text]
            except OverrideParseException as error:
                raise ConfigError(_explain(error, overrides)) from None
            except Exception as error:  # what Hydra's parser cannot sweep, it drops with errors of any kind
                raise ConfigError(f"{text}: cannot be swept ({first_line(error)})") from None
            if not axes[key]:
                raise ConfigError(f"{text}: holds no value, so there is nothing to run")
    return (list(job) for job in itertools.product(*axes.values()))


def _run_folder(kind: str, *, _root_: DictConfig) -> str:
    """Return, for conf/config.yaml, a run's folder below log_dir: `runs/ln-seed_0`. kind: in the place of no name."""
    settings = parse(_root_)
    study = OmegaConf.select(_root_, "hydra.runtime.choices.study")
    return f"{settings.name or kind}/{settings.slug(dotted(protocol(study)) if study else {})}"


OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)
