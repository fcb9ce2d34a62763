"""What L1 removes along a path of λ: the table and figures of runs with exact zeros."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_up_runs import answers, made_up

from normlab.analysis.part import ImageSet
from normlab.analysis.parts.path import chance, jaccard_of_supports, path, path_frame
from normlab.record import write_support
from normlab.report import main as report
from normlab.settings import Penalty, Settings

TRUTH = {0.0: (0.99, 0.0, 4.0), 1e-3: (0.98, 0.25, 2.0), 1e-2: (0.90, 0.75, 1.0)}  # λ: accuracy, zeros, norm of weights


def supports(zeros: float, seed: int) -> np.ndarray:
    """The last quarter is always left, the rest from the front, moved on by a tenth of all a seed."""
    there = np.ones(1000, dtype=bool)
    there[: round(1000 * zeros)] = False
    return np.roll(there, 100 * seed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for method in ("proximal", "subgradient"):
        for seed, wobble in enumerate([0.001, -0.001]):
            for l1, (acc, zeros, norm) in TRUTH.items():
                zeros = zeros if method == "proximal" else 0.0
                if not l1 and method == "subgradient":
                    continue  # without a penalty its method does not matter: one run
                own = {"l1": l1, "penalty": Penalty(method=method)}
                record = made_up(tmp_path, "gn", seed, test_acc=acc + wobble, images=1000, files=False, **own)
                place = tmp_path / Settings.model_validate(record.config).slug()
                values = json.loads((place / "result.json").read_text())
                values["metrics"] |= {"zeros": zeros, "zero_filters": zeros / 2, "zero_scales": None, "small": 0.3}
                values["metrics"] |= {"weight_norm": norm, "refit_test_acc": acc + wobble + 0.005}
                (place / "result.json").write_text(json.dumps(values))
                if zeros:
                    write_support(place, supports(zeros, seed))
    return tmp_path


def test_the_table(folder: Path) -> None:
    table = path_frame(answers(folder).found)
    assert len(table) == 5
    row = table[table["setting"].str.contains("proximal") & (table["l1"] == 1e-3)].iloc[0]
    assert row["test_acc_mean"] == pytest.approx(0.98)
    for name in ("test_acc", "refit_test_acc"):  # 0.995 ± 12.7 x 0.001
        assert (table[f"{name}_low"] < table[f"{name}_mean"]).all()
        assert (table[f"{name}_mean"] < table[f"{name}_high"]).all()
        assert (table[f"{name}_high"] < 1).all(), "an interval of an accuracy stays within 0 and 100 %"
    assert (row["zeros"], row["zero_filters"], row["small"], row["weight_norm"]) == (0.25, 0.125, 0.3, 2.0)
    assert row["step_ratio"] == pytest.approx(4), "half the norm: a step turns the weights four times as far"
    assert row["refit_gain_pp"] == pytest.approx(0.5)
    assert (row["refit_gain_low"], row["refit_gain_high"]) == pytest.approx((0.5, 0.5)), "paired: no seed departs"
    assert row["agreement"] == pytest.approx(650 / 850)
    assert row["chance"] == pytest.approx(0.5625 / 0.9375)
    plain = table[table["setting"].str.contains("subgradient") & (table["l1"] == 1e-2)].iloc[0]
    assert plain["zeros"] == 0
    assert np.isnan(plain["agreement"])


def test_agreement_by_hand() -> None:
    a, b = np.array([1, 1, 0, 0], dtype=bool), np.array([1, 0, 1, 0], dtype=bool)
    assert jaccard_of_supports([a, b]) == pytest.approx((1 / 3, 1 / 3))
    assert jaccard_of_supports([a, a, None]) == pytest.approx((1, 1 / 3))
    assert np.isnan(jaccard_of_supports([a, None])).all()
    assert np.isnan(jaccard_of_supports([a & b & ~a, a & ~a])).all()
    rng = np.random.default_rng(0)
    large = [rng.random(200_000) < share for share in (0.3, 0.6)]
    assert jaccard_of_supports(large)[0] == pytest.approx(chance(0.3, 0.6), abs=0.005)


def test_the_figure_holds_the_points_and_the_report_all(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report([str(folder), "--all", "--no-figures"]) == 0
    assert "What L1 removes" in capsys.readouterr().out
    assert (folder / "path.csv").read_text().count("\n") == 6
    figures = {picture.name: picture.draw(ImageSet(None, ())) for picture in path(answers(folder)).pictures()}
    assert list(figures) == ["path", "path-refit"]
    lines = [line.get_xydata().tolist() for line in figures["path"].axes[0].lines]
    expected = [[0, pytest.approx(1)], [25, pytest.approx(2)], [75, pytest.approx(10)]]  # errors, per cent
    assert any(line == expected for line in lines)
    assert not any(line and line[0] == [0, 1] and len(line) == 1 for line in lines), "no zeros, no line"
    ticks = [tick for tick in figures["path"].axes[0].get_xticks() if 0 <= tick <= 75]
    assert ticks == [0, 20, 40, 60], "zeros are measured: round numbers stand at the axis"


def test_two_values_are_no_path(tmp_path: Path) -> None:
    for l1 in (0.0, 1e-3):
        made_up(tmp_path, "gn", 0, test_acc=0.9, l1=l1)
    assert path_frame(answers(tmp_path).found).empty
    part = path(answers(tmp_path))
    assert not [*part.pictures()]
    assert not any(len(table.frame) for table in part.tables)


def test_a_damaged_support_is_one_line(folder: Path) -> None:
    file = next(folder.glob("*/support.npz"))
    file.write_bytes(file.read_bytes()[:40])
    runs_ = answers(folder).found
    path_frame(runs_)
    [line] = [line for cell in runs_.cells for run in cell.ended for line in run.damage]
    assert f"{file} is damaged" in line
