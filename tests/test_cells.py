"""Runs into settings: how they are named and sorted, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import one_line
from made_up_runs import crossed, made_up, several

from normlab.analysis.cells import RunsBySetting, chosen, group_runs
from normlab.analysis.questions import Answers
from normlab.analysis.table import runs
from normlab.errors import NormlabError


def sorted_(folder: Path) -> RunsBySetting:
    return group_runs(runs(folder))


@pytest.mark.parametrize(
    ("made", "labels"),
    [
        (
            [{"norm": "gn"}, {"norm": "bn", "l1": 1e-3}, {"norm": "bn"}, {"norm": "gn", "l1": 1e-3}],
            ["bn", "bn l1=0.001", "gn", "gn l1=0.001"],
        ),
        # num_groups, momentum and eps differ with the norm, and only with it
        ([{"norm": "none"}, {"norm": "bn"}, {"norm": "gn"}], ["none", "bn", "gn"]),
        (
            [{"norm": "bn"}, {"norm": "gn"}, {"norm": "gn", "options": {"num_groups": 1}}],
            ["bn", "gn norm.num_groups=1", "gn norm.num_groups=2"],
        ),
        ([{"batch_size": n} for n in (2, 16, 128)], ["bn batch_size=2", "bn batch_size=16", "bn batch_size=128"]),
        ([{"net": {"name": "small"}}, {"net": {"name": "resnet10"}}], ["bn net=resnet10", "bn net=small"]),
        ([{"augment": True}, {"augment": False}], ["bn augment.rotation=0", "bn augment.rotation=7"]),
    ],
    ids=["what differs", "a norm's own options", "an option that others lack", "numbers", "a net's", "augment=false"],
)
def test_settings_are_named_by_what_differs(tmp_path: Path, made: list[dict[str, Any]], labels: list[str]) -> None:
    for at, each in enumerate(made):
        made_up(tmp_path / str(at), **each)
    assert [cell.label for cell in sorted_(tmp_path).cells] == labels


def test_the_order_of_the_runs_does_not_matter(tmp_path: Path) -> None:
    """A command takes them as it planned them, a report by their folders."""
    options = [{"num_groups": 1}, {"num_groups": 2}, {"channels_per_group": 1}, {"channels_per_group": 2}]
    several(tmp_path, "gn", 1, options=options, placement=["pre", "post"])
    found = list(runs(tmp_path))
    orders = [found, found[::-1], found[3:] + found[:3]]
    one, *others = [[cell.label for cell in group_runs(order).cells] for order in orders]
    assert others == [one, one]
    one, *others = [[each.label for each in Answers(group_runs(order), None, 0.1).declared] for order in orders]
    assert others == [one, one]


def test_runs_of_a_setting_are_its_seeds(tmp_path: Path) -> None:
    """A curve that is shorter is padded; predictions are those that are there."""
    accs = [0.4, 0.5, 0.6]
    for seed, acc in enumerate(accs):
        made_up(tmp_path, "bn", seed, test_acc=acc, curve=[0.1, acc][: 1 + seed])
    next(tmp_path.rglob("predictions.npz")).unlink()
    (cell,) = sorted_(tmp_path).cells
    assert cell.values("test_acc") == dict(enumerate(accs))
    np.testing.assert_allclose(cell.series("test_acc"), [[0.1, np.nan], [0.1, 0.5], [0.1, 0.6]])
    assert cell.predicted is not None
    assert cell.predicted[0].shape == (2, 100)
    assert cell.best_epoch == pytest.approx((0.1 + 0.5 + 0.6) / 3)


@pytest.mark.parametrize(("key", "values"), [("data", ("digits", "mnist")), ("epochs", (3, 5)), ("val_size", (0, 100))])
def test_data_sets_and_protocols_are_never_mixed(tmp_path: Path, key: str, values: tuple[Any, Any]) -> None:
    several(tmp_path, seeds=1, **{key: [*values]})
    with one_line(NormlabError, f"differ in {key}") as error:
        sorted_(tmp_path)
    assert f"{key}=" in str(error.value), "the line says how to choose"


def test_a_study_may_vary_its_protocol_but_never_its_data(tmp_path: Path) -> None:
    several(tmp_path, seeds=1, epochs=[3, 5])
    assert [cell.label for cell in group_runs(runs(tmp_path), ["epochs"]).cells] == ["bn epochs=3", "bn epochs=5"]
    made_up(tmp_path, "bn", epochs=3, data="mnist")
    with pytest.raises(NormlabError, match="differ in data"):
        group_runs(runs(tmp_path), ["epochs", "data"])


def test_choosing(tmp_path: Path) -> None:
    crossed(tmp_path, {("bn", 0.0): 0.9, ("ln", 0.0): 0.9, ("bn", 1e-3): 0.9}, seeds=1)
    found = runs(tmp_path)
    assert len(chosen(found, ["norm=bn"])) == 2
    assert len(chosen(found, ["norm=bn,ln", "l1=0"])) == 2
    assert len(chosen(found, ["l1=1e-3"])) == 1, "numbers are compared as numbers"
    for wanted, told in [
        (["norm="], "norm=: write setting=value"),
        (["norm=gn"], "norm=gn: no such run here; choose one of bn, ln"),
        (["norm=ln", "l1=1e-3"], "at once"),
    ]:
        with pytest.raises(NormlabError, match=told):
            chosen(found, wanted)


def test_of_a_run_that_stands_twice_the_finished_one_counts_and_else_the_first(tmp_path: Path) -> None:
    crossed(tmp_path / "b", {("bn", 0.0): 0.9}, seeds=2)
    crossed(tmp_path / "c", {("bn", 0.0): 0.9}, seeds=1)
    made_up(tmp_path / "a", "bn", 1, status="interrupted", error="stopped from outside")
    found = sorted_(tmp_path)
    (cell,) = found.cells
    assert len(cell.completed) == len(cell.ended) == 2
    assert len([note for note in found.notes if "of one run: the first counts" in note]) == 2
    assert not found.lost


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.csv", b"epoch,test_acc\n1,high\n"),
        ("metrics.csv", b"\xff\xfe\x00"),
        ("predictions.npz", b"PK\x03\x04 and no more"),
        ("predictions.npz", b""),
        ("predictions.npz", {"pred": np.array([3, 12], dtype=np.uint8)}),
        ("predictions.npz", {"pred": np.uint8(3)}),
        ("predictions.npz", {"pred": np.zeros(2)}),
        ("predictions.npz", {"pred": np.zeros((2, 2), np.uint8)}),
        ("predictions.npz", {"true": np.zeros(2, np.uint8)}),
        ("predictions.npz", {"pred": np.zeros(2, np.uint8), "true": np.zeros(3, np.uint8)}),
        ("predictions.npz", {"pred": np.zeros(2, np.uint8), "log_probs": np.zeros((3, 4), np.float16)}),
        ("predictions.npz", {"pred": np.zeros(2, np.uint8), "log_probs": np.zeros(2, np.float16)}),
        ("predictions.npz", {"pred": np.zeros(2, np.uint8), "log_probs": np.full((2, 4), np.nan, np.float16)}),
        ("predictions.npz", {"pred": np.zeros(2, np.uint8), "log_probs": np.ones((2, 4), np.float16)}),
        ("predictions.npz", {"pred": np.full(2, 4, np.uint8), "log_probs": np.zeros((2, 4), np.float16)}),
    ],
)
def test_a_damaged_file_and_arrays_that_do_not_fit_are_told_in_a_line(tmp_path: Path, name: str, content) -> None:
    made_up(tmp_path, "bn")
    (file,) = tmp_path.rglob(name)
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        np.savez(file, **content)  # type: ignore[arg-type]
    (run,) = runs(tmp_path)
    assert not (run.curves if name == "metrics.csv" else run.predictions)
    [line] = run.damage
    assert f"{file} is damaged" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("metrics", {"test_acc": float("nan")}), ("metrics", {"test_acc": "high"}), ("metrics", None), ("device", None),
        ("data", 3), ("seed", "0"), ("seed", True), ("status", "fine"), ("time", {"fit_s": [1]}), ("config", []),
    ],
)  # fmt: skip
def test_a_record_that_is_none_is_refused_in_a_line(tmp_path: Path, field: str, value: object) -> None:
    made_up(tmp_path, "bn")
    (file,) = tmp_path.rglob("result.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with one_line(NormlabError) as error:
        runs(tmp_path)
    assert str(file) in str(error.value)


def test_predictions_of_version_0_1_are_read(tmp_path: Path) -> None:
    made_up(tmp_path, "bn")
    (file,) = tmp_path.rglob("predictions.npz")
    known = np.array([3, 9], dtype=np.uint8)
    np.savez(file, pred=known, prob_true=np.ones(2, np.float32), true=known)
    assert (runs(tmp_path)[0].predictions or {}).keys() == {"pred", "true"}
