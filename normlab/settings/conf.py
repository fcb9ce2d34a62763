"""Where the configuration files are, in a clone as in an installed package, and what they offer."""

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

__all__ = ["choices", "conf_dir", "defaults", "group_values", "source_digest"]


def conf_dir() -> Path:
    """The folder of configuration files: the copy inside an installed package, else the one of the clone."""
    package = Path(__file__).resolve().parents[1]
    return next((folder for folder in (package / "conf", package.parent / "conf") if folder.is_dir()), package / "conf")


def choices(group: str) -> list[str]:
    """The names of a configuration group, such as "norm" or "data"."""
    return sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))


@cache
def group_values(group: str, name: str) -> dict[str, Any]:
    """The values of one file of a configuration group, such as conf/norm/gn.yaml."""
    values = OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{name}.yaml"))
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


@cache
def defaults() -> dict[str, Any]:
    """The value of every setting in conf/config.yaml, nested as there, with the files that its defaults list names."""
    values = OmegaConf.to_container(OmegaConf.load(conf_dir() / "config.yaml"))
    assert isinstance(values, dict)
    groups = [entry for entry in values.pop("defaults") if isinstance(entry, dict)]
    values.pop("hydra")
    for group, name in (pair for entry in groups for pair in entry.items()):
        if name is not None and not str(group).startswith("override "):
            values[group] = dict(group_values(str(group), name))
    return {str(key): value for key, value in values.items()}


def source_digest(target: str) -> str | None:
    """sha256 over the file that defines a "package.module:Class"; None where there is no such file."""
    try:
        spec = find_spec(target.partition(":")[0])
        return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest() if spec and spec.origin else None
    except Exception:  # find_spec imports the parent packages, and those may raise anything
        return None
