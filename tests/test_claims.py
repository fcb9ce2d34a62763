"""Claims: what the runs say to them."""

import math
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import crossed, made_up

from normlab.analysis.cells import sort
from normlab.analysis.claims import Judged, judge
from normlab.analysis.table import runs
from normlab.settings import Claim, Study


def judged(folder: Path, *claims: dict[str, Any], margin: float = 0.05) -> list[Judged]:
    usual = {"claim": "c", "source": "s", "of": {"norm": "bn", "l1": 0.001}, "against": {"norm": "bn", "l1": 0.0}}
    study = Study(question="?", margin=margin, claims=[Claim.model_validate(usual | claim) for claim in claims])
    return judge(study, sort(runs(folder)))


@pytest.fixture
def apart(tmp_path: Path) -> Path:
    """bn with L1 is 1.5 points below bn, with a spread of a tenth of a point; ln is 0.02 points above bn, always."""
    for seed, wobble in enumerate([0.1, -0.1, 0.05, -0.05, 0.0]):
        made_up(tmp_path, "bn", seed, test_acc=0.99, images=10_000)
        made_up(tmp_path, "bn", seed, l1=1e-3, test_acc=0.975 + wobble / 100, images=10_000)
        made_up(tmp_path, "ln", seed, test_acc=0.9902 + wobble / 10_000, images=10_000)
    return tmp_path


@pytest.mark.parametrize(
    ("claim", "ruling"),
    [
        ({"expect": "lower"}, "supported"),
        ({"expect": "higher"}, "refuted"),
        ({"expect": "lower", "by": 1.5, "give": 0.5}, "supported"),
        ({"expect": "lower", "by": 0.5, "give": 0.3}, "refuted"),
        ({"expect": "higher", "by": 1.5, "give": 0.5}, "refuted"),
        ({"expect": "lower", "by": 1.45, "give": 0.06}, "undecided"),
        ({"expect": "similar"}, "refuted"),
        ({"expect": "similar", "margin": 2.0}, "supported"),
        ({"expect": "similar", "margin": 1.55}, "undecided"),
        ({"expect": "lower", "measure": "test_ce"}, "refuted"),
        ({"expect": "higher", "measure": "test_ce"}, "supported"),
        ({"expect": "lower", "measure": "train_acc_running"}, "supported"),
    ],
)
def test_rulings(apart: Path, claim: dict[str, Any], ruling: str) -> None:
    (found,) = judged(apart, claim)
    assert (found.of, found.against) == ("bn l1=0.001", "bn")
    assert found.ruling == ruling, found.why


def test_a_difference_that_does_not_matter_refutes_a_direction(apart: Path) -> None:
    (found,) = judged(
        apart, {"of": {"norm": "ln"}, "against": {"norm": "bn", "l1": 0.0}, "expect": "lower"}, margin=0.5
    )
    assert found.ruling == "refuted"
    (found,) = judged(apart, {"of": {"norm": "ln"}, "against": {"norm": "bn", "l1": 0.0}, "expect": "similar"})
    assert found.ruling == "supported"


def test_differences_are_in_points_and_of_minus_against(apart: Path) -> None:
    (points, nats) = judged(apart, {"expect": "lower"}, {"expect": "higher", "measure": "test_ce"})
    assert points.difference is not None
    assert nats.difference is not None
    assert points.difference.mean == pytest.approx(-1.5)
    assert nats.difference.mean == pytest.approx(0.015)


def test_p_is_adjusted_over_the_claims(apart: Path) -> None:
    (alone,) = judged(apart, {"expect": "lower"})
    first, *_ = judged(apart, *[{"expect": "lower"}] * 3, {"expect": "similar"})
    assert first.p == pytest.approx(3 * alone.p)


def test_what_has_no_runs_is_untested(apart: Path) -> None:
    (found,) = judged(apart, {"of": {"norm": "gn"}, "expect": "lower"})
    assert found.ruling == "untested"
    assert found.difference is None
    (found,) = judged(apart, {"measure": "val_acc", "expect": "lower"})
    assert found.ruling == "untested"
    assert "not measured" in found.why


def test_what_only_holms_adjustment_leaves_open_says_so(apart: Path) -> None:
    for seed, wobble in enumerate([0.1, -0.1, 0.05, -0.05, 0.0]):
        made_up(apart, "gn", seed, test_acc=0.9902 + wobble / 1500, images=10_000)  # p of the difference: 0.001
    borderline = {"of": {"norm": "gn"}, "against": {"norm": "bn", "l1": 0.0}, "expect": "higher"}
    (alone,) = judged(apart, borderline, margin=0.001)
    assert alone.ruling == "supported"
    among = judged(apart, *[borderline] * 100, margin=0.001)[0]
    assert among.ruling == "undecided"
    assert "Holm" in among.why


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    crossed(tmp_path, {("bn", 0.0): 0.99, ("bn", 1e-3): 0.5}, seeds=1)
    (found,) = judged(tmp_path, {"expect": "lower"})
    assert found.ruling == "undecided"
    assert math.isnan(found.p)


def test_every_pair_that_agrees_in_the_other_factors_is_tested(tmp_path: Path) -> None:
    for lr in (0.05, 0.2):
        crossed(tmp_path, {("bn", 0.0): 0.9, ("bn", 1e-3): 0.8}, lr=lr)
    found = judged(tmp_path, {"expect": "lower"})
    assert [(t.of, t.against) for t in found] == [
        ("bn l1=0.001 lr=0.05", "bn lr=0.05"),
        ("bn l1=0.001 lr=0.2", "bn lr=0.2"),
    ]
