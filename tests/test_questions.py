"""What a study declares, and what the runs say to it."""

import itertools
import math
from pathlib import Path
from typing import Any, get_args

import pytest
from made_up_runs import crossed, made_up, several

from normlab.analysis.cells import group_runs
from normlab.analysis.findings import findings
from normlab.analysis.outcomes import OUTCOMES
from normlab.analysis.parts.claims import claims_frame
from normlab.analysis.parts.effects import questions_frame
from normlab.analysis.questions import Answers
from normlab.analysis.table import runs
from normlab.analysis.verdicts import seeds_needed
from normlab.settings import Claim, Study
from normlab.settings.study import MEASURES

TOST, BOTH = "(two one-sided tests)", "the interval reaches into and out of"


def asked(folder: Path, *claims: dict[str, Any], margin: float = 0.05, **study: Any) -> Answers:
    usual = {"claim": "c", "source": "s", "of": {"norm": "bn", "l1": 0.001}, "against": {"norm": "bn", "l1": 0.0}}
    several = [Claim.model_validate(usual | claim) for claim in claims]
    return Answers(group_runs(runs(folder)), Study(question="?", margin=margin, claims=several, **study), margin)


def ruled(folder: Path, *claims: dict[str, Any], margin: float = 0.05) -> list[dict[Any, Any]]:
    return claims_frame(asked(folder, *claims, margin=margin)).to_dict("records")


@pytest.fixture
def apart(tmp_path: Path) -> Path:
    """bn with L1 is 1.5 points below bn, with a spread of a tenth of a point; ln is 0.02 points above bn, always."""
    for seed, wobble in enumerate([0.1, -0.1, 0.05, -0.05, 0.0]):
        made_up(tmp_path, "bn", seed, test_acc=0.99 + wobble / 10_000, images=10_000, files=False)
        made_up(tmp_path, "bn", seed, l1=1e-3, test_acc=0.975 + wobble / 100, images=10_000, files=False)
        made_up(tmp_path, "ln", seed, test_acc=0.9902 + wobble / 10_000, images=10_000, files=False)
    return tmp_path


@pytest.mark.parametrize(
    ("claim", "ruling", "because"),
    [
        ({"expect": "lower"}, "supported", "it is lower: t(3) = −70.2"),
        ({"expect": "higher"}, "refuted", "it is lower: t(3) = −70.2"),
        ({"expect": "lower", "by": 1.5, "give": 0.5}, "supported", f"it lies within −2.00 to −1.00 pp {TOST}"),
        ({"expect": "lower", "by": 0.5, "give": 0.3}, "refuted", "it lies outside −0.80 to −0.20 pp"),
        ({"expect": "higher", "by": 1.5, "give": 0.5}, "refuted", "it lies outside +1.00 to +2.00 pp"),
        ({"expect": "lower", "by": 1.45, "give": 0.06}, "undecided", f"{BOTH} −1.51 to −1.39 pp"),
        ({"expect": "similar"}, "refuted", "it lies outside −0.05 to +0.05 pp"),
        ({"expect": "similar", "margin": 2.0}, "supported", f"it lies within −2.00 to +2.00 pp {TOST}"),
        ({"expect": "similar", "margin": 1.55}, "undecided", f"{BOTH} −1.55 to +1.55 pp"),
        ({"expect": "lower", "measure": "test_ce"}, "refuted", "it is higher: t(3) = 70.8"),
        ({"expect": "higher", "measure": "test_ce"}, "supported", "it is higher: t(3) = 70.8"),
        ({"expect": "lower", "measure": "train_acc_running"}, "supported", "it is lower: t(3) = −59.3"),
    ],
)
def test_rulings(apart: Path, claim: dict[str, Any], ruling: str, because: str) -> None:
    answers = asked(apart, claim)
    [row] = claims_frame(answers).to_dict("records")
    assert (row["of"], row["against"]) == ("bn l1=0.001", "bn")
    assert (row["ruling"], row["because"]) == (ruling, because)
    [answer] = [each for each in answers.answers if each.claims]
    one_sided = because.startswith(("it lies within", BOTH))  # the p that is printed is that of the test that ruled
    assert row["p"] == answer.decision.adjusted[one_sided]


@pytest.mark.parametrize(
    ("cells", "margin", "ruling", "because"),
    [
        ((0.99, 0.991), 0.5, "refuted", "it is higher, by less than the margin: t(4) = 5.5"),
        ((0.99, 0.99), 0.5, "refuted", f"they are equivalent within 0.5 pp {TOST}"),
        ((0.99, 0.99), 0.02, "undecided", "t(8) = 0.0, p = 1.000 before adjustment"),
    ],
)
def test_a_direction_of_a_small_difference(tmp_path: Path, cells, margin: float, ruling: str, because: str) -> None:
    for l1, mean in zip((0, 1e-3), cells, strict=True):
        for seed, wobble in enumerate([1e-4, -1e-4, 5e-5, -5e-5, 0.0]):
            made_up(tmp_path, l1=l1, seed=seed, test_acc=mean + wobble, images=1000, files=False)
    answers = asked(tmp_path, {"expect": "lower"}, margin=margin)
    [row] = claims_frame(answers).to_dict("records")
    assert (row["ruling"], row["because"]) == (ruling, because)
    [answer] = [each for each in answers.answers if each.claims]
    assert row["p"] == answer.decision.adjusted[ruling == "refuted" and "equivalent" in because]


def test_a_mirrored_claim_is_one_question(apart: Path) -> None:
    there, back = {"norm": "ln"}, {"norm": "bn", "l1": 0.0}
    claim, mirrored = ({"of": of, "against": other, "expect": "higher"} for of, other in [(there, back), (back, there)])
    two = asked(apart, claim, mirrored)
    assert len(asked(apart, claim).answers) == len(two.answers)
    first, second = claims_frame(two).to_dict("records")
    assert first["p"] == second["p"]
    assert first["difference_value"] == pytest.approx(-second["difference_value"])
    assert first["difference_low"] == pytest.approx(-second["difference_high"])
    assert (first["of"], first["against"]) == (second["against"], second["of"]) == ("ln", "bn")


def test_what_has_no_runs_is_untested_and_one_seed_decides_nothing(apart: Path, tmp_path: Path) -> None:
    of_gn, of_val = {"of": {"norm": "gn"}, "expect": "lower"}, {"measure": "val_acc", "expect": "lower"}
    of_no_runs, not_measured = ruled(apart, of_gn, of_val)
    assert of_no_runs["ruling"] == not_measured["ruling"] == "untested"
    assert math.isnan(of_no_runs["difference_value"])
    assert "not measured" in not_measured["because"]
    told = findings(asked(apart, of_gn, {"expect": "lower"}))
    assert "Of 2 claims about pairs, 1 supported, 1 untested." in told
    crossed(tmp_path / "one", {("bn", 0.0): 0.99, ("bn", 1e-3): 0.5}, seeds=1)
    [row] = ruled(tmp_path / "one", {"expect": "lower"})
    assert (row["ruling"], row["because"]) == ("undecided", "one seed has no interval")


def test_a_claim_may_be_about_every_outcome() -> None:
    assert set(get_args(MEASURES)) == set(OUTCOMES)


def test_every_pair_that_agrees_in_the_other_factors_is_tested(tmp_path: Path) -> None:
    for lr in (0.05, 0.2):
        crossed(tmp_path, {("bn", 0.0): 0.9, ("bn", 1e-3): 0.8}, lr=lr)
    found = ruled(tmp_path, {"expect": "lower"})
    pairs = [(row["of"], row["against"]) for row in found]
    assert pairs == [("bn l1=0.001 lr=0.05", "bn lr=0.05"), ("bn l1=0.001 lr=0.2", "bn lr=0.2")]


# Effects

DROPOUT = {"bn": -0.01, "gn": 0.03}  # what dropout=0.1 adds to the accuracy of each
SEEDS = {0: 0.001, 1: -0.001, 2: 0.0}
L1 = 0.02


@pytest.fixture
def factorial(tmp_path: Path) -> Path:
    for norm, l1, dropout, seed in itertools.product(DROPOUT, (0, 1e-4), (0.0, 0.1), SEEDS):
        acc = 0.9 + (0.02 if norm == "gn" else 0) + bool(dropout) * DROPOUT[norm] + bool(l1) * L1 + SEEDS[seed]
        made_up(tmp_path, norm, seed, test_acc=acc, images=1000, l1=l1, dropout=dropout, files=False)
    return tmp_path


def test_effects_are_those_that_were_put_in(factorial: Path) -> None:
    answers = asked(factorial, margin=0.5)
    table = questions_frame(answers).set_index("question")
    effects = {row["factor"]: row for row in table[table["kind"] == "effect"].to_dict("records")}
    assert effects["l1"]["difference_value"] == pytest.approx(100 * L1)
    assert effects["dropout"]["difference_value"] == pytest.approx(1)
    assert effects["norm"]["difference_value"] == pytest.approx(2 + 2)
    assert table.loc["gn dropout=0.1 − gn dropout=0", "difference_value"] == pytest.approx(3)
    assert table.loc["does the effect of norm depend on dropout?", "verdict"] == "depends"
    assert table.loc["does the effect of norm depend on l1?", "verdict"] == "equivalent"
    assert table.loc["bn dropout=0.1 − bn dropout=0", "verdict"] == "worse"
    assert (table["p_adjusted"] >= table["p"]).all()
    asked_again = Answers(answers.grouped, answers.study, 0.5, 0.01)
    for each in (answers, asked_again):
        needed = seeds_needed(each.model("test_acc"), 0.005, len(each.answers), each.alpha)
        assert each.seeds_needed == needed
    assert asked_again.seeds_needed > answers.seeds_needed
    told = findings(answers)  # a sentence per factor
    [l1] = [line for line in told if line.startswith("Against l1=0, averaged over norm and dropout: ")]
    assert "l1=0.0001 adds 2.00 points (" in l1
    assert "With every norm it is the same within ± 0.5." in l1
    [dropout] = [line for line in told if line.startswith("Against dropout=0")]
    assert "That depends on norm (p < 0.001 before adjustment)." in dropout


def test_the_control_is_the_studys(factorial: Path) -> None:
    table = questions_frame(asked(factorial, margin=0.5, control={"norm": "gn", "l1": 1e-4}))
    assert "bn − gn, mean of 4 settings" in set(table["question"])
    assert "l1=0 − l1=0.0001, mean of 4 settings" in set(table["question"])


def test_a_control_may_be_an_option_of_the_norm(tmp_path: Path) -> None:
    options = {"num_groups=1": {"num_groups": 1}, "num_groups=2": {"num_groups": 2}, "eps=0.1": {"eps": 0.1}}
    several(tmp_path, "gn", 1, options=[*options.values()])
    for control, (key, value) in {"num_groups=1": ("num_groups", 1), "eps=0.1": ("eps", 0.1)}.items():
        found = asked(tmp_path, control={f"norm.{key}": value}).declared
        assert all(control in each.control for each in found)
        assert len(found) == 2


def test_another_primary_outcome(factorial: Path) -> None:
    answers = asked(factorial, margin=0.005, primary="test_ce")
    table = questions_frame(answers).set_index("question")
    assert table.loc["l1=0.0001 − l1=0, mean of 4 settings", "difference_value"] == pytest.approx(-L1)
    assert table.loc["l1=0.0001 − l1=0, mean of 4 settings", "verdict"] == "better", "a lower cross-entropy is"
    assert "nats" in findings(answers)[0]


def test_settings_that_did_not_train_have_no_verdict(factorial: Path) -> None:
    made_up(factorial, "rms", 0, test_acc=0.92, images=1000, files=False)
    made_up(factorial, "rms", 1, test_acc=0.1, images=1000, files=False)
    answers = asked(factorial)
    assert not any("rms" in row for row in questions_frame(answers)["question"])
    assert any("Not every run trained with rms" in line for line in findings(answers))
