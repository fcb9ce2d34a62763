"""Figures: every seed is there, a setting looks the same throughout, what was given stands where it belongs, and
nothing is cut off or overlaps."""

import re
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from drawn import check_text, words
from matplotlib.colors import same_color, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from warm import new_python

from normlab.analysis.colours import norm_colour, norm_marker
from normlab.analysis.drawing import styles, svg
from normlab.analysis.image_figures import confusions, filters, gallery, overlap
from normlab.analysis.line_figures import Along, along, curves
from normlab.analysis.parts.statistics import ERRORS
from normlab.analysis.probe_figures import bands_apart, lines_together
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
    published = {labels[0]: [("first study", 98.33), ("first study's second version", 98.63)]}
    return accuracies(values, means, norms_of(labels), title=title, reference=published)


def some_effects(labels: Sequence[str], scale: float = 1.0, half: float = 0.07) -> list[Effect]:
    rows = []
    for i, (a, b) in enumerate(combinations(labels, 2)):
        value, verdict = scale * (0.3 - 0.08 * i), [*VERDICTS][i % 5]
        group = "averaged over the other factors" if i < 2 else "one setting against its control"
        rows.append(Effect(f"{a} − {b}", value, value - half, value + half, verdict, value + np.arange(3) / 50, group))
    return rows


def some_along(labels: Sequence[str], x: Sequence[float], base=96.0, fall=0.2, y_label="test accuracy, %") -> Figure:
    lines = {}
    for i, label in enumerate(labels):
        mean = np.array([base + 0.3 * i - fall * j for j in range(len(x))])
        seeds = np.stack([np.repeat(x, 2), np.repeat(mean, 2) + np.tile([-0.1, 0.1], len(x))])
        lines[label] = Along(np.array(x), mean, mean - 0.2, mean + 0.2, seeds)
    return along(lines, styles(norms_of(labels)), x_label="learning rate", y_label=y_label, title="By lr")


def some_gallery(n: int, classes: Sequence[str] = DIGITS, lines: int = 3, columns: int = 10) -> Figure:
    images = np.random.default_rng(n).integers(0, 256, (n, 28, 28), dtype=np.uint8)
    names = [(classes[i % 10], classes[(i + 3) % 10]) for i in range(n)]
    below = ["\n".join([f"image {900 * i}", "30 of 30 runs", "12 %, > 99 %"][:lines]) for i in range(n)]
    return gallery(images, names, below, title=LONG, note="true → predicted" * 12, columns=columns)


def some_counts(accuracy: float, k: int = 10) -> np.ndarray:
    rng = np.random.default_rng(k)
    odds = rng.gamma(0.5, size=(k, k)) * (1 - np.eye(k))
    odds = (1 - accuracy) * odds / odds.sum(1, keepdims=True) + accuracy * np.eye(k)
    return np.array([rng.multinomial(980 + i, row) for i, row in enumerate(odds)])


def of_a_run(counts: np.ndarray, classes: Sequence[str] = DIGITS) -> Figure:
    return confusions({"": counts}, classes, title="Confusion of 10,000 test images", note="Images.", shares=True)


def of_settings(labels: Sequence[str], classes: Sequence[str] = DIGITS) -> Figure:
    rng, k = np.random.default_rng(1), len(classes)
    return confusions({label: rng.poisson(0.8, (k, k)) * 1.4 for label in labels}, classes, title=LONG)


def some_overlap(labels: Sequence[str]) -> np.ndarray:
    half = np.random.default_rng(0).uniform(0.1, 0.3, (len(labels), len(labels)))
    return half + half.T


BLOCKS = ["block1", "block2", "block3", "block4", "block5"]
TABLE = BLOCKS, {"sd": "standard deviation", "skew": "skewness"}
NINE = ["none", "bn", "bn l1=0.001", "ln", "gn", "gn norm.num_groups=1", "custom_mine.RMS placement=pre", "rms", "frn"]


def some_probes(labels: list[str], seeds: int = 3, epochs: int = 13, factor: float = 1.0) -> dict:
    rng = np.random.default_rng(0)
    x = np.arange(epochs) / 4
    keys = [(block, what) for block in BLOCKS for what in ("sd", "skew")]
    keys += [("", what) for what in ("loss", "loss_min", "loss_max")]
    found = {
        label: {key: (x, factor**i * (1 + i + rng.uniform(0, 0.2, (seeds, epochs)))) for key in keys}
        for i, label in enumerate(labels)
    }
    for of in found.values():
        of["", "loss_max"] = (x, of["", "loss"][1] + 1)
        of["", "loss_min"] = (x, of["", "loss"][1] - 0.5)
    return found


def some_lines(labels: list[str], **more: float) -> Figure:
    return lines_together(some_probes(labels, **more), norms_of(labels), *TABLE, title="Layers")


def some_bands(labels: list[str], **more: float) -> Figure:
    quantities = [("loss", "loss_min", "loss_max", "loss")]
    return bands_apart(some_probes(labels, **more), norms_of(labels), quantities, title="Bands")


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
    **{f"along, {what}": lambda y=y: some_along(["bn"], L1, y_label=y) for what, (_, y) in ERRORS.items()},
    "shares": lambda: variance_shares(SHARES, title="Where the variance comes from"),
    "shares of 1": lambda: variance_shares({LONGER[0]: (0.001, 0.002, 0.997)}, title=LONG),
    "no shares": lambda: variance_shares({}, title="Nothing yet"),
    "no image": lambda: some_gallery(0),
    "30 images": lambda: some_gallery(30),
    "3 images of clothes": lambda: some_gallery(3, FASHION),
    "50 images of clothes": lambda: some_gallery(50, FASHION, 1),
    "2 images, 1 per row": lambda: some_gallery(2, columns=1),
    "very long names": lambda: some_gallery(12, [f"an uncommonly long name {i}" for i in range(10)]),
    "confusion at 99.4 %": lambda: of_a_run(12 * some_counts(0.994)),
    "confusion at 60 %": lambda: of_a_run(some_counts(0.6), FASHION),
    "confusion of 2 classes": lambda: of_a_run(some_counts(0.9, 2), ["odd", "even"]),
    "confusion of 40 classes": lambda: of_a_run(some_counts(0.9, 40), [f"class {i}" for i in range(40)]),
    "confusion of 6 settings": lambda: of_settings([*FINAL]),
    "confusion of 1 setting": lambda: of_settings(["bn"]),
    "confusion of 2, long labels": lambda: of_settings(LONGER[:2], FASHION),
    "confusion of 2, 20 classes": lambda: of_settings(["bn", "ln"], [f"class {i}" for i in range(20)]),
    "overlap of 3": lambda: overlap(some_overlap("abc"), ["bn", "ln", "gn"], title="Which errors are shared"),
    "overlap of 12": lambda: overlap(some_overlap(range(12)), [f"bn lr={i}" for i in range(12)], title=LONG),
    "overlap with long labels": lambda: overlap(some_overlap(LONGER), LONGER, title="Which errors are shared"),
    "overlap of 1": lambda: overlap(np.array([[np.nan]]), ["bn"], title="t"),
    "1 filter": lambda: filters(np.ones((1, 3, 3)), title=LONG),
    "10 filters, 5 per row": lambda: filters(np.ones((10, 1, 1)), title="ln, seed 0", columns=5),
    "32 filters": lambda: filters(np.random.default_rng(0).normal(size=(32, 3, 3)), title="ln, seed 0"),
    "lines of 4": lambda: some_lines(["none", "bn", "ln", "gn"]),
    "lines of 9": lambda: some_lines(NINE),
    "lines over decades": lambda: some_lines(["none", "bn", "ln"], factor=1e-3),
    "lines, 1 seed, 1 epoch": lambda: some_lines(["bn"], seeds=1, epochs=1),
    "lines of none": lambda: lines_together({}, {}, *TABLE, title="Nothing yet"),
    "bands of 4": lambda: some_bands(["none", "bn", "ln", "gn"]),
    "bands of 9": lambda: some_bands(NINE),
    "bands of none": lambda: some_bands([]),
}


@pytest.mark.parametrize("case", FIGURES)
def test_no_text_is_cut_off_and_no_two_overlap(case: str) -> None:
    fig = FIGURES[case]()
    check_text(fig)
    assert fig.bbox.width <= 1500


NAMES, AB = [("1", "2")], ["a", "b"]
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
    (gallery, (np.zeros((1, 28, 28)), NAMES, [""]), r"images must be uint8 \(N, H, W\) or \(N, H, W, 3\), not "),
    (gallery, (np.zeros((1, 1, 28, 28), np.uint8), NAMES, [""]), "images must be uint8"),
    (gallery, (np.zeros((2, 28, 28), np.uint8), NAMES, [""]), "a pair of names and a text below"),
    *((confusions, ({"bn": np.ones(shape, int)}, AB), r"'bn': must be \(2, 2\)") for shape in ((2, 3), (3, 3), (2,))),
    *((overlap, (np.ones(shape), AB), "matrix must") for shape in ((2, 3), (2,))),
    *((overlap, (np.full((2, 2), share), AB), "matrix must") for share in (1.1, -0.1)),
    *((filters, (np.zeros(of),), r"must be float \(C, H, W\)") for of in ((10, 3), (10, 2, 3, 3), (0, 3, 3))),
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
    assert new_python("-c", code, exit_code=0).stdout.strip() == "[]"


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


@pytest.mark.parametrize("norms", [("bn", "ln"), ("bn", "ln", "gn", "in", "rms")])
def test_the_key_of_panels_names_what_they_have_in_common_once(norms: tuple[str, ...]) -> None:
    """And every setting where they have not the same, or one of them nothing to name."""
    rests = ["lr=0.1 l1=0", "lr=0.1 l1=0.001", "lr=0.01 l1=0", "lr=0.01 l1=0.001"]
    crossed = [f"{norm} {rest}" for norm in norms for rest in rests]
    for fig in (some_curves(crossed), some_along(crossed, L1)):
        assert [text.get_text() for text in fig.legends[0].get_texts()] == rests
        fig.draw_without_rendering()
        assert all(ax.get_window_extent().height > 1.2 * fig.dpi for ax in fig.axes if ax.get_visible() and ax.axison)
    for labels in ([*FINAL], [*crossed, f"{norms[0]} lr=1 l1=0"][1:]):
        assert [text.get_text() for text in some_curves(labels).legends[0].get_texts()] == labels


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
    assert "left out" not in said
    wide = effects([Effect("a − b", 0.2, -30, 30, "undecided", [-29.8, 0.1, 30.2])], 0.1, title="t")
    low, high = wide.axes[0].get_xlim()
    assert -0.6 < low < -0.1 < 0.2 < high < 0.6
    assert "Dots: single seeds; 2 beyond the axis left out." in words(wide).replace("\n", " ")


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


# Images and matrices


def tile(fig: Figure, i: int, count: int, columns: int, side: int = 28) -> np.ndarray:
    """The i-th image of a montage."""
    sheet = np.asarray(fig.axes[0].images[0].get_array())
    high, wide = sheet.shape[0] // -(-count // columns), sheet.shape[1] // columns
    top, left = i // columns * high, i % columns * wide + (wide - side) // 2
    return sheet[top : top + side, left : left + side]


@pytest.mark.parametrize("colours", [(), (3,)])
def test_images_stand_row_by_row_as_they_are_with_their_names_and_words_below(colours: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 255, (3, 28, 28, *colours), dtype=np.uint8)
    fig = gallery(images, [("4", "9"), ("7", "1"), ("0", "6")], ["a", "b\nc", "d"], title="bn", columns=2)
    for i, image in enumerate(images):
        np.testing.assert_array_equal(tile(fig, i, 3, 2), image)
    assert "4 → 9\na\n7 → 1\nb\nc\n0 → 6\nd" in words(fig)
    assert "Ankle boot\n→ Sneaker\na" in words(gallery(images[:1], [("Ankle boot", "Sneaker")], ["a"], title="bn"))


def cells(fig: Figure, panel: int = 0) -> dict[tuple[int, int], list[str]]:
    """The texts in the cells of a matrix."""
    found: dict[tuple[int, int], list[str]] = {}
    for text in fig.axes[panel].texts:
        x, y = text.get_position()
        found.setdefault((round(y), round(x)), []).append(text.get_text())
    return found


def colours(fig: Figure, panel: int = 0) -> np.ndarray:
    image = fig.axes[panel].images[0]
    return image.cmap(image.norm(image.get_array()))[..., :3]


def test_a_cell_holds_its_count_and_its_share_of_the_row_and_an_empty_one_nothing() -> None:
    counts = np.array([[1987, 12, 1], [0, 3, 1], [2, 0, 6]], np.uint16)
    shown = cells(of_a_run(counts, list("abc")))
    assert [["; ".join(shown.get((row, column), [])) for column in range(3)] for row in range(3)] == [
        ["1,987; 99.4 %", "12; 0.6 %", "1; 0.1 %"],
        ["", "3; 75.0 %", "1; 25.0 %"],
        ["2; 25.0 %", "", "6; 75.0 %"],
    ]


def test_settings_have_their_means_and_share_a_scale() -> None:
    one = np.array([[0, 0.4, 0.0], [12.0, 0, 0.0], [0.0, 0.2, 0]])
    fig = confusions({"bn": one, "ln": 2 * one}, ["a", "b", "c"], title="t")
    assert cells(fig) == {(0, 1): ["0.4"], (1, 0): ["12"], (2, 1): ["0.2"]}
    assert cells(fig, 1) == {(0, 1): ["0.8"], (1, 0): ["24"], (2, 1): ["0.4"]}
    assert {ax.images[0].get_clim() for ax in fig.axes[:2]} == {(0, 24)}


@pytest.mark.parametrize("accuracy", [0.6, 0.994])
def test_the_diagonal_is_grey_the_scale_ends_at_the_largest_error_and_texts_can_be_read(accuracy: float) -> None:
    """Also in the width that TensorBoard gives the figure. Rows are the true class."""
    counts = some_counts(accuracy)
    fig, off = of_a_run(counts, FASHION), ~np.eye(10, dtype=bool)
    grounds, ax = colours(fig), fig.axes[0]
    assert np.ptp(np.diagonal(grounds).T) == 0  # red, green and blue alike, in all ten
    errors = 100 * (counts / counts.sum(1, keepdims=True))[off]
    assert ax.images[0].get_clim() == pytest.approx((0, errors.max()))
    luminance = grounds[off] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance[np.argsort(errors)]) <= 1e-9).all()  # the more errors, the darker
    for text in ax.texts:
        column, row = (round(at) for at in text.get_position())
        assert contrast(text.get_color(), grounds[row, column]) > 4
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")
    assert [label.get_text() for label in ax.get_yticklabels()] == FASHION
    assert ax.yaxis_inverted()
    assert 350 / of_a_run(counts).bbox.width > 0.6


def test_a_class_without_images_and_a_run_without_errors() -> None:
    counts = some_counts(0.9)
    counts[3] = 0
    with np.errstate(all="raise"):
        fig = of_a_run(counts)
        of_a_run(np.diag([3, 0, 5]), list("abc"))
    assert not any(row == 3 for row, _ in cells(fig))
    assert colours(fig)[3, 0].tolist() == [1, 1, 1]


def test_every_pair_has_its_overlap_the_darker_the_more_and_the_diagonal_none() -> None:
    """Long labels are numbered."""
    matrix = np.array([[1, 0.25, np.nan], [0.25, 1, 0.6], [np.nan, 0.6, 1]])
    fig = overlap(matrix, ["bn", "ln", "gn"], title="t")
    assert cells(fig) == {(0, 1): ["0.25"], (1, 0): ["0.25"], (1, 2): ["0.60"], (2, 1): ["0.60"]}
    grounds = colours(fig)
    assert grounds[1, 2].sum() < grounds[0, 1].sum()
    assert np.ptp([*np.diagonal(grounds).T, grounds[0, 2]]) == 0
    assert contrast("#222222", grounds[1, 2]) > 4.5
    [ax] = overlap(some_overlap(LONGER), LONGER, title="t").axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "3", "4"]
    named = [" ".join(label.get_text().split()) for label in ax.get_yticklabels()]
    assert named == [f"{label} {i + 1}" for i, label in enumerate(LONGER)]


def test_filters_have_one_symmetric_scale() -> None:
    weights = np.random.default_rng(0).normal(size=(12, 3, 3))
    weights[3, 1, 1] = -7.5
    fig = filters(weights, title="t", columns=6)
    image = fig.axes[0].images[0]
    assert image.get_clim() == (-7.5, 7.5)
    for i, each in enumerate(weights):
        np.testing.assert_array_equal(tile(fig, i, 12, 6, side=30)[::10, ::10], each)
    assert [text.get_text() for text in fig.axes[0].texts] == [str(i) for i in range(1, 13)]
    assert [label.get_text() for label in fig.axes[-1].get_yticklabels()] == ["−7.50", "0", "+7.50"]
    low, middle, high = (np.array(image.cmap(x)[:3]) for x in (0.0, 0.5, 1.0))
    assert low[2] > low[0]  # negative is blue
    assert high[0] > high[2]  # positive is orange
    assert np.ptp(middle) < 0.02  # zero is neither


def test_a_filter_of_zeros_and_one_that_is_not_finite() -> None:
    assert filters(np.zeros((1, 3, 3)), title="t").axes[0].images[0].get_clim() == (-1, 1)
    weights = np.full((2, 3, 3), 0.5)
    weights[0], weights[1, 0, 0] = np.nan, np.inf
    fig = filters(weights, title="t")
    assert fig.axes[0].images[0].get_clim() == (-0.5, 0.5)
    assert np.ptp(colours(fig)[0, 3]) == 0  # grey


# Probes


def test_a_row_has_one_axis_that_holds_all_of_it() -> None:
    """Logarithmic over decades."""
    fig = some_lines(["bn", "ln", "gn"])
    for row in (fig.axes[:5], fig.axes[5:]):
        assert len({ax.get_ylim() for ax in row}) == 1
        low, high = row[0].get_ylim()
        assert all(low < np.nanmin(line.get_ydata()) for ax in row for line in ax.lines)
        assert all(np.nanmax(line.get_ydata()) < high for ax in row for line in ax.lines)
    assert all(ax.get_xlim() == fig.axes[0].get_xlim() for ax in fig.axes)
    assert {ax.get_yscale() for ax in some_lines(["bn", "ln"], factor=1e-3).axes} == {"log"}


def test_bands_reach_from_the_lower_to_the_upper_mean() -> None:
    measured = some_probes(["bn", "ln"])
    fig = bands_apart(measured, norms_of(["bn", "ln"]), [("loss", "loss_min", "loss_max", "loss")], title="t")
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["bn", "ln"]
    x, values = measured["ln"]["", "loss"]
    (band,), (line,) = fig.axes[1].collections, fig.axes[1].lines
    edges = band.get_paths()[0].vertices
    ends = edges[np.isclose(edges[:, 0], x[4]), 1]
    np.testing.assert_allclose([ends.min(), ends.max()], values.mean(0)[4] + [-0.5, 1])
    np.testing.assert_allclose(line.get_ydata(), values.mean(0))


# Colours

SIGHT = {  # linear RGB to linear RGB: Machado, Oliveira & Fernandes (2009), severity 1.0
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
NORMS = [*CATALOGUE, "custom"]
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]])
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
