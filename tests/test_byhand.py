"""Exact arithmetic against torch's modules, the niceness of the fixed batch, and where a batch comes from."""

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from normlab.byhand import NORMS, Batch, Result, Rules, calculate, default_batch, random_batch, read_batch
from normlab.byhand.exact import Values, default_groups, square_root
from normlab.byhand.formula import formula, is_known
from normlab.byhand.inputs import LARGEST, number
from normlab.errors import ConfigError, DataError
from normlab.norms import CATALOGUE, make_norm
from normlab.norms.about import STANDARDISED

ROOT = "√(σ² + ε)"


def layer(norm: str, result: Result) -> Any:
    """The layer that training uses, in float64, with the rules' ε, momentum and learned numbers."""
    about, rules, (_, c, h, w) = CATALOGUE[norm], result.rules, result.batch.shape
    given = {"eps": max(float(result.given.get("ε", (0,))[0]), 1e-300), "momentum": float(rules.momentum)}
    given |= {"num_groups": result.groups, "virtual_batch_size": rules.images}  # ε of 0 is refused; this changes no sum
    size = (h, w) if any(learned.shape == "C·H·W" for learned in about.learned.values()) else None
    made = make_norm(norm, c, size=size, **{key: value for key, value in given.items() if key in about.options})
    made = made.double()
    parameters = dict(made.named_parameters())
    for name, learned in about.learned.items():
        if learned.shape != "3":  # shares of three statistics, alike at the start
            values = torch.tensor([float(v) for v in result.given[learned.sign]], dtype=torch.float64)
            values = values[:, None, None] if learned.shape == "C·H·W" else values
            parameters[name].data = values.expand(parameters[name].shape).clone()
    return made


def floats(values: Values, shape: tuple[int, ...] = (-1,)) -> np.ndarray:
    return np.array([np.nan if v is None else float(v) for v in values]).reshape(shape)


def sets(norm: str, shape: tuple[int, int, int, int], axes: int = 0, **rules: int) -> list[tuple[str, tuple[int, ...]]]:
    """Which numbers share a statistic: for each set, where it is and the places of its numbers."""
    batch = Batch(shape, (Fraction(0),) * int(np.prod(shape)))
    return [(s.where, s.members) for s in calculate(norm, batch, Rules(**rules)).statistics if s.axes == axes]


def close(found: np.ndarray, expected: np.ndarray) -> None:
    defined = np.isfinite(found)
    np.testing.assert_allclose(found[defined], expected[defined], rtol=1e-6, atol=1e-6)


# Against torch


@st.composite
def calculations(draw: st.DrawFn) -> tuple[Batch, Rules]:
    """Any shape, any group count that divides, any ε, γ, β, momentum; numbers in quarters: exact in binary."""
    n, c, h, w = (draw(st.integers(1, most)) for most in (4, 6, 4, 4))
    quarters = st.integers(-40, 40).map(lambda q: Fraction(q, 4))
    many = n * c * h * w
    values = draw(st.one_of(st.lists(quarters, min_size=many, max_size=many), quarters.map(lambda v: [v] * many)))
    groups = draw(st.sampled_from([g for g in range(1, c + 1) if c % g == 0]))
    eps = draw(st.sampled_from([Fraction(0), Fraction(1, 10**5), Fraction(1, 10**8), Fraction(1, 3), Fraction(7)]))
    affine = st.one_of(st.none(), st.lists(quarters, min_size=c, max_size=c).map(tuple))
    momentum = draw(st.integers(0, 10)) * Fraction(1, 10)
    images = draw(st.integers(1, 5))
    return Batch((n, c, h, w), tuple(values)), Rules(groups, eps, draw(affine), draw(affine), momentum, images)


GAMMA, BETA = tuple(map(Fraction, ("1", "-2.5", "1/3", "0"))), tuple(map(Fraction, (0, 3, -1, 2)))
LEARNED = {sign: Fraction(k, 3) for k, sign in enumerate(("τ", "ρ", "v", "α", "γ_B", "β_B"), -1)}


@pytest.mark.parametrize("norm", NORMS)
@given(given_=calculations())
@example(given_=(default_batch(), Rules(images=3)))
@example(given_=(default_batch(), Rules(4, Fraction("0.5"), GAMMA, BETA, Fraction("0.3"), 2, LEARNED)))
@settings(deadline=None, max_examples=12)
def test_any_batch_is_as_torch_computes_it(norm: str, given_: tuple[Batch, Rules]) -> None:
    """Every value is torch's to 1e-6: output, running averages, eval mode."""
    batch, rules = given_
    result = calculate(norm, batch, rules)
    x = torch.from_numpy(floats(batch.values, batch.shape))
    output, evaluated = floats(result.output, batch.shape), floats(result.evaluated, batch.shape)
    with torch.no_grad():
        try:
            made = layer(norm, result)
            y = made.train()(x).numpy()
        except ValueError:  # one number per channel, spatial element or statistic
            assert any(s.count == 1 for s in result.statistics)
            assert not result.running or None in [v for r in result.running for v in r.values()]
            return
        close(output, y)
        close(evaluated, made.eval()(x).numpy())
    own = getattr(made, "running", made)
    for name, of in {"running_mean": "μ", "running_var": "²"}.items():
        kept = [[v for k, v in r.items() if k.startswith("running") and of in k] for r in result.running]
        if any(kept):
            close(floats([values[0] for values in kept]), getattr(own, name).numpy())
    assert bool(result.running) == bool(result.about.state)


STANDARD = [norm for norm in NORMS if CATALOGUE[norm].formula == STANDARDISED]


@pytest.mark.parametrize("norm", STANDARD)
def test_equal_numbers_without_eps_are_undefined(norm: str) -> None:
    batch = Batch((2, 2, 2, 2), (Fraction(3),) * 16)
    result = calculate(norm, batch, Rules(eps=Fraction(0), beta=(Fraction(1), Fraction(2))))
    assert result.normalised == result.output == (None,) * 16
    assert all(s.values.get(ROOT, 0) == 0 for s in result.statistics)
    with_eps = calculate(norm, batch, Rules(eps=Fraction(1, 10), beta=(Fraction(1), Fraction(2))))
    assert with_eps.output == ((Fraction(1),) * 4 + (Fraction(2),) * 4) * 2


def test_without_a_running_variance_or_a_root_eval_mode_is_undefined() -> None:
    """One number per channel; equal numbers and no ε."""
    one = calculate("bn", Batch((1, 2, 1, 1), (Fraction(4), Fraction(-2))))
    assert one.output == (0, 0)
    averages = [list(r.values()) for r in one.running]
    assert averages == [[Fraction(2, 5), None, None], [Fraction(-1, 5), None, None]]
    assert one.evaluated == (None, None)
    equal = calculate("bn", Batch((1, 1, 1, 2), (Fraction(4),) * 2), Rules(eps=Fraction(0), momentum=Fraction(1)))
    assert equal.running[0]["running σ²"] == 0
    assert equal.evaluated == (None, None)


# By construction


@given(given_=calculations(), norm=st.sampled_from([norm for norm in STANDARD if norm != "ebn"]))
@settings(deadline=None, max_examples=50)
def test_normalised_numbers_have_mean_zero_and_the_variance_that_eps_leaves(given_, norm: str) -> None:
    """Σx̂ / m = 0 and Σx̂² / m = σ² / (σ² + ε): exactly where the root is rational, else to 45 places."""
    batch, rules = given_
    result = calculate(norm, batch, rules)
    for s in result.statistics:
        root, variance, eps = s.values[ROOT], s.values["σ²"], result.given["ε"][0]
        assume(root)
        assert root is not None
        assert variance is not None
        values = [v for place in s.members if (v := result.normalised[place]) is not None]
        assert sum(values) == 0
        error = sum(v * v for v in values) / s.count - variance / (variance + eps)
        assert error == 0 if root**2 == variance + eps else abs(error) < Fraction(1, 10**45)


@given(value=st.fractions(min_value=0, max_value=10**20))
def test_a_square_root_is_exact_or_good_to_fifty_digits(value: Fraction) -> None:
    assert square_root(value * value) == value
    root = square_root(value)
    assert root * root <= value
    assert value == 0 or (value - root * root) / value < Fraction(1, 10**48)


def test_sets_say_where_they_are() -> None:
    assert sets("bn", (2, 4, 1, 1)) == [(f"channel {j + 1}", (j, j + 4)) for j in range(4)]
    assert sets("ln", (2, 4, 1, 1)) == [("image 1", (0, 1, 2, 3)), ("image 2", (4, 5, 6, 7))]
    assert sets("gn", (2, 4, 1, 1))[1:3] == [("image 1, group 2", (2, 3)), ("image 2, group 1", (4, 5))]
    assert sets("in", (2, 4, 1, 1))[5] == ("image 2, channel 2", (5,))
    assert sets("ln2d", (1, 2, 1, 2)) == [("image 1, row 1, column 1", (0, 2)), ("image 1, row 1, column 2", (1, 3))]
    assert sets("gbn", (3, 1, 1, 1)) == [("images 1 to 2, channel 1", (0, 1)), ("image 3, channel 1", (2,))]
    assert sets("ebn", (1, 2, 1, 1), axes=1) == [("all numbers", (0, 1))]


def test_every_norm_with_a_statistic_is_there_and_a_formula_with_more_is_told() -> None:
    """A formula is written as it was read, where nothing is defined after a comma and no Σ spelled out."""
    assert set(NORMS) == {name for name, about in CATALOGUE.items() if about.axes}
    for wrong in ("γ · ξ(x) / √(σ² + ε) + β", "γ · (x", "x ² ²)", "(x − μ_A) / √(σ_B² + ε)", "median(x)"):
        assert not is_known(replace(CATALOGUE["bn"], formula=wrong)), wrong
    for norm in NORMS:
        source = CATALOGUE[norm].formula.replace("−", "-")
        assert "," in source.replace(", v", "").replace(", τ", "") or formula(norm).written == source


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (2, 2), (3, 3), (4, 2), (5, 5), (9, 3), (15, 3)])
def test_groups_unless_asked_for(channels: int, groups: int) -> None:
    assert default_groups(channels) == groups


def test_letters_go_on_as_in_a_spreadsheet() -> None:
    letters = [s.letter for s in calculate("in", random_batch((9, 80, 1, 1), 0)).statistics]
    assert letters[:2] + letters[25:28] + letters[701:703] == ["A", "B", "Z", "AA", "AB", "ZZ", "AAA"]
    assert len(set(letters)) == 720


# The fixed batch


def test_the_fixed_batch_has_readable_answers() -> None:
    """Means and deviations of group norm: whole or half; of instance norm, whole means and variances. The groups of an
    image never have the same mean. Batch and layer norm: below."""
    batch = default_batch()
    assert batch.shape == (4, 4, 3, 3)
    assert all(v.denominator == 1 and 0 <= v <= 9 for v in batch.values)
    groups, maps = (calculate(norm, batch).statistics for norm in ("gn", "in"))
    means, variances = ([s.values[name] or Fraction(0) for s in groups] for name in ("μ", "σ²"))
    assert all((2 * value).denominator == 1 for value in (*means, *map(square_root, variances)))
    assert all(a != b for a, b in zip(means[::2], means[1::2], strict=True))
    assert all(s.values[name].denominator == 1 for s in maps for name in ("μ", "σ²"))  # type: ignore[union-attr]
    assert (len(groups), len(maps)) == (8, 16)


def test_the_fixed_batch_by_hand() -> None:
    """Worked out apart from the package, from the sums of its maps."""
    batch = default_batch()
    bn, ln = calculate("bn", batch), calculate("ln", batch)
    variances = [Fraction(25, 4), Fraction(4), Fraction(9), Fraction(49, 4)]
    assert [s.total for s in bn.statistics] == [198, 216, 180, 162]
    assert [s.values["μ"] for s in bn.statistics] == [Fraction(11, 2), 6, 5, Fraction(9, 2)]
    assert [s.values["σ²"] for s in bn.statistics] == variances
    assert [s.values["unbiased σ²"] for s in bn.statistics] == [v * 36 / 35 for v in variances]
    assert [s.values["μ"] for s in ln.statistics] == [Fraction(9, 2), Fraction(11, 2), 5, 6]
    assert [s.values["σ²"] for s in ln.statistics] == list(map(Fraction, ("25/4", "25/4", "23/2", "15/2")))
    assert bn.running[1]["running μ"] == Fraction(6, 10)
    assert bn.running[1]["running σ²"] == Fraction(9, 10) + Fraction(1, 10) * Fraction(144, 35)
    without = calculate("bn", batch, Rules(eps=Fraction(0)))
    assert without.output[:3] == (Fraction(7, 5), -1, Fraction(3, 5))


# Where a batch comes from


def test_random_digits_come_again() -> None:
    batch = random_batch((2, 3, 4, 5), 7)
    assert batch == random_batch((2, 3, 4, 5), 7) != random_batch((2, 3, 4, 5), 8)
    assert set(batch.values) == set(map(Fraction, range(10)))
    assert [int(v) for v in random_batch((1, 1, 1, 8), 0).values] == [6, 6, 0, 4, 8, 7, 6, 4]  # on every machine


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,2,3,4\n5,6,7,8\n", "1 2 3 4 5 6 7 8"),
        ("1;2;3;4\r\n5; 6; 7; 8", "1 2 3 4 5 6 7 8"),
        ("# a batch\n\n1 2\t3 4  # the first map\n  5 6 7 8  ", "1 2 3 4 5 6 7 8"),
        ("\ufeff1\n2\n3\n4", "1 2 3 4"),
        ("1.0, 2e0, 30e-1, 4, 10/2, +6, 7.000, 8", "1 2 3 4 5 6 7 8"),
        ("0.1 1e-5 1/100000 -0", "1/10 1/100000 1/100000 0"),
        # decimal commas
        ("1,5;2,5", "1.5 2.5"),
        ("-1,5; 2\n3;4,25\n", "-1.5 2 3 4.25"),
        ("1;2", "1 2"),
        ("1,2", "1 2"),
        ("1,2\n3,4", "1 2 3 4"),
        ("1, 5; 2, 5", "1 5 2 5"),
        ("1,2,3;4,5,6", "1 2 3 4 5 6"),
        ("1.5,2;3,4", "1.5 2 3 4"),
        ("1,2,3 4,5,6", "1 2 3 4 5 6"),
    ],
)
def test_text_in_any_layout(text: str, values: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    numbers = tuple(map(Fraction, values.split()))
    shape = (1, 1, 1, len(numbers))
    assert read_batch(tmp_path / "x.csv", shape) == Batch(shape, numbers, "x.csv")


@given(value=st.decimals(-(10**12), 10**12, places=20))
def test_any_decimal_is_exact(value: Decimal) -> None:
    assert number(str(value)) == Fraction(value)


@pytest.mark.parametrize(
    "text", ["", "x", "nan", "inf", "-Infinity", "1e13", "1e-41", "1e999999999", "1/0", "0x1", "1,5,2", ",5", "1,"]
)
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a|out of range|divides by 0"):
        number(text)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64", "float16", ">f8"])
def test_arrays(dtype: str, tmp_path: Path) -> None:
    """Floats are the decimals that were meant."""
    array = np.arange(16, dtype=dtype).reshape(2, 2, 2, 2).transpose(1, 0, 2, 3)
    np.save(tmp_path / "x.npy", array)
    assert read_batch(tmp_path / "x.npy").shape == (2, 2, 2, 2)
    assert floats(read_batch(tmp_path / "x.npy", (2, 2, 2, 2)).values).tolist() == array.ravel().tolist()
    if array.dtype.kind == "f":
        np.save(tmp_path / "x.npy", np.array([0.1, -2.5], dtype))
        assert read_batch(tmp_path / "x.npy", (1, 1, 1, 2)).values == (Fraction(1, 10), Fraction(-5, 2))


REFUSED: dict[str, tuple[bytes | np.ndarray, tuple[int, int, int, int] | None, str]] = {
    "empty.csv": (b"", (1, 1, 1, 1), "holds no numbers: give it at least one"),
    "word.csv": (b"1,2\n3,four\n", (1, 1, 2, 2), r"line 2: 'four' is not a number: correct it"),
    "header.csv": (b"a,b\n1,2\n", (1, 1, 1, 2), r"line 1: 'a' is not a number: .* put # before the line"),
    "gap.csv": (b"1,,2", (1, 1, 1, 3), "line 1: a number is missing between two commas"),
    "both.csv": (b"1 2\n1,5 2,5", (1, 1, 1, 2), "line 2: '1,5 2,5' may have decimal commas or one number more: "),
    "huge.csv": (b"1,1e999999999", (1, 1, 1, 2), "out of range: up to 10"),
    "short.csv": (b"1,2,3", (1, 1, 2, 2), "1,1,2,2 has 4 places and --input short.csv holds 3 numbers"),
    "noshape.csv": (b"1,2,3", None, "holds 3 numbers: say what they are with --shape N,C,H,W"),
    "picture.csv": (b"\x89PNG\r\n\x1a\n", (1, 1, 1, 1), "is no text in UTF-8"),
    "packed.npz": (b"PK\x03\x04abc", (1, 1, 1, 1), "is a packed file"),
    "many.csv": (b"1 " * (LARGEST + 1), (1, 1, 1, LARGEST + 1), "more than 50,000 numbers"),
    "damaged.npy": (b"\x93NUMPY\x01\x00\x10", None, "is damaged: save it again"),
    "flat.npy": (np.arange(3), None, "holds an array of shape 3: say what they are with --shape"),
    "other.npy": (np.zeros((2, 1, 1, 3)), (1, 2, 1, 3), "1,2,1,3 is not that of --input other.npy, 2,1,1,3"),
    "none.npy": (np.zeros((0, 1, 1, 1)), None, "holds no numbers"),
    "nan.npy": (np.full((1, 1, 1, 1), np.nan), None, "'nan' is not a finite number: correct the array"),
    "complex.npy": (np.zeros((1, 1, 1, 1), complex), None, "holds complex128, not numbers"),
    "text.npy": (np.array([["a"]]), None, "holds <U1, not numbers"),
    "large.npy": (np.zeros((1, 1, 1, LARGEST + 1), np.uint8), None, "more than 50,000 numbers"),
    "objects.npy": (np.array([{"a": 1}], object), None, "holds Python objects, which are never loaded"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_batch_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    content, shape, says = REFUSED[name]
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        np.save(tmp_path / name, content)
    with pytest.raises(DataError, match=says) as caught:
        read_batch(tmp_path / name, shape)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    says = r"absent.csv: cannot be read \(No such file or directory\): name a .csv or .npy"
    with pytest.raises(DataError, match=says):
        read_batch(tmp_path / "absent.csv", (1, 1, 1, 1))
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        read_batch(tmp_path, (1, 1, 1, 1))


def test_what_cannot_be_calculated() -> None:
    """In one line each; `tests/test_calculate.py` has every option that is out of range."""
    with pytest.raises(ConfigError, match="norm 'xn' is unknown: choose one of bn, brn, "):
        calculate("xn", default_batch())
    with pytest.raises(ConfigError, match="3 numbers are not a batch of shape 1,1,2,2"):
        Batch((1, 1, 2, 2), (Fraction(1),) * 3)
    with pytest.raises(ConfigError, match="0 numbers are not a batch"):
        Batch((0, 1, 2, 2), ())
