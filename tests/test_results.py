"""The results that come with the repository: they are what the study asks for, and the README says what they say."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import REPOSITORY

from normlab.analysis import read
from normlab.analysis.words import settings_words
from normlab.record import Record
from normlab.report import main
from normlab.settings import Study, flatten
from normlab.settings.plan import plan

RESULTS = REPOSITORY / "lightning_logs" / "replication"
TABLES = ("summary", "comparisons", "claims", "errors", "overlap", "times")


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


def test_every_claim_has_a_ruling() -> None:
    claims = pd.read_csv(RESULTS / "claims.csv")
    assert len(claims) == len(Study.named("replication").claims)
    assert set(claims["ruling"]) <= {"supported", "refuted", "undecided"}


def test_the_readmes_table_is_the_reports() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    words = settings_words(pd.read_csv(RESULTS / "summary.csv"), {})
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
