"""The linter beside results: every rule where it speaks, and beside that where it is silent."""

import itertools
import re
from pathlib import Path

import numpy as np
from conftest import REPOSITORY
from made_up_runs import crossed, made_up, several

from normlab.analysis.cells import group_runs
from normlab.analysis.questions import Answers
from normlab.analysis.table import runs
from normlab.compared import compare
from normlab.lint import Finding, lint_results
from normlab.report import main
from normlab.settings import Study

EVEN = {("bn", 0.0): 0.9, ("bn", 1e-3): 0.9}


def found(folder: Path, margin: float | None = None) -> list[Finding]:
    return lint_results(Answers(group_runs(runs(folder)), None, margin or 0.05), margin=margin)


def messages(folder: Path, code: str, margin: float | None = None) -> str:
    return " ".join(finding.message for finding in found(folder, margin) if finding.code == code)


def test_a_clean_study_has_no_warning(tmp_path: Path) -> None:
    crossed(tmp_path, EVEN)
    assert found(tmp_path) == []


def test_the_replication_has_no_warning() -> None:
    """It draws a test curve and selects nothing, and what it leaves undecided is known to less than the margin."""
    folder = REPOSITORY / "lightning_logs" / "replication"
    study = Study.find(folder)
    assert study is not None
    answers = Answers(group_runs(runs(folder), study.factors), study, study.margin)
    assert [each.code for each in lint_results(answers, margin=study.margin)] == []


def test_rules_about_settings_are_those_of_before(tmp_path: Path) -> None:
    several(tmp_path, "in", test_acc=0.1)
    several(tmp_path, batch_size=[128, 2])
    assert "in batch_size=128: the network cannot leave chance" in messages(tmp_path, "NL001")
    assert messages(tmp_path, "NL015") == "", "that it did not goes without saying"
    assert "bn batch_size=2: statistics of one or two" in messages(tmp_path, "NL004")


def test_a_run_of_another_version_is_no_obstacle(tmp_path: Path) -> None:
    several(tmp_path)
    several(tmp_path, "in", test_acc=0.1)
    for file in tmp_path.rglob("in-*/result.json"):
        file.write_text(file.read_text().replace('"placement": "post"', '"placement": "around"'))
    assert messages(tmp_path, "NL001") == ""
    assert "in" in messages(tmp_path, "NL015")


def test_unequal_parameters_are_warned(tmp_path: Path) -> None:
    several(tmp_path, "none", parameters=7466)
    several(tmp_path, l1=[0.0, 1e-3])
    assert messages(tmp_path, "NL006") == "", "the control lacks 2 %"
    several(tmp_path, "ln_elem", parameters=50_426)
    assert "7,466: none; 7,614: bn; 50,426: ln_elem" in messages(tmp_path, "NL006")


def test_the_seed_studys_own_design_is_warned_to_be_confounded(tmp_path: Path) -> None:
    crossed(tmp_path, {("bn", 1e-3): 0.9, ("ln", 0.0): 0.9, ("gn", 0.0): 0.9})
    assert "l1 changes only together with norm" in messages(tmp_path, "NL007")
    crossed(tmp_path, {("bn", 0.0): 0.9})
    assert messages(tmp_path, "NL007") == ""


def test_an_option_that_others_lack_is_not_confounded(tmp_path: Path) -> None:
    several(tmp_path, "bn gn")
    several(tmp_path / "one", "gn", options={"num_groups": 1})
    assert messages(tmp_path, "NL007") == "", "no other norm could have been crossed with it"


def test_selection_by_the_test_set(tmp_path: Path) -> None:
    several(tmp_path / "none_held_out", lr=[0.05, 0.1], val_size=0)
    several(tmp_path / "held_out", lr=[0.05, 0.1])
    assert "lr has several values" in messages(tmp_path / "none_held_out", "NL008")
    assert messages(tmp_path / "held_out", "NL008") == ""


def test_chance_is_warned(tmp_path: Path) -> None:
    crossed(tmp_path, {("bn", 0.0): 0.9})
    made_up(tmp_path, "none", 0, test_acc=0.1)
    made_up(tmp_path, "none", 1, test_acc=0.9)
    assert messages(tmp_path, "NL015") == "none: the network never left chance with seed 0."


def test_lost_runs_are_warned(tmp_path: Path) -> None:
    crossed(tmp_path, {("bn", 0.0): 0.9})
    made_up(tmp_path, "ln", 0)
    made_up(tmp_path, "ln", 1, status="diverged", error="the loss was not finite")
    made_up(tmp_path, "gn", 0, status="failed", error="no memory")
    made_up(tmp_path, "rms", 0, status="diverged", error="the loss was not finite")
    warned = messages(tmp_path, "NL014")
    assert "ln: 1 of 2 runs diverged" in warned
    assert "gn: no run completed; there" in warned
    assert "rms: no run completed (1 diverged); there" in warned
    assert "bn" not in warned
    assert "ln: one seed, so no interval" in messages(tmp_path, "NL011")


def test_one_seed_is_warned_of(tmp_path: Path) -> None:
    crossed(tmp_path, EVEN, seeds=1)
    for margin in (None, 0.5):
        assert messages(tmp_path, "NL011", margin).startswith("One seed per setting: no interval")


def test_intervals_wider_than_the_margin(tmp_path: Path) -> None:
    """Means that do not differ; a run is one of 100 images right or wrong, and so are the intervals."""
    for seed, wobble in enumerate((-0.02, -0.01, 0, 0.01, 0.02)):
        made_up(tmp_path, "bn", seed, test_acc=0.9 + wobble)
        made_up(tmp_path, "bn", seed, test_acc=0.9, l1=1e-3)
    warned = messages(tmp_path, "NL013", 0.5)
    [answer] = compare(tmp_path, margin=0.5).answers.answers
    assert answer.estimate is not None
    low, high = answer.estimate.interval(0.95)
    reach = f"{100 * (high - low) / 2:.2f} pp to either side, more than the margin of 0.5 pp."
    assert warned.startswith(f"1 of 1 questions is undecided, and the 95 % interval reaches {reach}")
    assert messages(tmp_path, "NL013", 20) == "", "no wider than what is asked about"
    assert messages(tmp_path, "NL013") == "", "nobody has asked about a difference"
    for seed, acc in enumerate((0.9, 0.94)):
        made_up(tmp_path, "ln", seed, test_acc=acc)
    told = r"2 of 2 questions are undecided, and the 95 % interval reaches \d+\.\d\d to \d+\.\d\d pp to"
    assert re.match(told, messages(tmp_path, "NL013", 0.5))


def test_of_undecided_questions_it_says_which_are_too_wide(tmp_path: Path) -> None:
    for seed, wobble in enumerate((-0.02, -0.01, 0, 0.01, 0.02)):
        made_up(tmp_path, "bn", seed, test_acc=0.9 + wobble)
        made_up(tmp_path, "bn", seed, test_acc=0.885, l1=1e-3)
    for seed, acc in enumerate((0.9, 0.94)):
        made_up(tmp_path, "ln", seed, test_acc=acc)
    estimates = [each.estimate for each in compare(tmp_path, margin=0.5).answers.answers]
    narrow, wide = sorted(50 * np.ptp(estimate.interval(0.95)) for estimate in estimates if estimate)
    told = f"2 of 2 questions are undecided; in 1 of them the 95 % interval reaches {wide:.2f} pp to"
    assert messages(tmp_path, "NL013", 1.01 * narrow).startswith(told)


def rates(folder: Path, accuracies: dict[tuple[str, float], float]) -> dict[str, str]:
    for (norm, lr), acc in accuracies.items():
        for seed in range(5):
            made_up(folder, norm, seed, lr=lr, val_acc=acc + seed / 1000)
    return {finding.code: finding.message for finding in found(folder)}


def test_the_best_learning_rate_differs(tmp_path: Path) -> None:
    accs = {("bn", 0.1): 0.8, ("bn", 0.2): 0.9, ("bn", 0.4): 0.8, ("gn", 0.1): 0.7}
    warned = rates(tmp_path, accs | {("ln", 0.05): 0.8, ("ln", 0.1): 0.9, ("ln", 0.2): 0.8})
    assert "differs (0.1: ln; 0.2: bn)" in warned["NL016"], "gn was run at one lr only"
    assert "NL017" not in warned


def test_the_best_learning_rate_is_the_same(tmp_path: Path) -> None:
    accs = {(norm, lr): acc for norm in ("bn", "ln") for lr, acc in ((0.05, 0.8), (0.1, 0.9), (0.2, 0.8))}
    assert rates(tmp_path, accs | {("ln", 0.2): 0.9}) == {}, "of two that are equal, both are best"


def test_the_best_learning_rate_lies_at_the_edge(tmp_path: Path) -> None:
    warned = rates(tmp_path, {("bn", 0.05): 0.8, ("bn", 0.1): 0.9})
    assert [*warned] == ["NL017"]
    assert warned["NL017"].startswith("bn: the best lr is the smallest or largest")


def test_a_rate_at_which_a_run_diverged_is_not_the_best(tmp_path: Path) -> None:
    """The seeds that are left flatter it; the table of learning rates leaves it out too."""
    for norm, seed in itertools.product(("bn", "ln"), (0, 1)):
        for lr, val in ((0.01, 0.90), (0.1, 0.95), (0.3, 0.93), (1.0, 0.97 if norm == "bn" else 0.97 - 1 / 9)):
            status = "diverged" if (norm, lr, seed) == ("bn", 1.0, 1) else "completed"
            made_up(tmp_path, norm, seed, val_acc=val, lr=lr, status=status)
    assert not {"NL016", "NL017"} & {finding.code for finding in found(tmp_path)}


def test_learning_rates_without_held_out_images_are_not_ranked(tmp_path: Path) -> None:
    several(tmp_path, lr=[0.05, 0.1], val_size=0)
    assert {finding.code for finding in found(tmp_path)} == {"NL008"}


def test_norms_at_one_learning_rate(tmp_path: Path) -> None:
    crossed(tmp_path, {("bn", 0.0): 0.9, ("none", 0.0): 0.9})
    assert "was 0.03 for none" in messages(tmp_path, "NL009")


def test_predictions_of_other_images_are_reported(tmp_path: Path) -> None:
    crossed(tmp_path, EVEN)
    missing = next(tmp_path.rglob("predictions.npz"))
    missing.unlink()
    assert messages(tmp_path, "NL018").startswith("1 of 10 runs (bn) left no predictions of the same test images")
    made_up(tmp_path, "ln", 0, images=90)
    assert messages(tmp_path, "NL018").startswith("2 of 11 runs (bn, ln)")


def test_several_machines(tmp_path: Path) -> None:
    crossed(tmp_path, EVEN)
    file = next(tmp_path.rglob("result.json"))
    file.write_text(file.read_text().replace("2.15.0", "2.14.0"))
    assert messages(tmp_path, "NL019") == "The runs were made with more than one version of torch (2.14.0, 2.15.0)."


def test_the_report_prints_codes_and_leaves_out_what_is_ignored(tmp_path: Path, capsys, refused) -> None:
    rates(tmp_path, {(norm, lr): acc for norm in ("bn", "ln") for lr, acc in ((0.1, 0.9), (0.2, 0.8))})
    assert main([str(tmp_path), "--no-figures"]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for text in (capsys.readouterr().out, page):
        assert "NL017: bn, ln: the best lr is the smallest or largest that was run" in text
    assert main([str(tmp_path), "--no-figures", "--ignore", "NL017,NL012"]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Warnings" not in capsys.readouterr().out
    assert "<h2>Warnings" not in page
    assert "--ignore NL017,NL012" in page, "the command that makes the page names what it leaves out"
    told = refused(main, [str(tmp_path), "--no-figures", "--ignore", "NL17"])
    assert told == "normlab: ignore NL17: no such rule; did you mean NL017?\n"
