"""The door `python -m normlab.calculate`: what it prints, writes and refuses."""

import io
import re
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from normlab.byhand import NORMS, Batch, Rules, calculate, default_batch, random_batch
from normlab.byhand.pictures import overview, picture
from normlab.byhand.terminal import show
from normlab.byhand.wording import SET_COLOURS, amount, equals, fixed, heading, number_text, window
from normlab.calculate import main


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


# Printed


def test_everything_is_printed_of_the_norms_that_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "--norm", "all")
    for norm in NORMS:
        result = calculate(norm, default_batch())
        assert f"{heading(result)} ─" in text
        for value in {*result.normalised, *result.output, *result.evaluated}:
            assert f"{fixed(value)} " in text or f"{fixed(value)}\n" in text
    assert max(map(len, text.splitlines())) <= 132
    text = printed(capsys)
    assert "Batch norm: 4 statistics" in text
    assert "Layer norm" not in text
    assert len(text.splitlines()) < 90
    assert re.search(r"^ ?A +channel 1 +36 +198 +11/2 = 5.5 +25/4 = 6.25 +2.500002 +45/7 ≈ 6.428571$", text, re.M)
    assert re.search(r"^ ?C +channel 3 +1/2 = 0.5 +639/350 ≈ 1.825714 +1.351194$", text, re.M)


HALF = calculate("bn", random_batch((2, 1, 2, 2), 3), Rules(momentum=Fraction(1, 2)))
PRINTED = {  # in this order
    "--norm gn,frn,bin --groups 1 --learned τ=0,5;ρ=1/4": ["Group norm, 1 group: 4 statistics", "τ = 1/2", "ρ = 1/4"],
    "--norm ln --gamma 1,2,1/2,1 --beta -1,0,0,0.5 --eps 0": [
        "γ = 1, 2, 1/2, 1; β = -1, 0, 0, 1/2; ε = 0",
        "Output, y = γ · (x - μ) / √(σ² + ε) + β",
        "In eval mode: the same",
    ],
    "--norm bn --momentum 0.5 --seed 3 --shape 2,1,2,2": [
        "random digits, seed 3, 2 x 1 x 2 x 2",
        f"{amount(HALF.running[0]['running μ'])} ",
    ],
    "--input x.csv --shape 1,2,2,2 --eps 0": [
        "All numbers of A are equal and ε = 0: 0 / 0 is undefined (–). With --eps 1e-5 it would be 0."
    ],
    "--shape 1,3,1,1 --norm bn,gn": [
        "torch refuses to train on such a batch: give more images or larger maps.",
        "Group norm, 3 groups: 3 statistics",
    ],
    "--shape 40,3,20,9 --seed 5 --norm in": [
        "Shown are the first 5 images, 3 channels, 8 rows and 8 columns; every number takes part.",
        "Statistics (the first 64 of 120; --out writes a workbook with all)",
    ],
    "--step --norm bn --input x.npy --gamma -2 --beta -1 --eps 0.5": [
        "(-1) + 1 + 0 + (-4) = -4",
        "(-1 - (-1))² + (1 - (-1))²",
        "(1 - (-1)) / 2 = 1.0000",
        "y = (-2) · (1 - (-1)) / 2 + (-1) = -3.0000",
    ],
}


@pytest.mark.parametrize("arguments", PRINTED)
def test_what_was_given_and_what_is_unusual_is_said(arguments: str, capsys, here: Path) -> None:
    Path("x.csv").write_text("5 5 5 5 1 2 3 4")
    np.save("x.npy", np.array([-1.0, 1.0, 0.0, -4.0]).reshape(1, 1, 2, 2))
    text = printed(capsys, *arguments.split())
    assert len(text.splitlines()) < 300
    text = " ".join(text.split())
    places = [text.index(each) for each in PRINTED[arguments]]
    assert places == sorted(places)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_number_is_cut_off_in_a_narrow_terminal(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    result = calculate("bn", default_batch())
    with console.capture() as captured:
        show(console, [result])
    text = captured.get()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    shown = re.findall(r"(?<![\d.])-?\d\.\d{4}(?![\d.])", text)
    for values in (result.normalised, result.evaluated):
        assert not {fixed(v) for v in values} - set(shown)
    assert text.count("channel 4") >= 4 or text.count("ch 4")


def test_one_ground_a_set_and_a_letter_without_colour() -> None:
    console = Console(file=io.StringIO(), width=132, color_system="truecolor", force_terminal=True)
    with console.capture() as captured:
        show(console, [calculate("in", default_batch())])
    for colour in SET_COLOURS:
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        assert f"48;2;{red};{green};{blue}" in captured.get()
    assert "\x1b[2;38;2;34;34;34" not in captured.get(), "numbers are dimmed"
    plain = Console(file=io.StringIO(), width=132, color_system=None)
    with plain.capture() as captured:
        show(plain, [calculate("gn", default_batch())])
    assert re.search(r"^ +C +C +D +D$", captured.get(), re.M)


def test_numbers_as_text() -> None:
    assert amount(Fraction(25, 4)) == "25/4 = 6.25"
    assert amount(Fraction(1, 3)) == "1/3 ≈ 0.3333333"
    assert amount(Fraction(-4)) == "-4"
    assert amount(Fraction(10**15 + 1, 10**15 + 7)) == "≈ 1"
    assert amount(None) == "undefined"
    assert equals(Fraction(1, 10**15 + 7)) == "≈ 1e-15"
    assert equals(Fraction(1, 2)) == "= 1/2 = 0.5"
    assert fixed(Fraction(-1, 10**9)) == "0.0000"
    assert fixed(Fraction(-3, 2)) == "-1.5000"
    assert fixed(Fraction(25, 10**5)) == "0.0002"  # a half goes to the even digit
    assert number_text(Fraction(1, 10**5)) == "0.00001"
    assert number_text(Fraction(1, 10**12)) == "1e-12"


# One statistic at a time


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_step_waits_for_nobody_where_nobody_is(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    text = printed(capsys, "--step")
    assert len(re.findall(r"statistic \d+ of \d+", text)) == 4
    assert "Enter" not in text
    for line in (
        r"mean μ +198 / 36 = 11/2 = 5.5",
        r"\(9 - 5.5\)² \+ \(3 - 5.5\)²",
        r"variance σ² +\(9 - 5.5\)²",
        r"225 / 36 = 25/4 = 6.25",
        r"unbiased σ² +6.25 · 36 / 35 = 45/7 ≈ 6.428571",
        r"√\(σ² \+ ε\) = √\(6.25 \+ 0.00001\) = 2.500002",
        r"normalised +\(9 - 5.5\) / 2.500002 = 1.4000",
        r"running μ +0.9 · 0 \+ 0.1 · 5.5 = 11/20 = 0.55",
        r"running σ² +0.9 · 1 \+ 0.1 · 6.428571 = 54/35 ≈ 1.542857",
        r"eval mode +\(9 - 0.55\) / √\(1.542857 \+ 0.00001\) = 6.8029",
    ):
        assert re.search(line, text), line


@pytest.mark.parametrize(
    ("typed", "seen"), [("", 1), ("\n", 2), ("\n\n\n", 4), ("\nq\n\n", 2), ("Q\n", 1), ("\n" * 99, 4)]
)
def test_step_goes_on_with_enter(typed: str, seen: int, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    assert len(re.findall(r"statistic \d+ of \d+", printed(capsys, "--step"))) == seen


def test_ctrl_c_stops_in_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: io.StringIO, *_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(Terminal, "readline", interrupted)
    monkeypatch.setattr(sys, "stdin", Terminal())
    assert main(["--step"]) == 130
    assert capsys.readouterr().err == "normlab: stopped\n"


# Written


def test_the_same_files_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--shape", "1,2,2,2", "--norm", "bn,gn", "--out")
    assert "Written to" in printed(capsys, *small, str(tmp_path / "deep" / "er"))
    printed(capsys, *small, str(tmp_path))
    files = [file for file in tmp_path.iterdir() if file.is_file()]
    names = {f"{name}.{form}" for name in ("norms", "bn", "gn") for form in ("png", "svg")}
    assert {file.name for file in files} == names | {"sheet.html", "sheet.xlsx"}
    for file in files:
        assert (tmp_path / "deep" / "er" / file.name).read_bytes() == file.read_bytes(), file.name


def texts(figure: object) -> list[str]:
    return [t.get_text() for t in figure.axes[0].texts]  # type: ignore[attr-defined]


def test_files_are_named_after_the_one_that_was_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "Müller, 2. Réihe (größer)"
    (tmp_path / f"{name}.csv").write_text("1,5;2,5")
    words = ("--input", str(tmp_path / f"{name}.csv"), "--shape", "1,1,1,2", "--norm", "ln")
    text = printed(capsys, *words, "--out", str(tmp_path / "out"), "--html", str(tmp_path / "p" / "a b.html"))
    assert {file.name for file in (tmp_path / "out").iterdir()} == {f"{name}.html", f"{name}.xlsx", "ln.png", "ln.svg"}
    assert f"{name}.xlsx" in text
    assert name in (tmp_path / "p" / "a b.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("norm", ["bn", "gn", "in", "ebn"])
def test_a_picture_has_every_number_on_the_ground_of_its_set(norm: str) -> None:
    result = calculate(norm, default_batch())
    figure = picture(result)
    shown = texts(figure)
    assert [t for t in shown if re.fullmatch(r"\d", t)] == [str(v) for v in default_batch().values]
    grounds = [p.get_facecolor() for p in figure.axes[0].patches]
    first = [s for s in result.statistics if not s.axes]
    keys = len(first)
    assert len(grounds) == 16 + keys
    assert len(set(grounds)) == keys
    for m, k in enumerate(result.owner[::9]):
        assert grounds[m] == grounds[16 + k]
    for s in first:
        assert shown.count(s.letter) == s.count // 9 + 1
        named = [f"{name} {equals(s.values[name])}" for name in ("μ", "σ²") if name in s.values]
        assert f"{s.where}: {', '.join(named)}" in shown


def test_a_picture_of_sets_of_pixels_has_a_ground_per_number() -> None:
    figure = picture(calculate("ln2d", default_batch()))
    assert len({p.get_facecolor() for p in figure.axes[0].patches}) == len(SET_COLOURS)
    assert texts(figure).count("A–I") == 4


def inside(figure: object) -> bool:
    """Whether every text is within the figure."""
    figure.draw_without_rendering()  # type: ignore[attr-defined]
    boxes = [t.get_window_extent() for t in figure.axes[0].texts]  # type: ignore[attr-defined]
    wide, high = figure.bbox.width, figure.bbox.height  # type: ignore[attr-defined]
    return all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= wide and b.y1 <= high for b in boxes)


WIDE = Batch((1, 2, 1, 3), tuple(map(Fraction, ("0.12345", "-1000", "1/3", 0, 1, 2))), "w")


@pytest.mark.parametrize(
    "batch", [default_batch(), WIDE, random_batch((12, 9, 1, 1), 0), random_batch((1, 1, 1, 1), 0)]
)
def test_nothing_is_cut_off_in_a_picture(batch: Batch) -> None:
    results = [calculate(norm, batch) for norm in ("gn", "ln2d")]
    assert inside(overview(results))
    assert all(inside(picture(result)) for result in results)
    assert window(batch) == batch.shape or any("Shown are the first" in t for t in texts(picture(results[0])))


# Refused


REFUSED = {
    "--norm xn": f"--norm: 'xn' is unknown: choose one of {', '.join(NORMS)}, all",
    "--norm dyt": "--norm: 'dyt' has no statistic: choose one of bn",
    "--norm bn,": "--norm: '' is unknown",
    "--images 0": "--images 0: a ghost batch has at least 1 image",
    "--learned τ=1": "--learned: 'τ' is in no formula: there is none here",
    "--norm frn --learned ρ=1": "--learned: 'ρ' is in no formula: choose one of τ",
    "--norm frn --learned τ": "--learned: '' is not a number",
    "--groups 3": "--groups 3 does not divide 4 channels: choose one of 1, 2, 4",
    "--groups 0": "--groups 0 does not divide",
    "--groups -2": "--groups -2 does not divide",
    "--groups two": "--groups: 'two' is not a whole number",
    "--shape 4,4,3": "--shape: '4,4,3' is no shape: write N,C,H,W, four whole numbers above 0",
    "--shape 4,0,3,3": "--shape: '4,0,3,3' is no shape",
    "--shape -1,4,3,3": "--shape: '-1,4,3,3' is no shape",
    "--shape 99,99,99,99": "--shape has more than 50,000 numbers, too many to follow",
    "--seed x": "--seed: 'x' is not a whole number",
    "--eps -1": "--eps -1 is negative: it is added to a variance, so give 0 or more",
    "--eps nan": "--eps: 'nan' is not a finite number",
    "--eps ,": "--eps: ',' is not a number",
    "--gamma 1,2": "--gamma has 2 numbers for 4 channels: give one per channel",
    "--beta 1,2,3,": "--beta: '' is not a number",
    "--beta 1,2,3,4,5": "--beta has 5 numbers",
    "--momentum 2": "--momentum 2 is outside [0, 1]",
    "--input x.csv": "--input x.csv holds 3 numbers: say what they are with --shape N,C,H,W",
    "--input x.csv --seed 1": "--input and --seed are two batches: give one of them",
    "--nrom bn": "unrecognized arguments: --nrom bn: --help shows what there is",
    "--eps": "--eps: expected one argument",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_is_wrong_is_told_in_one_line_and_nothing_is_written(arguments: str, here: Path, refused) -> None:
    Path("x.csv").write_text("1,2,3")
    told = refused(main, ["--out", "sheet", *arguments.split()])
    assert told.startswith("normlab: ")
    assert REFUSED[arguments] in told
    assert not Path("sheet").exists()


def test_a_place_that_cannot_be_written(tmp_path: Path, refused) -> None:
    (tmp_path / "file").write_text("")
    says = r"normlab: .*file.*: cannot be written \((File exists|Not a directory)\): choose another place\n"
    assert re.fullmatch(says, refused(main, ["--out", str(tmp_path / "file")]))


def test_a_batch_that_is_too_wide_for_a_workbook_gets_the_rest(capsys, tmp_path: Path) -> None:
    assert main(["--shape", "1,1,1,17000", "--norm", "ln", "--out", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.err == "normlab: sheet.xlsx is left out: it would have more than 16,384 columns\n"
    assert "sheet.html" in captured.out
    assert not (tmp_path / "sheet.xlsx").exists()


def test_help_shows_the_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "python -m normlab.calculate --norm gn --groups 4 --step" in text
    assert set(NORMS) <= set(re.findall(r"\w+", text))
