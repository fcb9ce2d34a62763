"""The page's script, run by Chromium: with random numbers typed in, it shows what exact.py and wording.py say."""

import base64
import hashlib
import html
import json
import random
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from test_page import BROWSER, opened
from test_report import Page

from normlab.byhand import NORMS, Batch, Result, Rules, calculate, default_batch, random_batch, wording
from normlab.byhand.page import page
from normlab.byhand.terminal import steps

SCRIPT = Path(wording.__file__).with_name("page.js")
needs_chromium = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
SHAPE = (3, 4, 2, 2)

DRIVER = """
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const texts = (selector, from) => all(selector, from).map(e => e.textContent), found = [];
const fire = (element, kind) => element.dispatchEvent(new Event(kind, { bubbles: true }));
for (const each of CASES) {
  const norm = document.getElementById("norm");
  norm.value = each.norm;
  fire(norm, "change");
  for (const id of ["groups", "images", "momentum"]) document.getElementById(id).value = each[id];
  for (const [sign, values] of Object.entries(each.given))
    all(`#given [data-sign="${sign}"]`).forEach((input, j) => { input.value = values[j % values.length]; });
  all("#batch input").forEach((input, k) => { input.value = each.x[k]; });
  fire(document.querySelector("#batch input"), "input");
  all("#batch td")[each.chosen].click();
  const blocks = all("#results > section");
  found.push({
    problem: texts("#problem")[0],
    formula: texts("#formula")[0],
    tables: all("#results .table").map(table => all("tr", table).map(row => texts("th, td", row))),
    values: blocks.map(block => texts("td", block)),
    places: blocks.map(block => all("td", block).map(cell => Number(cell.dataset.place))),
    letters: texts("#batch caption b"),
    steps: all("#steps dt").map(dt => [dt.textContent, dt.nextSibling.textContent]),
  });
}
document.body.textContent = JSON.stringify(found);
"""


def shown(content: str, folder: Path) -> str:
    (folder / "page.html").write_text(content, encoding="utf-8")
    return opened(folder / "page.html")


def driven(content: str, cases: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """What the page shows in each case. The driver is admitted beside the page's own script, which stays as it is."""
    driver = f"const CASES = {json.dumps(cases)};{DRIVER}"
    digest = base64.b64encode(hashlib.sha256(driver.encode()).digest()).decode()
    content = content.replace("script-src '", f"script-src 'sha256-{digest}' '")
    content = content.replace("</body>", f"<script>{driver}</script></body>")
    body = re.search(r"<body[^>]*>(.*)</body>", shown(content, folder), re.S)
    assert body
    return list(json.loads(html.unescape(body[1])))


def case(norm: str, result: Result, chosen: int) -> dict[str, Any]:
    rules = {name: str(getattr(result.rules, name)) for name in ("groups", "images", "momentum")}
    given = {sign: list(map(str, values)) for sign, values in result.given.items()}
    return {"norm": norm, "given": given, "x": list(map(str, result.batch.values)), "chosen": chosen, **rules}


def drawn(norm: str, draw: random.Random) -> Result:
    """A calculation with everything at random: quarters, thirds, all of one value, ε of 0."""
    c = SHAPE[1]
    quarter = lambda: Fraction(draw.randint(-40, 40), draw.choice([1, 3, 4]))  # noqa: E731
    values = [quarter() for _ in random_batch(SHAPE, 0).values]
    if draw.random() < 0.2:
        values[: c * 4] = [values[0]] * (c * 4)
    rules = Rules(
        groups=draw.choice([1, 2, 4]), eps=draw.choice([Fraction(0), Fraction(1, 10**5), Fraction(1, 3)]),
        gamma=tuple(quarter() for _ in range(c)), beta=tuple(quarter() for _ in range(c)),
        momentum=Fraction(draw.randint(0, 10), 10), images=draw.choice([1, 2, 3]),
        learned={sign: quarter() for sign in ("τ", "ρ", "v", "α", "γ_B", "β_B", "w_k", "w′_k")},
    )  # fmt: skip
    return calculate(norm, Batch(SHAPE, tuple(values)), rules)


def alike(shown: str, expected: str) -> bool:
    """The same text; where sigmoid and tanh took a float's way, the same to a unit in the last place."""
    if shown == expected:
        return True
    one, other = (re.split(r"(-?\d+\.\d+(?:e[+-]\d+)?)", text) for text in (shown, expected))
    numbers = re.compile(r"-?\d+\.\d+(?:e[+-]\d+)?$")
    return len(one) == len(other) and all(
        a == b or (numbers.match(a) and numbers.match(b) and abs(float(a) - float(b)) <= 2e-6 * max(1, abs(float(b))))
        for a, b in zip(one, other, strict=True)
    )


@needs_chromium
def test_every_norm_is_recomputed_to_what_python_says(tmp_path: Path) -> None:
    draw = random.Random(18)
    results = [drawn(norm, draw) for norm in NORMS for _ in range(3)]
    chosen = [draw.choice(draw.choice(result.statistics).members[:1]) for result in results]
    cases = [case(result.norm, result, place) for result, place in zip(results, chosen, strict=True)]
    content = page([calculate("bn", random_batch(SHAPE, 0))])
    compared = 0
    for result, place, told in zip(results, chosen, driven(content, cases, tmp_path), strict=True):
        where = f"{result.norm}, {cases[results.index(result)]}"
        assert told["problem"] == ""
        parts = list(wording.parts(result))
        tables = [part.table for part in parts if part.table]
        for table, found in zip(tables, told["tables"], strict=True):
            for row, expected in zip(found, [table.headings, *table.rows], strict=True):
                assert all(map(alike, row, expected)), (where, row, expected)
                compared += len(row)
        blocks = [part.blocks for part in parts if part.blocks][1:]  # after the numbers themselves
        for block, found in zip(blocks, told["values"], strict=True):
            texts = [text for image in block for channel in image for row in channel for text in row]
            assert all(map(alike, found, texts)), where
            compared += len(texts)
        assert told["places"][0] == list(range(48))
        assert told["letters"] == [wording.letters(result, i, j) for i in range(3) for j in range(4)]
        lines = [line for _, line in told["steps"]]
        for k, statistic in enumerate(result.statistics):
            if statistic.members[0] == place:
                for name, line in steps(result, k):
                    if not re.match(r"image|y, |normalised|$|eval", name):
                        assert any(alike(each, line) for each in lines), (where, name, line, lines)
                        compared += 1
        y = result.output[place]
        assert any(alike(line.rpartition(" = ")[2], wording.fixed(y)) for of, line in told["steps"] if of == "output")
        assert told["formula"] == f"y = {result.formula.written}"
    assert compared > 10_000


@needs_chromium
def test_what_cannot_be_computed_is_told_and_the_last_result_stays(tmp_path: Path) -> None:
    result = calculate("bn", random_batch(SHAPE, 0), Rules(groups=2, eps=Fraction(1, 10**5)))
    wrong = {**case("bn", result, 0), "x": ["x", *map(str, result.batch.values[1:])]}
    decimal = {**case("bn", result, 0), "x": ["1,5", *map(str, result.batch.values[1:])]}
    first, second = driven(page([result]), [wrong, decimal], tmp_path)
    assert first["problem"] == "x is not allowed for x, image 1, channel 1, row 1, column 1."
    assert first["values"][0] == [wording.fixed(value) for value in result.output]
    values = (Fraction(3, 2), *result.batch.values[1:])
    assert second["problem"] == ""
    assert second["values"][0] == [wording.fixed(v) for v in calculate("bn", Batch(SHAPE, values)).output]


@needs_chromium
def test_the_page_as_it_is_written_runs_its_script_and_no_other(tmp_path: Path) -> None:
    content = page([calculate("gn", default_batch())])
    assert 'class="live"' in shown(content, tmp_path)
    assert 'class="live"' not in shown(content.replace("reset();\n})();", "reset(); \n})();"), tmp_path)


def test_without_its_script_the_page_shows_the_numbers_and_fetches_nothing() -> None:
    results = [calculate(norm, default_batch()) for norm in ("bn", "ln2d", "sn")]
    elements = Page(page(results))
    assert elements.tags.count("script") == 2
    assert not elements.fetched
    assert {"link", "iframe", "img"}.isdisjoint(elements.tags)
    for result in results:
        for table in wording.tables(result):
            assert all(cell in elements.texts for row in table.rows for cell in row)
        assert not {wording.fixed(v) for v in (*result.output, *result.evaluated)} - set(elements.texts)


def test_a_large_batch_is_shown_without_a_script_and_the_script_is_small() -> None:
    elements = Page(page([calculate("ln", random_batch((2, 3, 40, 40), 0))]))
    assert "script" not in elements.tags
    assert "Shown are the first 2 images" in elements.text
    assert SCRIPT.stat().st_size <= 20 * 1024


def test_a_name_with_markup_in_it_is_shown_not_obeyed() -> None:
    name = '<script>alert("x")</script>&amp;|`*_.csv'
    elements = Page(page([calculate("ln", Batch((1, 1, 1, 2), (Fraction(1), Fraction(2)), name))]))
    assert elements.tags.count("script") == 2
    assert any(name in text for text in elements.texts)
