"""A run that was stopped goes on after its last whole epoch, and ends with the bits of one that was not."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import KINDS, draw_nothing
from same_bits import curves, same

from normlab.record import Record
from normlab.settings import Settings
from normlab.settings.plan import load
from normlab.training import Classifier, run, run_array
from normlab.training.engine import Engine
from normlab.training.member import Member
from normlab.training.saving import EpochCheckpoint
from normlab.training.snapshot import Snapshot

BASE = ["data=digits", "epochs=3", "batch_size=32", "train_size=100", "val_size=60", "threads=1", "dropout=0.1"]
STEPS = 4  # an epoch


class Stop:
    """Stops training at a step, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int, error: type[BaseException] = KeyboardInterrupt):
        self.left = step
        real: Callable[..., torch.Tensor] = Classifier.training_step

        def training_step(model: Classifier, batch: Any, batch_idx: int) -> torch.Tensor:
            self.left -= 1
            if self.left == -1:
                raise error
            return real(model, batch, batch_idx)

        monkeypatch.setattr(Classifier, "training_step", training_step)


def stopped_and_resumed(settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch, *steps: int) -> Record:
    for step in steps:
        with monkeypatch.context() as patch:
            Stop(patch, step)
            with pytest.raises(KeyboardInterrupt):
                run(settings, folder)
            assert Record.load(folder).status == "interrupted"
    return run(settings, folder)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("words", [["l1=0"], ["l1=1e-2", "penalty.method=proximal"]], ids=["plain", "l1"])
@pytest.mark.parametrize("norm", KINDS)
def test_a_stopped_run_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, norm: str, words: list[str]
) -> None:
    """Stopped in the middle of its second epoch, and then let to its end."""
    settings = load(*BASE, f"norm={norm}", *words, "epochs=2")
    run(settings, tmp_path / "whole")
    record = stopped_and_resumed(settings, tmp_path / "stopped", monkeypatch, STEPS + 2)
    assert record.time["resumed"] == 1
    same(tmp_path / "stopped", tmp_path / "whole")


def test_a_run_may_be_stopped_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is done, in the second epoch, in the third."""
    settings = load(*BASE, "norm=bn", "l1=1e-3")
    run(settings, tmp_path / "whole")
    record = stopped_and_resumed(settings, tmp_path / "stopped", monkeypatch, 1, STEPS + 2, STEPS + 1)
    assert record.time["resumed"] == 2, "the first time there was nothing to go on from"
    same(tmp_path / "stopped", tmp_path / "whole")
    log = (tmp_path / "stopped" / "train.log").read_text()
    assert log.count("goes on after epoch") == 2
    assert "goes on after epoch 2 of 3" in log


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "words",
    [
        ["probes=[layers,landscape,shift,statistics]"],
        ["test_curve=true", "val_size=0", "schedule=constant", "optimizer.momentum=0"],
        ["refit_epochs=1", "l1=1e-2", "penalty.method=proximal"],
        ["precision=64-true"],
        ["precision=bf16-mixed", "optimizer.weight_decay=1e-3"],
        ["weight_standardization=true", "norm=gn"],
    ],
    ids=lambda words: words[0],
)
def test_with_every_other_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    settings = load(*BASE, "norm=bn", *words)
    run(settings, tmp_path / "whole")
    stopped_and_resumed(settings, tmp_path / "stopped", monkeypatch, 2 * STEPS + 1)
    if "val_size=0" in words:
        assert not (tmp_path / "stopped" / "best.ckpt").exists()
    else:
        same(tmp_path / "stopped", tmp_path / "whole")
    assert curves(tmp_path / "stopped") == curves(tmp_path / "whole")
    assert Record.load(tmp_path / "stopped").metrics == pytest.approx(Record.load(tmp_path / "whole").metrics, abs=0)


ARRAY = [["seed=0"], ["seed=1", "l1=1e-3"], ["seed=2", "l1=1e-2", "penalty.method=proximal"]]


def array_of(*words: str) -> list[Settings]:
    return [load(*BASE, *words, *own) for own in ARRAY]


def folders(place: Path, settings: list[Settings]) -> list[Path]:
    return [place / each.slug() for each in settings]


def stop_array(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, calls: int) -> None:
    """Stops at a call of a method, before it does anything."""
    real = getattr(where, name)
    left = [calls]

    def stopping(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(where, name, stopping)


@pytest.fixture(scope="module")
def whole_array(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Settings], list[Path]]:
    """An array that nobody has stopped, without pictures."""
    settings = array_of("norm=bn")
    whole = folders(tmp_path_factory.mktemp("whole"), settings)
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        run_array(settings, whole)
    return settings, whole


@pytest.mark.parametrize(
    ("where", "name", "calls"),
    [
        (Engine, "train_step", 2),  # nothing is done yet: it begins anew
        (Engine, "train_step", STEPS + 2),
        (Member, "end_epoch", 5),  # one run has saved its second epoch, the others have not
        (EpochCheckpoint, "on_train_epoch_end", 8),  # between best.ckpt and last.ckpt
        (Snapshot, "save", 2),
        (Record, "save", 2),  # the first run has its result, the others have not
    ],
    ids=["first epoch", "second epoch", "between runs", "between files", "before the snapshot", "between results"],
)
@pytest.mark.usefixtures("undrawn")
def test_a_stopped_array_ends_as_if_it_had_not_been(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole_array: tuple[list[Settings], list[Path]],
    where: Any,
    name: str,
    calls: int,
) -> None:
    settings, whole = whole_array
    stopped = folders(tmp_path, settings)
    with monkeypatch.context() as patch:
        stop_array(patch, where, name, calls)
        with pytest.raises(KeyboardInterrupt):
            run_array(settings, stopped)
    records = run_array(settings, stopped)
    assert len(records) == (2 if where is Record else 3)
    for a, b in zip(stopped, whole, strict=True):
        same(a, b)
        assert not (a / "array.ckpt").exists()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("norm", KINDS)
def test_arrays_of_every_norm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, norm: str) -> None:
    settings = array_of(f"norm={norm}", "epochs=2")[::2]  # without L1 and with it
    whole, stopped = folders(tmp_path / "whole", settings), folders(tmp_path / "stopped", settings)
    run_array(settings, whole)
    with monkeypatch.context() as patch:
        stop_array(patch, Engine, "train_step", STEPS + 2)
        with pytest.raises(KeyboardInterrupt):
            run_array(settings, stopped)
    assert {Record.load(folder).status for folder in stopped} == {"interrupted"}
    assert [record.time["resumed"] for record in run_array(settings, stopped)] == [1, 1]
    for a, b in zip(stopped, whole, strict=True):
        same(a, b)


def test_a_run_of_a_stopped_array_can_go_on_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = array_of("norm=ln")
    stopped = folders(tmp_path, settings)
    with monkeypatch.context() as patch:
        stop_array(patch, Engine, "train_step", STEPS + 2)
        with pytest.raises(KeyboardInterrupt):
            run_array(settings, stopped)
    record = run(settings[0], stopped[0])
    assert (record.status, record.time["resumed"], record.time["epochs"]) == ("completed", 1, 3)
    assert len(run_array(settings, stopped)) == 2
    log = (stopped[1] / "train.log").read_text(encoding="utf-8")
    assert f"2 runs had been begun otherwise, {stopped[1].name} the first: they begin anew" in log


@pytest.mark.usefixtures("undrawn")
def test_what_was_begun_elsewhere_is_not_begun_anew_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as a CPU can show it. There a single run is an array of one, which goes on from its own snapshot alone."""
    module = sys.modules["normlab.training.run"]
    settings = load(*BASE, "norm=bn")
    with monkeypatch.context() as patch:
        Stop(patch, STEPS + 2)
        with pytest.raises(KeyboardInterrupt):
            run(settings, tmp_path / "by Lightning")
    monkeypatch.setattr(module, "choose_accelerator", lambda _: "gpu")
    record = run(settings, tmp_path / "by Lightning")
    assert record.time["resumed"] == 1
    assert "array" not in record.device
    assert "it was begun by Lightning's loop" in (tmp_path / "by Lightning" / "train.log").read_text(encoding="utf-8")
    with monkeypatch.context() as patch:
        stop_array(patch, Engine, "train_step", STEPS + 2)
        with pytest.raises(KeyboardInterrupt):
            run(settings, tmp_path / "of one")
    record = run(settings, tmp_path / "of one")
    assert (record.time["resumed"], record.device["array"]) == (1, 1)
