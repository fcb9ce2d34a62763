"""Where the configuration files are, in a clone as in an installed package, and what they offer."""

import difflib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from normlab.norms import CATALOGUE

GROUPS = ("norm", "data", "net", "optimizer")  # each choice is a file that brings values, known by its `name`


def conf_dir() -> Path:
    """Return the folder of configuration files: the copy in an installed package, else the one of the clone."""
    package = Path(__file__).resolve().parents[1]
    return next((folder for folder in (package / "conf", package.parent / "conf") if folder.is_dir()), package / "conf")


def choices(group: str) -> list[str]:
    """Return the names of a configuration group, such as "norm", in alphabetical order."""
    return sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))


def instead(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Return what to write instead of a name that is not among `names`: the nearest of them, or a choice of all.

    A norm is also known by the name of its class. prefix: What comes before the nearest when it is typed.

    >>> instead("LN", ["bn", "ln"]), instead("BatchNorm", ["bn", "ln"]), instead("sparse", ["bn", "ln"])
    ('did you mean ln?', 'did you mean bn?', 'choose one of bn, ln')
    """
    names = [*names]
    classes = {CATALOGUE[each].layer.lower(): each for each in names if each in CATALOGUE}
    known = {layer.removesuffix("2d"): each for layer, each in classes.items()} | classes
    known |= {each.lower(): each for each in names}
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f"did you mean {prefix}{known[close[0]]}?" if close else f"choose one of {', '.join(names)}"


@cache
def contribution(group: str, name: str) -> dict[str, Any]:
    """Return what a file of a group brings to the whole configuration, with what it inherits, nested.

    Names in its defaults list are files of the same group that it starts from; `override` entries are left to Hydra.
    """
    file = conf_dir() / group / f"{name}.yaml"
    values = _plain(OmegaConf.load(file))
    inherited = [each for each in values.pop("defaults", []) if isinstance(each, str) and each != "_self_"]
    if "@package _global_" not in file.read_text(encoding="utf-8").partition("\n")[0]:
        values = {group: values}
    return _plain(OmegaConf.merge(*(contribution(group, each) for each in inherited), values))


def group_values(group: str, name: str) -> dict[str, Any]:
    """Return the values of one choice of a group: for a study all that it brings, else the group's own settings."""
    values = contribution(group, name)
    return values if group == "study" else dict(values[group])


@cache
def defaults(**chosen: str) -> dict[str, Any]:
    """Return the value of every setting, nested as in conf/config.yaml, for the usual choice of each group or `chosen`.

    >>> defaults()["lr"], defaults(norm="gn")["norm"]["num_groups"]
    (0.1, 2)
    """
    values = _plain(OmegaConf.load(conf_dir() / "config.yaml"))
    del values["hydra"]
    listed = dict(pair for entry in values.pop("defaults") if entry != "_self_" for pair in entry.items()) | chosen
    return _plain(OmegaConf.merge(values, *(contribution(group, listed[group]) for group in GROUPS)))


def _plain(config: Any) -> dict[str, Any]:
    values = OmegaConf.to_container(config)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted name: {"norm": {"options": {"eps": 1}}} -> {"norm.eps": 1}.

    An option that is called like a setting beside `options` keeps the word: `norm.options.name`.
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if not isinstance(value, Mapping):
            flat[f"{prefix}{key}"] = value
        elif key == "options":
            for name, each in value.items():
                flat |= dotted({name: each}, f"{prefix}options." if name in values else prefix)
        else:
            flat |= dotted(value, f"{prefix}{key}.")
    return flat


def spell(value: Any) -> str:
    """Return a value as it is written on a command line: 0.001, true, null, a number as short as says all of it; of a
    group, its name."""
    if isinstance(value, Mapping):
        return str(value.get("name", dict(value)))
    if isinstance(value, float):
        return short if float(short := f"{value:g}") == value else repr(value)
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
