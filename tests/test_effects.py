"""What each factor does, averaged over the others."""

import itertools
from pathlib import Path

import pytest
from made_up_runs import made_up

from normlab.analysis.cells import sort
from normlab.analysis.effects import ALL, effects, effects_table
from normlab.analysis.table import runs
from normlab.report import main as report

DROPOUT = {"bn": -0.01, "gn": 0.03}  # what dropout=0.1 adds to the accuracy of each
SEEDS = {0: 0.001, 1: -0.001, 2: 0.0}  # what a seed adds to the effect of l1
L1 = 0.02


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for norm, l1, dropout, seed in itertools.product(DROPOUT, (0, 1e-4), (0.0, 0.1), SEEDS):
        acc = (
            0.9
            + (0.02 if norm == "gn" else 0)
            + bool(dropout) * (DROPOUT[norm] + SEEDS[seed])
            + bool(l1) * (L1 + SEEDS[seed])
        )
        made_up(tmp_path, norm, seed, test_acc=acc, images=1000, l1=l1, dropout=dropout)
    return tmp_path


def test_effects_are_those_that_were_put_in(folder: Path) -> None:
    table = effects_table(effects(sort(runs(folder)), 0.5)).set_index(["factor", "norm"])
    assert len(table) == 6
    for norm, pairs in ((ALL, 4), ("bn", 2), ("gn", 2)):
        row = table.loc[("l1", norm)]
        assert (row["level"], row["against"], row["n"], row["pairs"]) == ("0.0001", "0", 3, pairs)
        assert row["effect_pp"] == pytest.approx(100 * L1)
        half = 4.302653 * 0.1 / 3**0.5  # t of two degrees of freedom; the seeds' standard deviation is 0.1 pp
        assert (row["effect_low"], row["effect_high"]) == pytest.approx((2 - half, 2 + half), abs=1e-5)
    for norm, expected in ((ALL, 1), ("bn", -1), ("gn", 3)):
        assert table.loc[("dropout", norm), "effect_pp"] == pytest.approx(expected)
    assert (table["p_holm"] >= table["p"]).all()
    assert table.loc[("l1", ALL), "verdict"] == table.loc[("dropout", "gn"), "verdict"] == "better"
    assert table.loc[("dropout", "bn"), "verdict"] == "worse"


def test_a_seed_counts_where_it_has_all_pairs(folder: Path) -> None:
    [lost] = [place for place in folder.glob("bn-*l1*dropout*") if place.name.endswith("seed_2")]
    (lost / "result.json").unlink()
    table = effects_table(effects(sort(runs(folder)), 0.5)).set_index(["factor", "norm"])
    assert table.loc[("l1", "bn"), "n"] == table.loc[("l1", ALL), "n"] == 2
    assert table.loc[("l1", "gn"), "n"] == 3


def test_one_factor_beside_the_norm_is_no_factorial_study(tmp_path: Path) -> None:
    for norm, l1, seed in itertools.product(("bn", "gn"), (0, 1e-4), SEEDS):
        made_up(tmp_path, norm, seed, l1=l1)
    assert effects(sort(runs(tmp_path)), 0.5) == []


def test_a_report_has_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report([str(folder), "--no-figures"]) == 0
    shown = capsys.readouterr().out
    assert "l1=0.0001 against 0" in shown
    assert "all norms" in shown
    assert (folder / "effects.csv").read_text().count("\n") == 7
    assert 'id="effects"' in (folder / "report.html").read_text()
