"""The README's links lead somewhere; docs/settings.md is what the settings are."""

import re

import pytest
from conftest import REPOSITORY

from normlab.norms import CATALOGUE
from normlab.settings import GROUPS, Settings, choices
from normlab.settings.page import as_markdown, as_text

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_the_page_of_settings_is_made_from_them() -> None:
    page = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == as_markdown(), "python -m normlab.settings.page > docs/settings.md"


@pytest.mark.parametrize("page", [as_markdown(), as_text()], ids=["markdown", "text"])
def test_every_setting_and_option_is_on_it(page: str) -> None:
    """With its values and meaning: a setting without either would be an empty cell."""
    names = {*Settings.model_fields} - {"penalty", "augment"} | {"penalty.scope", "augment.shift", "optimizer.betas"}
    names |= {f"norm.{option}" for about in CATALOGUE.values() for option in about.options} | {"net.channels"}
    for name in names:
        assert re.search(rf"(?m)^(\| `|  ){re.escape(name)}(` \||:) ", page), name
    for group in GROUPS:
        for name in choices(group):
            assert f"{group}={name}" in page
    settings = page.partition("study=")[0]
    assert not re.search(r"\|  \|", settings), "a cell is empty"
    assert "number, ≥ 0, < 1" in page
    assert "subgradient, proximal" in page


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?://|#)([^)#]+)\)", README))
def test_a_link_leads_somewhere(link: str) -> None:
    assert (REPOSITORY / link).exists()
