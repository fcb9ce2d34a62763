"""docs/norms.md is what the norms' files and docs/norms.csv make of it."""

from pathlib import Path

import pandas as pd
import pytest
from conftest import REPOSITORY

from benchmarks.norms import BATCH, main, notes_of
from benchmarks.norms_page import catalogue_part, cost_part, costs, renew
from normlab.norms import CATALOGUE

PAGE = (REPOSITORY / "docs" / "norms.md").read_text(encoding="utf-8")


def test_the_committed_page_is_what_the_norms_and_the_measurements_say(tmp_path: Path) -> None:
    for name in ("norms.md", "norms.csv"):
        (tmp_path / name).write_bytes((REPOSITORY / "docs" / name).read_bytes())
    renew(tmp_path / "norms.md")
    assert (tmp_path / "norms.md").read_text(encoding="utf-8") == PAGE, "python -m benchmarks.norms_page"
    measured = pd.read_csv(tmp_path / "norms.csv")
    assert cost_part(measured, BATCH) in PAGE
    assert set(measured["norm"]) == set(CATALOGUE)
    assert measured["round"].nunique() >= 30
    for word in ("Machine: ", "load before ", "Versions: ", "`python -m benchmarks.norms --rounds "):
        assert word in PAGE


def test_medians_and_ratios_by_hand() -> None:
    """The ratio is that of one round: a round that was slow as a whole changes nothing."""
    steps = {"none": [10, 10, 40, 10, 10], "bn": [20, 21, 80, 19, 20]}
    rows = [(i, name, of[i], 1 + i, 2 + i) for name, of in steps.items() for i in range(5)]
    found = costs(pd.DataFrame(rows, columns=["round", "norm", "step_ms", "forward_ms", "backward_ms"]))
    columns = ["step_ms", "ratio", "low", "high", "forward_ms", "backward_ms"]
    assert found.loc[["none", "bn"], columns].to_numpy().tolist() == [[10, 1, 1, 1, 3, 4], [20, 2, 2, 2, 3, 4]]


def test_the_command_measures_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rounds", "2", "--batch", "2", "--norms", "frn", "gbn", "--out", str(tmp_path)]) == 0
    page, measured = (tmp_path / "norms.md").read_text(encoding="utf-8"), pd.read_csv(tmp_path / "norms.csv")
    assert measured["norm"][measured["round"] == 1].tolist() != ["none", "frn", "gbn"], "rotates"
    pairs = set(zip(measured["round"], measured["norm"], strict=True))
    assert pairs == {(i, name) for i in (1, 2) for name in ("none", "frn", "gbn")}
    assert (measured[["step_ms", "forward_ms", "backward_ms"]] > 0).all(axis=None)
    assert page.startswith(catalogue_part())
    assert cost_part(measured, 2) in page
    assert "`python -m benchmarks.norms --rounds 2 --batch 2 --norms frn gbn --out docs`" in page
    assert "What they cost" in capsys.readouterr().out


def test_a_busy_machine_is_said() -> None:
    assert "others used the machine" in notes_of(1.7, 2.0, "x")[0]
    assert "others used the machine" not in notes_of(0.1, 1.0, "x")[0]
