"""A run that was stopped resumes after its last completed epoch, and ends with the bits of one that was not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import KINDS, draw_nothing
from same_bits import curves, same

from normlab.record import Record
from normlab.settings import Settings
from normlab.settings.plan import load
from normlab.training import files as module
from normlab.training import run, run_array
from normlab.training.files import RunFiles
from normlab.training.networks import Networks

BASE = ["data=digits", "epochs=3", "batch_size=32", "train_size=100", "val_size=60", "threads=1", "dropout=0.1"]
STEPS = 4  # an epoch


class Stop:
    """Stops training at a step, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int, error: type[BaseException] = KeyboardInterrupt):
        self.left = step
        real: Callable[..., None] = Networks.training_step

        def training_step(networks: Networks, batch: Any, batch_idx: int) -> None:
            self.left -= 1
            if self.left == -1:
                raise error
            real(networks, batch, batch_idx)

        monkeypatch.setattr(Networks, "training_step", training_step)


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
    assert log.count("resumes after epoch") == 2
    assert "resumes after epoch 2 of 3" in log


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "words",
    [
        ["probes=[layers,landscape,shift,statistics]", "evaluate=[noised]"],
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


@pytest.fixture(scope="module", params=["auto", "torch"])
def whole_array(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> tuple[list[Settings], list[Path]]:
    """An array that nobody has stopped, without pictures."""
    settings = array_of("norm=bn", f"kernels={request.param}")
    whole = folders(tmp_path_factory.mktemp("whole"), settings)
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        run_array(settings, whole)
    return settings, whole


@pytest.mark.parametrize(
    ("where", "name", "calls"),
    [
        (Networks, "training_step", 2),  # nothing is done yet: it begins anew
        (Networks, "training_step", STEPS + 2),
        (RunFiles, "end_epoch", 5),  # one run has shown its second epoch, the others have not
        (RunFiles, "save", 3),  # two runs have saved their first epoch, the third has not
        (RunFiles, "save", 5),  # one run has saved its second epoch, the others have not
        (RunFiles, "save", 9),  # the first has nothing left to train
        (module, "write_atomically", 8),  # between best.ckpt and last.ckpt
        (Record, "save", 2),  # the first run has its result, the others have not
    ],
    ids=["step 2", "epoch 2", "rows", "first checkpoints", "checkpoints", "last checkpoints", "files", "results"],
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


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("norm", KINDS)
def test_arrays_of_every_norm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, norm: str) -> None:
    settings = array_of(f"norm={norm}", "epochs=2")[::2]  # without L1 and with it
    whole, stopped = folders(tmp_path / "whole", settings), folders(tmp_path / "stopped", settings)
    run_array(settings, whole)
    with monkeypatch.context() as patch:
        stop_array(patch, Networks, "training_step", STEPS + 2)
        with pytest.raises(KeyboardInterrupt):
            run_array(settings, stopped)
    assert {Record.load(folder).status for folder in stopped} == {"interrupted"}
    assert [record.time["resumed"] for record in run_array(settings, stopped)] == [1, 1]
    for a, b in zip(stopped, whole, strict=True):
        same(a, b)


@pytest.mark.usefixtures("undrawn")
def test_a_run_of_a_stopped_array_resumes_on_its_own_and_the_others_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_array: tuple[list[Settings], list[Path]]
) -> None:
    settings, whole = whole_array
    stopped = folders(tmp_path, settings)
    with monkeypatch.context() as patch:
        stop_array(patch, Networks, "training_step", STEPS + 2)
        with pytest.raises(KeyboardInterrupt):
            run_array(settings, stopped)
    record = run(settings[0], stopped[0])
    assert (record.status, record.time["resumed"], record.time["epochs"]) == ("completed", 1, 3)
    assert "resumes after epoch 1 of 3" in (stopped[0] / "train.log").read_text(encoding="utf-8")
    assert len(run_array(settings, stopped)) == 2
    for a, b in zip(stopped, whole, strict=True):
        same(a, b)


@pytest.mark.usefixtures("undrawn")
def test_runs_that_were_begun_on_their_own_resume_in_an_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After one epoch and after two."""
    settings = array_of("norm=bn")
    whole, stopped = folders(tmp_path / "whole", settings), folders(tmp_path / "stopped", settings)
    for each, folder in zip(settings, whole, strict=True):
        run(each, folder)
    for each, folder, epochs in zip(settings, stopped, (1, 2), strict=False):
        with monkeypatch.context() as patch:
            Stop(patch, STEPS * epochs + 1)
            with pytest.raises(KeyboardInterrupt):
                run(each, folder)
    records = run_array(settings, stopped)
    assert [record.time.get("resumed") for record in records] == [1, 1, None]
    for a, b in zip(stopped, whole, strict=True):
        same(a, b)


def test_a_run_that_was_begun_on_another_device_says_why_it_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(*BASE, "norm=bn", "epochs=2", "accelerator=cpu")
    with monkeypatch.context() as patch:
        Stop(patch, STEPS + 2)
        with pytest.raises(KeyboardInterrupt):
            run(settings, tmp_path)
    state = module.begun(settings.model_copy(update={"accelerator": "gpu"}), tmp_path)
    assert state == "last.ckpt was trained by accelerator=cpu, which would resume it"
    assert isinstance(module.begun(settings, tmp_path), module.Begun)
