"""The results that come with the repository: they are what the study asks for, and the README says what they say."""

import json
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
from normlab.settings import Settings, Study
from normlab.settings.plan import plan

RESULTS = REPOSITORY / "lightning_logs" / "replication"
TABLES = ("summary", "comparisons", "claims", "errors", "overlap", "times")


def test_every_run_of_the_study_is_there_and_stands() -> None:
    """A clone has nothing left to train: had the configuration's hash changed, all of it would be to do again."""
    for job in plan(["study=replication"], multirun=False):
        folder = RESULTS / job.folder.name
        assert Record.standing(folder, job.settings.config_hash()), folder.name
        assert {"metrics.csv", "predictions.npz"} <= {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*/result.json")), ids=lambda file: file.parent.name)
def test_a_committed_configuration_still_has_its_hash(file: Path) -> None:
    """New settings, left at what changes nothing, do not make an older run another question."""
    record = json.loads(file.read_text(encoding="utf-8"))
    settings = Settings.model_validate(record["config"])
    assert settings.config_hash() == record["config_hash"]
    assert settings.setting() == record["setting"]


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
