"""Runs into settings: how they are named and sorted, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_up_runs import crossed, made_up

from normlab.analysis.cells import Sorted, chosen, sort
from normlab.analysis.table import runs
from normlab.errors import NormlabError
from normlab.settings import Settings


def sorted_(folder: Path) -> Sorted:
    return sort(runs(folder))


def labels(folder: Path) -> list[str]:
    return [cell.label for cell in sorted_(folder).cells]


def test_settings_are_named_by_what_differs(tmp_path: Path) -> None:
    crossed(tmp_path, {("gn", 0.0): 0.9, ("bn", 1e-3): 0.8, ("bn", 0.0): 0.9, ("gn", 1e-3): 0.8}, seeds=2)
    assert labels(tmp_path) == ["bn", "bn l1=0.001", "gn", "gn l1=0.001"]
    assert sorted_(tmp_path).factors == ("norm", "l1")


def test_a_norms_own_options_go_without_saying(tmp_path: Path) -> None:
    for norm in ("none", "bn", "gn"):  # num_groups, momentum and eps differ with the norm, and only with it
        made_up(tmp_path, norm)
    assert labels(tmp_path) == ["none", "bn", "gn"]


def test_an_option_that_others_lack_is_told_only_where_it_is(tmp_path: Path) -> None:
    for seed in range(5):
        made_up(tmp_path, "bn", seed)
        made_up(tmp_path, "gn", seed)
        made_up(tmp_path / "one", "gn", seed, options={"num_groups": 1})
    assert labels(tmp_path) == ["bn", "gn norm.num_groups=1", "gn norm.num_groups=2"]


def test_a_run_without_predictions_leaves_the_others(tmp_path: Path) -> None:
    crossed(tmp_path, {("bn", 0.0): 0.9}, seeds=5)
    next(tmp_path.rglob("predictions.npz")).unlink()
    (cell,) = sorted_(tmp_path).cells
    assert cell.predicted is not None
    assert cell.predicted[0].shape == (4, 100)


def test_numbers_sort_as_numbers(tmp_path: Path) -> None:
    for size in (2, 16, 128):
        made_up(tmp_path, "bn", batch_size=size)
    assert labels(tmp_path) == ["bn batch_size=2", "bn batch_size=16", "bn batch_size=128"]


def test_runs_of_a_setting_are_its_seeds(tmp_path: Path) -> None:
    crossed(tmp_path, {("bn", 0.0): 0.9}, seeds=3, spread=0.01)
    (cell,) = sorted_(tmp_path).cells
    assert list(cell.values("test_acc")) == [0, 1, 2]
    assert cell.series("test_acc").shape == (3, 3)
    assert cell.predicted is not None
    assert cell.predicted[0].shape == (3, 100)
    assert cell.best_epoch == pytest.approx(np.mean(list(cell.values("test_acc").values())))


def test_curves_of_unequal_length_are_padded(tmp_path: Path) -> None:
    made_up(tmp_path, "bn", 0, curve=[0.1, 0.5])
    made_up(tmp_path, "bn", 1, curve=[0.2, 0.3, 0.4])
    (cell,) = sorted_(tmp_path).cells
    np.testing.assert_allclose(cell.series("test_acc"), [[0.1, 0.5, np.nan], [0.2, 0.3, 0.4]])


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ({"data": "digits"}, {"data": "mnist"}, "differ in data"),
        ({"epochs": 3}, {"epochs": 5}, "differ in epochs"),
        ({"val_size": 0}, {"val_size": 100}, "differ in val_size"),
    ],
)
def test_data_sets_and_protocols_are_never_mixed(tmp_path: Path, one: dict, other: dict, told: str) -> None:
    made_up(tmp_path, "bn", **one)
    made_up(tmp_path, "ln", **other)
    with pytest.raises(NormlabError, match=told) as error:
        sorted_(tmp_path)
    assert "\n" not in str(error.value)
    key = told.removeprefix("differ in ")
    assert f"{key}=" in str(error.value), "the line says how to choose"


def test_a_study_may_vary_its_protocol_but_never_its_data(tmp_path: Path) -> None:
    made_up(tmp_path, "bn", epochs=3)
    made_up(tmp_path, "bn", epochs=5)
    assert [cell.label for cell in sort(runs(tmp_path), ["epochs"]).cells] == ["bn epochs=3", "bn epochs=5"]
    made_up(tmp_path, "bn", epochs=3, data="mnist")
    with pytest.raises(NormlabError, match="differ in data"):
        sort(runs(tmp_path), ["epochs", "data"])


def test_choosing(tmp_path: Path) -> None:
    crossed(tmp_path, {("bn", 0.0): 0.9, ("ln", 0.0): 0.9, ("bn", 1e-3): 0.9}, seeds=1)
    found = runs(tmp_path)
    assert len(chosen(found, ["norm=bn"])) == 2
    assert len(chosen(found, ["norm=bn,ln", "l1=0"])) == 2
    assert len(chosen(found, ["l1=1e-3"])) == 1, "numbers are compared as numbers"
    for wanted, told in [
        (["nrm=bn"], "nrm is no setting"),
        (["norm=gn"], "norm=gn: no such run here; choose one of bn, ln"),
        (["norm=ln", "l1=1e-3"], "at once"),
    ]:
        with pytest.raises(NormlabError, match=told):
            chosen(found, wanted)


def test_lost_runs_are_kept(tmp_path: Path) -> None:
    crossed(tmp_path, {("bn", 0.0): 0.9})
    made_up(tmp_path, "ln", 0)
    made_up(tmp_path, "ln", 1, status="diverged", error="the loss was not finite")
    made_up(tmp_path, "gn", 0, status="failed", error="no memory")
    found = sorted_(tmp_path)
    assert [(run.record.setting["norm"], run.record.status) for run in found.lost] == [
        ("ln", "diverged"),
        ("gn", "failed"),
    ]


def test_a_run_that_stands_twice_counts_once(tmp_path: Path) -> None:
    crossed(tmp_path / "a", {("bn", 0.0): 0.9}, seeds=2)
    crossed(tmp_path / "b", {("bn", 0.0): 0.9}, seeds=1)
    (cell,) = sorted_(tmp_path).cells
    assert len(cell.ended) == 2
    assert [note for note in sorted_(tmp_path).notes if "of one run: the first counts" in note]


def test_a_finished_run_counts_before_a_failed_one_of_the_same_name(tmp_path: Path) -> None:
    made_up(tmp_path / "a", "bn", 0, status="interrupted", error="stopped from outside")
    made_up(tmp_path / "b", "bn", 0)
    (cell,) = sorted_(tmp_path).cells
    assert len(cell.completed) == 1
    assert not sorted_(tmp_path).lost


def test_unevenness_is_the_ground_that_was_lost(tmp_path: Path) -> None:
    made_up(tmp_path, "bn", 0, curve=[0.5, 0.4, 0.9, 0.7, 0.95])
    made_up(tmp_path, "bn", 1, curve=[0.5, 0.6, 0.9])
    (cell,) = sorted_(tmp_path).cells
    values = cell.values("unevenness")
    assert values[0] == pytest.approx(0.1 + 0.2)
    assert values[1] == 0


def test_every_default_is_a_setting_that_can_be_chosen() -> None:
    assert {"norm", "l1", "lr", "batch_size", "penalty.scope"} <= set(Settings().flat())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.csv", b"epoch,test_acc\n1,high\n"),
        ("metrics.csv", b"\xff\xfe\x00"),
        ("predictions.npz", b"PK\x03\x04 and no more"),
        ("predictions.npz", b""),
    ],
)
def test_a_damaged_file_is_told_in_a_line(tmp_path: Path, name: str, content: bytes) -> None:
    made_up(tmp_path, "bn")
    (file,) = tmp_path.rglob(name)
    file.write_bytes(content)
    (run,) = runs(tmp_path)
    assert not (run.curves if name == "metrics.csv" else run.predictions)
    [line] = run.damage
    assert f"{file} is damaged" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("metrics", {"test_acc": float("nan")}),
        ("metrics", {"test_acc": "high"}),
        ("metrics", None),
        ("device", None),
        ("data", 3),
        ("seed", "0"),
        ("seed", True),
        ("status", "fine"),
        ("time", {"fit_s": [1]}),
        ("config", []),
    ],
)
def test_a_record_that_is_none_is_refused_in_a_line(tmp_path: Path, field: str, value: object) -> None:
    made_up(tmp_path, "bn")
    (file,) = tmp_path.rglob("result.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(NormlabError) as error:
        runs(tmp_path)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "arrays",
    [
        {"pred": np.array([3, 12], dtype=np.uint8)},
        {"pred": np.uint8(3)},
        {"pred": np.zeros(2)},
        {"pred": np.zeros((2, 2), np.uint8)},
        {"true": np.zeros(2, np.uint8)},
        {"pred": np.zeros(2, np.uint8), "true": np.zeros(3, np.uint8)},
        {"pred": np.zeros(2, np.uint8), "log_probs": np.zeros((3, 4), np.float16)},
        {"pred": np.zeros(2, np.uint8), "log_probs": np.zeros(2, np.float16)},
        {"pred": np.zeros(2, np.uint8), "log_probs": np.full((2, 4), np.nan, np.float16)},
        {"pred": np.zeros(2, np.uint8), "log_probs": np.ones((2, 4), np.float16)},
        {"pred": np.full(2, 4, np.uint8), "log_probs": np.zeros((2, 4), np.float16)},
    ],
)
def test_predictions_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    made_up(tmp_path, "bn")
    (file,) = tmp_path.rglob("predictions.npz")
    np.savez(file, **arrays)  # type: ignore[arg-type]
    (run,) = runs(tmp_path)
    assert run.predictions is None
    assert "is damaged" in run.damage[0]


def test_predictions_of_version_0_1_are_read(tmp_path: Path) -> None:
    made_up(tmp_path, "bn")
    (file,) = tmp_path.rglob("predictions.npz")
    known = np.array([3, 9], dtype=np.uint8)
    np.savez(file, pred=known, prob_true=np.ones(2, np.float32), true=known)
    assert (runs(tmp_path)[0].predictions or {}).keys() == {"pred", "true"}
