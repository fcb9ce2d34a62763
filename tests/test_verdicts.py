"""Any false verdict of a study is rare, by simulation; and the document has what was simulated."""

import itertools

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY
from scipy import stats

from benchmarks import drawn, verdicts
from benchmarks.drawn import KINDS, TRUTHS

STUDIES = 1000
CASES = list(itertools.product(KINDS, list(TRUTHS)[:3], (3, 5)))


@pytest.mark.parametrize(("kind", "truth", "seeds"), CASES)
def test_any_false_verdict_of_a_study_is_rare(kind: str, truth: str, seeds: int) -> None:
    """If all had 6 %, this would fail with a probability of 0.001 in all."""
    rng = np.random.default_rng([seeds, *kind.encode(), *truth.encode()])
    [row] = verdicts.errors(rng, STUDIES, kind, truth, seeds)
    assert row["value"] <= stats.binom.ppf(1 - 0.001 / len(CASES), STUDIES, 0.06) / STUDIES


def test_a_false_verdict_is_known_as_one() -> None:
    """Two settings that are alike have a difference, and two that are apart are equivalent, by what is said of them."""
    family, means = drawn.real(False), {"test_acc": np.full(6, 0.99)}
    draws = [drawn.Draws("test_acc", np.linspace(0.98, 0.99, 6)[None, :, None] + 1e-4 * np.arange(4))]
    [answers] = drawn.answered(draws, claims=False)
    pairs = list(zip(family.declared, answers, strict=True))
    assert all(each.decision.verdict in ("better", "worse") for each in answers if each.kind != "interaction")
    assert all(drawn.false(*pair, means) for pair in pairs if pair[1].kind != "interaction")
    true = {"test_acc": draws[0].values[0].mean(-1)}
    assert not any(drawn.false(*pair, true) for pair in pairs)
    assert drawn.any_false([answers], means, claims=False).tolist() == [True]


def test_the_document_has_the_tables_of_the_simulation() -> None:
    text = (REPOSITORY / "docs" / "inference.md").read_text(encoding="utf-8")
    for table in verdicts.tables(pd.read_csv(REPOSITORY / "docs" / "verdicts.csv")).split("\n\n"):
        assert table in text
