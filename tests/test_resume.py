"""A run that was stopped resumes after its last completed epoch, and ends with the bits of one that was not."""

from pathlib import Path
from typing import Any

import pytest
from conftest import KINDS, draw_nothing
from same_bits import same, stopped

from normlab.record import Record
from normlab.settings import Settings
from normlab.settings.plan import load
from normlab.training import files, run, run_array
from normlab.training.files import RunFiles
from normlab.training.networks import NetworkArray

BASE = ["data=digits", "epochs=3", "batch_size=32", "train_size=100", "val_size=60", "threads=1", "dropout=0.1"]
STEPS = 4  # an epoch
STEP = (NetworkArray, "training_step")


def stopped_and_resumed(settings: Settings, folder: Path, *steps: int) -> Record:
    for step in steps:
        with stopped(step, *STEP):
            run(settings, folder)
        assert Record.load(folder).status == "interrupted"
    return run(settings, folder)


def test_a_run_may_be_stopped_again_and_again(tmp_path: Path) -> None:
    """Before anything is done, in the second epoch, in the third."""
    settings = load(*BASE, "norm=bn", "l1=1e-3")
    run(settings, tmp_path / "whole")
    record = stopped_and_resumed(settings, tmp_path / "stopped", 2, STEPS + 3, STEPS + 2)
    assert record.time["resumed"] == 2, "the first time there was nothing to go on from"
    same(tmp_path / "stopped", tmp_path / "whole")
    log = (tmp_path / "stopped" / "train.log").read_text()
    assert log.count("resumes after epoch") == 2
    assert "resumes after epoch 2 of 3" in log


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
def test_with_every_other_setting(tmp_path: Path, words: list[str], undrawn: None) -> None:
    settings = load(*BASE, "norm=bn", *words)
    run(settings, tmp_path / "whole")
    stopped_and_resumed(settings, tmp_path / "stopped", 2 * STEPS + 2)
    same(tmp_path / "stopped", tmp_path / "whole")


# Arrays

Array = tuple[list[Settings], list[Path]]  # and their folders
ARRAY = [["seed=0"], ["seed=1", "l1=1e-3"], ["seed=2", "l1=1e-2", "penalty.method=proximal"]]


def array_of(*words: str) -> list[Settings]:
    return [load(*BASE, *words, *own) for own in ARRAY]


def folders(place: Path, settings: list[Settings]) -> list[Path]:
    return [place / each.slug() for each in settings]


def all_same(some: list[Path], others: list[Path]) -> None:
    for one, other in zip(some, others, strict=True):
        same(one, other)


@pytest.fixture(scope="module", params=["auto", "torch"])
def whole_array(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Array:
    """An array that nobody has stopped, without pictures."""
    settings = array_of("norm=bn", f"kernels={request.param}")
    whole = folders(tmp_path_factory.mktemp("whole"), settings)
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        run_array(settings, whole)
    return settings, whole


@pytest.mark.parametrize(
    ("call", "where", "name"),
    [
        (2, *STEP),  # nothing is done yet: it begins anew
        (STEPS + 2, *STEP),
        (5, RunFiles, "end_epoch"),  # one run has shown its second epoch, the others have not
        (3, RunFiles, "save"),  # two runs have saved their first epoch, the third has not
        (5, RunFiles, "save"),  # one run has saved its second epoch, the others have not
        (9, RunFiles, "save"),  # the first has nothing left to train
        (8, files, "write_atomically"),  # between best.ckpt and last.ckpt
        (2, Record, "save"),  # the first run has its result, the others have not
    ],
    ids=["step 2", "epoch 2", "rows", "first checkpoints", "checkpoints", "last checkpoints", "files", "results"],
)
@pytest.mark.usefixtures("undrawn")
def test_a_stopped_array_ends_as_if_it_had_not_been(tmp_path, whole_array, call: int, where: Any, name: str) -> None:
    settings, whole = whole_array
    folder = folders(tmp_path, settings)
    with stopped(call, where, name):
        run_array(settings, folder)
    done = 1 if where is Record else 0  # what was recorded before is kept
    assert [Record.load(each).status for each in folder] == ["completed"] * done + ["interrupted"] * (3 - done)
    assert len(run_array(settings, folder)) == 3 - done
    all_same(folder, whole)


@pytest.mark.parametrize("norm", KINDS)
def test_every_norm(tmp_path: Path, norm: str, undrawn: None) -> None:
    """Stopped in the middle of the second epoch, and then let to its end: in an array, and each run on its own."""
    settings = array_of(f"norm={norm}", "epochs=2")[::2]  # without L1 and with it
    whole, halfway, alone = (folders(tmp_path / name, settings) for name in ("whole", "stopped", "alone"))
    run_array(settings, whole)
    with stopped(STEPS + 2, *STEP):
        run_array(settings, halfway)
    assert {Record.load(folder).status for folder in halfway} == {"interrupted"}
    records = run_array(settings, halfway)
    records += [stopped_and_resumed(each, folder, STEPS + 3) for each, folder in zip(settings, alone, strict=True)]
    assert [record.time["resumed"] for record in records] == [1] * 4
    all_same(halfway, whole)
    all_same(alone, whole)


@pytest.mark.usefixtures("undrawn")
def test_a_run_of_a_stopped_array_resumes_on_its_own_and_the_others_without_it(tmp_path: Path, whole_array) -> None:
    settings, whole = whole_array
    halfway = folders(tmp_path, settings)
    with stopped(STEPS + 2, *STEP):
        run_array(settings, halfway)
    record = run(settings[0], halfway[0])
    assert (record.status, record.time["resumed"], record.time["epochs"]) == ("completed", 1, 3)
    assert "resumes after epoch 1 of 3" in (halfway[0] / "train.log").read_text(encoding="utf-8")
    assert len(run_array(settings, halfway)) == 2
    all_same(halfway, whole)


def test_runs_that_were_begun_on_their_own_resume_in_an_array(tmp_path: Path, whole_array: Array, undrawn) -> None:
    """After one epoch and after two."""
    settings, whole = whole_array
    halfway = folders(tmp_path, settings)
    for each, folder, epochs in zip(settings, halfway, (1, 2), strict=False):
        with stopped(STEPS * epochs + 2, *STEP):
            run(each, folder)
    records = run_array(settings, halfway)
    assert [record.time.get("resumed") for record in records] == [1, 1, None]
    all_same(halfway, whole)


def test_a_run_that_was_begun_on_another_device_says_why_it_begins_anew(tmp_path: Path) -> None:
    settings = load(*BASE, "norm=bn", "epochs=2", "accelerator=cpu")
    with stopped(STEPS + 3, *STEP):
        run(settings, tmp_path)
    state = files.resume_point(settings.model_copy(update={"accelerator": "gpu"}), tmp_path)
    assert state == "last.ckpt was trained by accelerator=cpu, which would resume it"
    assert isinstance(files.resume_point(settings, tmp_path), files.ResumePoint)
