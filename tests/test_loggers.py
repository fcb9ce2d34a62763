"""`logger=`: where curves also go. What a package that is not installed needs is skipped."""

import os
import sqlite3
from pathlib import Path

import pytest
import yaml
from conftest import csv_rows

from normlab.errors import ConfigError
from normlab.record import Record
from normlab.settings import check_loggers
from normlab.settings.plan import load
from normlab.train import main
from normlab.training import run
from normlab.training.files import resume_point

TINY = ("data=digits", "epochs=2", "batch_size=256", "threads=1")


def test_loggers_change_no_weights_and_none_leaves_no_events(tmp_path: Path, undrawn: None) -> None:
    alone = run(load(*TINY, "logger=[]"), tmp_path / "none")
    with_csv = run(load(*TINY, "logger=csv"), tmp_path / "csv")
    assert alone.metrics == with_csv.metrics
    assert (tmp_path / "none" / "predictions.npz").read_bytes() == (tmp_path / "csv" / "predictions.npz").read_bytes()
    assert not [*tmp_path.rglob("events*")]
    assert (tmp_path / "none" / "metrics.csv").exists()
    [place] = (tmp_path / "csv" / "csv").iterdir()
    lightnings, ours = (csv_rows(each / "metrics.csv") for each in (place, tmp_path / "csv"))
    curves = {tag: [float(row[tag]) for row in lightnings if row[tag]] for tag in lightnings[0]}
    assert curves["acc/val"] == [float(row["val_acc"]) for row in ours]
    assert curves["acc/test"] == [with_csv.metrics["test_acc"]]
    assert yaml.safe_load((place / "hparams.yaml").read_text())["batch_size"] == 256


def test_a_package_that_is_missing_is_told_before_anything_is_written(tmp_path: Path, monkeypatch, refused) -> None:
    monkeypatch.setattr("normlab.settings.model.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'normlab\[mlflow\]'"):
        check_loggers(load("logger=[tensorboard,mlflow]"))
    check_loggers(load("logger=[tensorboard,csv]"))
    told = "normlab: logger=wandb: wandb is not installed: pip install 'normlab[wandb]', or pip install wandb\n"
    assert refused(main, [*TINY, "logger=[csv,wandb]", f"log_dir={tmp_path}"]) == told
    with pytest.raises(ConfigError, match="wandb is not installed"):
        run(load(*TINY, "logger=wandb"), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("undrawn")
def test_a_logger_that_fails_costs_its_curves_and_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("the server is gone")

    monkeypatch.setattr("normlab.training.loggers.CSVLogger.log_metrics", fail)
    assert run(load(*TINY, "logger=csv"), tmp_path / "a").status == "completed"
    log = (tmp_path / "a" / "train.log").read_text()
    assert log.count("logger=csv failed, and is left out from here on") == 1
    monkeypatch.setattr("normlab.training.loggers.CSVLogger.log_hyperparams", fail)
    with pytest.raises(ConfigError, match=r"logger=csv: it does not start \(the server is gone\)"):
        run(load(*TINY, "logger=csv"), tmp_path / "b")


def stopped(folder: Path, *words: str, monkeypatch: pytest.MonkeyPatch) -> Record:
    """A run that is stopped after its first epoch, and resumed."""
    with monkeypatch.context() as patch:
        patch.setattr("normlab.training.fit.conclude", lambda *_, **__: 1 / 0)
        assert run(load(*TINY, *words), folder).status == "failed"
    before = resume_point(load(*TINY, *words), folder)
    assert getattr(before, "epoch", before) == 2
    record = run(load(*TINY, *words), folder)
    assert record.status == "completed"
    return record


def test_mlflow_keeps_one_run_also_when_it_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    record = stopped(tmp_path / "s" / "bn-seed_0", "logger=mlflow", monkeypatch=monkeypatch)
    with sqlite3.connect(tmp_path / "s" / "mlflow.db") as store:
        [(name, status)] = store.execute("select name, status from runs").fetchall()
        values = store.execute("select value from metrics where key = 'acc/test'").fetchall()
        experiments = [name for (name,) in store.execute("select name from experiments")]
    assert (name, status) == ("bn-seed_0", "FINISHED")
    assert {value for (value,) in values} == {record.metrics["test_acc"]}
    assert "s" in experiments


@pytest.mark.usefixtures("undrawn")
def test_wandb_offline_keeps_one_id_also_when_it_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    stopped(tmp_path / "s" / "bn-seed_0", "logger=[wandb]", monkeypatch=monkeypatch)
    runs = [each.name for each in (tmp_path / "s" / "bn-seed_0" / "wandb").glob("offline-run-*")]
    assert len({name.rpartition("-")[2] for name in runs}) == 1
    assert os.environ["WANDB_MODE"] == "offline"
