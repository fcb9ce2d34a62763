"""The linter beside results: every rule where it speaks, and beside that where it is silent."""

from pathlib import Path

import pytest
from conftest import REPOSITORY
from made_up_runs import crossed, made_up

from normlab.analysis.cells import sort
from normlab.analysis.questions import Answers
from normlab.analysis.table import runs
from normlab.lint import Finding, lint_results
from normlab.report import main
from normlab.settings import Study

EVEN = {("bn", 0.0): 0.9, ("bn", 1e-3): 0.9}


def found(folder: Path, margin: float | None = None) -> list[Finding]:
    return lint_results(Answers(sort(runs(folder)), None, margin or 0.05), margin=margin)


def said(folder: Path, code: str, margin: float | None = None) -> str:
    return " ".join(finding.message for finding in found(folder, margin) if finding.code == code)


def test_a_clean_study_has_no_warning(tmp_path: Path) -> None:
    crossed(tmp_path, EVEN)
    assert found(tmp_path) == []


def test_the_replication_is_told_what_it_is_told_before() -> None:
    """One learning rate. Its intervals are narrower than its margin; it draws a test curve and selects nothing."""
    folder = REPOSITORY / "lightning_logs" / "replication"
    study = Study.find(folder)
    assert study is not None
    answers = Answers(sort(runs(folder), study.factors), study, study.margin)
    told = lint_results(answers, margin=study.margin)
    assert [finding.code for finding in told] == ["learning-rate"]


def test_rules_about_settings_are_those_of_before(tmp_path: Path) -> None:
    for seed in range(5):
        made_up(tmp_path, "in", seed, test_acc=0.1)
        made_up(tmp_path, "bn", seed)
        made_up(tmp_path, "bn", seed, batch_size=2)
    assert "in batch_size=128: the network cannot leave chance" in said(tmp_path, "constant")
    assert said(tmp_path, "chance") == "", "that it did not goes without saying"
    assert "bn batch_size=2: statistics of one or two" in said(tmp_path, "batch")


def test_a_run_of_another_version_is_no_obstacle(tmp_path: Path) -> None:
    for seed in range(5):
        made_up(tmp_path, "bn", seed)
        made_up(tmp_path, "in", seed, test_acc=0.1)
    for file in tmp_path.rglob("in-*/result.json"):
        file.write_text(file.read_text().replace('"placement": "post"', '"placement": "around"'))
    assert said(tmp_path, "constant") == ""
    assert 'in placement="around"' in said(tmp_path, "chance") or "in" in said(tmp_path, "chance")


def test_unequal_parameters_are_told(tmp_path: Path) -> None:
    for seed in range(5):
        made_up(tmp_path, "none", seed, parameters=7466)
        made_up(tmp_path, "bn", seed)
        made_up(tmp_path, "bn", seed, l1=1e-3)
    assert said(tmp_path, "parameters") == "", "the control lacks 2 %"
    for seed in range(5):
        made_up(tmp_path, "ln_elem", seed, parameters=50_426)
    assert "7,466: none; 7,614: bn; 50,426: ln_elem" in said(tmp_path, "parameters")


def test_the_seed_studys_own_design_is_told_to_be_confounded(tmp_path: Path) -> None:
    crossed(tmp_path, {("bn", 1e-3): 0.9, ("ln", 0.0): 0.9, ("gn", 0.0): 0.9})
    assert "l1 changes only together with norm" in said(tmp_path, "confounded")
    crossed(tmp_path, {("bn", 0.0): 0.9})
    assert said(tmp_path, "confounded") == ""


def test_an_option_that_others_lack_is_not_confounded(tmp_path: Path) -> None:
    for seed in range(5):
        made_up(tmp_path, "bn", seed)
        made_up(tmp_path, "gn", seed)
        made_up(tmp_path / "one", "gn", seed, options={"num_groups": 1})
    assert said(tmp_path, "confounded") == "", "no other norm could have been crossed with it"


def test_selection_by_the_test_set(tmp_path: Path) -> None:
    for seed in range(5):
        for lr in (0.05, 0.1):
            made_up(tmp_path / "none_held_out", "bn", seed, lr=lr, val_size=0)
            made_up(tmp_path / "held_out", "bn", seed, lr=lr)
    assert "lr has several values" in said(tmp_path / "none_held_out", "selection")
    assert said(tmp_path / "held_out", "selection") == ""


def test_chance_is_told(tmp_path: Path) -> None:
    crossed(tmp_path, {("bn", 0.0): 0.9})
    made_up(tmp_path, "none", 0, test_acc=0.1)
    made_up(tmp_path, "none", 1, test_acc=0.9)
    assert said(tmp_path, "chance") == "none: the network never left chance with seed 0."


def test_lost_runs_are_told(tmp_path: Path) -> None:
    crossed(tmp_path, {("bn", 0.0): 0.9})
    made_up(tmp_path, "ln", 0)
    made_up(tmp_path, "ln", 1, status="diverged", error="the loss was not finite")
    made_up(tmp_path, "gn", 0, status="failed", error="no memory")
    made_up(tmp_path, "rms", 0, status="diverged", error="the loss was not finite")
    told = said(tmp_path, "lost")
    assert "ln: 1 of 2 runs diverged" in told
    assert "gn: no run completed; there" in told
    assert "rms: no run completed (1 diverged); there" in told
    assert "bn" not in told
    assert "ln: one seed, so no interval" in said(tmp_path, "seeds")


def test_few_seeds_are_told(tmp_path: Path) -> None:
    crossed(tmp_path, EVEN, seeds=4)
    assert said(tmp_path, "seeds").startswith("4 seeds per setting are too few")
    made_up(tmp_path, "bn", 4)
    made_up(tmp_path, "bn", 4, l1=1e-3)
    assert said(tmp_path, "seeds") == ""


def test_one_seed_is_told(tmp_path: Path) -> None:
    crossed(tmp_path, EVEN, seeds=1)
    for margin in (None, 0.5):
        assert said(tmp_path, "seeds", margin).startswith("One seed per setting: no interval")


def test_intervals_wider_than_the_margin(tmp_path: Path) -> None:
    """Means that do not differ; a run is one of 100 images right or wrong, and so are the intervals."""
    for seed, wobble in enumerate((-0.02, -0.01, 0, 0.01, 0.02)):
        made_up(tmp_path, "bn", seed, test_acc=0.9 + wobble)
        made_up(tmp_path, "bn", seed, test_acc=0.9, l1=1e-3)
    told = said(tmp_path, "seeds", 0.5)
    assert told.startswith("1 of 1 questions is undecided")
    assert "pp to either side, more than the margin of 0.5 pp" in told
    assert said(tmp_path, "seeds", 20) == "", "no wider than what is asked about"
    assert said(tmp_path, "seeds") == "", "nobody has asked about a difference"


def rates(folder: Path, accuracies: dict[tuple[str, float], float]) -> list[Finding]:
    for (norm, lr), acc in accuracies.items():
        for seed in range(5):
            made_up(folder, norm, seed, lr=lr, val_acc=acc + seed / 1000)
    return [finding for finding in found(folder) if finding.code == "learning-rate"]


def test_the_best_learning_rate_differs(tmp_path: Path) -> None:
    accs = {("bn", 0.1): 0.8, ("bn", 0.2): 0.9, ("bn", 0.4): 0.8, ("gn", 0.1): 0.7}
    (told,) = rates(tmp_path, accs | {("ln", 0.05): 0.8, ("ln", 0.1): 0.9, ("ln", 0.2): 0.8})
    assert "differs (0.1: ln; 0.2: bn)" in told.message, "gn was run at one lr only"
    assert not told.note


def test_the_best_learning_rate_is_the_same(tmp_path: Path) -> None:
    accs = {(norm, lr): acc for norm in ("bn", "ln") for lr, acc in ((0.05, 0.8), (0.1, 0.9), (0.2, 0.8))}
    (told,) = rates(tmp_path, accs | {("ln", 0.2): 0.9})
    assert told.message.startswith("bn, ln: lr=0.1 is the best"), "of two that are equal, the one that both have"
    assert told.note


def test_the_best_learning_rate_lies_at_the_edge(tmp_path: Path) -> None:
    told = rates(tmp_path, {("bn", 0.05): 0.8, ("bn", 0.1): 0.9})
    assert [finding.note for finding in told] == [True, False]
    assert told[1].message.startswith("bn: the best lr is the smallest or largest")


def test_learning_rates_without_held_out_images_are_not_ranked(tmp_path: Path) -> None:
    for seed in range(5):
        for lr in (0.05, 0.1):
            made_up(tmp_path, "bn", seed, lr=lr, val_size=0)
    assert said(tmp_path, "learning-rate") == ""


def test_norms_at_one_learning_rate(tmp_path: Path) -> None:
    crossed(tmp_path, {("bn", 0.0): 0.9, ("ln", 0.0): 0.9})
    assert "bn, ln are compared at one lr" in said(tmp_path, "learning-rate")


def test_a_run_without_predictions_is_told(tmp_path: Path) -> None:
    crossed(tmp_path, EVEN)
    next(tmp_path.rglob("predictions.npz")).unlink()
    assert "1 of 5 runs left no predictions" in said(tmp_path, "predictions")


def test_the_report_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the terminal and on the page: what is wrong as warnings, what is not among the findings."""
    rates(tmp_path, {(norm, lr): acc for norm in ("bn", "ln") for lr, acc in ((0.1, 0.9), (0.2, 0.8))})
    assert main([str(tmp_path), "--no-figures"]) == 0
    told = capsys.readouterr().out
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    warnings, _, findings = told.rpartition("Warnings")[2].rpartition("\n\n")[0].partition("\n\n")
    assert "lr=0.1 is the best" in findings, "the finding stands last in the terminal"
    assert "smallest or largest that was run" in warnings
    assert "lr=0.1 is the best" not in warnings
    findings, _, warnings = page.rpartition("Warnings")
    assert "lr=0.1 is the best" in findings
    assert "smallest or largest that was run" in warnings


def test_a_report_without_warnings_has_no_heading_for_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crossed(tmp_path, EVEN)
    assert main([str(tmp_path), "--no-figures"]) == 0
    assert "Warnings" not in capsys.readouterr().out
    assert "<h2>Warnings" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_rate_at_which_a_run_diverged_is_not_the_best(tmp_path: Path) -> None:
    """The seeds that are left flatter it; the table of learning rates leaves it out too."""
    for seed in (0, 1):
        for lr, val in ((0.01, 0.90), (0.1, 0.95), (1.0, 0.97)):
            lost = lr == 1.0 and seed == 1
            made_up(tmp_path, "bn", seed, test_acc=0.9, val_acc=val, lr=lr, status="diverged" if lost else "completed")
    told = [
        finding.message
        for finding in lint_results(Answers(sort(runs(tmp_path)), None, 0.5))
        if finding.code == "learning-rate"
    ]
    assert any("lr=0.1 is the best" in message for message in told), told
