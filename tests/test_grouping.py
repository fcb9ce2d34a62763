"""Which runs of a sweep share an array."""

from typing import Any

import pytest

from normlab.settings import Settings
from normlab.settings.arrays import FREE, arrays, key, why_individual
from normlab.settings.plan import load

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


def runs(*sweep: tuple[str, int]) -> list[Settings]:
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
    settings = runs(*sweep)
    found, single = arrays(settings, largest, workers)
    assert [len(group) for group in found] == sizes
    assert sorted(index for group in found for index in group) == [*range(len(settings))]
    assert single == {}
    assert all(len({key(settings[index]) for index in group}) == 1 for group in found), "norms are never mixed"


def test_a_run_without_its_like_goes_singly() -> None:
    found, single = arrays(runs(("norm=bn", 1), ("norm=gn", 2)), largest=24)
    assert found == [[1, 2]]
    assert list(single) == [0]
    assert "no other run of this sweep" in single[0]


@pytest.mark.parametrize("words", [["precision=16-mixed", "accelerator=gpu"], ["refit_epochs=1"]])
def test_what_is_of_one_network_is_refused(words: list[str]) -> None:
    reason = str(why_individual(load(*words)))
    assert words[0].partition("=")[0] in reason
    assert arrays([load(*words, f"seed={seed}") for seed in (0, 1)], largest=9) == ([], {0: reason, 1: reason})
    assert why_individual(load()) is None
