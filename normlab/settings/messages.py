"""Values checked: typed settings, or one line that names the setting and what to write instead."""

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from normlab.errors import ConfigError
from normlab.settings.conf import GROUPS, choices, defaults, dotted, instead, spell
from normlab.settings.model import UNHASHED, Settings

ADDED = (  # settings that records of earlier versions lack
    "net", "optimizer", "weight_standardization", "lr_per", "train_size", "refit_epochs", "sync_batchnorm", "kernels",
)  # fmt: skip


def check_recorded(config: Mapping[str, Any]) -> None:
    """Raise `ValueError`, in one line, where a result.json lacks a setting or holds a value of another type. Settings
    and choices that this version does not know may be in it, and those in `ADDED` may be missing."""
    if missing := [key for key in Settings.model_fields if key not in (*config, *ADDED, *UNHASHED)]:
        raise ValueError(f"{missing[0]} is missing")
    for group in ("norm", "data"):
        if not isinstance(config[group]["name"], str):
            raise ValueError(f"{group}.name is no word")
    values = {key: value for key, value in config.items() if key in Settings.model_fields}
    for group in ("norm", "net", "data"):  # without what would be looked up on this machine: modules, folders, a GPU
        if isinstance(values.get(group), Mapping):
            values[group] = {key: value for key, value in values[group].items() if key not in ("target", "root")}
    try:
        Settings.model_validate(values | {"accelerator": "cpu"})
    except ValidationError as error:
        for each in error.errors():
            if each["type"].endswith("_type") or each["type"] == "finite_number":
                raise ValueError(_line(each)) from None


def checked(values: Mapping[str, Any]) -> Settings:
    """Return typed settings from nested values; what is left out is as in conf/. Raise `ConfigError`, in one line,
    where a value does not fit."""
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(line(error)) from None


def line(error: ValidationError) -> str:
    """Return pydantic's errors in one line: `name=value: what to write instead`."""
    return "; ".join(map(_line, error.errors()))


def _line(error: Any) -> str:
    message = error["msg"].removeprefix("Value error, ")
    where = ".".join(str(part) for part in error["loc"] if part not in ("sgd", "adamw"))  # a union's choice is no name
    if where.endswith(".name") and where.removesuffix(".name") in GROUPS:
        where = where.removesuffix(".name")  # norm=lnn, as on the command line
    if error["type"] == "value_error":
        named = "=" in message and not message.startswith("write ")
        return message if named or not where else f"{where}={spell(error['input'])}: {message}"
    if error["type"] == "extra_forbidden":
        return f"{where} is no setting; {near(where)}"
    if error["type"] == "missing":
        return f"{where} is missing"
    if error["type"] == "union_tag_invalid":  # the optimizer is the one union
        message = instead(str(error["input"].get("name")), choices("optimizer"))
    if error["type"] == "list_type":
        message = f"write a list, as in {where}=[{error['input']}]"
    if error["type"] == "model_type" and where == "augment":
        message = "write true or false, or set augment.rotation and augment.shift"
    if error["type"] == "string_pattern_mismatch":  # `name` is the one with a pattern
        message = "a folder's name, without / or \\, and no dot at its end"
    message = message.replace("Input should", "must").replace("String should", "must")
    return f"{where}={spell(error['input'])}: {message}"


def near(name: str, chosen: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the setting that was probably meant by a dotted name, or all that there are beside it."""
    parent, _, leaf = name.rpartition(".")
    known = defaults(**{group: each for group, each in chosen.items() if each in choices(group)})
    beside = known.get(parent)
    names = {key: f"{parent}.{key}" for key in beside} if isinstance(beside, dict) else {key: key for key in known}
    close = [names[key] for key in difflib.get_close_matches(leaf, names, n=1)]
    if not parent and not close:
        close = [key for key in dotted(known) if key.rpartition(".")[2] == leaf]  # momentum: optimizer.momentum
    return f"did you mean {' or '.join(close)}?" if close else f"choose one of {', '.join(names.values())}"
