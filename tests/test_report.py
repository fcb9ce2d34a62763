"""The report: its files, its page, its table, and what it refuses. Its numbers: tests/test_results.py."""

import base64
import hashlib
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from conftest import csv_rows
from made_up_runs import crossed, made_up, several
from warm import new_python

from normlab.data.sources import load
from normlab.report import main, report
from normlab.settings import Study

CELLS = {("bn", 0.0): 0.95, ("bn", 1e-3): 0.90, ("ln", 0.0): 0.951, ("ln", 1e-3): 0.92}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's folder, reported with figures."""
    folder = tmp_path_factory.mktemp("logs") / "replication"
    crossed(folder, CELLS, images=500)
    Study.named("replication").save(folder)
    assert main([str(folder)]) == 0
    return folder


class Page(HTMLParser):
    """A page's elements, what it fetches, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        self.text = "".join(self.texts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [str(value) for key, value in attrs if key in ("src", "href", "data")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page_of(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_page_holds_everything_itself_and_admits_its_own_script_alone(made: Path) -> None:
    html, page = (made / "report.html").read_text(encoding="utf-8"), page_of(made)
    assert page.tags.count("script") == 2, "its own, and what it decides from"
    assert "link" not in page.tags
    linked = {f"{file.stem}.csv" for file in made.glob("*.csv")}
    linked |= {f"{file.parent.name}/" for file in made.glob("*/result.json")}
    assert {place for place in page.fetched if not place.startswith(("data:image/svg+xml,", "#"))} == linked
    assert all((made / place).exists() for place in linked)
    assert page.tags.count("img") == len(list((made / "figures").glob("*.svg")))
    script = html.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert "default-src 'none'" in html
    assert len(script) < 30_000


def test_figures_come_as_png_and_svg(made: Path) -> None:
    svg, png = ({file.stem for file in (made / "figures").glob(f"*.{form}")} for form in ("svg", "png"))
    assert svg == png
    assert {"accuracy", "effects", "curves", "variance", "overlap", "confusion", "misclassified"} <= svg
    assert "by-l1" not in svg, "two levels are no curve"
    for file in (made / "figures").glob("*.png"):
        assert file.read_bytes().startswith(b"\x89PNG")


def test_without_drawing_the_page_keeps_the_figures_of_the_same_runs(made: Path, tmp_path: Path, capsys) -> None:
    page = (made / "report.html").read_bytes()
    assert main([str(made), "--no-figures"]) == 0
    assert (made / "report.html").read_bytes() == page
    other = tmp_path / "elsewhere, with spaces and ü"
    shutil.copytree(made, other)
    made_up(other, "gn", 0, images=500)
    capsys.readouterr()
    assert main([str(other), "--no-figures"]) == 0
    assert "is of other runs" in capsys.readouterr().err
    assert "img" not in page_of(other).tags


def test_a_figure_that_a_report_has_no_more_is_removed_and_a_users_own_stays(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "runs")
    figures = tmp_path / "runs/figures"
    own = [figures / name for name in ("mine.svg", "mine.png", "empty.svg")]
    for file, content in zip(own, (b"<svg/>\n", b"png", b""), strict=True):
        file.write_bytes(content)
    assert (figures / "effects.png").exists()
    assert main([str(tmp_path / "runs"), "norm=bn", "l1=0"]) == 0  # one setting has no effects
    assert not list(figures.glob("effects*"))
    assert (figures / "curves.svg").exists()
    assert all(file.exists() for file in own)


def test_a_name_with_markup_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    folder = tmp_path / "<script>alert(1)</script>"
    crossed(folder, {("bn", 0.0): 0.9}, seeds=2)
    made_up(folder, "bn", 7, status="failed", error="<img src=x onerror=alert(1)> [bold]")
    assert main([str(folder), "--no-figures"]) == 0
    html = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.tags.count("script") == 1, "the page's own"
    assert "alert" not in html.rpartition("<script>")[2]
    assert "img" not in page.tags
    assert "<img src=x onerror=alert(1)> [bold]" in page.text


def test_failures_are_listed_also_where_there_is_nothing_else(tmp_path: Path, capsys) -> None:
    made_up(tmp_path, "gn", 0, status="failed", error="no memory for [this]")
    made_up(tmp_path, "gn", 1, status="unavailable", error="there is no GPU")
    made_up(tmp_path, "rms", 0, status="diverged", error="the loss was not finite")
    for seeds in (0, 5):
        crossed(tmp_path, {("bn", 0.0): 0.9}, seeds=seeds)
        assert main([str(tmp_path)]) == 0
        told = capsys.readouterr().out
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        for text in ("no memory for [this]", "there is no GPU", "the loss was not finite"):
            assert text in told
            assert text in page
    table = {row["setting"]: row for row in csv_rows(tmp_path / "summary.csv")}
    assert (table["gn"]["failed"], table["gn"]["unavailable"], table["rms"]["diverged"]) == ("1", "1", "1")


def test_one_run_is_a_report_that_names_its_network(made: Path, tmp_path: Path) -> None:
    made_up(tmp_path, net={"name": "custom", "target": "torchvision.models:resnet18", "channels": 3})
    assert main([str(tmp_path)]) == 0
    assert not (tmp_path / "pairs.csv").exists()
    assert "torchvision.models:resnet18" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "torchvision" not in (made / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("factor", "levels", "words"),
    [
        ("batch_size", (8, 32, 128), "batch size"),
        ("l1", (0.0, 1e-4, 1e-3), "L1 penalty λ"),
        ("lr", (0.01, 0.03, 0.1), "learning rate"),
    ],
)
def test_a_factor_of_three_numbers_becomes_a_curve(tmp_path: Path, factor: str, levels, words: str) -> None:
    """Also of runs that have lost all files but their record."""
    several(tmp_path, "bn gn", 2, step=0.01, files=False, **{factor: [*levels]})
    assert main([str(tmp_path)]) == 0
    assert f">{words}</text>" in (tmp_path / "figures" / f"by-{factor}.svg").read_text(encoding="utf-8")
    assert len(csv_rows(tmp_path / "pairs.csv")) == 15


def test_the_verdicts_are_on_a_users_own_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One stands first in its pairs, and a sentence names it and sums them up; two are told apart."""
    crossed(tmp_path, {("bn", 0.0): 0.93, ("ln", 0.0): 0.90, ("gn", 0.0): 0.96}, images=500)
    crossed(tmp_path, {("custom", 0.0): 0.93}, images=500, target="mine:Scale")
    assert main([str(tmp_path), "--no-figures", "--margin", "0.5"]) == 0
    own = {row["question"]: row["verdict"] for row in csv_rows(tmp_path / "effects.csv") if "custom" in row["question"]}
    assert set(own) == {"custom − bn", "custom − ln", "custom − gn"}
    assert not [row for row in csv_rows(tmp_path / "pairs.csv") if row["b"] == "custom"]
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("custom (mine:Scale): "))
    words = {"better": "better than", "worse": "worse than", "equivalent": "equivalent to"}
    words |= {"undecided": "undecided against", "less than the margin": "different by less than the margin from"}
    for question, verdict in own.items():
        other = question.removeprefix("custom − ")
        assert re.search(rf"{words[verdict]} [^;]*\b{other} \(", line), question
    crossed(tmp_path, {("custom", 0.0): 0.96}, images=500, spread=0.003, target="mine:Other")
    assert main([str(tmp_path), "--no-figures"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"custom norm.target=mine:Scale: .*ln \(\+3", said)
    assert re.search(r"custom norm.target=mine:Other: .*ln \(\+6", said)


def test_refusals_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], refused) -> None:
    assert "is no folder" in refused(main, [str(tmp_path / "nothing")])
    assert "holds no run" in refused(main, [str(tmp_path)])
    made_up(tmp_path, "bn", data="digits")
    assert "must be above 0" in refused(main, [str(tmp_path), "--margin", "0"])
    assert "nrm is no setting" in refused(main, [str(tmp_path), "nrm=bn"])
    made_up(tmp_path, "bn", data="mnist")
    assert "differ in data" in refused(main, [str(tmp_path)])
    assert not (tmp_path / "report.html").exists(), "a refusal writes nothing"
    assert main([str(tmp_path), "data=digits", "--no-figures"]) == 0
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "result.json").write_text('{"schema": 1}')
    assert main([str(tmp_path), "data=digits", "--no-figures"]) == 0
    assert "is damaged" in capsys.readouterr().out


def test_a_place_where_nothing_can_be_written(tmp_path: Path, refused) -> None:
    made_up(tmp_path, "bn")
    (tmp_path / "file").touch()
    assert "choose another --out" in refused(main, [str(tmp_path), "--out", str(tmp_path / "file")])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "figures").touch()
    assert "choose another --out" in refused(main, [str(tmp_path), "--out", str(tmp_path / "out")])


def test_galleries_show_what_most_seeds_get_wrong(tmp_path: Path) -> None:
    true = load("digits").test_labels
    for seed in range(3):
        made_up(tmp_path, "bn", seed, images=len(true), wrong=[5, 100 + seed], test_acc=0.99)
    assert main([str(tmp_path)]) == 0
    (row,) = csv_rows(tmp_path / "errors.csv")
    assert row["persistent"] == "1"
    assert row["always"] == "1"
    worst = csv_rows(tmp_path / "persistent.csv")
    assert [(row["image"], row["wrong"], row["wrong bn"]) for row in worst[:2]] == [("5", "3", "3"), ("100", "1", "1")]
    assert (int(worst[0]["true"]), int(worst[0]["predicted"])) == ((5 * 7) % 10, (5 * 7 + 1) % 10)
    assert float(worst[0]["prob_true"]) == pytest.approx(0.1, abs=1e-3)
    assert float(worst[0]["prob_predicted"]) == pytest.approx(0.9, abs=1e-3)
    assert (tmp_path / "figures" / "misclassified.png").exists()


def test_galleries_that_cannot_be_drawn_here_are_kept_if_they_show_the_same(tmp_path, capsys, monkeypatch) -> None:
    """A folder of results goes where its images are not."""
    folder = tmp_path / "logs"
    crossed(folder, {("bn", 0.0): 0.9}, seeds=2, images=500)
    assert main([str(folder)]) == 0
    page = (folder / "report.html").read_bytes()

    import normlab.data.sources
    from normlab.errors import DataError

    def none(*_: object, **__: object) -> None:
        raise DataError("the images are not here")

    monkeypatch.setattr(normlab.data.sources, "load", none)
    capsys.readouterr()
    assert main([str(folder)]) == 0
    assert "not drawn" not in capsys.readouterr().err
    assert (folder / "report.html").read_bytes() == page

    made_up(folder, "bn", 5, test_acc=0.5, images=500)  # now the standing gallery shows something else
    assert main([str(folder)]) == 0
    assert "the images are not here: not drawn: misclassified" in capsys.readouterr().err
    assert "The test images that most" not in (folder / "report.html").read_text(encoding="utf-8")


def test_no_galleries_of_several_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("A", "D"):
        made_up(tmp_path / "logs", data="folder", root=str(tmp_path / place), files=place == "A")
    assert main([str(tmp_path / "logs")]) == 0
    assert "the runs are of several folders (data.root): not drawn: misclassified" in capsys.readouterr().err


def test_a_hundred_runs_need_no_torch_and_no_terminal_with_the_signs(tmp_path: Path) -> None:
    """The time (under three seconds on a quiet machine) must not run away."""
    several(tmp_path, "bn gn", 10, step=0.001, images=10_000, lr=[0.01, 0.02, 0.05, 0.1, 0.2])
    code = (
        "import sys; from normlab.report import main; "
        f"assert main([{str(tmp_path)!r}, '--no-figures']) == 0; "
        "print(sorted({'torch', 'lightning', 'matplotlib', 'torchvision'} & set(sys.modules)), file=sys.stderr)"
    )
    began = time.perf_counter()
    assert new_python("-c", code, exit_code=0, PYTHONIOENCODING="ascii").stderr.strip() == "[]"
    assert time.perf_counter() - began < 60
    assert len(pd.read_csv(tmp_path / "times.csv")) == 100


def test_options_may_stand_before_choices(tmp_path: Path) -> None:
    crossed(tmp_path, {("bn", 0.0): 0.9, ("ln", 0.0): 0.9}, seeds=2)
    assert main([str(tmp_path), "--margin", "0.2", "--no-figures", "norm=bn"]) == 0
    assert [row["setting"] for row in csv_rows(tmp_path / "summary.csv")] == ["bn"]
    assert "norm=bn --margin 0.2" in page_of(tmp_path).text, "the command on the page makes the page"


def test_help_names_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert re.search(r"normlab\.report lightning_logs/\w+", capsys.readouterr().out)


def test_one_seed_gives_a_short_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    several(tmp_path, "bn ln", 1, files=False)
    assert main([str(tmp_path), "--no-figures"]) == 0
    page = page_of(tmp_path)
    assert page.tags.count("table") == 1
    assert "–" not in page.text.partition("How it was made")[0]
    assert "one seed: no interval and no verdict" in capsys.readouterr().out


def test_of_many_settings_the_terminal_shows_a_screen_and_pairs_are_neighbours(tmp_path: Path, capsys) -> None:
    several(tmp_path, "bn gn ln rms", 2, step=0.01, files=False, batch_size=[8, 16, 32, 64])
    assert main([str(tmp_path), "--no-figures"]) == 0
    assert len(csv_rows(tmp_path / "pairs.csv")) == 2 * 4 * 6, "that differ in one factor"
    short = capsys.readouterr().out.splitlines()
    assert len(short) <= 46
    assert any("more rows: --all shows them" in line for line in short)
    assert any(line.startswith("Against batch_size=8") for line in short[-6:]), "last"
    assert main([str(tmp_path), "--no-figures", "--all"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 80


def test_report_gives_its_tables(tmp_path: Path) -> None:
    crossed(tmp_path, {("bn", 0.0): 0.9, ("ln", 0.0): 0.95}, seeds=2)
    found = report(str(tmp_path), out=str(tmp_path / "out"), figures=False)
    assert [*found.frame("summary")["setting"]] == ["bn", "ln"]
    assert found.frame("path").empty
    with pytest.raises(KeyError, match="pats is no table"):
        found.frame("pats")


def test_two_folders_beside_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second is better with ln alone; gn and rms are in one only."""
    old, new = tmp_path / "old" / "study", tmp_path / "new" / "study"
    crossed(old, {("bn", 0.0): 0.90, ("ln", 0.0): 0.90, ("gn", 0.0): 0.93}, images=500)
    crossed(new, {("bn", 0.0): 0.90, ("ln", 0.0): 0.95, ("rms", 0.0): 0.93}, images=500, spread=0.003)
    assert main([str(old), str(new), "--margin", "1"]) == 0
    told = capsys.readouterr().out
    table = {row["setting"]: row for row in csv_rows(new / "beside_study" / "beside.csv")}
    assert list(table) == ["bn", "ln"]
    assert table["ln"]["verdict"] == "better"
    assert float(table["ln"]["difference_value"]) == pytest.approx(5, abs=0.3)
    assert float(table["ln"]["difference_low"]) > 3
    assert table["bn"]["verdict"] in ("equivalent", "undecided")
    assert "Only old/study has gn." in told
    assert "Only new/study has rms." in told
    assert "Setting by setting" in page_of(new / "beside_study").text


def test_folders_with_nothing_in_common_are_refused(tmp_path: Path, refused) -> None:
    made_up(tmp_path / "a", "bn")
    made_up(tmp_path / "b", "ln")
    made_up(tmp_path / "c", "bn", data="mnist")
    assert "no setting is in two of the folders" in refused(main, [str(tmp_path / "a"), str(tmp_path / "b")])
    assert "of different data sets (a: digits; c: mnist)" in refused(main, [str(tmp_path / "a"), str(tmp_path / "c")])
