"""The results that come with the repository: they are what the study asks for, and the README says what they say."""

import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import recomputed
from conftest import REPOSITORY
from scipy import stats
from scipy.special import log_softmax

from benchmarks import recipe
from normlab.analysis import read
from normlab.analysis.cells import group_runs
from normlab.analysis.numbers import number
from normlab.analysis.parts.settings import settings
from normlab.analysis.questions import Answers
from normlab.analysis.table import runs
from normlab.record import Record, write_predictions
from normlab.report import main
from normlab.scores import prob_true_of_images, scores
from normlab.settings import Study, flatten
from normlab.settings.plan import plan

RESULTS = REPOSITORY / "lightning_logs" / "replication"


def test_every_run_of_the_study_is_there_and_read() -> None:
    cells: dict[tuple[object, object], set[int]] = {}
    for job in plan(["study=replication"], multirun=False):
        folder = RESULTS / job.folder.name
        record = Record.load(folder)
        assert record.done
        assert (record.setting["norm"], record.setting["l1"]) == (job.settings.norm.name, job.settings.l1)
        settings = job.settings.flat()
        assert not [key for key, value in flatten(record.config).items() if settings.get(key, value) != value]
        cells.setdefault((record.setting["norm"], record.setting["l1"]), set()).add(record.seed)
        assert {"metrics.csv", "predictions.npz"} <= {file.name for file in folder.iterdir()}
    assert list(cells.values()) == [set(range(30))] * 6


def test_the_study_beside_them_is_the_one_of_conf() -> None:
    assert Study.find(RESULTS) == Study.named("replication")


def test_the_report_makes_the_same_page_and_tables_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte, by the command that the page names; figures are those that are there."""
    copy = tmp_path / RESULTS.relative_to(REPOSITORY)
    shutil.copytree(RESULTS, copy)
    made = [RESULTS / "report.html", *RESULTS.glob("*.csv")]
    for file in made:
        (copy / file.name).unlink()
    monkeypatch.chdir(tmp_path)
    assert main([str(copy.relative_to(tmp_path)), "--no-figures"]) == 0
    assert {file.name for file in copy.glob("*.csv")} == {file.name for file in RESULTS.glob("*.csv")}
    for file in made:
        assert (copy / file.name).read_bytes() == file.read_bytes(), file.name


def test_the_dials_have_no_digit_that_depends_on_the_processor() -> None:
    """Products of matrices, whose sums a processor takes in its own order, end after twelve digits."""
    page = (RESULTS / "report.html").read_text(encoding="utf-8")
    [numbers] = re.findall('id="family">(.*?)</script>', page)
    products = re.findall(r'"(?:images|variance)":([\d.e,\[\]-]+)', numbers)
    written = re.findall(r"\d+\.\d[\de-]*", " ".join(products))
    assert len(written) > 50
    assert max(len(re.sub(r"e.*|\.", "", text).lstrip("0")) for text in written) == 12


MARGIN = 0.001
COLUMNS = {"difference_value": "value", "difference_low": "low", "difference_high": "high"}
MORE = {"narrow_low": "narrow_low", "narrow_high": "narrow_high", "se": "se"}
LINKS = {"test_acc": "logit", "train_acc": "logit", "train_acc_running": "logit", "test_ce": "log", "train_ce": "log",
         "unevenness": "identity"}  # fmt: skip


@pytest.fixture(scope="module")
def again() -> dict[str, Any]:
    """The runs, and the model of each outcome, by the independent script."""
    runs = recomputed.read(RESULTS)
    return {"runs": runs} | {outcome: recomputed.model(runs, outcome, link) for outcome, link in LINKS.items()}


def table(name: str) -> list[dict[str, Any]]:
    return pd.read_csv(RESULTS / f"{name}.csv").to_dict("records")


def p_outside(found: Any, low: float, high: float) -> float:
    """Of "it lies within": P(T ≤ t) + P(T ≤ t - w) at the nearer end."""
    nearer = min(found.t(low), -found.t(high))
    return float(stats.t.cdf(nearer, found.df) + stats.t.cdf(nearer - found.t(low) + found.t(high), found.df))


def p_within(found: Any, low: float, high: float) -> float:
    """Of "it lies outside": the larger of two one-sided tests."""
    return float(max(stats.t.sf(found.t(low), found.df), stats.t.cdf(found.t(high), found.df)))


def test_an_independent_script_finds_the_same_summary_and_pairs(again: dict[str, Any]) -> None:
    for row in table("summary"):
        for outcome in set(LINKS) - {"unevenness"}:
            found = recomputed.contrast({row["setting"]: 1}, again[outcome])
            ours = [row[f"{outcome}_{key}"] for key in ("mean", "low", "high")]
            assert ours == pytest.approx([found.value, found.low, found.high], rel=1e-6), (row["setting"], outcome)
            sds = again["runs"].groupby("setting")[outcome].std()
            assert row[f"{outcome}_sd"] == pytest.approx(sds[row["setting"]])
    pairs = table("pairs")
    assert len(pairs) == 15
    for row in pairs:
        found = recomputed.contrast({row["a"]: 1, row["b"]: -1}, again["test_acc"])
        same(row, found, COLUMNS | MORE)


def same(row: dict[str, Any], found: Any, columns: dict[str, str]) -> None:
    for column, key in columns.items():
        assert row[column] == pytest.approx(100 * getattr(found, key), rel=1e-6), (row, column)
    if "df" in row:
        assert row["df"] == pytest.approx(found.df, rel=1e-6)


def test_an_independent_script_finds_the_same_effects_and_claims(again: dict[str, Any]) -> None:
    """And their family: every p of both hypotheses, adjusted by Holm's method as Shaffer sharpens it."""
    m, names = again["test_acc"], list(again["test_acc"].mean.index)
    known = {"l1=0.001 − l1=0, mean of 3 settings": {name: (1 if "l1" in name else -1) / 3 for name in names}}
    for norm in ("ln", "gn"):
        half = {norm: 0.5, f"{norm} l1=0.001": 0.5, "bn": -0.5, "bn l1=0.001": -0.5}
        known[f"{norm} − bn, mean of 2 settings"] = half
    family: dict[tuple[str, int], float] = {}
    effects, claims = table("effects"), table("claims")
    for row in effects:
        if row["kind"] == "interaction":
            parts = [{f"{n} l1=0.001": 1, n: -1, "bn l1=0.001": -1, "bn": 1} for n in ("ln", "gn")]
            f = recomputed.joint(parts, m)
            within = max(p_within(recomputed.contrast(c, m), -MARGIN, MARGIN) for c in parts)
            assert (row["f"], row["df"]) == pytest.approx((f, m.df), rel=1e-6)
            p = float(stats.f.sf(f, len(parts), m.df)), within
        else:
            of, against = row["question"].split(",")[0].split(" − ")
            found = recomputed.contrast(known.get(row["question"], {of: 1, against: -1}), m)
            same(row, found, COLUMNS | MORE)
            p = float(2 * stats.t.sf(abs(found.t(0)), found.df)), p_within(found, -MARGIN, MARGIN)
        assert (row["p"], row["p_equivalence"]) == pytest.approx(p, rel=1e-6)
        family |= {(row["question"], 0): p[0], (row["question"], 1): p[1]}
    asked = []
    for row, claim in zip(claims, Study.named("replication").claims, strict=True):
        pair = " − ".join(sorted((row["of"], row["against"])))
        found = recomputed.contrast({row["of"]: 1, row["against"]: -1}, again[row["measure"]])
        same({**row, "df": found.df}, found, COLUMNS)
        low, high = (claim.by + claim.give, claim.by - claim.give) if claim.by else (MARGIN * 100, -MARGIN * 100)
        low, high = -low / 100, -high / 100
        of_range = claim.by or claim.expect == "similar"
        p = p_outside(found, low, high) if of_range else float(2 * stats.t.sf(abs(found.t(0)), found.df))
        declared = [each["question"] for each in effects if " − ".join(sorted(each["question"].split(" − "))) == pair]
        mirrored = row["measure"] == "test_acc" and not of_range
        question = declared[0] if mirrored and declared else f"{row['measure']} {pair} {of_range and (low, high)}"
        asked.append((row, (question, int(row["because"].startswith(("it lies within", "they are equivalent"))))))
        family.setdefault((question, 0), p)
        if row["measure"] != "unevenness":
            family.setdefault((question, 1), p_within(found, low, high))
    adjusted, left, most = {}, sorted(family, key=family.__getitem__), 0.0
    while left:
        most = max(most, min(1.0, family[left[0]] * len({question for question, _ in left})))
        adjusted[left.pop(0)] = most
    for row in effects:
        ours = row["p_adjusted"], row["p_equivalence_adjusted"]
        assert ours == pytest.approx([adjusted[row["question"], at] for at in (0, 1)], rel=1e-6), row["question"]
    for row, key in asked:
        assert row["p"] == pytest.approx(adjusted[key], rel=1e-6), row["claim"]


def test_every_claim_has_a_ruling() -> None:
    claims = pd.read_csv(RESULTS / "claims.csv")
    assert len(claims) == len(Study.named("replication").claims)
    assert set(claims["ruling"]) <= {"supported", "refuted", "undecided"}


def test_the_readmes_table_is_the_reports() -> None:
    pages = [(REPOSITORY / page).read_text(encoding="utf-8") for page in ("README.md", "docs/replication.md")]
    study = Study.named("replication")
    words, *_ = settings(Answers(group_runs(runs(RESULTS), study.factors), study, study.margin)).tables
    columns = [words.headings.index(name) for name in ("setting", "n", "test acc. %", "95 % interval", "train acc. %")]
    for row in words.rows:
        cells = [row[i] for i in columns]
        assert all(f"| `{cells[0]}` | {' | '.join(cells[1:])} |" in page for page in pages), cells[0]


def test_the_studys_page_tells_every_claim() -> None:
    page = re.sub(r"\s+", " ", (REPOSITORY / "docs" / "replication.md").read_text(encoding="utf-8"))
    for row in pd.read_csv(RESULTS / "claims.csv").to_dict("records"):
        assert f"| {row['claim']} | {row['source']} | {row['ruling']} |" in page


@pytest.mark.parametrize("page", ["README.md", "docs/replication.md", "docs/first_hour.md"])
def test_every_interval_in_words_is_in_the_tables(page: str) -> None:
    """Of the replication or of a study that the page links to: "0.35 points (0.28 to 0.42)" with or without signs. What
    the demo came to stands twice."""
    text = re.sub(r"\s+", " ", (REPOSITORY / page).read_text(encoding="utf-8"))
    known = {("17.53", "8.03", "28.37")}
    columns_of = {name: list(COLUMNS) for name in ("effects", "pairs", "claims")}
    for name, columns in (columns_of | {"robustness": ["change_pp", "change_low", "change_high"]}).items():
        for value, low, high in pd.read_csv(RESULTS / f"{name}.csv")[columns].abs().to_numpy():
            known |= {(f"{value:.2f}", f"{a:.2f}", f"{b:.2f}") for a, b in ((low, high), (high, low))}
    for study in re.findall(r"studies/(\w+)\.md", text):
        known |= {(value, low, high) for value, low, high in map(str.split, in_words(study)[1])}
    of = r"[+−]?(\d+\.\d\d)"
    found = re.findall(rf"{of}(?: points| pp)?(?: of test accuracy)? \((?:95 % interval )?{of} to {of}\)", text)
    assert len(found) > 2 or "hour" in page
    assert set(found) <= known


def test_the_table_of_recipes_is_that_of_their_runs() -> None:
    assert recipe.table() in (REPOSITORY / "docs" / "recipe.md").read_text(encoding="utf-8")
    runs = pd.read_csv(recipe.FILE)
    assert set(runs.groupby([*recipe.FACTORS, "norm"]).size()) == {4}
    means = runs.pivot_table(index=recipe.FACTORS, columns="norm", values="test_acc")
    assert (means["bn"] < means[["ln", "gn"]].min(axis=1)).all(), "as the page says"


def test_no_file_says_where_its_runs_were_made() -> None:
    """Every file that a clone has, pictures and arrays included."""
    kept = [file for file in RESULTS.rglob("*") if file.is_file() and file.suffix not in (".log", ".ckpt", ".lock")]
    kept = [file for file in kept if ".hydra" not in file.parts]
    assert len(kept) > 180 * 4
    place = re.compile(rb"log_dir|[\"' ]/(home|root|tmp|work|Users|mnt)/")
    assert not [file for file in kept if place.search(file.read_bytes())]


def test_event_files_stay_small() -> None:
    size = sum(file.stat().st_size for file in RESULTS.rglob("events.out.tfevents.*"))
    assert 0 < size < 10_000_000


@pytest.mark.parametrize("setting", ["bn", "ln", "gn"])
def test_the_accuracies_are_those_of_networks_that_learned(setting: str) -> None:
    table = read(RESULTS)
    plain = table[(table.norm == setting) & (table.l1 == 0)]
    assert len(plain) >= 5
    assert (plain.test_acc > 0.99).all()


def test_thin_predictions_give_the_same_scores(tmp_path: Path) -> None:
    keep = runpy.run_path(str(REPOSITORY / "docs" / "keep.py"))
    for name in ("bn", "gn"):
        (tmp_path / name).mkdir()
        rng = np.random.default_rng(0)
        logits = rng.normal(0, 6, (500, 10))
        write_predictions(tmp_path / name, log_softmax(logits, 1), rng.integers(0, 10, 500))
    before = {file: dict(np.load(file)) for file in tmp_path.rglob("*.npz")}
    keep["main"](["--thin", str(tmp_path)])
    for file, arrays in before.items():
        now, true = dict(np.load(file)), arrays["true"]
        assert (now["log_probs"] != arrays["log_probs"]).mean() > 0.3
        for name in ("pred", "true"):
            assert np.array_equal(now[name], arrays[name])
        assert np.array_equal(*(prob_true_of_images(of["log_probs"], true) for of in (now, arrays)))
        again, first = (scores(of["log_probs"], true) for of in (now, arrays))
        assert again["brier"] == pytest.approx(first["brier"], abs=1e-7)
        assert again["calibration_error"] == first["calibration_error"]


# The studies' pages

PAGES = {file.stem: file.read_text(encoding="utf-8") for file in (REPOSITORY / "docs" / "studies").glob("*.md")}


def in_words(study: str) -> tuple[set[str], set[str]]:
    """Every "mean ± sd" in per cent, and every "value (low to high)" without signs, that a study's files have, or those
    beside a pairing.csv that its page links to."""
    spreads, intervals = set(), set()
    folders = {study, *re.findall(r"(\w+)/pairing\.csv", PAGES[study])}
    places = [RESULTS if name == RESULTS.name else REPOSITORY / "docs" / "studies" / name for name in folders]
    for file in (file for place in places for file in place.glob("*.csv")):
        frame = pd.read_csv(file)
        if "test_acc_sd" in frame:
            means = 100 * frame[["test_acc_mean", "test_acc_sd"]]
            spreads |= {f"{number(mean, 2)} ± {number(sd, 2)}" for mean, sd in means.to_numpy()}
        named = [column.rpartition("_") for column in frame.columns if column.endswith(("_pp", "_value"))]
        triples = [(f"{name}_{unit}", f"{name}_low", f"{name}_high") for name, _, unit in named]
        for value, low, high in [*triples, ("difference_pp", "low_pp", "high_pp"), ("difference", "low", "high")]:
            if {value, low, high} <= {*frame.columns}:
                for order in (value, low, high), (value, high, low):  # of the negative contrast, the ends change places
                    rows = frame[list(order)].abs().to_numpy()
                    intervals |= {" ".join(number(each, 2) for each in row) for row in rows}
    return spreads, intervals


@pytest.mark.parametrize("study", PAGES)
def test_a_studys_page_shows_every_picture_that_is_kept(study: str) -> None:
    kept = (REPOSITORY / "docs" / "studies" / study).glob("*.png")
    assert [file.name for file in kept if f"({study}/{file.name})" not in PAGES[study]] == []


@pytest.mark.parametrize("study", PAGES)
def test_the_numbers_of_a_studys_page_are_in_its_files(study: str) -> None:
    text = re.sub(r"\s+", " ", PAGES[study])
    spreads, intervals = in_words(study)
    told, of = re.findall(r"\d+\.\d\d ± \d+\.\d\d", text), r"[+−]?(\d+\.\d\d)"
    triples = re.findall(rf"{of}(?: points)? \({of} to {of}", text)
    assert len(told) + len(triples) > 4, "a page tells numbers"
    missing = [each for each in told if each not in spreads]
    for value, low, high in triples:
        missing += [f"{value} ({low} to {high})"] * (f"{value} {low} {high}" not in intervals)
    assert not missing
