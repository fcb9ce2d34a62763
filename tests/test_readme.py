"""The README says what is true: its settings are those of conf/, its links lead somewhere."""

import re

import pytest
import yaml
from conftest import REPOSITORY

from normlab.settings import conf_dir

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


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?://|#)([^)#]+)\)", README))
def test_a_link_leads_somewhere(link: str) -> None:
    assert (REPOSITORY / link).exists()
