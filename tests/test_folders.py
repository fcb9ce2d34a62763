"""What else lies in a folder of runs: every case in words, and nothing refused that can be read."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_up_runs import crossed, made_up

from normlab.analysis import read
from normlab.analysis import table as table_module
from normlab.compared import compare
from normlab.errors import NormlabError

RUNS = 4  # of two settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    crossed(tmp_path / "study", {("bn", 0.0): 0.9, ("bn", 1e-3): 0.9}, seeds=2)
    return tmp_path / "study"


def first(folder: Path, name: str = "result.json") -> Path:
    return sorted(folder.rglob(name))[0]


def foreign(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "result.json").write_text('{"score": 3}')


def listed(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "result.json").write_text("[1, 2]")


def empty(folder: Path) -> None:
    first(folder).write_text("")


def half(folder: Path) -> None:
    text = first(folder).read_text()
    first(folder).write_text(text[: len(text) // 2])


def newer(folder: Path) -> None:
    first(folder).write_text(first(folder).read_text().replace('"schema": 1', '"schema": 9'))


def a_folder(folder: Path) -> None:
    first(folder).unlink()
    (first(folder, "metrics.csv").parent / "result.json").mkdir()


def cut_metrics(folder: Path) -> None:
    text = first(folder, "metrics.csv").read_text()
    first(folder, "metrics.csv").write_text(text[:-8])


def cut_predictions(folder: Path) -> None:
    content = first(folder, "predictions.npz").read_bytes()
    first(folder, "predictions.npz").write_bytes(content[:-30])


def other_length(folder: Path) -> None:
    file = first(folder, "predictions.npz")
    with np.load(file) as arrays:
        np.savez(file, **{key: arrays[key][:50] for key in arrays})


def no_probes(folder: Path) -> None:
    (first(folder).parent / "probes.csv").write_text("a,b")


def copied(folder: Path) -> None:
    made_up(folder / "copy", "bn", 0, test_acc=0.9 + 0.004 * np.cos(2))


def twice(folder: Path) -> None:
    made_up(folder / "again", "bn", 0, test_acc=0.8)


def to_a_run(folder: Path) -> None:
    place = first(folder).parent
    place.rename(folder.parent / "elsewhere")
    place.symlink_to(folder.parent / "elsewhere")


def to_a_folder(folder: Path) -> None:
    folder.rename(folder.parent / "moved")
    folder.mkdir()
    (folder / "runs").symlink_to(folder.parent / "moved")


def loops(folder: Path) -> None:
    (folder / "a_loop").symlink_to(folder)
    (folder / "up").symlink_to(folder.parent)
    (folder / "twin").symlink_to(first(folder).parent)
    (folder / "broken").symlink_to(folder / "nowhere")


@pytest.mark.parametrize(
    ("change", "runs", "warning"),
    [
        (foreign, RUNS, "NL020: Left out: {0}/other/result.json is no result of a run here: it seems"),
        (listed, RUNS, "NL020: Left out: {0}/other/result.json is no result of a run here"),
        (empty, RUNS - 1, "NL020: Left out: {1}/result.json is damaged (it is empty): the run has to be done again"),
        (half, RUNS - 1, "NL020: Left out: {1}/result.json is damaged ("),
        (newer, RUNS - 1, "NL020: Left out: {1}/result.json: schema 9, but this version reads schema 1"),
        (a_folder, RUNS - 1, ""),
        (cut_metrics, RUNS, "NL020: Left out: {1}/metrics.csv is damaged ("),
        (cut_predictions, RUNS, "NL020: Left out: {1}/predictions.npz is damaged ("),
        (other_length, RUNS, "NL018: 1 of 4 runs (bn l1=0.001) left no predictions of the same test images"),
        (no_probes, RUNS, "NL020: Left out: {1}/probes.csv is damaged ("),
        (copied, RUNS, "NL020: {0}/bn-digits-seed_0 and {0}/copy/bn-digits-seed_0 hold the same result of one run"),
        (twice, RUNS, "NL020: {0}/again/bn-digits-seed_0 and {0}/bn-digits-seed_0 hold two different results ("),
        (to_a_run, RUNS, ""),
        (to_a_folder, RUNS, ""),
        (loops, RUNS, ""),
    ],
)  # fmt: skip
def test_what_else_may_lie_there(folder: Path, change: Callable[[Path], None], runs: int, warning: str) -> None:
    place = first(folder).parent
    change(folder)
    compared = compare(folder)
    assert sum(len(cell.ended) for cell in compared.answers.found.cells) == runs
    about = [line for line in compared.warnings if line.startswith(("NL018", "NL020"))]
    if not warning:
        assert about == []
    else:
        assert any(line.startswith(warning.format(folder, place)) for line in about), about


def test_where_nothing_can_be_read_the_first_reason_is_named(tmp_path: Path) -> None:
    foreign(tmp_path)
    with pytest.raises(NormlabError, match=r"holds no run that can be read: .*another program's"):
        compare(tmp_path)
    with pytest.raises(NormlabError, match="is no folder"):
        read(tmp_path / "typo")


def test_a_folder_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system says it to anybody but root."""
    closed, scandir = first(folder).parent, os.scandir

    def refuse(path: str) -> object:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(table_module.os, "scandir", refuse)
    with pytest.warns(UserWarning, match=f"{closed} cannot be read .Permission denied."):
        assert len(read(folder)) == RUNS - 1


def test_runs_of_two_data_sets(folder: Path) -> None:
    made_up(folder, "bn", 0, data="mnist")
    with pytest.warns(UserWarning, match=r"runs of several data sets \(digits, mnist\): compare within one"):
        assert set(read(folder)["data"]) == {"digits", "mnist"}
    with pytest.raises(NormlabError, match=r"differ in data .digits, mnist.*choose some, as in data=digits"):
        compare(folder)
    assert compare(folder, ["data=digits"]).findings


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ("norm=bn,lnn", "norm=lnn: no such run here; did you mean ln?"),
        ("l1=0,0.01", "l1=0.01: no such run here; did you mean 0.001?"),
        ("nrom=bn", "nrom is no setting of these runs; they differ in"),
        ("norm", "norm: write setting=value, as in norm=bn,ln"),
    ],
)
def test_a_value_that_no_run_has(folder: Path, choice: str, text: str) -> None:
    made_up(folder, "ln", 0)
    with pytest.raises(NormlabError) as error:
        compare(folder, [choice])
    assert str(error.value).startswith(text)


def test_one_seed_has_no_intervals(tmp_path: Path) -> None:
    crossed(tmp_path, {("bn", 0.0): 0.9, ("bn", 1e-3): 0.9}, seeds=1)
    compared = compare(tmp_path)
    assert [line.partition(":")[0] for line in compared.warnings] == ["NL011"]
    assert "nan" not in compared.shown("summary").to_string().lower()
