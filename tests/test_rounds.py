"""Studies that end by themselves: what they save, how often they err, and that killing them changes nothing."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks import verdicts
from normlab.analysis.cells import Cell, Sorted
from normlab.analysis.rounds import Rounds
from normlab.analysis.table import Run
from normlab.record import Record
from normlab.settings import Study

MARGIN, SD = 0.1, 0.05  # percentage points, as of MNIST


def study_of(means: dict[str, float], seeds: dict[str, int], draws: dict[str, np.ndarray]) -> Sorted:
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
    return Sorted(tuple(cells), ("norm",), "mnist", ())


def followed(
    means: dict[str, float], rng: np.random.Generator, most: int = 40
) -> tuple[dict[str, int], dict[str, str]]:
    """Train as a study asks for it; return the seeds of each setting and the verdicts."""
    draws = {norm: rng.normal(size=most) for norm in means}
    rounds, seeds = Rounds(Study(question="?", margin=MARGIN), MARGIN, range(most)), dict.fromkeys(means, 0)
    while True:
        progress = rounds.progress(study_of(means, seeds, draws))
        if progress.finished:
            return seeds, {each.label: each.decision.verdict for each in progress.answers}
        assert progress.seeds != seeds
        seeds = progress.seeds


def test_a_large_difference_ends_early_and_gives_its_seeds_to_the_others() -> None:
    seeds, verdicts = followed({"bn": 99.4, "ln": 98.0, "gn": 99.45}, np.random.default_rng(0))
    assert verdicts["ln − bn"] == "worse"
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


def test_a_pair_at_twice_the_margin_takes_two_fifths_of_the_seeds_of_a_fixed_design() -> None:
    """20,000 studies of one pair, at the level that a family of 15 questions leaves it; both have 80 % power at the
    margin."""
    n = next(n for n in range(3, 200) if verdicts.fixed_power(n, 1.0) >= 0.8)
    assert verdicts.followed_pair(35, 1.0, 20_000, seed=1)[1].mean() >= 0.8
    seeds, found = verdicts.followed_pair(35, 2.0, 20_000, seed=2)
    assert found.mean() > 0.999
    assert seeds.mean() <= 0.4 * n, (seeds.mean(), n)


@pytest.mark.slow
@pytest.mark.parametrize("truth", ["all equal", "all at the margin"])
def test_any_false_verdict_is_rare_although_it_looks_after_every_round(truth: str) -> None:
    """600 studies like `replication`; one of 5 % fails here with a probability of 0.001."""
    row = next(verdicts.study(np.random.default_rng(7), 600, truth, "as it is", 15))
    assert row["value"] <= stats.binom.ppf(0.999, 600, 0.05) / 600


def test_designs_that_ask_for_more_seeds_take_more() -> None:
    def seeds(design: str) -> float:
        _, taken, *_ = verdicts.study(np.random.default_rng(7), 5, verdicts.STUDIES[1], design, 6)
        return float(taken["value"])

    assert seeds("as it is") <= seeds("interactions ask for seeds") <= seeds("settings are not dropped") == 6
    assert seeds("as it is") < 6
