"""The page in a browser: the questions decided again are those that Python decides, and the tables follow the dials."""

import html
import json
import math
import re
import shutil
import subprocess
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from made_up_runs import crossed, made_up
from matplotlib.figure import Figure

from normlab.analysis.drawing import svg
from normlab.analysis.inference import Floats, Model, caution
from normlab.analysis.page import Shown
from normlab.analysis.parts.claims import claims_frame
from normlab.analysis.parts.effects import questions_frame
from normlab.analysis.parts.rates import at_own_best
from normlab.analysis.projection import prior
from normlab.analysis.questions import Answers
from normlab.report import report
from normlab.settings import Study

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")

CELLS = {("bn", 0.0): 0.95, ("bn", 1e-3): 0.90, ("ln", 0.0): 0.951, ("ln", 1e-3): 0.92}


def opened(file: Path) -> str:
    """A page's document after its scripts have run."""
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    command = [str(BROWSER), *quiet, f"--user-data-dir={file.parent / 'profile'}", "--dump-dom", file.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def browse(page: Path, script: str) -> Any:
    """What a script, run in a page after its own, leaves in `result`."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", text)  # which admits no other script
    told = f"<pre id=told></pre><script>{script};"
    told += "document.getElementById('told').textContent = JSON.stringify(result);</script>"
    file = page.with_name("asked.html")
    file.write_text(text.replace("</body>", told + "</body>"), encoding="utf-8")
    [found] = re.findall(r"<pre id=\"told\">(.*?)</pre>", opened(file), re.DOTALL)
    return json.loads(html.unescape(found))


class Planned(Model):
    """A model with so many seeds in every group: means, variances and what the images bring stay as they are."""

    def __init__(self, model: Model, seeds: int) -> None:
        super().__init__(model.groups, model.link, model.resolution)
        self.of, self.pairing, self.images = model, model.pairing, model.images
        self.n = np.full(len(self.names), float(seeds))
        self.degrees = self.n - 1

    def _scaled(self, variances: tuple[Floats, Floats], share: float) -> tuple[Floats, Floats]:
        known, df = variances
        old, new = self.of.degrees * share, self.degrees * share
        usable = new[np.isfinite(known)]
        return known, np.minimum(prior(df, old) + new, float(usable.sum())) * caution(usable)

    @cached_property
    def variances(self) -> tuple[Floats, Floats]:
        return self._scaled(self.of.variances, 1.0)

    @cached_property
    def variances_of_contrasts(self) -> tuple[Floats, Floats]:
        return self._scaled(self.of.variances_of_contrasts, self.of.share)


class Projected(Answers):
    """The same questions with another margin or level, and so many seeds per setting; None: those that were run."""

    def __init__(self, answers: Answers, margin: float, alpha: float, seeds: int | None = None) -> None:
        super().__init__(answers.grouped, answers.study, margin, alpha)
        self.of, self.seeds = answers, seeds

    def model(self, outcome: str) -> Model:
        model = self.of.model(outcome)
        return model if self.seeds is None else Planned(model, self.seeds)


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Answers]]:
    """Seeds and images crossed, with claims; settings with 1 to 5 seeds and no images; learning rates."""
    root, rng = tmp_path_factory.mktemp("logs"), np.random.default_rng(20261129)
    crossed(root / "crossed", CELLS, images=500)
    Study.named("replication").save(root / "crossed")
    for norm in ("bn", "ln", "gn"):
        for l1 in (0.0, 1e-3):
            for seed in range(1 + (len(norm) + ord(norm[0]) + (l1 > 0)) % 5):
                acc = float(0.97 + 0.003 * rng.standard_normal())
                made_up(root / "uneven", norm, seed, l1=l1, test_acc=acc, images=1000, files=False)
    for norm in ("bn", "gn"):
        for lr in (0.01, 0.1, 0.3):
            for seed in range(3):
                acc = float(0.97 + 0.002 * rng.standard_normal() - 0.01 * abs(math.log(lr / 0.1)))
                made_up(root / "rates", norm, seed, lr=lr, test_acc=acc, val_acc=acc, images=200)
    return {name: (root / name, report(root / name, figures=False).answers) for name in ("crossed", "uneven", "rates")}


def dials(answers: Answers, count: int, rng: np.random.Generator) -> list[tuple[float, float, int | None]]:
    """The declared margin and level, and others, some with a number of seeds."""
    margins, alphas = answers.margin * np.exp(rng.uniform(-3, 3, count)), np.exp(rng.uniform(-7, -1.2, count))
    seeds = [None if i % 3 == 0 else int(rng.integers(2, 150)) for i in range(count)]
    others = zip(margins.tolist(), alphas.tolist(), seeds, strict=True)
    return [(answers.margin, answers.alpha, None), *others]


@pytest.mark.parametrize("name", ["crossed", "uneven", "rates"])
def test_the_browser_decides_as_python_does(studies: dict[str, tuple[Path, Answers]], name: str, rng) -> None:
    """200 random settings of the dials in all; p, adjusted p and half-widths to 1e-9, and every verdict."""
    folder, answers = studies[name]
    several = dials(answers, 67, rng)
    found = browse(
        folder / "report.html",
        "const plain = (x) => Number.isNaN(x) ? 'nan' : x === Infinity ? 'inf' : x;"
        f"const result = {json.dumps(several)}.map(([margin, alpha, seeds]) => ["
        "normlab.data.families.map((family) => normlab.decide(family, margin, alpha, seeds).map("
        "(each) => [[...each.p, ...each.adjusted].map(plain), plain(each.half), each.word])),"
        "plain(normlab.seedsNeeded(normlab.data, normlab.data.families[0].questions.length, margin, alpha))])",
    )
    seen = set()
    for (margin, alpha, seeds), (families, needed) in zip(several, found, strict=True):
        here = Projected(answers, margin, alpha, seeds)
        best = at_own_best(here) if seeds is None else None
        for decided, questions in zip(families, [here, best], strict=False):
            if questions is None:  # its own models: not projected
                continue
            for each, (p, half, word) in zip(questions.answers, decided, strict=True):
                ours = [*each.decision.p, *each.decision.adjusted]
                assert [*map(float, p)] == pytest.approx(ours, abs=1e-9, rel=0, nan_ok=True)
                assert word == each.decision.verdict
                seen.add(word)
                if each.estimate is not None:
                    low, high = each.estimate.interval(0.95)
                    assert float(half) == pytest.approx(each.about.factor * (high - low) / 2, abs=1e-9, nan_ok=True)
        if seeds is None:
            assert float(needed) == pytest.approx(here.seeds_needed, nan_ok=True)
    assert len(seen) > 3


def test_tables_follow_the_dials_and_come_back(studies: dict[str, tuple[Path, Answers]]) -> None:
    folder, answers = studies["crossed"]
    before, after, back, stale = browse(
        folder / "report.html",
        "const read = () => [...document.querySelectorAll('table[data-rows]')].map((table) => [table.dataset.rows,"
        "[...table.tBodies[0].rows].map((row) => Object.fromEntries([...row.cells].map((cell) =>"
        "[cell.classList.contains('verdict') ? 'verdict' : cell.dataset.k, cell.textContent])))]);"
        "const result = [read()]; const form = document.querySelector('form.again');"
        "normlab.set({margin: 3, alpha: 0.01}); result.push(read());"
        "const stale = document.querySelector('.findings').textContent;"
        "form.querySelector('button').click(); result.push(read(), stale)",
    )
    assert before == back
    assert "as declared" in stale
    then = Projected(answers, 3.0, 0.01)
    frames = (questions_frame(then), "verdict"), (claims_frame(then), "ruling")
    for (name, rows), (frame, column) in zip(after, frames, strict=True):
        assert [row["verdict"] for row in rows] == [*frame[column]], name
    p = [row["p_adjusted"] for row in dict(after)["effects"]]
    assert p == ["< 0.001" if p < 0.001 else f"{p:.3f}" for p in questions_frame(then)["p_adjusted"]]
    assert dict(before) != dict(after)


def test_without_a_script_everything_is_there_but_the_dials(studies: dict[str, tuple[Path, Answers]]) -> None:
    text = (studies["crossed"][0] / "report.html").read_text(encoding="utf-8")
    assert '<form class="again" hidden' in text
    assert "as declared: margin" not in text.rpartition("<script>")[0]


def test_a_figure_on_the_page_is_the_same_picture() -> None:
    """Well-formed, whatever its texts hold: one wrong sign, and a browser shows nothing."""
    fig = Figure((4, 3))
    fig.subplots().set(title='an error\'s "name" <b> & 50 % #1', xlabel="λ", ylim=(0, 1))
    drawn = svg(fig)
    shown = Shown.of(drawn, "c")
    small = unquote(shown.svg)
    assert shown.width == 400
    assert not set('"#\n') & set(shown.svg), "what ends an address or an attribute"
    texts = [[each.text for each in ElementTree.fromstring(some).iter() if each.text] for some in (drawn, small)]
    assert [text for text in texts[0] if text.strip() and "Matplotlib" not in text][-5:] == texts[1][-5:]
    assert len(small) < len(drawn)
