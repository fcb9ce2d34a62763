"""result.json and its neighbours: whole or not at all, and never believed when damaged."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from normlab.errors import ConfigError
from normlab.files import write_atomically
from normlab.record import Record, RecordError, write_metrics, write_predictions
from normlab.settings.plan import load


def make(**changes: object) -> Record:
    return replace(Record.of(load("data=digits"), "completed", metrics={"test_acc": 0.5, "val_acc": None}), **changes)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    make().save(tmp_path)
    assert Record.load(tmp_path) == make()
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


def test_others_may_read_the_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "x", b"")
    assert os.stat(tmp_path / "x").st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "null",
        lambda text: text.replace('"schema": 1', '"schema": 99'),
        lambda text: text.replace('"completed"', '"splendid"'),
        lambda text: text.replace('"seed"', '"sead"'),
        lambda text: "\x00\xff",
    ],
)
def test_a_damaged_record_is_one_line_that_names_the_file(tmp_path: Path, damage: object) -> None:
    make().save(tmp_path)
    file = tmp_path / "result.json"
    file.write_text(damage(file.read_text()), encoding="latin-1")  # type: ignore[operator]
    with pytest.raises(RecordError) as caught:
        Record.load(tmp_path)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_standing(tmp_path: Path) -> None:
    mine = make().config_hash
    assert Record.standing(tmp_path, mine) is None
    for status, stands in {
        "completed": True,
        "diverged": True,
        "failed": False,
        "interrupted": False,
        "unavailable": False,
    }.items():
        make(status=status).save(tmp_path)
        assert (Record.standing(tmp_path, mine) is not None) == stands, status
    with pytest.raises(ConfigError, match="another configuration"):
        Record.standing(tmp_path, "0" * 12)


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


def test_predictions_of_many_classes(tmp_path: Path) -> None:
    write_predictions(tmp_path, -np.arange(300.0)[None], np.array([299]))
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as found:
        assert found["true"].tolist() == [299]
