"""Studies that end by themselves: what they save, how often they err, and that killing them changes nothing."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from made_up_runs import made_up

from benchmarks import verdicts
from normlab.analysis.cells import Cell, RunsBySetting, group_runs
from normlab.analysis.parts.claims import claims_frame
from normlab.analysis.parts.effects import methods
from normlab.analysis.projection import numbers
from normlab.analysis.rounds import Rounds, answers_of
from normlab.analysis.table import Run, runs
from normlab.compared import compare
from normlab.record import Record
from normlab.settings import Claim, Study

MARGIN, SD = 0.1, 0.05  # percentage points, as of MNIST


def study_of(means: dict[str, float], seeds: dict[str, int], draws: dict[str, np.ndarray]) -> RunsBySetting:
    """So many runs of each norm, whose accuracies were drawn before."""
    cells = []
    for norm, mean in means.items():
        ended = []
        for seed in range(seeds[norm]):
            acc = (mean + SD * float(draws[norm][seed])) / 100
            config = {"norm": norm, "data": "mnist", "epochs": 1}
            record = Record(
                status="completed", config=config, config_hash="", setting={"norm": norm}, seed=seed,
                metrics={"test_acc": acc}, data={"test": 10_000},
            )  # fmt: skip
            ended.append(Run(Path("nowhere"), record, config))
        cells.append(Cell(norm, norm, {"norm": norm}, tuple(ended)))
    return RunsBySetting(tuple(cells), ("norm",), "mnist", ())


def test_a_large_difference_ends_early_and_gives_its_seeds_to_the_others() -> None:
    means, rng = {"bn": 99.4, "ln": 98.0, "gn": 99.45}, np.random.default_rng(0)
    draws = {norm: rng.normal(size=40) for norm in means}
    rounds, seeds = Rounds(Study(question="?", margin=MARGIN), MARGIN, range(40)), dict.fromkeys(means, 0)
    while not (progress := rounds.progress(study_of(means, seeds, draws))).finished:
        assert progress.seeds != seeds
        seeds = progress.seeds
    assert {each.label: each.decision.verdict for each in progress.answers}["ln − bn"] == "worse"
    assert seeds["ln"] < seeds["gn"] == seeds["bn"] <= 40


def test_killed_at_any_moment_it_decides_the_same() -> None:
    """Every whole or half look on the way leads to the same end, whoever begins there."""
    means, most = {"bn": 99.4, "ln": 99.5, "gn": 99.0}, 30
    rng = np.random.default_rng(2)
    draws = {norm: rng.normal(size=most) for norm in means}

    def new() -> Rounds:
        return Rounds(Study(question="?", margin=MARGIN), MARGIN, range(most))

    whole, seeds, path = new(), dict.fromkeys(means, 0), []
    while not (progress := whole.progress(study_of(means, seeds, draws))).finished:
        path.append(dict(progress.seeds))
        seeds = progress.seeds
    verdicts = [each.decision for each in progress.answers]
    for wanted in path[:-1]:
        assert new().progress(study_of(means, wanted, draws)).seeds == path[path.index(wanted) + 1]
        half = wanted | {"gn": max(0, wanted["gn"] - 1)}
        assert new().progress(study_of(means, half, draws)).seeds in (wanted, path[path.index(wanted) + 1])
    again = new().progress(study_of(means, seeds, draws))
    assert again.finished
    assert [each.decision for each in again.answers] == verdicts


def test_a_report_counts_the_looks_that_were_taken(tmp_path: Path) -> None:
    """At the third look p is larger than looking once would have it; runs without `until` have been looked at once."""
    for norm, mean in (("bn", 0.95), ("ln", 0.9545)):
        for seed in range(5):
            acc = mean + 0.004 * float(np.cos(3 * seed + (norm == "ln")))
            for folder, until in (("once", None), ("looks", "decided")):
                made_up(tmp_path / folder, norm, seed, test_acc=acc, images=10_000, until=until, max_seeds=12)
    once, looks = (compare(tmp_path / name).answers for name in ("once", "looks"))
    [one], [several] = once.answers, looks.answers
    assert several.numbers == pytest.approx(one.numbers)
    p = [each.decision.adjusted[0] for each in (one, several)]
    assert p[0] < p[1] < 1, p
    rounds = Rounds(None, 0.1, range(12))
    assert [each.decision for each in rounds.progress(looks.grouped_all).answers] == [several.decision]
    assert "up to 12 per setting" in methods(looks)["looks"]
    assert "looks" not in methods(once)
    assert numbers(looks)["rows"] == {}, "the dials of the page would count one look"
    assert numbers(once)["rows"]


def test_a_report_at_its_last_look_knows_the_study(tmp_path: Path) -> None:
    """Its claims, and against what its settings are compared."""
    for norm, acc in {"bn": 0.95, "ln": 0.94, "gn": 0.93}.items():
        for seed in range(3):
            made_up(tmp_path, norm, seed, test_acc=acc + 0.001 * seed, images=10_000, until="decided", max_seeds=3)
    pair = {"of": {"norm": "ln"}, "against": {"norm": "gn"}}
    claim = Claim.model_validate({"claim": "c", "source": "s", "expect": "higher"} | pair)
    study = Study(question="?", margin=0.1, claims=[claim], control={"norm": "gn"})
    found = answers_of(group_runs(runs(tmp_path)), study, 0.1)
    [row] = claims_frame(found).to_dict("records")
    assert (row["of"], row["against"]) == ("ln", "gn")
    assert row["ruling"] != "untested"
    assert {each.label for each in found.answers} == {"bn − gn", "ln − gn"}


def test_a_look_that_lacks_a_seed_is_none_whatever_came_later(tmp_path: Path) -> None:
    """Seeds 0, 1, 2 and 4 of both: a report is of the look at three seeds."""
    for seed in (0, 1, 2, 4):
        for norm in ("bn", "ln"):
            acc = 0.95 + 0.004 * float(np.cos(3 * seed + (norm == "ln")))
            made_up(tmp_path, norm, seed, test_acc=acc, images=10_000, until="decided", max_seeds=12)
    [with_four] = compare(tmp_path).answers.answers
    for folder in tmp_path.glob("*-seed_4"):
        shutil.rmtree(folder)
    [with_three] = compare(tmp_path).answers.answers
    assert with_four.numbers == with_three.numbers


def test_of_what_is_tuned_only_the_best_gets_more_seeds() -> None:
    """Three rates of each norm, one look at all of them; then the rate that validation chose goes on alone."""
    draws = np.random.default_rng(3).normal(size=(6, 20))
    study, most = Study(question="?", margin=MARGIN, factors=["norm", "lr"], tune="lr"), 20

    def runs(seeds: dict[str, int]) -> RunsBySetting:
        cells = []
        for at, (norm, lr) in enumerate((norm, lr) for norm in ("bn", "ln") for lr in (0.01, 0.1, 1.0)):
            label, ended = f"{norm} lr={lr:g}", []
            for seed in range(seeds.get(label, 3)):
                acc = (99.5 - (lr != 0.1) + SD * float(draws[at, seed])) / 100
                config = {"norm": norm, "lr": lr, "data": "mnist", "epochs": 1}
                record = Record(
                    status="completed", config=config, config_hash="", setting={"norm": norm}, seed=seed,
                    metrics={"test_acc": acc, "val_acc": acc}, data={"test": 10_000},
                )  # fmt: skip
                ended.append(Run(Path("nowhere"), record, config))
            cells.append(Cell(label, norm, {"norm": norm, "lr": lr}, tuple(ended)))
        return RunsBySetting(tuple(cells), ("norm", "lr"), "mnist", ())

    rounds, seeds = Rounds(study, MARGIN, range(most)), dict[str, int]()
    while not (progress := rounds.progress(runs(seeds))).finished:
        seeds = progress.seeds
    assert seeds.pop("bn lr=0.1") == seeds.pop("ln lr=0.1") > 3
    assert set(seeds.values()) == {3}
    assert [each.label for each in progress.answers] == ["ln − bn"]


def test_a_pair_at_twice_the_margin_takes_two_fifths_of_the_seeds_of_a_fixed_design() -> None:
    """20,000 studies of one pair, at the level that a family of 15 questions leaves it; both have 80 % power at the
    margin."""
    n = next(n for n in range(3, 200) if verdicts.fixed_power(n, 1.0) >= 0.8)
    assert verdicts.followed_pair(35, 1.0, 20_000, seed=1)[1].mean() >= 0.8
    seeds, found = verdicts.followed_pair(35, 2.0, 20_000, seed=2)
    assert found.mean() > 0.999
    assert seeds.mean() <= 0.4 * n, (seeds.mean(), n)


def test_designs_that_ask_for_more_seeds_take_more() -> None:
    def seeds(design: str) -> float:
        _, taken, *_ = verdicts.study(np.random.default_rng(7), 5, verdicts.STUDIES[1], design, 6)
        return float(taken["value"])

    assert seeds("as it is") <= seeds("interactions ask for seeds") <= seeds("settings are not dropped") == 6
    assert seeds("as it is") < 6
