"""docs/norms.md is what the registry and docs/norms.csv make of it."""

from pathlib import Path

import pytest
from conftest import REPOSITORY

from benchmarks.norms import BATCH, LAYER, main, notes_of
from benchmarks.norms_page import Measurement, cost_part, costs, learned, names, read, registry_part, what
from normlab.nets import NORMS, Net

PAGE = (REPOSITORY / "docs" / "norms.md").read_text(encoding="utf-8")


def test_the_committed_page_is_what_the_registry_says_today() -> None:
    assert PAGE.startswith(registry_part()), "python -m benchmarks.norms --out docs"


def test_its_times_are_those_of_the_committed_measurements() -> None:
    measured = read(REPOSITORY / "docs" / "norms.csv")
    assert cost_part(measured, BATCH, LAYER) in PAGE
    assert {m.norm for m in measured} == set(NORMS) - {"custom"}
    assert len({m.round for m in measured}) >= 30
    for word in ("Machine: ", "load before ", "Versions: ", "`python -m benchmarks.norms --rounds "):
        assert word in PAGE


def test_every_norm_has_its_row() -> None:
    assert [row[0].strip("`") for row in what()] == names() == [name for name in NORMS if name != "custom"]
    for row in what():
        assert row[-1] == f"{sum(p.numel() for p in Net(row[0].strip('`')).parameters()):,}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", ""),
        ("bn", "γ (C), β (C)"),
        ("ln_elem", "γ (C · H · W), β (C · H · W)"),
        ("rms", "γ (C)"),
        ("frn", "γ (C), β (C), τ (C)"),
        ("dyt", "α (1), γ (C), β (C)"),
    ],
)
def test_what_a_layer_learns(name: str, expected: str) -> None:
    assert learned(name) == expected


def test_medians_and_ratios_by_hand() -> None:
    """The ratio is that of one round: a round that was slow as a whole changes nothing."""
    steps = {"none": [10, 10, 40, 10, 10], "bn": [20, 21, 80, 19, 20]}
    measured = [Measurement(i, name, of[i], 1 + i, 2 + i) for name, of in steps.items() for i in range(5)]
    none, bn = costs(measured)
    assert (none.norm, none.step_ms, none.ratio, none.quartiles) == ("none", 10, 1, (1, 1))
    assert (bn.norm, bn.step_ms, bn.ratio, bn.quartiles) == ("bn", 20, 2, (2, 2))
    assert (bn.forward_ms, bn.backward_ms) == (3, 4)


def test_the_command_measures_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rounds", "2", "--batch", "2", "--norms", "frn", "gbn", "--out", str(tmp_path)]) == 0
    page, measured = (tmp_path / "norms.md").read_text(encoding="utf-8"), read(tmp_path / "norms.csv")
    assert [(m.round, m.norm) for m in measured if m.round == 1] != [(1, n) for n in ("none", "frn", "gbn")], "rotates"
    assert {(m.round, m.norm) for m in measured} == {(i, name) for i in (1, 2) for name in ("none", "frn", "gbn")}
    assert all(min(m.step_ms, m.forward_ms, m.backward_ms) > 0 for m in measured)
    assert page.startswith(registry_part())
    assert cost_part(measured, 2, LAYER) in page
    assert "`python -m benchmarks.norms --rounds 2 --batch 2 --norms frn gbn --out docs`" in page
    assert "What the norms cost" in capsys.readouterr().out


def test_a_busy_machine_is_said() -> None:
    assert "others used the machine" in notes_of(1.7, 2.0, "x")[0]
    assert "others used the machine" not in notes_of(0.1, 1.0, "x")[0]
