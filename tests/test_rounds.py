"""Studies that end by themselves: what they save, how often they err, and that killing them changes nothing."""

from pathlib import Path

import numpy as np
import pytest
from scipy import special

from normlab.analysis.cells import Cell, Sorted
from normlab.analysis.rounds import Rounds
from normlab.analysis.sequential import looks, sequential_p
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


@pytest.mark.parametrize("gap", [0.0, MARGIN])
def test_any_false_verdict_is_rare_although_it_looks_after_every_round(gap: float) -> None:
    rng = np.random.default_rng(7)
    errors, studies = 0, 120
    for _ in range(studies):
        _, verdicts = followed({"bn": 99.4, "ln": 99.4 + gap, "gn": 99.4}, rng, most=20)
        wrong = {
            "ln − bn": {"worse", "better", "less than the margin"}
            if not gap
            else {"worse", "equivalent", "less than the margin"},
            "gn − bn": {"worse", "better", "less than the margin"},
        }
        errors += any(verdicts[label] in of for label, of in wrong.items())
    assert errors <= 13, f"{errors} of {studies}"  # the 99.9 % point of 5 %


def test_a_pair_at_twice_the_margin_takes_two_fifths_of_the_seeds_of_a_fixed_design() -> None:
    """20,000 studies of one pair, at the level that a family of 15 questions leaves it; a fixed design needs `most`."""
    level, rng, sd = 0.05 / 15, np.random.default_rng(11), MARGIN

    def power_of(n: int) -> float:
        df, shift = 2 * (n - 1), MARGIN / (sd * np.sqrt(2 / n))
        return float(special.nctdtr(df, -shift, special.stdtrit(df, level / 2)))

    most = next(n for n in range(3, 200) if power_of(n) >= 0.8)
    every = looks(most)
    a, b = rng.normal(2 * MARGIN, sd, (20_000, most)), rng.normal(0, sd, (20_000, most))
    critical = {n: _critical(level / 2, n, most) for n in every}
    seeds, found = np.full(20_000, most), np.zeros(20_000, dtype=bool)
    for n in every:
        x, y = a[:, :n], b[:, :n]
        se = np.sqrt((x.var(1, ddof=1) + y.var(1, ddof=1)) / n)
        p = special.stdtr(2 * (n - 1), -(x.mean(1) - y.mean(1)) / se)
        now = ~found & (p <= critical[n])
        seeds[now], found[now] = n, True
    assert found.mean() >= 0.8
    assert seeds.mean() <= 0.4 * most, (seeds.mean(), most)


def _critical(level: float, n: int, most: int) -> float:
    """The largest one-sided p that rejects at a look."""
    low, high = 1e-12, 0.5
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if sequential_p([middle], [n], most) <= level else (low, middle)
    return low
