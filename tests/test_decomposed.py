"""Where batch norm's loss comes from: the table and figures of runs with the probe `statistics`."""

from pathlib import Path
from typing import Any

import pytest
from made_up_runs import answers, made_up

from normlab.analysis.part import ImageSet, Picture
from normlab.analysis.parts.statistics import SCORES, statistics, statistics_frame
from normlab.record import write_probes
from normlab.report import main as report
from normlab.settings import Settings

# batch size: accuracies with running averages, precise statistics, a test batch's own, a training batch's own
TRUTH = {2: (0.90, 0.94, 0.80, 0.82), 8: (0.96, 0.97, 0.93, 0.94), 32: (0.985, 0.985, 0.98, 0.99)}


def measured(folder: Path, norm: str, seed: int, size: int, values: tuple[float, ...], *rows: tuple[Any, ...]) -> None:
    """A run that is made up, with the accuracies of the probe and more of its rows."""
    record = made_up(folder, norm, seed, test_acc=values[0], images=1000, batch_size=size)
    scores = [(2, 9, "statistics", "", name, value) for name, value in zip(SCORES, values, strict=True)]
    write_probes(folder / Settings.model_validate(record.config).slug(), [*scores, *rows])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, wobble in enumerate([0.0, 0.002, -0.002]):
        for size, values in TRUTH.items():
            errors = [("error_mean", 1 / size), ("error_log_var", 2 / size)]
            rows = [(2, 9, "statistics", f"block{i}.norm", key, e + 0.01 * i) for key, e in errors for i in (1, 2)]
            own = tuple(value + wobble for value in values)
            measured(tmp_path, "bn", seed, size, own, *rows, (2, 9, "layers", "block1", "dead", 0.5))
        made_up(tmp_path, "gn", seed, test_acc=0.98, images=1000, batch_size=2)  # has nothing to average
    return tmp_path


def pictures(folder: Path) -> list[Picture]:
    return [*statistics(answers(folder)).pictures()]


def test_the_table(folder: Path) -> None:
    table = statistics_frame(answers(folder).found).set_index("batch_size")
    assert list(table.index) == [2, 8, 32]
    two = table.loc[2]
    assert two["n"] == 3
    assert two["test_running_acc_mean"] == pytest.approx(0.90)
    assert two["train_batch_acc_mean"] == pytest.approx(0.82)
    assert (two["recovered_pp"], two["lost_pp"], two["trained_pp"]) == pytest.approx((4, 8.5, 4.5))
    assert two["recovered_low"] == pytest.approx(4, abs=1e-4), "every seed wobbles alike: a paired difference does not"
    assert two["test_running_acc_low"] < 0.897
    assert two["block2_error_log_var"] == pytest.approx(1.02)
    assert table.loc[32, "lost_pp"] == table.loc[32, "recovered_pp"] == pytest.approx(0)


def test_the_figures_hold_the_points(folder: Path) -> None:
    figures = {picture.name: picture.draw(ImageSet(None, ())) for picture in pictures(folder)}
    assert list(figures) == ["statistics", "statistics-means", "statistics-variances"]
    lines = [line.get_xydata().tolist() for line in figures["statistics"].axes[0].lines]
    assert [[2, 10], [8, 4], [32, 1.5]] in [[[x, pytest.approx(y)] for x, y in line] for line in lines], "errors, %"
    lines = [line.get_xydata().tolist() for line in figures["statistics-variances"].axes[0].lines]
    expected = [[size, pytest.approx(2 / size + 0.01)] for size in TRUTH]
    assert any(line == expected for line in lines)


def test_a_report_has_both(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report([str(folder), "--all"]) == 0
    assert "Which statistics" in capsys.readouterr().out
    assert (folder / "statistics.csv").read_text().count("\n") == 4
    assert (folder / "figures" / "statistics.svg").exists()
    assert "Which statistics" in (folder / "report.html").read_text()


def test_one_batch_size_is_no_curve_and_a_norm_that_averages_nothing_has_no_errors_to_draw(tmp_path: Path) -> None:
    for size in TRUTH:
        measured(tmp_path / "gn", "gn", 0, size, (0.9,) * 4)
    assert [picture.name for picture in pictures(tmp_path / "gn")] == ["statistics"]
    assert (statistics_frame(answers(tmp_path / "gn").found)["recovered_pp"] == 0).all()
    measured(tmp_path / "bn", "bn", 0, 2, (0.9,) * 4)
    assert len(statistics_frame(answers(tmp_path / "bn").found)) == 1
    assert pictures(tmp_path / "bn") == []
