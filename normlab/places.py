"""Where the configuration files are, in a clone as in an installed package, and what they offer."""

from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

__all__ = ["choices", "conf_dir", "group_values"]


def conf_dir() -> Path:
    """The folder of configuration files: the copy inside an installed package, else the one of the clone."""
    package = Path(__file__).resolve().parent
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
