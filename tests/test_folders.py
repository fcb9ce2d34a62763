"""The files of a run: whole or not at all, and never believed when damaged; and what else may lie in a folder of runs:
every case in words, and nothing refused that can be read."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_runs import crossed, made_up, several

from normlab.analysis import read
from normlab.analysis import table as table_module
from normlab.compared import compare
from normlab.errors import ConfigError, NormlabError
from normlab.files import write_atomically
from normlab.record import Record, RecordError, write_metrics, write_predictions
from normlab.settings.plan import load


def make(**changes: object) -> Record:
    return replace(Record.of(load("data=digits"), "completed", metrics={"test_acc": 0.5, "val_acc": None}), **changes)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    make().save(tmp_path)
    assert Record.load(tmp_path) == make()
    assert (tmp_path / "result.json").stat().st_mode & 0o777 == 0o644, "others may read it"
    assert list(json.loads((tmp_path / "result.json").read_text())) == [
        "schema", "status", "error", "config", "config_hash", "setting", "seed", "data", "parameters", "device",
        "versions", "metrics", "time",
    ]  # fmt: skip


def test_a_number_that_is_not_finite_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        make(metrics={"test_acc": float("nan")}).save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "result.json"
    write_atomically(file, b"old")
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_atomically(file, b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]
    assert file.read_bytes() == b"old"


DAMAGE: dict[str, tuple[Callable[[str], str], str]] = {
    "half": (lambda text: text[: len(text) // 2], "is damaged"),
    "empty": (lambda _: "", "is damaged (it is empty): the run has to be done again"),
    "a list": (lambda _: "[]", "is no result of a run here"),
    "null": (lambda _: "null", "is no result of a run here"),
    "newer": (lambda text: text.replace('"schema": 1', '"schema": 99'), "schema 99, but this version reads schema 1"),
    "no status": (lambda text: text.replace('"completed"', '"splendid"'), "is damaged"),
    "no seed": (lambda text: text.replace('"seed"', '"sead"'), "is damaged"),
    "noise": (lambda _: "\x00\xff", "is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_is_one_line_that_names_the_file(tmp_path: Path, damage: str) -> None:
    make().save(tmp_path)
    (spoil, told), file = DAMAGE[damage], tmp_path / "result.json"
    file.write_text(spoil(file.read_text()), encoding="latin-1")
    with pytest.raises(RecordError) as caught:
        Record.load(tmp_path)
    assert str(caught.value).startswith(str(file))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_standing(tmp_path: Path) -> None:
    mine = make().config_hash
    assert Record.finished_for(tmp_path, mine) is None
    for status in ("completed", "diverged", "failed", "interrupted", "unavailable"):
        make(status=status).save(tmp_path)
        assert (Record.finished_for(tmp_path, mine) is not None) == (status in ("completed", "diverged")), status
    with pytest.raises(ConfigError, match="another configuration"):
        Record.finished_for(tmp_path, "0" * 12)


def test_metrics_are_a_row_an_epoch(tmp_path: Path) -> None:
    write_metrics(tmp_path, [{"epoch": 1, "acc": 0.5}, {"epoch": 2}], ["epoch", "acc"])
    assert (tmp_path / "metrics.csv").read_bytes() == b"epoch,acc\n1,0.5\n2,\n"


def test_predictions_keep_type_and_order(tmp_path: Path) -> None:
    log_probs = np.array([[-2.0, -1e9, -8.0, -0.12345678], [-1.0, -0.5, -2.0, -0.50000001]], dtype=np.float32)
    write_predictions(tmp_path, log_probs, np.array([3, 2], dtype=np.int64))
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as found:
        assert found["pred"].dtype == found["true"].dtype == np.uint8
        assert found["pred"].tolist() == [3, 1]
        assert found["true"].tolist() == [3, 2]
        assert found["log_probs"].dtype == np.float16
        assert np.isfinite(found["log_probs"]).all()
        np.testing.assert_allclose(found["log_probs"][1], log_probs[1], rtol=1e-3)
    write_predictions(tmp_path, -np.arange(300.0)[None], np.array([299]))
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as found:
        assert found["true"].tolist() == [299]


# A folder of runs


RUNS = 4  # of two settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    crossed(tmp_path / "study", {("bn", 0.0): 0.9, ("bn", 1e-3): 0.9}, seeds=2)
    return tmp_path / "study"


def first(folder: Path, name: str = "result.json") -> Path:
    return sorted(folder.rglob(name))[0]


Change = Callable[[Path], object]


def beside(text: str) -> Change:
    """A result.json that is another program's."""

    def change(folder: Path) -> None:
        (folder / "other").mkdir(parents=True)
        (folder / "other" / "result.json").write_text(text)

    return change


def cut(name: str, by: int) -> Change:
    return lambda folder: first(folder, name).write_bytes(first(folder, name).read_bytes()[:-by])


def again(name: str, accuracy: float) -> Change:
    """The first run of bn, once more in another folder."""
    return lambda folder: made_up(folder / name, "bn", 0, test_acc=accuracy)


def newer(folder: Path) -> None:
    first(folder).write_text(first(folder).read_text().replace('"schema": 1', '"schema": 9'))


def a_folder(folder: Path) -> None:
    first(folder).unlink()
    (first(folder, "metrics.csv").parent / "result.json").mkdir()


def other_length(folder: Path) -> None:
    file = first(folder, "predictions.npz")
    with np.load(file) as arrays:
        np.savez(file, **{key: arrays[key][:50] for key in arrays})


def no_probes(folder: Path) -> None:
    (first(folder).parent / "probes.csv").write_text("a,b")


def to_a_run(folder: Path) -> None:
    place = first(folder).parent
    place.rename(folder.parent / "elsewhere")
    place.symlink_to(folder.parent / "elsewhere")


def to_a_folder(folder: Path) -> None:
    folder.rename(folder.parent / "moved")
    folder.mkdir()
    (folder / "runs").symlink_to(folder.parent / "moved")


def loops(folder: Path) -> None:
    for name, target in {"a_loop": folder, "up": folder.parent, "twin": first(folder).parent, "broken": "no"}.items():
        (folder / name).symlink_to(target)


FOREIGN = beside('{"score": 3}')
NO_RUN = "NL020: Left out: {0}/other/result.json is no result of a run here"
OTHER_LENGTH = "NL018: 1 of 4 runs (bn l1=0.001) left no predictions of the same test images"
COPIED = "NL020: {0}/bn-digits-seed_0 and {0}/copy/bn-digits-seed_0 hold the same result of one run"
TWICE = "NL020: {0}/again/bn-digits-seed_0 and {0}/bn-digits-seed_0 hold two different results ("
CASES: dict[str, tuple[Change, int, str]] = {
    "foreign": (FOREIGN, RUNS, NO_RUN + ": it seems"),
    "listed": (beside("[1, 2]"), RUNS, NO_RUN),
    "half": (cut("result.json", 100), RUNS - 1, "NL020: Left out: {1}/result.json is damaged ("),
    "newer": (newer, RUNS - 1, "NL020: Left out: {1}/result.json: schema 9, but this version reads schema 1"),
    "a folder": (a_folder, RUNS - 1, ""),
    "cut metrics": (cut("metrics.csv", 8), RUNS, "NL020: Left out: {1}/metrics.csv is damaged ("),
    "cut predictions": (cut("predictions.npz", 30), RUNS, "NL020: Left out: {1}/predictions.npz is damaged ("),
    "other length": (other_length, RUNS, OTHER_LENGTH),
    "no probes": (no_probes, RUNS, "NL020: Left out: {1}/probes.csv is damaged ("),
    "copied": (again("copy", 0.9 + 0.004 * np.cos(2)), RUNS, COPIED),
    "twice": (again("again", 0.8), RUNS, TWICE),
    "a link to a run": (to_a_run, RUNS, ""),
    "a link to a folder": (to_a_folder, RUNS, ""),
    "links in circles": (loops, RUNS, ""),
}


@pytest.mark.parametrize("case", CASES)
def test_what_else_may_lie_there(folder: Path, case: str) -> None:
    (change, runs, warning), place = CASES[case], first(folder).parent
    change(folder)
    compared = compare(folder)
    assert sum(len(cell.ended) for cell in compared.answers.grouped.cells) == runs
    about = [line for line in compared.warnings if line.startswith(("NL018", "NL020"))]
    assert any(line.startswith(warning.format(folder, place)) for line in about) if warning else about == [], about


def test_where_nothing_can_be_read_the_first_reason_is_named(tmp_path: Path) -> None:
    FOREIGN(tmp_path)
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


def test_read_says_what_every_run_had(tmp_path: Path) -> None:
    """A setting in which one run departs from the default is a column for all of them, NaN for none."""
    several(tmp_path, seeds=1, dropout=[0.0, 0.1], batch_size=500)
    table = read(tmp_path)
    assert table.dropout.tolist() == [0.0, 0.1]
    assert table.batch_size.tolist() == [500, 500]
    assert len(table.groupby(["norm", "l1", "dropout"])) == 2


def test_runs_of_two_data_sets(folder: Path) -> None:
    made_up(folder, "bn", 0, data="mnist")
    with pytest.warns(UserWarning, match=r"runs of several data sets \(digits, mnist\): compare within one"):
        assert set(read(folder)["data"]) == {"digits", "mnist"}
    with pytest.raises(NormlabError, match=r"differ in data .digits, mnist.*choose some, as in data=digits"):
        compare(folder)
    assert compare(folder, ["data=digits"]).findings


def test_a_value_that_no_run_has(folder: Path) -> None:
    made_up(folder, "ln", 0)
    for choice, text in (
        ("norm=bn,lnn", "norm=lnn: no such run here; did you mean ln?"),
        ("l1=0,0.01", "l1=0.01: no such run here; did you mean 0.001?"),
        ("nrom=bn", "nrom is no setting of these runs; they differ in"),
        ("norm", "norm: write setting=value, as in norm=bn,ln"),
    ):
        with pytest.raises(NormlabError) as error:
            compare(folder, [choice])
        assert str(error.value).startswith(text)


def test_one_seed_has_no_intervals(tmp_path: Path) -> None:
    crossed(tmp_path, {("bn", 0.0): 0.9, ("bn", 1e-3): 0.9}, seeds=1)
    compared = compare(tmp_path)
    assert [line.partition(":")[0] for line in compared.warnings] == ["NL011"]
    assert "nan" not in compared.shown("summary").to_string().lower()
