"""The README says what is true: its settings are those of conf/, its commands are understood."""

import re
import shlex
import subprocess

import pytest
import yaml
from conftest import REPOSITORY

from normlab.config import plan
from normlab.places import conf_dir

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def defaults() -> dict[str, object]:
    values = yaml.safe_load((conf_dir() / "config.yaml").read_text(encoding="utf-8"))
    flat = {}
    for name, value in values.items():
        if name in ("defaults", "hydra"):
            continue
        flat |= {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
    return flat


@pytest.mark.parametrize(("name", "value"), defaults().items(), ids=lambda value: str(value))
def test_the_table_of_settings_has_this_default(name: str, value: object) -> None:
    row = re.search(rf"^\| `{re.escape(name)}` \| `([^`]*)` \|", README, re.MULTILINE)
    assert row, f"{name} is not in the README's table of settings"
    assert yaml.safe_load(row[1]) == value


def commands() -> list[str]:
    text = README.replace("\\\n", " ")
    return re.findall(r"python -m normlab\.train[^\n`#&|]*", text)


@pytest.mark.parametrize("command", commands())
def test_a_command_is_understood(command: str) -> None:
    arguments = shlex.split(command)[3:]
    if "--help" not in arguments:
        assert plan([a for a in arguments if a != "-m"], multirun="-m" in arguments)


@pytest.mark.parametrize("command", commands())
def test_a_shell_reads_a_command_as_it_stands(command: str) -> None:
    subprocess.run(["bash", "-n", "-c", command], check=True)


def test_there_are_commands_to_check() -> None:
    assert len(commands()) >= 5


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?://|#)([^)#]+)\)", README))
def test_a_link_leads_somewhere(link: str) -> None:
    assert (REPOSITORY / link).exists()
