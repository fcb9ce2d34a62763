"""docs/norms.md is what the norms' files and docs/norms.csv make of it."""

import re
from pathlib import Path

import pytest
from conftest import REPOSITORY

from benchmarks.norms import BATCH, LAYER, main, notes_of
from benchmarks.norms_page import Measurement, catalogue_part, cost_part, costs, read, renew, what
from normlab.nets import Net
from normlab.norms import CATALOGUE

PAGE = (REPOSITORY / "docs" / "norms.md").read_text(encoding="utf-8")


def test_the_committed_page_is_what_the_norms_say_today() -> None:
    assert PAGE.startswith(catalogue_part()), "python -m benchmarks.norms_page"


def test_its_times_are_those_of_the_committed_measurements() -> None:
    measured = read(REPOSITORY / "docs" / "norms.csv")
    assert cost_part(measured, BATCH, LAYER) in PAGE
    assert {m.norm for m in measured} == set(CATALOGUE)
    assert len({m.round for m in measured}) >= 30
    for word in ("Machine: ", "load before ", "Versions: ", "`python -m benchmarks.norms --rounds "):
        assert word in PAGE


def test_every_norm_has_its_row() -> None:
    rows = {row[0].strip("`"): row for row in what()}
    assert list(rows) == list(CATALOGUE)
    for name, row in rows.items():
        assert row[-1] == f"{sum(p.numel() for p in Net(name).parameters()):,}"


def test_every_norm_has_its_section() -> None:
    sections = {part.partition("\n")[0]: part for part in catalogue_part().split("\n### ")[1:]}
    assert list(sections) == list(CATALOGUE)
    for name, learned in {
        "none": "nothing",
        "bn": "γ (C), from 1; β (C), from 0",
        "ln_elem": "γ (C·H·W), from 1; β (C·H·W), from 0",
        "dyt": "α (1), from option `alpha`; γ (C), from 1; β (C), from 0",
        "wn": "g (C), by the convolution",
    }.items():
        assert f"\n| learned | {learned} |\n" in sections[name]
    assert "\n| statistics | N · G means and variances over C / G, H, W |\n" in sections["gn"]
    assert "mean&#124;x − μ&#124;" in catalogue_part(), "a | would end the cell"
    for name, about in CATALOGUE.items():
        assert re.findall(r"(?m)^\| `(\w+)` \| `", sections[name]) == [*about.options], name


def test_medians_and_ratios_by_hand() -> None:
    """The ratio is that of one round: a round that was slow as a whole changes nothing."""
    steps = {"none": [10, 10, 40, 10, 10], "bn": [20, 21, 80, 19, 20]}
    measured = [Measurement(i, name, of[i], 1 + i, 2 + i) for name, of in steps.items() for i in range(5)]
    none, bn = costs(measured)
    assert (none.norm, none.step_ms, none.ratio, none.quartiles) == ("none", 10, 1, (1, 1))
    assert (bn.norm, bn.step_ms, bn.ratio, bn.quartiles) == ("bn", 20, 2, (2, 2))
    assert (bn.forward_ms, bn.backward_ms) == (3, 4)


def test_the_page_alone_can_be_made_anew(tmp_path: Path) -> None:
    for name in ("norms.md", "norms.csv"):
        (tmp_path / name).write_bytes((REPOSITORY / "docs" / name).read_bytes())
    renew(tmp_path / "norms.md")
    assert (tmp_path / "norms.md").read_text(encoding="utf-8") == PAGE


def test_the_command_measures_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rounds", "2", "--batch", "2", "--norms", "frn", "gbn", "--out", str(tmp_path)]) == 0
    page, measured = (tmp_path / "norms.md").read_text(encoding="utf-8"), read(tmp_path / "norms.csv")
    assert [(m.round, m.norm) for m in measured if m.round == 1] != [(1, n) for n in ("none", "frn", "gbn")], "rotates"
    assert {(m.round, m.norm) for m in measured} == {(i, name) for i in (1, 2) for name in ("none", "frn", "gbn")}
    assert all(min(m.step_ms, m.forward_ms, m.backward_ms) > 0 for m in measured)
    assert page.startswith(catalogue_part())
    assert cost_part(measured, 2, LAYER) in page
    assert "`python -m benchmarks.norms --rounds 2 --batch 2 --norms frn gbn --out docs`" in page
    assert "What the norms cost" in capsys.readouterr().out


def test_a_busy_machine_is_said() -> None:
    assert "others used the machine" in notes_of(1.7, 2.0, "x")[0]
    assert "others used the machine" not in notes_of(0.1, 1.0, "x")[0]
