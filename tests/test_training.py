"""One run: it computes what it says it computes, and leaves what the contract says it leaves."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import csv_rows
from filelock import FileLock
from plain_loop import by_hand
from same_bits import stop_at
from torch.nn.functional import nll_loss

from normlab.data.datamodule import ImageData
from normlab.errors import BusyError, ConfigError
from normlab.nets import penalised
from normlab.record import Record
from normlab.scores import scores
from normlab.settings import Settings
from normlab.settings.plan import load
from normlab.training import Classifier, run
from normlab.training.networks import NetworkArray


def weights(folder: Path, checkpoint: str = "last.ckpt") -> dict[str, torch.Tensor]:
    return torch.load(folder / checkpoint, weights_only=True)["state_dict"]


@pytest.mark.parametrize(
    "overrides",
    [
        ["norm=gn"],
        ["norm=bn", "l1=1e-3"],
        ["norm=ln", "l1=1e-2", "penalty.method=proximal"],
        ["norm=in", "placement=pre", "dropout=0.2", "gradient_clip=null"],
        ["norm=bn", "l1=1e-2", "gradient_clip=0.1"],
        ["norm=ln", "schedule=constant", "lr=0.01", "optimizer.momentum=0", "optimizer.weight_decay=1e-2"],
        ["norm=gn", "augment=true", "seed=5"],
        ["norm=gn", "optimizer=adamw", "optimizer.weight_decay=0.1", "dropout=0.1"],
        ["norm=bn", "optimizer=adamw", "l1=1e-3", "penalty.method=proximal", "schedule=constant"],
        ["norm=ln", "optimizer=adamw", "l1=1e-3", "optimizer.betas=[0.8,0.9]", "optimizer.eps=1e-3"],
        ["norm=ln2d", "weight_standardization=true", "lr_per=100"],
        ["norm=brn", "norm.begin=1", "norm.r_end=3", "norm.d_end=4"],
        ["norm=bn", "batch_size=1", "train_size=2"],
        ["norm=gbn", "batch_size=1", "train_size=2"],
    ],
    ids=" ".join,
)
def test_training_is_what_a_plain_loop_computes(tmp_path: Path, overrides: list[str], undrawn: None) -> None:
    """In float64, so that rounding can neither hide a difference nor make one."""
    usual = ["data=digits", "epochs=2", "augment=false", "threads=1", "precision=64-true"]
    sizes = ["train_size=400", "batch_size=60"]  # seven steps an epoch, the last of 40 images
    settings = load(*usual, *sizes, *overrides)
    assert run(settings, tmp_path).status == "completed"
    got = {name.removeprefix("net."): value for name, value in weights(tmp_path).items() if name.startswith("net.")}
    expected = by_hand(settings).state_dict()
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-7, atol=1e-10, msg=lambda text, name=name: name + text)


def test_the_same_question_gets_the_same_bits(tmp_path: Path, quick: Settings, undrawn: None) -> None:
    torch.manual_seed(7)  # whatever was drawn before must not matter
    first = run(quick, tmp_path / "a")
    torch.rand(5)
    second = run(quick, tmp_path / "b")
    assert first.metrics == second.metrics
    assert (tmp_path / "a/predictions.npz").read_bytes() == (tmp_path / "b/predictions.npz").read_bytes()
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(a[name], b[name]) for name in a)
    other = run(quick.model_copy(update={"seed": 1}), tmp_path / "c")
    assert other.metrics["train_ce"] != first.metrics["train_ce"]


def test_what_a_run_leaves(finished: tuple[Path, Record]) -> None:
    folder, record = finished
    names = {"events" if file.name.startswith("events.out.tfevents") else file.name for file in folder.iterdir()}
    assert {"result.json", "metrics.csv", "predictions.npz", "train.log", "best.ckpt", "last.ckpt", "events"} <= names
    assert Record.load(folder) == record
    result = json.loads((folder / "result.json").read_text())
    assert (result["schema"], result["status"], result["error"], result["seed"]) == (1, "completed", None, 0)
    assert result["data"] == {"name": "digits", "train": 1168, "val": 129, "test": 500}
    assert (result["parameters"], result["time"]["epochs"], result["device"]["threads"]) == (7614, 3, 1)
    assert result["device"]["accelerator"] in ("cpu", "gpu")
    assert result["time"]["images_per_s"] > 0
    assert result["metrics"]["zeros"] == 0, "a subgradient leaves none"
    assert {"train_acc", "train_acc_running", "val_acc", "test_acc", "test_ce", "zeros"} <= result["metrics"].keys()
    log = (folder / "train.log").read_text()
    assert "`Trainer.fit` stopped: `max_epochs=3` reached" in log
    assert "Tip" not in log, "no advert"


def test_metrics_csv_is_a_row_an_epoch_and_agrees_with_the_record(finished: tuple[Path, Record]) -> None:
    folder, record = finished
    table = csv_rows(folder / "metrics.csv")
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    for row in table:
        assert float(row["train_loss"]) == pytest.approx(float(row["train_ce"]) + float(row["train_penalty"]), rel=1e-6)
        assert float(row["train_penalty"]) > 0
    for column in ("train_acc_running", "val_acc", "val_ce", "test_acc"):
        assert float(table[-1][column]) == pytest.approx(record.metrics[column])
    assert float(table[-1]["test_ce"]) == pytest.approx(record.metrics["test_ce"], rel=1e-5)


def test_reported_numbers_are_those_of_the_checkpoint(finished: tuple[Path, Record]) -> None:
    """Loaded with torch's defaults, scored in a plain loop: the training set in eval mode and without augmentation."""
    folder, record = finished
    model = Classifier.load_from_checkpoint(folder / "last.ckpt", map_location="cpu").eval()
    assert model.hparams["norm"]["name"] == "bn"
    assert model.hparams["l1"] == 1e-3
    data = ImageData("digits")
    data.setup()
    for part in ("train", "val", "test"):
        images, labels = getattr(data, part).images, getattr(data, part).labels
        with torch.no_grad():
            log_prob = model(images.float() / 255)
        assert (log_prob.argmax(1) == labels).double().mean().item() == pytest.approx(record.metrics[f"{part}_acc"])
        assert nll_loss(log_prob, labels).item() == pytest.approx(record.metrics[f"{part}_ce"], rel=1e-4)
    with np.load(folder / "predictions.npz", allow_pickle=False) as found:
        assert (found["pred"] == log_prob.argmax(1).numpy()).all()
        np.testing.assert_allclose(found["log_probs"], log_prob, rtol=2e-3, atol=1e-5)
    for name, value in scores(log_prob.numpy(), labels.numpy()).items():
        assert record.metrics[f"test_{name}"] == pytest.approx(value, rel=1e-4)
    penalty = 1e-3 * sum(w.abs().sum().item() for w in penalised(model.net, "weights").values())
    assert record.metrics["penalty"] == pytest.approx(penalty, rel=1e-5)


@pytest.mark.usefixtures("undrawn")
def test_best_is_chosen_by_validation_alone(finished: tuple[Path, Record], tmp_path: Path, quick: Settings) -> None:
    folder, _ = finished
    table = csv_rows(folder / "metrics.csv")
    best = max(table, key=lambda row: float(row["val_acc"]))  # the first of equals, as the checkpoint takes it
    assert torch.load(folder / "best.ckpt", weights_only=True)["epoch"] == int(best["epoch"]) - 1
    run(quick.model_copy(update={"val_size": 0, "test_curve": True, "epochs": 1}), tmp_path)
    assert (tmp_path / "last.ckpt").exists()
    assert not (tmp_path / "best.ckpt").exists(), "without held-out images nothing may choose, least of all the test"


def test_a_finished_run_is_returned_as_it_stands(tmp_path: Path, quick: Settings, undrawn: None) -> None:
    """And what cannot start leaves it alone."""

    def written() -> dict[str, int]:  # a lock is empty, and filelock below 4 empties it again
        return {file.name: 0 if file.name == ".lock" else file.stat().st_mtime_ns for file in tmp_path.iterdir()}

    first = run(quick, tmp_path)
    before = written()
    assert run(quick, tmp_path) == first
    with pytest.raises(ConfigError, match="val_size=5000"):
        run(quick.model_copy(update={"force": True, "val_size": 5000}), tmp_path)
    with pytest.raises(ConfigError, match="another configuration"):
        run(quick.model_copy(update={"epochs": 1}), tmp_path)
    assert written() == before
    forced = run(quick.model_copy(update={"epochs": 1, "force": True}), tmp_path)
    assert forced.time["epochs"] == 1
    assert len(csv_rows(tmp_path / "metrics.csv")) == 1, "nothing of the earlier run is left"
    assert len(list(tmp_path.glob("events.*"))) == 1


def test_a_loss_that_is_not_finite_is_recorded_as_diverged(tmp_path: Path, quick: Settings) -> None:
    wild = quick.model_copy(update={"lr": 1e30, "epochs": 5, "norm": load("norm=none").norm})
    record = run(wild, tmp_path)
    assert record.status == "diverged"
    assert "epoch 1" in (record.error or "")
    assert record.metrics["test_acc"] is None
    assert record.time["epochs"] == 1
    assert Record.load(tmp_path) == record


def test_a_failure_is_recorded_with_its_traceback(tmp_path: Path, quick: Settings, undrawn: None) -> None:
    with stop_at(1, NetworkArray, "training_step", RuntimeError("the sky fell\nand more")):
        record = run(quick, tmp_path)
    assert (record.status, record.error) == ("failed", "RuntimeError: the sky fell (the traceback is in train.log)")
    assert "Traceback" in (tmp_path / "train.log").read_text()
    assert run(quick, tmp_path).status == "completed", "a failed run is done again"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_stop_from_outside_is_recorded_as_interrupted(tmp_path: Path, quick: Settings, stop: type, undrawn) -> None:
    with stop_at(1, NetworkArray, "training_step", stop), pytest.raises(KeyboardInterrupt):
        run(quick, tmp_path)
    assert Record.load(tmp_path).status == "interrupted"
    assert run(quick, tmp_path).status == "completed", "an interrupted run is done again"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_makes_the_run_unavailable(tmp_path: Path, quick: Settings) -> None:
    record = run(quick.model_copy(update={"accelerator": "gpu"}), tmp_path)
    assert record.status == "unavailable"
    assert "no GPU" in (record.error or "")
    assert Record.load(tmp_path) == record


def test_outputs_that_are_not_finite_are_no_result(tmp_path: Path, quick: Settings, monkeypatch) -> None:
    """A loss may be finite to the last step and the weights after it may not."""
    monkeypatch.setattr(
        NetworkArray, "predict_step", lambda _, batch, *__: torch.full((*batch[1].shape, 10), torch.nan)
    )
    record = run(quick, tmp_path)
    assert (record.status, record.metrics["test_acc"]) == ("diverged", None)
    assert not (tmp_path / "predictions.npz").exists()


def test_a_folder_of_other_files_is_refused(tmp_path: Path, quick: Settings) -> None:
    (tmp_path / "last.ckpt").write_text("somebody's own")
    with pytest.raises(ConfigError, match="folder of its own"):
        run(quick, tmp_path)
    assert (tmp_path / "last.ckpt").read_text() == "somebody's own"


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path, quick: Settings) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(BusyError, match="another process"):
        run(quick, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]


@pytest.mark.mnist
@pytest.mark.slow
def test_two_epochs_on_a_fifth_of_mnist_train_a_network(tmp_path: Path) -> None:
    words = ["data=mnist", "norm=ln", "epochs=2", "train_size=12000", "val_size=1000", "threads=1"]
    record = run(load(*words, "data.download=false"), tmp_path)
    assert record.data == {"name": "mnist", "train": 12000, "val": 1000, "test": 10000}
    assert record.metrics["test_acc"] > 0.95
