"""The simulation of thousands of studies: it computes what the package does, and any false verdict is rare in it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY
from scipy import stats

from benchmarks import simulated, verdicts
from benchmarks.verdicts import BASE, CELLS, KINDS, MARGIN, SD, TRUTHS
from normlab.analysis.cells import Cell, Sorted
from normlab.analysis.declared import ALPHA
from normlab.analysis.questions import Answers
from normlab.analysis.rounds import Rounds
from normlab.analysis.table import Run
from normlab.record import Record
from normlab.settings import Study

STUDY = Study(question="?", margin=100 * MARGIN, control={"norm": "bn", "l1": 0})


def study_of(values: Sequence[np.ndarray]) -> Sorted:
    """So many runs of each of the six settings."""
    cells = []
    for label, accuracies in zip(CELLS, values, strict=True):
        levels = {"norm": label[:2], "l1": 1e-3 if "l1" in label else 0}
        config, ended = levels | {"data": "mnist", "epochs": 1}, []
        for seed, acc in enumerate(accuracies):
            record = Record(
                status="completed", config=config, config_hash="", setting=levels, seed=seed,
                metrics={"test_acc": float(acc)}, data={"test": 10_000},
            )  # fmt: skip
            ended.append(Run(Path("nowhere"), record, config))
        cells.append(Cell(label, label[:2], levels, tuple(ended)))
    return Sorted(tuple(cells), ("norm", "l1"), "mnist", ())


@pytest.fixture(scope="module")
def family() -> simulated.Family:
    return verdicts.real(False)[1]


@pytest.mark.parametrize("seeds", [3, 8])
def test_it_is_the_packages_own_inference(seeds: int, family: simulated.Family) -> None:
    """Studies with alike and unlike variances, differences and without, paired by seed and not."""
    rng = np.random.default_rng(seeds)
    for trial in range(8):
        noise = rng.normal(size=(1, 6, seeds)) * np.geomspace(1, 1 + 3 * (trial % 3), 6)[:, None]
        shared = 2 * (trial % 4 == 0) * rng.normal(size=seeds)
        values = np.clip(BASE + SD * (noise + shared) + MARGIN * rng.integers(-3, 3, (6, 1)), 0, 1)
        answers = Answers(study_of(values[0]), STUDY, STUDY.margin)
        _, [p] = family.sides([simulated.fit(values, np.full((1, 6), seeds), 1e-4, logit=True)])
        np.testing.assert_allclose(p, [each.decision.p for each in answers.answers], rtol=1e-7, atol=1e-300)
        adjusted = [each.decision.adjusted for each in answers.answers]
        np.testing.assert_allclose(simulated.holm(p[None])[0], adjusted, rtol=1e-7, atol=1e-300)


def test_it_is_until_decided(family: simulated.Family) -> None:
    most = 15
    values = verdicts.accuracies(np.random.default_rng(8), "normal", TRUTHS["mixed"], 1, most)
    seeds, rejected, _ = simulated.follow(family, [simulated.Draws(values)], most)
    for own, expected, decided in zip(values, seeds, rejected, strict=True):
        rounds, wanted = Rounds(STUDY, STUDY.margin, range(most)), dict.fromkeys(CELLS, 0)
        while not (
            progress := rounds.progress(study_of([x[: wanted[c]] for c, x in zip(CELLS, own, strict=True)]))
        ).finished:
            wanted = progress.seeds
        assert list(wanted.values()) == expected.tolist()
        found = [[p <= ALPHA for p in each.decision.adjusted] for each in progress.answers]
        assert found == decided.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("truth", list(TRUTHS)[:3])
def test_any_false_verdict_of_a_study_is_rare(kind: str, truth: str) -> None:
    """1,000 studies with 3 seeds, 1,000 with 5; if all had 6 %, this would fail with a probability of 0.001 in all."""
    for seeds in (3, 5):
        [row] = verdicts.errors(
            np.random.default_rng([seeds, *kind.encode(), *truth.encode()]), 1000, kind, truth, seeds
        )
        assert row["value"] <= stats.binom.ppf(1 - 0.001 / (2 * 3 * len(KINDS)), 1000, 0.06) / 1000


def test_the_document_has_the_tables_of_the_simulation() -> None:
    text = (REPOSITORY / "docs" / "inference.md").read_text(encoding="utf-8")
    for table in verdicts.tables(pd.read_csv(REPOSITORY / "docs" / "verdicts.csv")).split("\n\n"):
        assert table in text
