"""An array leaves the folders that its runs would have left alone, whatever happens to one of them; and which runs of a
sweep share one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import csv_rows
from filelock import FileLock
from same_bits import same, stop_at

from normlab.errors import ConfigError
from normlab.record import Record
from normlab.settings import Settings
from normlab.settings.arrays import FREE, arrays, key, why_not_array
from normlab.settings.plan import load
from normlab.training import Classifier, run, run_array
from normlab.training.networks import NetworkArray
from normlab.training.optim import onecycle

BASE = ["data=digits", "train_size=600", "norm=bn", "epochs=2", "batch_size=64", "threads=1", "test_curve=true"]
BASE += ["precision=64-true"]
WORDS = [
    ["seed=0", "dropout=0.1", "optimizer.momentum=0"],
    ["seed=1", "l1=1e-3", "optimizer=adamw"],
    ["seed=2", "l1=1e-3", "penalty.method=proximal", "schedule=constant", "lr=0.02", "optimizer.momentum=0.5"],
]
Pairs = list[tuple[Path, Path]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """Three runs, each by itself and all as an array; float64, so that rounding makes no difference."""
    logs = tmp_path_factory.mktemp("array")
    settings = [load(*BASE, *words) for words in WORDS]
    alone, array = ([logs / kind / str(each.seed) for each in settings] for kind in ("alone", "array"))
    records = [run(each, folder) for each, folder in zip(settings, alone, strict=True)] + run_array(settings, array)
    assert [record.status for record in records] == ["completed"] * 6
    return list(zip(alone, array, strict=True))


def test_an_array_leaves_what_its_runs_leave_alone(both: Pairs) -> None:
    """Files, weights, optimizers, curves, views, predictions: on a CPU to the last bit. On a GPU networks share passes,
    which round differently."""
    for alone, array in both:
        expected, got = (json.loads((folder / "result.json").read_text()) for folder in (alone, array))
        assert got["device"].pop("array") == 3
        assert "trained as an array of 3 networks" in (array / "train.log").read_text()
        assert got["time"].keys() == expected["time"].keys()
        assert got["time"]["epochs"] == expected.pop("time")["epochs"]
        assert got["metrics"].keys() == expected["metrics"].keys()
        for name, value in expected.pop("metrics").items():
            assert got["metrics"][name] == pytest.approx(value, rel=1e-5), name
        assert {name: value for name, value in got.items() if name not in ("time", "metrics")} == expected
        if got["device"]["accelerator"] == "cpu":
            same(array, alone)
        expected, got = (Classifier.load_from_checkpoint(folder / "last.ckpt") for folder in (alone, array))
        assert got.hparams == expected.hparams
        torch.testing.assert_close(got.state_dict(), expected.state_dict(), rtol=1e-6, atol=1e-9)


def test_times_are_each_runs_share(both: Pairs) -> None:
    """Added up they are what the array took, so that a table of times says what a study cost."""
    for _, array in both:
        record = Record.load(array)
        seconds = [float(row["seconds"]) for row in csv_rows(array / "metrics.csv")]
        assert sum(seconds) < record.time["fit_s"]
        assert record.time["images_per_s"] == pytest.approx(2 * record.data["train"] / sum(seconds), rel=1e-5)


# What may go wrong


def quick(*words: str) -> Settings:
    return load("data=digits", "norm=gn", "epochs=1", "batch_size=256", "threads=1", *words)


def test_a_run_that_diverges_is_recorded_and_touches_nobody(tmp_path: Path, undrawn: None) -> None:
    calm = [quick(f"seed={seed}", "epochs=2") for seed in (0, 1, 2)]
    wild = [calm[0], quick("seed=1", "lr=1e30", "gradient_clip=null", "epochs=2"), calm[2]]
    expected = run_array(calm, [tmp_path / "calm" / str(i) for i in range(3)])
    got = run_array(wild, [tmp_path / "wild" / str(i) for i in range(3)])
    assert [record.status for record in got] == ["completed", "diverged", "completed"]
    assert "not finite in epoch" in str(got[1].error)
    assert not (tmp_path / "wild/1/predictions.npz").exists()
    alone = run(wild[1], tmp_path / "alone")
    assert (alone.status, alone.error, alone.time["epochs"]) == ("diverged", got[1].error, got[1].time["epochs"])
    for index in (0, 2):
        assert got[index].metrics == expected[index].metrics


def test_a_finished_run_is_left_as_it_is_and_a_busy_one_to_its_process(tmp_path: Path, undrawn: None) -> None:
    settings, folders = [quick(f"seed={seed}") for seed in range(4)], [tmp_path / str(seed) for seed in range(4)]
    first = run(settings[0], folders[0])
    folders[1].mkdir()
    with FileLock(folders[1] / ".lock"):
        records = run_array(settings, folders)
    assert [record.seed for record in records] == [2, 3]
    assert Record.load(folders[0]) == first
    assert not (folders[1] / "result.json").exists()
    assert run_array(settings[2:], folders[2:]) == []


def test_a_failure_leaves_the_runs_to_be_done_singly(tmp_path: Path, undrawn: None) -> None:
    settings, folders = [quick("seed=0"), quick("seed=1")], [tmp_path / "0", tmp_path / "1"]
    failing = stop_at(1, NetworkArray, "training_step", RuntimeError("no memory"))
    with failing, pytest.raises(RuntimeError, match="no memory"):
        run_array(settings, folders)
    assert not any((folder / "result.json").exists() for folder in folders)
    assert "no memory" in (folders[0] / "train.log").read_text()
    assert run(settings[0], folders[0]).status == "completed"
    assert "no memory" not in (folders[0] / "train.log").read_text(), "what the array left made room"


RANDOM = ["net=custom", "net.target=torchvision.models:mobilenet_v2", "net.channels=3"]  # it has dropout of its own


@pytest.mark.parametrize(("words", "told"), [(["val_size=5000"], "val_size=5000 leaves none"), (RANDOM, "net=custom")])
def test_what_a_user_can_mend_is_said_before_a_file_is_touched(tmp_path: Path, words: list[str], told: str) -> None:
    """Networks that draw random numbers too: a pass of all would run them, with numbers that depend on the others."""
    with pytest.raises(ConfigError, match=told):
        run_array([quick(*words), quick(*words, "seed=1")], [tmp_path / "0", tmp_path / "1"])
    assert not (tmp_path / "0/train.log").exists()


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 40, 1001])
def test_learning_rates_are_the_schedules(steps: int) -> None:
    optimizer, schedule = Classifier(lr=0.3).optimizer(steps)
    for step in range(steps):
        rate = 0.3 * onecycle(torch.tensor([float(step)]).double(), torch.tensor([float(steps)]).double())
        assert rate.item() == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        if schedule is not None:
            schedule.step()


# Which runs share one

ALIKE = [
    "seed=9", "l1=1e-3", "penalty.scope=conv", "penalty.method=proximal", "dropout=0.1", "lr=0.3", "schedule=constant",
    "optimizer.momentum=0", "optimizer.weight_decay=1e-4", "optimizer=adamw", "gradient_clip=null", "force=true",
    "name=x",
]  # fmt: skip
APART = [
    "norm=gn", "norm.eps=1e-3", "placement=pre", "batch_size=64", "epochs=3", "data=digits", "val_size=100",
    "test_curve=true", "augment=false", "augment.shift=1", "precision=64-true", "threads=1", "accelerator=gpu",
    "net=resnet10",
]  # fmt: skip


@pytest.mark.parametrize("word", ALIKE + APART)
def test_what_may_differ_inside_an_array(word: str) -> None:
    assert (key(load()) == key(load(word))) == (word in ALIKE)


def test_what_is_free_are_settings() -> None:
    assert set(FREE) < set(Settings.model_fields)


def sweep_of(*sweep: tuple[str, int]) -> list[Settings]:
    return [load(word, f"seed={seed}") for word, count in sweep for seed in range(count)]


@pytest.mark.parametrize(
    ("sweep", "largest", "workers", "sizes"),
    [
        ([("norm=bn", 10), ("norm=gn", 7)], 4, 1, [4, 4, 3, 3, 3]),  # equal, and no larger than asked
        ([("norm=bn", 16), ("norm=gn", 16), ("norm=ln", 16)], 24, 2, [8] * 6),  # every worker gets a part of each
        ([(f"batch_size={size}", 5) for size in range(1, 9)], 24, 2, [5] * 8),  # many groups stay whole
        ([(f"batch_size={size}", 5) for size in range(1, 8)], 24, 2, [3] * 7 + [2] * 7),
        ([("norm=bn", 3)], 24, 8, [3]),  # no array of one is made for a worker
        ([("norm=bn", 3)], 1, 1, [1, 1, 1]),  # unless it is asked for
    ],
)
def test_groups_are_split_into_arrays(sweep: Any, largest: int, workers: int, sizes: list[int]) -> None:
    settings = sweep_of(*sweep)
    found, single = arrays(settings, largest, workers)
    assert [len(group) for group in found] == sizes
    assert sorted(index for group in found for index in group) == [*range(len(settings))]
    assert single == {}
    assert all(len({key(settings[index]) for index in group}) == 1 for group in found), "norms are never mixed"


def test_a_run_without_its_like_goes_singly() -> None:
    found, single = arrays(sweep_of(("norm=bn", 1), ("norm=gn", 2)), largest=24)
    assert found == [[1, 2]]
    assert list(single) == [0]
    assert "no other run of this sweep" in single[0]


@pytest.mark.parametrize("words", [["precision=16-mixed", "accelerator=gpu"], ["refit_epochs=1"]])
def test_what_is_of_one_network_is_refused(words: list[str]) -> None:
    reason = str(why_not_array(load(*words)))
    assert words[0].partition("=")[0] in reason
    assert arrays([load(*words, f"seed={seed}") for seed in (0, 1)], largest=9) == ([], {0: reason, 1: reason})
    assert why_not_array(load()) is None
