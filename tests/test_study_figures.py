"""Figures of a study: every setting keeps its look, numbers stand where they belong, nothing overlaps or is cut off."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from test_figures import LONG, contrast

from normlab.analysis.colours import norm_colour, norm_marker
from normlab.analysis.drawing import spread
from normlab.analysis.factor_figure import factor_curve
from normlab.analysis.panels import VERDICTS, styles
from normlab.analysis.study_figures import bands, differences, intervals

FINAL = {"bn": 99.47, "bn l1=0.001": 97.8, "ln": 99.44, "ln l1=0.001": 99.41, "gn": 99.45, "gn l1=0.001": 99.42}
TWELVE = ["bn", "bn l1=0.001", "bn batch_size=16", "bn batch_size=16 l1=0.001", "ln", "ln l1=0.001"]
TWELVE += ["gn", "gn l1=0.001", "gn num_groups=5", "in", "rms", "none"]
LONGER = ["custom_mine.RMS placement=pre lr=0.05 l1=0.001", "gn batch_size=64 num_groups=5 l1=0.001 augment=shift"]
LONGER += ["bn batch_size=16 lr=0.05 weight_decay=0.0005", "none"]


def norms_of(labels: Sequence[str]) -> dict[str, str]:
    return {label: label.split()[0] for label in labels}


def some_setting(final: float, seeds: int = 5, epochs: int = 20, split: str = "test") -> dict[str, np.ndarray | None]:
    rng = np.random.default_rng(int(100 * final))
    error = (100 - final) / 100 + 0.06 * np.exp(-np.arange(epochs) / 2)
    error = error * np.exp(rng.normal(0, 0.05, (seeds, epochs)))
    held = {f"{split}_acc": 1 - error, f"{split}_ce": 3 * error}
    return held | {"train_acc_running": 0.99 - error, "train_ce": 4 * error}


def some_values(labels: Sequence[str], seeds: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(len(labels))
    return {label: FINAL.get(label, 99.0 + 0.03 * i) + rng.normal(0, 0.04, seeds) for i, label in enumerate(labels)}


def some_estimates(values: dict[str, np.ndarray], half: float = 0.05) -> dict[str, tuple[float, float, float]]:
    return {label: (v.mean(), v.mean() - half, v.mean() + half) for label, v in values.items()}


def some_rows(labels: Sequence[str]) -> list[tuple[str, float, float, float, str]]:
    means = {label: found.mean() for label, found in some_values(labels).items()}
    rows = []
    for i, (a, b) in enumerate(combinations(labels, 2)):
        verdict = list(VERDICTS)[i % 4] + (", about 40 seeds needed" if i % 4 == 3 else "")
        rows.append(
            (f"{a} − {b}", means[a] - means[b], means[a] - means[b] - 0.06, means[a] - means[b] + 0.07, verdict)
        )
    return rows


def some_series(x: Sequence[float], labels: Sequence[str], slope: float = 0.1) -> dict[str, tuple[np.ndarray, ...]]:
    at = np.array(x, dtype=float)
    means = [99.4 - 0.02 * i - slope * at / at.max() for i in range(len(labels))]
    return {label: (at, mean, mean - 0.03, mean + 0.04) for label, mean in zip(labels, means, strict=True)}


def some_bands(labels: Sequence[str], **more: Any) -> Figure:
    settings = {label: some_setting(FINAL.get(label, 98.5 + 0.05 * i), **more) for i, label in enumerate(labels)}
    return bands(settings, norms_of(labels), title="Replication")


GAPS = {
    "bn": some_setting(99.4),
    "ln": some_setting(99.3) | {"test_acc": np.full((5, 20), 0.99), "test_ce": None},
    "in": some_setting(99.0, split="val"),
    "gn": {},
    "rms": {"test_acc": np.full((3, 20), np.nan)},
}
GAPS["bn"]["test_acc"][2, 9:] = np.nan
GAPS["ln"]["test_acc"][:, 12:] = np.nan

SIX, WIDE = some_values(list(FINAL)), some_values(LONGER)
CLOSE = {label: found for label, found in SIX.items() if label != "bn l1=0.001"}
PAPERS = {"ln": [("first copy", 99.41), ("second copy", 99.45)], "bn l1=0.001": [("first copy", 98.33)]}
HOLES = {"bn": np.array([99.4, np.nan, 99.5]), "ln": np.array([np.nan]), "gn": np.array([99.45])}


def some_intervals(values: dict[str, np.ndarray], half: float = 0.05, **more: Any) -> Figure:
    whole = {label: found for label, found in values.items() if np.isfinite(found).all()}
    told = {"title": "Test accuracy after 20 epochs", "unit_label": "test accuracy, %"} | more
    return intervals(values, some_estimates(whole, half), norms_of(list(values)), **told)


def some_factor(x: Sequence[float], labels: Sequence[str], slope: float = 0.1, **more: Any) -> Figure:
    told = {"factor": "l1", "y_label": "test accuracy, %", "title": "The penalty"} | more
    return factor_curve(some_series(x, labels, slope), norms_of(labels), **told)


FIGURES: dict[str, Callable[[], Figure]] = {
    "bands of 6": lambda: some_bands(list(FINAL)),
    "bands of 12": lambda: some_bands(TWELVE),
    "bands with long labels": lambda: some_bands(LONGER),
    "bands of 1, 1 seed": lambda: some_bands(["ln"], seeds=1),
    "bands, 1 epoch": lambda: some_bands(list(FINAL), epochs=1),
    "bands with gaps": lambda: bands(GAPS, norms_of(list(GAPS)), title=LONG),
    "bands of none": lambda: bands({}, {}, title="Nothing yet"),
    "intervals of 6": lambda: some_intervals(SIX, reference=PAPERS),
    "intervals that are close": lambda: some_intervals(CLOSE),
    "intervals of 12": lambda: some_intervals(some_values(TWELVE)),
    "intervals with long labels": lambda: some_intervals(WIDE, 3.0, unit_label=LONG, title=LONG),
    "intervals of 1, 1 seed": lambda: some_intervals({"ln": np.array([99.4])}),
    "intervals with holes": lambda: some_intervals(HOLES),
    "intervals of none": lambda: some_intervals({}),
    "15 differences": lambda: differences(some_rows(list(FINAL)), 0.05, title="Pairs"),
    "10 small differences": lambda: differences(some_rows(list(CLOSE)), 0.05, title="Pairs"),
    "66 differences": lambda: differences(some_rows(TWELVE), 0.05, title="Pairs"),
    "differences with long labels": lambda: differences(some_rows(LONGER), 0.05, title=LONG),
    "1 difference, no interval": lambda: differences([("a − b", 0.02, np.nan, np.nan, "undecided")], 0.05, title="t"),
    "no difference": lambda: differences([], 0.05, title="Nothing yet"),
    "factor of 5 values": lambda: some_factor([0, 1e-5, 1e-4, 1e-3, 1e-2], list(FINAL)),
    "factor of 5 close values": lambda: some_factor([0.1, 0.11, 0.12, 0.5, 1], TWELVE),
    "factor of 12 values": lambda: some_factor(np.linspace(0.01, 0.1, 12).tolist(), LONGER),
    "factor of 21 values": lambda: some_factor([0, *np.logspace(-5, -2, 20).tolist()], ["bn"]),
    "factor that breaks the net": lambda: some_factor([0, 1e-4, 1e-3, 1e-2, 1e-1], ["bn", "ln"], 80),
    "factor of 1 value": lambda: some_factor([64], ["bn"]),
    "factor of none": lambda: factor_curve({}, {}, factor="l1", y_label="y", title="Nothing yet"),
}


def texts(fig: Figure) -> list[Text]:
    """All that is written in a figure: a tick label only if it is switched on and its tick in view."""
    found = [*fig.texts]
    for ax in fig.axes:
        found += ax.texts
        if ax.axison:
            found += [ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label]
            for axis in (ax.xaxis, ax.yaxis):
                low, high = sorted(axis.get_view_interval())
                slack = 1e-9 * (high - low)
                ticks = [tick for tick in axis.get_major_ticks() if low - slack <= tick.get_loc() <= high + slack]
                found += [label for tick in ticks for label in (tick.label1, tick.label2)]
    return [text for text in found if text.get_text() and text.get_visible()]


@pytest.mark.parametrize("case", FIGURES)
def test_no_text_is_cut_off_and_no_two_overlap(case: str) -> None:
    fig = FIGURES[case]()
    fig.draw_without_rendering()
    boxes = [(text, Text.get_window_extent(text)) for text in texts(fig)]  # Text's: without a leader line
    assert len(boxes) > 1
    for text, box in boxes:
        assert min(box.x0, box.y0) >= 0, text
        assert box.x1 <= fig.bbox.width, text
        assert box.y1 <= fig.bbox.height, text
    ends = np.array([box.extents for _, box in boxes])
    shared = np.minimum(ends[:, None, 2:], ends[:, 2:]) - np.maximum(ends[:, None, :2], ends[:, :2])
    close = np.triu(shared.min(axis=2) > 1.5, 1)  # pixels
    assert not close.any(), [(boxes[i][0], boxes[j][0]) for i, j in zip(*np.nonzero(close), strict=True)]
    assert fig.bbox.width <= 1320
    assert fig.get_facecolor() == (1, 1, 1, 1)


def words(fig: Figure) -> list[str]:
    return [text.get_text() for text in texts(fig)]


def marks(fig: Figure, marker: str, panel: int = -1) -> list[Line2D]:
    return [line for line in fig.axes[panel].lines if line.get_marker() == marker]


def test_figures_touch_neither_pyplot_nor_torch() -> None:
    code = (
        "import sys, numpy as np, matplotlib; backend = matplotlib.rcParams._get('backend')\n"
        "from normlab.analysis.study_figures import bands\n"
        "bands({'bn': {'test_acc': np.ones((2, 3))}}, {'bn': 'bn'}, title='t')\n"
        "print([m for m in ('matplotlib.pyplot', 'torch', 'lightning') if m in sys.modules], "
        "backend is matplotlib.rcParams._get('backend'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


class TestStyles:
    def test_a_norm_gives_colour_and_marker_and_its_settings_differ_in_fill_and_line(self) -> None:
        found = styles(norms_of(TWELVE).items())
        assert list(found) == TWELVE
        for label, style in found.items():
            norm = label.split()[0]
            assert (style.colour, style.marker) == (norm_colour(norm), norm_marker(norm))
        assert (found["bn"].fill, found["bn"].line) == ("full", "-")
        assert (found["bn l1=0.001"].fill, found["ln l1=0.001"].fill) == ("none", "none")
        looks = [(style.marker, style.fill) for style in found.values()]
        assert len(set(looks)) == len({(style.marker, str(style.line)) for style in found.values()}) == 12

    def test_16_settings_of_one_norm_all_differ(self) -> None:
        found = styles((f"gn {i}", "gn") for i in range(16))
        assert len({(style.fill, str(style.line)) for style in found.values()}) == 16

    def test_norms_that_share_a_spare_colour_count_as_one(self) -> None:
        same = [f"mine{i}" for i in range(50) if norm_colour(f"mine{i}") == norm_colour("mine0")][:2]
        one, other = styles(zip(same, same, strict=True)).values()
        assert one.fill != other.fill

    def test_a_label_that_comes_twice_is_refused(self) -> None:
        with pytest.raises(ValueError, match="'bn' comes twice"):
            styles([("bn", "bn"), ("bn", "bn")])

    def test_a_setting_looks_the_same_where_others_are_left_out(self) -> None:
        norms = norms_of(list(FINAL))
        only = {"bn l1=0.001": some_setting(97.8)}
        (line,) = bands(only, norms, title="t").axes[1].lines
        assert (line.get_markerfacecolor(), line.is_dashed()) == ("#FFFFFF", True)
        values = {"bn l1=0.001": np.array([97.8])}
        row = intervals(values, {}, norms, title="t", unit_label="%")
        assert [mean.get_markerfacecolor() for mean in marks(row, "o") if mean.get_markersize() == 8] == ["#FFFFFF"]


class TestBands:
    def test_line_and_band_are_mean_and_standard_deviation(self) -> None:
        setting = some_setting(99.0)
        fig = bands({"ln": setting}, {"ln": "ln"}, title="t")
        for ax, name, factor in zip(fig.axes, ("test_ce", "test_acc"), (1, 100), strict=True):
            runs = factor * setting[name]
            (line,), (band,) = ax.lines, ax.collections
            np.testing.assert_allclose(line.get_ydata(), runs.mean(0))
            assert line.get_xdata().tolist() == list(range(1, 21))
            edges = band.get_paths()[0].vertices
            last = edges[edges[:, 0] == 20, 1]
            want = runs[:, -1].mean() + runs[:, -1].std(ddof=1) * np.array([-1, 1])
            np.testing.assert_allclose([last.min(), last.max()], want)
        assert any("line: mean over 5 seeds, band: mean ± standard deviation" in word for word in words(fig))

    def test_one_seed_is_a_line_alone(self) -> None:
        fig = some_bands(["ln"], seeds=1)
        assert not any(ax.collections for ax in fig.axes)
        assert any(word.startswith("one seed a setting") for word in words(fig))

    def test_labels_hold_the_last_mean_and_each_has_its_line(self) -> None:
        settings = {label: some_setting(final) for label, final in FINAL.items()}
        fig = bands(settings, norms_of(list(FINAL)), title="t")
        for ax, name, form, factor in [(fig.axes[0], "test_ce", ".4f", 1), (fig.axes[1], "test_acc", ".2f", 100)]:
            want = {f"{factor * run[name][:, -1].mean():{form}}  {label}" for label, run in settings.items()}
            assert {note.get_text() for note in ax.texts} == want
            heights = [note.xyann[1] for note in sorted(ax.texts, key=lambda note: note.xy[1])]
            assert heights == sorted(heights)
        samples = [item for item in fig.findobj(Line2D) if item.axes is None and item.get_linestyle() != "None"]
        assert sum(item in fig.artists or item in fig.lines for item in samples) == 12

    def test_the_first_epochs_do_not_squeeze_the_others(self) -> None:
        fig = some_bands(["bn", "ln", "gn"])
        low, high = fig.axes[1].get_ylim()
        assert 97.5 < low < 99.3
        assert 99.5 < high < 100
        assert any("first epochs outside the picture" in word for word in words(fig))
        for ax in fig.axes:  # of the last 15 epochs nothing is lost
            low, high = ax.get_ylim()
            for line in ax.lines:
                assert low < min(line.get_ydata()[5:]) <= max(line.get_ydata()[5:]) < high

    def test_validation_for_want_of_a_test_and_training_for_want_of_both(self) -> None:
        for split, word in [("test", "test"), ("val", "validation"), ("other", "training")]:
            fig = bands({"bn": some_setting(99.0, split=split)}, {"bn": "bn"}, title="t")
            assert any(title.startswith(f"{word} accuracy") for title in words(fig))
            assert len(fig.axes[0].lines) == 1

    def test_a_band_that_reaches_beyond_100_per_cent_does_not_stretch_the_axis(self) -> None:
        runs = np.array([[0.98, 0.999, 1.0], [0.97, 0.99, 0.995], [0.98, 0.999, 1.0]])
        ax = bands({"bn": {"test_acc": runs}}, {"bn": "bn"}, title="t").axes[1]
        at_98, at_99, at_100 = ax.transAxes.inverted().transform(
            ax.transData.transform([(1, y) for y in (98, 99, 100)])
        )[:, 1]
        assert 0 < at_98 < at_99 - 0.1 < at_100 - 0.2 < 0.8

    def test_what_is_missing_is_said(self) -> None:
        fig = bands(GAPS, norms_of(list(GAPS)), title="t")
        note = next(word for word in words(fig) if "seeds" in word)
        assert "mean over 3 to 5 seeds" in note
        assert "no test values: ln, in, gn, rms" in note
        assert "fewer seeds at the last epoch: bn (4 of 5)" in note
        assert "99.00  ln, to epoch 12" in words(fig)

    def test_a_seed_that_ends_early_leaves_the_mean_to_the_others(self) -> None:
        runs = np.array([[0.5, 0.7], [0.7, np.nan], [np.inf, np.nan]])
        (line,) = bands({"bn": {"test_acc": runs}}, {"bn": "bn"}, title="t").axes[1].lines
        np.testing.assert_allclose(line.get_ydata(), [60, 70])

    def test_what_does_not_fit_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"'bn': test_acc must be \(S, E\), not \(3,\)"):
            bands({"bn": {"test_acc": np.ones(3)}}, {"bn": "bn"}, title="t")
        with pytest.raises(ValueError, match="no norm is given for bn"):
            bands({"bn": {}}, {"ln": "ln"}, title="t")


class TestIntervals:
    def test_a_row_holds_every_seed_its_mean_interval_and_numbers(self) -> None:
        values = {"bn": np.array([99.5, 99.4, np.nan]), "ln": np.array([99.3])}
        estimates = {"bn": (99.45, 99.41, 99.49)}
        fig = intervals(values, estimates, norms_of(["bn", "ln"]), title="t", unit_label="acc, %")
        assert [word for word in words(fig) if "n =" in word] == ["99.45 ± 0.07 (n = 2)", "99.30 (n = 1)"]
        dots = [line for line in fig.axes[1].lines if line.get_markersize() == 4.5]
        assert [line.get_xdata().tolist() for line in dots] == [[99.5, 99.4], [99.3]]
        assert all(abs(y - row) < 0.45 for row, line in enumerate(dots) for y in line.get_ydata())
        means = [line.get_xydata().tolist() for line in fig.axes[1].lines if line.get_markersize() == 8]
        assert means == [[[99.45, 0]], [[99.3, 1]]]
        assert [line.get_xdata()[0] for line in marks(fig, "|")] == [99.41, 99.49]

    def test_far_settings_are_spaced_by_the_error_and_near_ones_evenly(self) -> None:
        far, near = some_intervals(SIX), some_intervals(CLOSE)
        assert "test accuracy, % – spaced by the logarithm of the error" in words(far)
        assert "test accuracy, %" in words(near)
        low, high = sorted(far.axes[1].transData.transform([(x, 0) for x in (99.40, 99.50)])[:, 0])
        assert high - low > 30  # pixels: 0.1 points are seen beside 97.8 %
        assert near.axes[1].get_xscale() == "linear"

    def test_an_interval_beyond_the_picture_ends_in_an_arrow(self) -> None:
        fig = some_intervals({"bn": np.array([99.4, 99.5]), "ln": np.array([99.3, 99.4])}, half=3.0)
        assert len(marks(fig, "<")) == len(marks(fig, ">")) == 2
        low, high = fig.axes[1].get_xlim()
        assert high - low < 0.6

    def test_published_values_have_a_marker_for_each_source_and_a_line_in_the_key(self) -> None:
        fig = some_intervals(SIX, reference=PAPERS)
        assert [line.get_xdata()[0] for line in marks(fig, "x")] == [98.33, 99.41]
        assert [line.get_xdata()[0] for line in marks(fig, "+")] == [99.45]
        assert {"published, one seed: first copy", "published, one seed: second copy"} <= set(words(fig))

    def test_cross_entropy_is_logarithmic_where_it_spans_much(self) -> None:
        fig = some_intervals({"bn": np.array([0.02]), "ln": np.array([0.2])}, 0.001, accuracy=False, form=".4f")
        assert fig.axes[1].get_xscale() == "log"
        assert "0.0200 (n = 1)" in words(fig)

    def test_what_does_not_fit_is_refused(self) -> None:
        given = {"bn": np.ones(2)}
        with pytest.raises(ValueError, match=r"'bn': values must be \(S,\), not \(2, 1\)"):
            intervals({"bn": np.ones((2, 1))}, {}, {"bn": "bn"}, title="t", unit_label="u")
        with pytest.raises(ValueError, match="estimates without values: ln"):
            intervals(given, {"ln": (1, 1, 1)}, {"bn": "bn"}, title="t", unit_label="u")
        with pytest.raises(ValueError, match="reference without values: gn"):
            intervals(given, {}, {"bn": "bn"}, title="t", unit_label="u", reference={"gn": [("a", 1.0)]})
        with pytest.raises(ValueError, match="no norm is given for bn"):
            intervals(given, {}, {}, title="t", unit_label="u")


ROWS = [
    ("a − b", -1.5, -1.6, -1.4, "worse"),
    ("a − c", 0.02, -0.01, 0.05, "equivalent"),
    ("b − c", 0.1, 0.06, 0.14, "better"),
    ("c − d", -0.001, -0.2, 0.2, "undecided, 40 seeds needed"),
]


class TestDifferences:
    def test_large_and_small_are_both_readable(self) -> None:
        ax = differences(ROWS, 0.05, title="t").axes[1]
        assert ax.get_xscale() == "symlog"
        at = ax.transData.transform([(x, 0) for x in (-1.5, -0.05, 0, 0.02, 0.05, 0.14)])[:, 0]
        assert (np.diff(at) > 12).all()
        assert at[0] > ax.bbox.x0
        assert at[-1] < ax.bbox.x1
        assert {-0.05, 0, 0.05} < set(ax.get_xticks())
        assert "+0.05" in [label.get_text() for label in ax.get_xticklabels()]

    def test_small_ones_alone_are_linear(self) -> None:
        assert differences(ROWS[1:3], 0.05, title="t").axes[1].get_xscale() == "linear"

    def test_each_verdict_has_a_marker_a_colour_and_its_word(self) -> None:
        fig = differences(ROWS, 0.05, title="t")
        points = [line for line in fig.axes[1].lines if line.get_markersize() == 6.5]
        assert [line.get_xydata()[0].tolist() for line in points] == [[row[1], y] for y, row in enumerate(ROWS)]
        want = [VERDICTS[row[-1].split(",")[0]][:2] for row in ROWS]
        assert [(line.get_color(), line.get_marker()) for line in points] == want
        columns = {text.get_text(): text.get_color() for text in fig.axes[1].texts}
        assert list(columns) == ["−1.50", "worse", "+0.02", "equivalent", "+0.10", "better", "0.00", ROWS[3][-1]]
        assert columns["worse"] == columns["−1.50"] == VERDICTS["worse"][0]

    def test_the_verdicts_are_told_apart_in_grey(self) -> None:
        assert len({marker for _, marker, _ in VERDICTS.values()}) == 5
        assert min(contrast(colour, "white") for colour, _, _ in VERDICTS.values()) > 4.5

    def test_the_margin_is_shaded(self) -> None:
        ax = differences(ROWS, 0.05, title="t").axes[1]
        (band,) = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
        assert (band.get_x(), band.get_width()) == pytest.approx((-0.05, 0.1))

    def test_an_interval_of_two_seeds_does_not_squeeze_the_rest(self) -> None:
        fig = differences([("a − b", 0.02, -5, 5, "undecided"), ("a − c", 0.05, 0.01, 0.09, "better")], 0.05, title="t")
        assert fig.axes[1].get_xlim()[1] < 0.5
        assert (len(marks(fig, "<")), len(marks(fig, ">"))) == (1, 2)  # 2: one is the marker of better

    def test_what_does_not_fit_is_refused(self) -> None:
        with pytest.raises(ValueError, match="'a − b': a verdict starts with better, worse"):
            differences([("a − b", 0, 0, 0, "good")], 0.05, title="t")
        for margin in (0, -1, np.nan):
            with pytest.raises(ValueError, match="margin must be positive"):
                differences([], margin, title="t")


class TestFactorCurve:
    def test_zero_stands_left_of_a_broken_logarithmic_axis(self) -> None:
        fig = some_factor([1e-2, 0, 1e-4, 1e-3], ["bn", "ln"])
        ax = fig.axes[0]
        assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "0.0001", "0.001", "0.01"]
        at = ax.transData.transform([(x, 99) for x in (0, 1e-4, 1e-3, 1e-2)])[:, 0]
        np.testing.assert_allclose(np.diff(at), at[1] - at[0])
        assert ax.bbox.x0 < at[0] < at[-1] < ax.bbox.x1
        assert "//" in words(fig)
        curve = next(line for line in ax.lines if line.get_marker() == "o")
        assert curve.get_xdata().tolist() == [0, 1e-4, 1e-3, 1e-2]  # the true values, sorted

    @pytest.mark.parametrize(
        ("x", "log_x", "even"),
        [
            ([16, 32, 64], None, False),
            ([8, 64, 512], None, True),
            ([8, 16, 32], True, True),
            ([1, 10, 100], False, False),
        ],
    )
    def test_a_span_of_more_than_a_decade_is_logarithmic(self, x: list[float], log_x: bool | None, even: bool) -> None:
        ax = some_factor(x, ["bn"], log_x=log_x).axes[0]
        assert ax.get_xticks().tolist() == x
        at = ax.transData.transform([(value, 99) for value in x])[:, 0]
        assert (np.diff(at, 2) == pytest.approx(0, abs=0.01)) == even

    def test_bars_stand_at_the_bounds_and_settings_beside_each_other(self) -> None:
        fig = some_factor([16, 32], ["bn", "ln"])
        series = some_series([16, 32], ["bn", "ln"])
        caps = [line.get_xydata()[0].tolist() for line in marks(fig, "_")]
        want = [
            [x, y] for _, (xs, _, low, high) in series.items() for x, *ys in zip(xs, low, high, strict=True) for y in ys
        ]
        assert caps == want
        bn, ln = (next(iter(marks(fig, norm_marker(norm)))) for norm in ("bn", "ln"))
        left, right = (line.get_transform().transform((16, 99.4))[0] for line in (bn, ln))
        assert 3 < right - left < 8

    def test_missing_values_are_left_out_and_said(self) -> None:
        nothing = (np.array([16.0]), *[np.array([np.nan])] * 3)
        some = (np.array([16.0, 32, 64]), np.array([99, np.nan, 99.2]), *[np.full(3, np.nan)] * 2)
        fig = factor_curve({"bn": some, "gn": nothing}, norms_of(["bn", "gn"]), factor="f", y_label="y", title="t")
        assert [line.get_xdata().tolist() for line in fig.axes[0].lines] == [[16, 64]]
        assert "no values: gn" in words(fig)

    def test_what_does_not_fit_is_refused(self) -> None:
        two, told = np.ones(2), {"factor": "lr", "y_label": "y", "title": "t"}
        with pytest.raises(ValueError, match=r"'bn': x, mean, low, high must be \(K,\)"):
            factor_curve({"bn": (two, two, two, np.ones(3))}, {"bn": "bn"}, **told)
        with pytest.raises(ValueError, match="lr has negative values"):
            factor_curve({"bn": (-two, two, two, two)}, {"bn": "bn"}, log_x=True, **told)


def test_labels_of_several_lines_keep_clear_and_in_order() -> None:
    places = spread(np.array([0.5, 0.51, 0.9, 0.52]), np.array([0.1, 0.2, 0.1, 0.1]))
    assert np.diff(places[[0, 1, 3]]) == pytest.approx([0.15, 0.15])
    assert places[2] == 0.9
    assert places[[0, 1, 3]].mean() == pytest.approx(0.51, abs=0.02)
