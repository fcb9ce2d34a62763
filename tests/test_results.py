"""The results that come with the repository: they are what the study asks for, and the README says what they say."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY
from recomputed import contrast
from recomputed import read as read_again

from normlab.analysis import read
from normlab.analysis.cells import sort
from normlab.analysis.parts.settings import settings
from normlab.analysis.questions import Answers
from normlab.analysis.table import runs
from normlab.record import Record
from normlab.report import main
from normlab.settings import Study, flatten
from normlab.settings.plan import plan

RESULTS = REPOSITORY / "lightning_logs" / "replication"
TABLES = ("summary", "effects", "pairs", "claims", "errors", "overlap", "times")


def test_every_run_of_the_study_is_there_and_read() -> None:
    """They are of version 0.1, before nets and optimizers were settings: a report sorts them as it did then."""
    cells: dict[tuple[object, object], set[int]] = {}
    for job in plan(["study=replication"], multirun=False):
        folder = RESULTS / job.folder.name
        record = Record.load(folder)
        assert record.done
        assert (record.setting["norm"], record.setting["l1"]) == (job.settings.norm.name, job.settings.l1)
        assert {
            key for key, value in flatten(record.config).items() if job.settings.flat().get(key, value) != value
        } == {"accelerator"}
        cells.setdefault((record.setting["norm"], record.setting["l1"]), set()).add(record.seed)
        assert {"metrics.csv", "predictions.npz"} <= {file.name for file in folder.iterdir()}
    assert list(cells.values()) == [set(range(5))] * 6


def test_the_study_beside_them_is_the_one_of_conf() -> None:
    assert Study.find(RESULTS) == Study.named("replication")


def test_the_report_makes_the_same_tables_again(tmp_path: Path) -> None:
    copy = tmp_path / "replication"
    shutil.copytree(RESULTS, copy, ignore=shutil.ignore_patterns("figures", "events*", *[f"{t}.csv" for t in TABLES]))
    assert main([str(copy), "--no-figures"]) == 0
    for table in TABLES:
        assert (copy / f"{table}.csv").read_bytes() == (RESULTS / f"{table}.csv").read_bytes(), table


def test_an_independent_script_finds_the_same() -> None:
    names, values, right = read_again(RESULTS)
    effects = pd.read_csv(RESULTS / "effects.csv").set_index("question")
    rows = {f"{a} − {b}": {a: 1.0, b: -1.0} for a in names for b in names if a != b}
    others = [name for name in names if "l1" in name]
    rows["l1=0.001 − l1=0, mean of 3 settings"] = {name: (1 if name in others else -1) / 3 for name in names}
    checked = 0
    for question, row in effects[effects["kind"] != "interaction"].iterrows():
        if question not in rows:
            continue
        again = contrast(np.array([rows[question].get(name, 0.0) for name in names]), values, right)
        for column, of in (("difference_value", "value"), ("difference_low", "low"), ("difference_high", "high")):
            assert row[column] == pytest.approx(100 * again[of], rel=1e-6), (question, column)
        assert row["se"] == pytest.approx(100 * again["se"], rel=1e-6)
        assert row["df"] == pytest.approx(again["df"], rel=1e-6)
        checked += 1
    assert checked == 8
    p = effects[["p", "p_equivalence"]].to_numpy()
    ours = effects[["p_adjusted", "p_equivalence_adjusted"]].to_numpy().ravel()
    alone = [[each for each in own if np.isfinite(each)] for own in p]
    assert np.isfinite(ours).sum() == sum(map(len, alone))
    assert (ours[np.isfinite(ours)] >= np.array([each for own in alone for each in own]) - 1e-12).all()


def test_every_claim_has_a_ruling() -> None:
    claims = pd.read_csv(RESULTS / "claims.csv")
    assert len(claims) == len(Study.named("replication").claims)
    assert set(claims["ruling"]) <= {"supported", "refuted", "undecided"}


def test_the_readmes_table_is_the_reports() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    study = Study.named("replication")
    words, *_ = settings(Answers(sort(runs(RESULTS), study.factors), study, study.margin)).tables
    columns = [words.headings.index(name) for name in ("setting", "n", "test acc. %", "95 % interval", "train acc. %")]
    for row in words.rows:
        cells = [row[i] for i in columns]
        assert f"| `{cells[0]}` | {' | '.join(cells[1:])} |" in readme, cells[0]


def test_the_readme_tells_every_claim() -> None:
    readme = re.sub(r"\s+", " ", (REPOSITORY / "README.md").read_text(encoding="utf-8"))
    for row in pd.read_csv(RESULTS / "claims.csv").to_dict("records"):
        assert f"| {row['claim']} | {row['source']} | {row['ruling']} |" in readme


def test_event_files_stay_small() -> None:
    size = sum(file.stat().st_size for file in RESULTS.rglob("events.out.tfevents.*"))
    assert 0 < size < 10_000_000


@pytest.mark.parametrize("setting", ["bn", "ln", "gn"])
def test_the_accuracies_are_those_of_networks_that_learned(setting: str) -> None:
    table = read(RESULTS)
    plain = table[(table.norm == setting) & (table.l1 == 0)]
    assert len(plain) >= 5
    assert (plain.test_acc > 0.99).all()
