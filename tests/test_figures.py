"""Figures of a study: every seed is there, a setting looks the same throughout, nothing is cut off or overlaps."""

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from drawn import check_text, words
from matplotlib.colors import same_color, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from normlab.analysis.colours import norm_colour, norm_marker
from normlab.analysis.drawing import styles, svg
from normlab.analysis.line_figures import Along, along, curves
from normlab.analysis.probe_figures import lines_together
from normlab.analysis.row_figures import VERDICTS, Effect, accuracies, effects, variance_shares
from normlab.byhand.wording import SET_COLOURS, set_colour
from normlab.norms import CATALOGUE

DIGITS = [str(i) for i in range(10)]
FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
LONG = "A title that is a good deal longer than a figure of three small images can be wide, so that it takes two lines"
FINAL = {"bn": 99.47, "bn l1=0.001": 97.8, "ln": 99.44, "ln l1=0.001": 99.41, "gn": 99.45, "gn l1=0.001": 99.42}
LONGER = ["custom_mine.RMS placement=pre lr=0.05 l1=0.001", "gn batch_size=64 num_groups=5 l1=0.001 augment=shift"]
LONGER += ["bn batch_size=16 lr=0.05 weight_decay=0.0005", "none"]
MANY = [f"bn batch_size={2**i}" for i in range(9)] + ["ln", "gn", "in"]


def norms_of(labels: Sequence[str]) -> dict[str, str]:
    return {label: label.split()[0].split("_")[0] for label in labels}


def some_setting(final: float, seeds: int = 5, epochs: int = 20, split: str = "test") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(int(100 * final))
    error = (100 - final) / 100 + 0.06 * np.exp(-np.arange(epochs) / 2)
    error = error * np.exp(rng.normal(0, 0.05, (seeds, epochs)))
    held = {f"{split}_acc": 1 - error, f"{split}_ce": 3 * error}
    return held | {"train_acc_running": 0.99 - error, "train_ce": 4 * error}


def some_curves(labels: Sequence[str], title: str = "Learning curves", **more: int) -> Figure:
    settings = {label: some_setting(FINAL.get(label, 98.5 + 0.05 * i), **more) for i, label in enumerate(labels)}
    return curves(settings, norms_of(labels), title=title)


def some_values(labels: Sequence[str], seeds: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(len(labels))
    return {label: FINAL.get(label, 99.0 + 0.03 * i) + rng.normal(0, 0.04, seeds) for i, label in enumerate(labels)}


def some_accuracies(labels: Sequence[str], half: float = 0.05, seeds: int = 5, title: str = "Accuracy") -> Figure:
    values = some_values(labels, seeds)
    means = {label: (of.mean(), of.mean() - half, of.mean() + half) for label, of in values.items()}
    published = {labels[0]: [("seed study", 98.33), ("second copy", 98.63)]}
    return accuracies(values, means, norms_of(labels), title=title, reference=published)


def some_effects(labels: Sequence[str], scale: float = 1.0, half: float = 0.07) -> list[Effect]:
    rows = []
    for i, (a, b) in enumerate(combinations(labels, 2)):
        value, verdict = scale * (0.3 - 0.08 * i), [*VERDICTS][i % 5]
        group = "averaged over the other factors" if i < 2 else "one setting against its control"
        rows.append(Effect(f"{a} − {b}", value, value - half, value + half, verdict, value + np.arange(3) / 50, group))
    return rows


def some_along(labels: Sequence[str], x: Sequence[float], base: float = 96.0, fall: float = 0.2) -> Figure:
    lines = {}
    for i, label in enumerate(labels):
        mean = np.array([base + 0.3 * i - fall * j for j in range(len(x))])
        seeds = np.stack([np.repeat(x, 2), np.repeat(mean, 2) + np.tile([-0.1, 0.1], len(x))])
        lines[label] = Along(np.array(x), mean, mean - 0.2, mean + 0.2, seeds)
    return along(lines, styles(norms_of(labels)), x_label="learning rate", y_label="test accuracy, %", title="By lr")


L1 = [0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2]
BN, ONES = {"bn": "bn"}, np.ones(3)
SHARES = {label: (0.02 + 0.03 * i, 0.9 - 0.1 * i, 0.08 + 0.07 * i) for i, label in enumerate(FINAL)}
FIGURES: dict[str, Callable[[], Figure]] = {
    "curves": lambda: some_curves([*FINAL]),
    "curves of 1 seed and epoch": lambda: some_curves(["bn"], seeds=1, epochs=1),
    "curves of 12": lambda: some_curves(MANY),
    "curves, long labels": lambda: some_curves(LONGER, LONG),
    "curves of all norms": lambda: some_curves([*CATALOGUE], seeds=2, epochs=3),
    "no curves": lambda: curves({}, {}, title="Nothing yet"),
    "accuracies": lambda: some_accuracies([*FINAL]),
    "accuracies of 12": lambda: some_accuracies(MANY),
    "accuracies, long labels": lambda: some_accuracies(LONGER, half=9, title=LONG),
    "no accuracies": lambda: accuracies({"bn": np.array([np.nan])}, {}, {"bn": "bn"}, title="Nothing yet"),
    "effects": lambda: effects(some_effects([*FINAL]), 0.1, title="Effects"),
    "effects, long labels": lambda: effects(some_effects(LONGER, 200), 0.1, title=LONG, random="new seeds"),
    "no effects": lambda: effects([], 0.1, title="Nothing yet"),
    "along l1": lambda: some_along(["bn", "ln", "gn", "none"], L1),
    "along, near 100 %": lambda: some_along(["bn"], [0.01, 0.1, 1.0], base=100.0, fall=5),
    "along many": lambda: some_along(LONGER[1:], [*range(40)]),
    "along nothing": lambda: some_along([], []),
    "shares": lambda: variance_shares(SHARES, title="Where the variance comes from"),
    "shares of 1": lambda: variance_shares({LONGER[0]: (0.001, 0.002, 0.997)}, title=LONG),
    "no shares": lambda: variance_shares({}, title="Nothing yet"),
}


@pytest.mark.parametrize("case", FIGURES)
def test_no_text_is_cut_off_and_no_two_overlap(case: str) -> None:
    check_text(FIGURES[case]())


REFUSED: list[tuple[Callable[..., Figure], tuple[Any, ...], str]] = [
    (curves, ({"bn": {"test_acc": ONES}}, BN), r"'bn': test_acc must be \(S, E\), not \(3,\)"),
    (accuracies, ({"bn": np.ones((2, 2))}, {}, BN), r"'bn': values must be \(S,\)"),
    (accuracies, ({"bn": ONES}, {"ln": (1, 1, 1)}, BN), "estimates without values: ln"),
    (effects, ([], 0), "margin must be positive"),
    (effects, ([Effect("a", 1, 0, 2, "good")], 0.1), "a verdict starts with better"),
    (variance_shares, ({"bn": (0.5, 0.6, -0.1)},), "'bn': shares must be"),
    (variance_shares, ({"bn": (0.5, 0.4, 0.2)},), "'bn': shares must be"),
    (variance_shares, ({"bn": (0.5, 0.5)},), "'bn': shares must be"),
    (lines_together, ({"bn": {("a", "b"): (ONES, np.ones((2, 4)))}}, BN, ["a"], {"b": ""}), r"x must be \(X,\) and va"),
]


@pytest.mark.parametrize(("draw", "given", "message"), REFUSED)
def test_what_does_not_fit_is_refused(draw: Callable[..., Figure], given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(*given, title="t")


def test_an_svg_is_small_text() -> None:
    text = svg(some_accuracies(["bn", "ln"])).decode()
    assert ">test accuracy, %</text>" in text
    assert len(text) < 20_000
    assert not re.search(r' d="[^"]*\.\d{3}', text)


def test_figures_touch_neither_pyplot_nor_torch() -> None:
    code = (
        "import sys, numpy as np\n"
        "from normlab.analysis import image_figures, line_figures, poster, probe_figures, row_figures\n"
        "row_figures.accuracies({'bn': np.array([99.0, 99.1])}, {}, {'bn': 'bn'}, title='')\n"
        "print([m for m in ('matplotlib.pyplot', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_norm_gives_colour_and_marker_and_no_two_settings_are_alike() -> None:
    looks = styles(norms_of([*FINAL]))
    for label, look in looks.items():
        norm = label.split()[0]
        assert (look.colour, look.marker) == (norm_colour(norm), norm_marker(norm))
    assert len({(look.colour, look.fill, str(look.line)) for look in looks.values()}) == 6
    many = [*styles(norms_of([f"bn l1={i}" for i in range(16)])).values()]
    assert same_color(many[0].colour, norm_colour("bn"))
    assert len({(look.colour, look.fill, str(look.line)) for look in many}) == 16
    light = [sum(to_rgb(look.colour)) for look in many]
    assert light == sorted(light)


# Curves


def test_every_seed_is_a_line_and_their_mean_another() -> None:
    setting = some_setting(99.4, seeds=3)
    setting["test_acc"][2, 15:] = np.nan  # a seed that ended early leaves the mean to the others
    ce, error = curves({"bn": setting}, BN, title="t").axes
    for ax, values in ((ce, setting["test_ce"]), (error, 100 * (1 - setting["test_acc"]))):
        seeds, mean = ax.lines
        np.testing.assert_allclose(mean.get_ydata(), np.nanmean(values, axis=0))
        np.testing.assert_allclose(np.reshape(seeds.get_ydata(), (3, 21))[:, :20], values)
        assert (mean.get_xdata()[[0, -1]] == [1, 20]).all()
        assert ax.get_yscale() == "log"
        assert mean.get_linewidth() > 2 * seeds.get_linewidth()


def test_each_norm_of_many_settings_has_a_panel_with_the_others_in_grey() -> None:
    axes = some_curves([*FINAL]).axes
    assert [ax.get_title(loc="left") for ax in axes[:3]] == ["bn: batch norm", "ln: layer norm", "gn: group norm"]
    for ax in axes:
        assert [line.get_label() for line in ax.lines if not line.get_label().startswith("_")]
        assert len(ax.lines) == 4 + 2 * 2  # means of the other norms; seeds and mean of its own settings
    assert len({ax.get_ylim() for ax in axes[:3]}) == 1


def test_validation_for_want_of_a_test_and_training_for_want_of_both() -> None:
    assert "validation error, %" in words(some_curves(["bn"], split="val"))  # type: ignore[arg-type]
    training = {name: of for name, of in some_setting(99.0).items() if name.startswith("train")}
    assert "training error, %" in words(curves({"bn": training}, BN, title="t"))


def test_an_error_of_0_stands_below_the_smallest_and_says_so() -> None:
    acc = np.array([[0.9, 0.998, 1.0], [0.9, 0.99, 0.998]])
    (_, error) = curves({"bn": {"test_acc": acc}}, BN, title="t").axes
    seeds, mean = error.lines
    assert mean.get_ydata()[-1] == pytest.approx(0.1)  # of 0 and 0.2 %
    assert seeds.get_ydata()[2] == pytest.approx(0.1)  # 0, at half of 0.2 %
    ticks = dict(zip([t.get_text() for t in error.get_yticklabels()], error.get_yticks(), strict=True))
    assert ticks["0"] == pytest.approx(0.1)


# Rows


def test_a_row_of_accuracies_holds_every_seed_its_mean_interval_and_numbers() -> None:
    """Far settings are errors on a logarithmic axis; an interval beyond the picture ends in an arrow."""
    values = {"bn": np.array([99.4, 99.5, np.nan, 99.6])}
    fig = accuracies(values, {"bn": (99.5, 99.3, 99.7)}, BN, title="t")
    drawn = [np.asarray(line.get_xdata()).tolist() for line in fig.axes[0].lines]
    assert drawn == [[99.4, 99.5, 99.6], [99.3], [99.7], [99.5]]
    assert "99.50 ± 0.10 (n = 3)" in words(fig)
    values = {"bn": np.array([99.5]), "ln": np.array([90.0])}
    ax = accuracies(values, {}, norms_of([*values]), title="t").axes[0]
    assert (ax.get_xscale(), ax.get_xlabel()) == ("log", "test error, % (logarithmic)")
    assert ax.xaxis_inverted()
    assert some_accuracies(["ln", "gn"]).axes[0].get_xscale() == "linear"
    markers = [line.get_marker() for line in some_accuracies(["bn"], half=30).axes[0].lines]
    assert {"<", ">"} <= set(markers)
    assert "|" not in markers


def test_a_row_of_effects_holds_every_seed_the_interval_and_the_verdict_in_its_colour() -> None:
    """An interval of two seeds, which is wide, does not squeeze the rest."""
    rows = [Effect(f"{word} − bn", 0.3, 0.1, 0.5, word, [0.2, 0.4]) for word in VERDICTS]
    fig = effects(rows, 0.1, title="t")
    (ax,), said = fig.axes, words(fig)
    for word, (colour, marker, filled) in VERDICTS.items():
        assert f"+0.30 (+0.10 to +0.50)  {word}" in said
        (line,) = [line for line in ax.lines if line.get_marker() == marker and len(line.get_xdata()) == 1]
        assert line.get_color() == colour
        assert (line.get_markerfacecolor() == colour) == filled
    dots = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "None"]
    assert [line.get_xdata().tolist() for line in dots] == [[0.2, 0.4]] * 5
    assert len({(marker, filled) for _, marker, filled in VERDICTS.values()}) == 5  # told apart in grey
    assert ax.get_xscale() == "linear"
    low, high = effects([Effect("a − b", 0.2, -30, 30, "undecided")], 0.1, title="t").axes[0].get_xlim()
    assert -0.6 < low < -0.1 < 0.2 < high < 0.6


def test_parts_of_a_variance_join_hold_their_per_cent_and_are_told_apart_in_grey() -> None:
    fig = variance_shares({"bn": (0.05, 0.7, 0.25), "ln": (np.nan,) * 3}, title="t")
    bars = [patch for patch in fig.axes[0].patches if isinstance(patch, Rectangle) and patch.get_width()]
    assert [bar.get_x() for bar in bars] == pytest.approx([0, 5, 75])
    assert [bar.get_width() for bar in bars] == pytest.approx([5, 70, 25])
    assert [text.get_text() for text in fig.axes[0].texts if text.get_text()] == ["70 %", "25 %"]
    assert "no values" in words(fig)
    for one, other in pairwise(bars):
        assert contrast(one.get_facecolor(), other.get_facecolor()) > 1.7
    assert [bool(bar.get_hatch()) for bar in bars] == [False, False, True]


# Along a number


def test_zero_stands_left_of_a_broken_logarithmic_axis() -> None:
    fig = some_along(["bn"], L1)
    ax = fig.axes[0]
    assert ax.get_xscale() == "symlog"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1e−6", "1e−5", "1e−4", "1e−3", "0.01"]
    assert "//" in words(fig)
    steps = np.diff(ax.transData.transform([(x, 96) for x in L1])[:, 0])
    assert np.ptp(steps[1:]) < 1e-6 * steps[1]


def test_near_100_per_cent_it_is_the_error_and_nothing_is_moved_along_a_measured_axis() -> None:
    fig = some_along(["bn"], [0.01, 10.0, 60_000], base=99.9, fall=5)
    assert "test error, %" in words(fig)
    (mean,) = [line for line in fig.axes[0].lines if line.get_label() == "bn"]
    np.testing.assert_allclose(mean.get_ydata(), [0.1, 5.1, 10.1])
    assert [label.get_text() for label in fig.axes[0].get_xticklabels()] == ["0.01", "10", "6e+4"]
    x = [0.0, 20.0, 97.5]
    for ax in some_along(["bn", "ln"], x).axes:
        own = [line for line in ax.lines if not line.get_label().startswith("_")]
        assert [line.get_xdata().tolist() for line in own] == [x]
        assert own[0].get_transform() == ax.transData


# Colours

SIGHT = {  # linear RGB to linear RGB: Machado, Oliveira & Fernandes (2009), severity 1.0
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
NORMS = [*CATALOGUE, "custom"]
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
FREQUENT = ("none", "bn", "ln", "gn", "in")


def linear(colour: object) -> np.ndarray:
    rgb = np.array(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(one: object, other: object) -> float:
    """Contrast ratio of WCAG 2."""
    low, high = sorted(float(XYZ[1] @ linear(colour)) + 0.05 for colour in (one, other))
    return high / low


def cielab(colour: str, sight: str) -> np.ndarray:
    x, y, z = XYZ @ np.clip(np.array(SIGHT[sight]) @ linear(colour), 0, 1) / [0.95047, 1, 1.08883]
    x, y, z = (np.cbrt(t) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distances(colours: Sequence[str], sight: str) -> list[float]:
    """Of every two colours, in CIELAB."""
    return [float(np.linalg.norm(cielab(a, sight) - cielab(b, sight))) for a, b in combinations(colours, 2)]


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_keep_apart_for_every_eye(sight: str) -> None:
    """Those of norms, and the grounds of normalization by hand."""
    assert min(distances([norm_colour(name) for name in FREQUENT], sight)) > 27
    apart = distances([norm_colour(name) for name in NORMS], sight)
    for (a, b), distance in zip(combinations(NORMS, 2), apart, strict=True):  # more than colour alone can tell apart
        assert distance > (13 if norm_marker(a) == norm_marker(b) else 6), (a, b)
    assert min(distances(SET_COLOURS, sight)) >= 14
    assert min(distances(SET_COLOURS[:4], sight)) >= 32


def test_dark_text_is_readable_on_every_ground() -> None:
    assert len(set(SET_COLOURS)) == 16
    assert min(contrast(colour, "#222222") for colour in SET_COLOURS) >= 4.7
    assert set_colour(16) == set_colour(0)


def test_every_norm_has_a_colour_and_a_marker_that_no_other_has_both_of() -> None:
    """Also an unknown one: always the same, and none of the others'."""
    assert len({(norm_colour(name), norm_marker(name)) for name in NORMS}) == len(NORMS)
    assert min(contrast(norm_colour(name), "white") for name in NORMS) > 3.4
    assert norm_colour("mypackage.Mine") == norm_colour("mypackage.Mine")
    spare = {norm_colour(f"mine{i}") for i in range(50)}
    assert len(spare) == 4
    assert not spare & {norm_colour(name) for name in NORMS}
    assert norm_marker("mypackage.Mine") not in {norm_marker(name) for name in NORMS}
