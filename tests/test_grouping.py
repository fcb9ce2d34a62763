"""Which runs of a sweep share an array."""

import pytest

from normlab.settings import Settings
from normlab.settings.arrays import FREE, arrays, key, refusal
from normlab.settings.plan import load


@pytest.mark.parametrize(
    "word",
    ["seed=9", "l1=1e-3", "penalty.scope=conv", "penalty.method=proximal", "dropout=0.1", "lr=0.3",
     "optimizer.momentum=0", "optimizer.weight_decay=1e-4", "gradient_clip=null", "schedule=constant",
     "force=true", "name=x", "optimizer=adamw"],
)  # fmt: skip
def test_what_may_differ_inside_an_array(word: str) -> None:
    assert key(load()) == key(load(word))


@pytest.mark.parametrize(
    "word",
    ["norm=gn", "norm.eps=1e-3", "placement=pre", "batch_size=64", "epochs=3", "data=digits", "val_size=100",
     "test_curve=true", "augment=false", "augment.shift=1", "precision=64-true", "threads=1", "accelerator=gpu",
     "net=resnet10"],
)  # fmt: skip
def test_what_may_not(word: str) -> None:
    assert key(load()) != key(load(word))


def test_every_setting_is_one_or_the_other() -> None:
    assert set(FREE) < set(Settings.model_fields)


def runs(*sweep: tuple[str, int]) -> list[Settings]:
    return [load(word, f"seed={seed}") for word, count in sweep for seed in range(count)]


def test_groups_are_split_into_equal_arrays_no_larger_than_asked() -> None:
    found, single = arrays(runs(("norm=bn", 10), ("norm=gn", 7)), largest=4)
    assert sorted(map(len, found), reverse=True) == list(map(len, found)) == [4, 4, 3, 3, 3]
    assert sorted(index for group in found for index in group) == [*range(17)]
    assert single == {}
    assert all(len({index < 10 for index in group}) == 1 for group in found), "norms are never mixed"


def test_every_worker_gets_a_part_of_every_group() -> None:
    found, _ = arrays(runs(("norm=bn", 16), ("norm=gn", 16), ("norm=ln", 16)), largest=24, workers=2)
    assert list(map(len, found)) == [8] * 6


def test_many_groups_stay_whole() -> None:
    sweep = [(f"batch_size={size}", 5) for size in range(1, 9)]
    assert list(map(len, arrays(runs(*sweep), largest=24, workers=2)[0])) == [5] * 8
    assert list(map(len, arrays(runs(*sweep[:7]), largest=24, workers=2)[0])) == [3] * 7 + [2] * 7


def test_no_array_of_one_is_made_for_a_worker() -> None:
    found, single = arrays(runs(("norm=bn", 3)), largest=24, workers=8)
    assert list(map(len, found)) == [3]
    assert single == {}


def test_a_run_without_its_like_goes_singly() -> None:
    found, single = arrays(runs(("norm=bn", 1), ("norm=gn", 2)), largest=24)
    assert found == [[1, 2]]
    assert list(single) == [0]
    assert "no other run of this sweep" in single[0]


def test_arrays_of_one_when_they_are_asked_for() -> None:
    found, _ = arrays(runs(("norm=bn", 3)), largest=1)
    assert found == [[0], [1], [2]]


def test_a_gradient_scaler_is_refused() -> None:
    reason = refusal(load("precision=16-mixed", "accelerator=gpu"))
    assert reason is not None
    assert "16-mixed" in reason
    found, single = arrays(
        [load("precision=16-mixed", "accelerator=gpu", f"seed={seed}") for seed in (0, 1)], largest=9
    )
    assert found == []
    assert single == {0: reason, 1: reason}
