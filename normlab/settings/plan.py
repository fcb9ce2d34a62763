"""From a command line to typed settings, by Hydra; what does not fit is one line that lists the choices."""

import difflib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from normlab.errors import ConfigError
from normlab.settings.arms import arms
from normlab.settings.conf import choices, conf_dir, group_values
from normlab.settings.model import Settings, dotted
from normlab.settings.study import protocol, sweep_of

__all__ = ["Job", "Settings", "conf_dir", "launcher_of", "launcher_options", "load", "parse", "plan", "study_of"]


def parse(config: DictConfig) -> Settings:
    """Typed settings from Hydra's configuration; `ConfigError`, in one line, where a value does not fit."""
    try:
        values = OmegaConf.to_container(
            OmegaConf.masked_copy(config, [str(key) for key in config if key not in ("hydra", "study")]), resolve=True
        )
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_told(e) for e in error.errors())) from None
    except OmegaConfBaseException as error:
        raise ConfigError(_first_line(error)) from None


def _told(error: Any) -> str:
    """One of pydantic's errors as `name=value: what to write instead`."""
    message = error["msg"].removeprefix("Value error, ")
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "value_error":
        return message if "=" in message else f"{where}={_spell(error['input'])}: {message}"
    if error["type"] == "extra_forbidden":
        return f"{where} is no setting; {_near(where, [])}"
    return (
        f"{where}={_spell(error['input'])}: {message.replace('Input should', 'must').replace('String should', 'must')}"
    )


def _spell(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("name", dict(value)))
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


def _near(name: str, overrides: Iterable[str]) -> str:
    """The setting that was probably meant, or all that there are beside it."""
    parent, _, leaf = name.rpartition(".")
    chosen = dict(override.partition("=")[::2] for override in overrides)
    match parent:
        case "norm":
            known = list(group_values("norm", chosen.get("norm", "bn")))
        case "data" | "penalty" | "augment":
            known = list(Settings.model_fields[parent].annotation.model_fields)  # type: ignore[union-attr]
        case _:
            parent, leaf, known = "", name, list(Settings.model_fields)
    close = difflib.get_close_matches(leaf, known, n=1)
    listed = [f"{parent}.{key}" if parent else key for key in (close or known)]
    return f"did you mean {listed[0]}?" if close else f"choose one of {', '.join(listed)}"


def load(*overrides: str) -> Settings:
    """The settings of one run, as the command line would give them: `load("norm=ln", "epochs=2")`.

    Raises `ConfigError` where an override is unknown or out of range.
    """
    return parse(_compose(overrides))


def _compose(overrides: Iterable[str], *, with_hydra: bool = False) -> DictConfig:
    """Hydra's configuration; what Hydra cannot compose is a `ConfigError` in one line with the choices."""
    overrides = list(overrides)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        try:
            return compose("config", overrides, return_hydra_config=with_hydra)
        except (HydraException, OmegaConfBaseException, AttributeError, ValueError, TypeError) as error:
            raise ConfigError(_explain(error, overrides)) from None


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """What is wrong with the overrides, in the user's words instead of Hydra's."""
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if key in ("norm", "data") and value not in choices(key):
            hint = " (the control without normalization is norm=none)" if value in ("null", "") else ""
            hint = " (several at once need -m)" if "," in value else hint
            return f"{override}: choose one of {', '.join(choices(key))}{hint}"
        if "," in value and not value.startswith(("[", "{", "'", '"')) and "Ambiguous value" in str(error):
            return f"{override}: several values need -m (python -m normlab.train -m …)"
        if key == "hydra/launcher" and "hydra/launcher" in str(error):
            return f'{override}: not installed; pip install "normlab[slurm]" brings the launchers for a cluster'
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not understood; write name=value"
    if found := re.search(r"Could not override '([^']+)'", str(error)):
        return f"{found[1]} is no setting here; {_near(found[1], overrides)}"
    if found := re.search(r"In '[^']*': Could not find '([^']+)'", str(error)):
        return f"{found[1]} is no setting; {_near(found[1], overrides)}"
    return _first_line(error)


@dataclass(frozen=True)
class Job:
    """A run that a command line asks for, and the folder it will be in."""

    settings: Settings
    folder: Path


def plan(overrides: Sequence[str], *, multirun: bool) -> list[Job]:
    """Every run that a command line asks for, in Hydra's order.

    With `multirun`, comma-separated values, `choice(…)` and `range(…)` are crossed, as Hydra's basic sweeper crosses
    them; `norm.target` and `norm.options` go to norm=custom alone. A study brings a sweep of its own, in which values
    of the command line replace the study's. Raises `ConfigError` at the first run that does not fit, so that nothing
    starts before everything is valid.
    """
    study = study_of(overrides)
    multirun = multirun or study is not None
    launching = [override for override in overrides if override.lstrip("+").startswith("hydra.launcher.")]
    if launching and study is None and not any(override.startswith("hydra/launcher=") for override in overrides):
        raise ConfigError(f"{launching[0]} goes with a launcher: hydra/launcher=joblib")
    overrides = [
        override for override in overrides if override not in launching
    ]  # changes no run; the launcher may come
    swept = [f"{key}={value}" for key, value in sweep_of(study).items()] if study else []
    planned: dict[Path, Job] = {}
    composed: dict[tuple[str, ...], DictConfig] = {}
    for job in arms(list(_crossed([*swept, *overrides]))) if multirun else [list(overrides)]:
        config = _composed(job, composed)
        place = config.hydra.sweep if multirun else config.hydra.run
        found = Job(parse(config), Path(place.dir, *([place.subdir] if multirun else [])))
        if found.folder in planned:
            raise ConfigError(
                f"two runs of this sweep would share {found.folder}: leave out the values that repeat ({' '.join(job)})"
            )
        planned[found.folder] = found
    return list(planned.values())


# name=value as Hydra and JSON read it alike: a number, true, false, null.
PLAIN = re.compile(r"([a-z]\w*(?:\.\w+)*)=(-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)")


def _composed(job: Sequence[str], known: dict[tuple[str, ...], DictConfig]) -> DictConfig:
    """A job's configuration, to be read before the next one is asked for. Hydra takes a tenth of a second, so jobs
    that differ in plain values alone share its work: these choose no file of conf/."""
    found = [(word, PLAIN.fullmatch(word)) for word in job]
    alike = tuple(plain[1] if plain else word for word, plain in found)
    if len(set(alike)) < len(job):  # a setting given twice
        return _compose(job, with_hydra=True)
    if alike not in known:
        known[alike] = _compose(job, with_hydra=True)
    for _, plain in found:
        if plain:
            OmegaConf.update(known[alike], plain[1], json.loads(plain[2]))
    return known[alike]


def launcher_of(overrides: Sequence[str]) -> str | None:
    """The launcher that a command line names."""
    named = [override.partition("=")[2] for override in overrides if override.startswith("hydra/launcher=")]
    return named[-1] if named else None


def launcher_options(overrides: Sequence[str]) -> dict[str, Any]:
    """The options of the launcher that a command line names, as Hydra has them. `ConfigError`, in one line, where one
    does not fit."""
    start = "hydra.launcher."
    chosen = [override for override in overrides if override.startswith("hydra/launcher=")][-1]
    given = [override for override in overrides if override.lstrip("+~").startswith(start)]
    known = OmegaConf.to_container(_compose([chosen], with_hydra=True).hydra.launcher, resolve=False)
    assert isinstance(known, dict)
    for override in given:
        name = override.lstrip("+~").removeprefix(start).partition("=")[0].partition(".")[0]
        if name not in known or name == "_target_":
            names = [str(option) for option in known if option != "_target_"]
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {start}{close[0]}?" if close else f"choose one of {', '.join(names)}"
            raise ConfigError(f"{start}{name} is no option of {chosen}; {hint}")
        try:
            with initialize_config_dir(str(conf_dir()), version_base="1.3"):
                compose("config", [chosen, override], return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            reason = _first_line(error.__cause__ or error)
            name, _, value = override.partition("=")
            quoted = f"; a value with commas is written in quotes, as in '{name}=\"{value}\"'"
            raise ConfigError(f"{override}: {reason}{quoted if 'Ambiguous' in reason else ''}") from None
    options = OmegaConf.to_container(_compose([chosen, *given], with_hydra=True).hydra.launcher, resolve=False)
    assert isinstance(options, dict)
    return {str(key): value for key, value in options.items()}


def study_of(overrides: Sequence[str]) -> str | None:
    """The study that a command line names; `ConfigError` where there is no such study."""
    if inside := [override for override in overrides if override.lstrip("+").startswith("study.")]:
        raise ConfigError(f"{inside[0]}: a study's question and claims stand in its file in conf/study/, not here")
    named = [override.partition("=")[2] for override in overrides if override.startswith(("study=", "+study="))]
    if not named or named[-1] == "null":
        return None
    if named[-1] not in choices("study"):
        one = "one study at a time: " if "," in named[-1] else ""
        raise ConfigError(f"study={named[-1]}: {one}choose one of {', '.join(choices('study'))}")
    return named[-1]


def _crossed(overrides: Sequence[str]) -> Iterable[list[str]]:
    """Every combination, the last override varying fastest; a value given twice counts where it stands last, at the
    place where the first stands: Hydra's basic sweeper does the same."""
    parser = OverridesParser.create()
    axes: dict[str, list[str]] = {}
    for text in overrides:
        try:
            (override,) = parser.parse_overrides([text])
            sweeps = override.is_sweep_override()
            key = override.get_key_element()
            axes[key] = [f"{key}={value}" for value in override.sweep_string_iterator()] if sweeps else [text]
        except OverrideParseException as error:
            raise ConfigError(_explain(error, overrides)) from None
        except Exception as error:  # what Hydra's parser cannot sweep, it drops with errors of any kind
            raise ConfigError(f"{text}: cannot be swept ({_first_line(error)})") from None
    return (list(job) for job in itertools.product(*axes.values()))


def _run_folder(kind: str, *, _root_: DictConfig) -> str:
    """For conf/config.yaml: `runs/ln-seed_0`, a run's folder below log_dir. `kind` stands in where name is null."""
    settings = parse(_root_)
    study = OmegaConf.select(_root_, "hydra.runtime.choices.study")
    return f"{settings.name or kind}/{settings.slug(dotted(protocol(study)) if study else {})}"


OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)
