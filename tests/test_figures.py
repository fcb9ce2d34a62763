"""Figures: they say what was given, nothing in them overlaps or is cut off, and every eye can tell the colours."""

import subprocess
import sys
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from normlab.analysis.colours import norm_colour, norm_marker
from normlab.analysis.figures import confusion, curves, filters, gallery
from normlab.norms import CATALOGUE

DIGITS = [str(i) for i in range(10)]
FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
LONG = "A title that is a good deal longer than a figure of three small images can be wide, so that it takes two lines"


def some_gallery(n: int, classes: list[str] = DIGITS, title: str = "ln, seed 0", **more: int) -> Figure:
    rng = np.random.default_rng(n)
    images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
    true, pred = rng.integers(0, 10, n), rng.integers(0, 10, n)
    return gallery(images, true, pred, rng.uniform(0.2, 1, n), classes=classes, title=title, **more)


def some_counts(accuracy: float, k: int = 10) -> np.ndarray:
    rng = np.random.default_rng(k)
    odds = rng.gamma(0.5, size=(k, k)) * (1 - np.eye(k))
    odds = (1 - accuracy) * odds / odds.sum(1, keepdims=True) + accuracy * np.eye(k)
    return np.array([rng.multinomial(980 + i, row) for i, row in enumerate(odds)])


def some_run(final: float, epochs: int = 20, split: str = "test") -> dict[str, np.ndarray | None]:
    error = 1 - final + 0.06 * np.exp(-np.arange(epochs) / 2)
    train = 1.5 * error + 0.004
    return {"train_acc_running": 1 - train, f"{split}_acc": 1 - error, "train_ce": 3 * train, f"{split}_ce": 3 * error}


SIX = {
    label: some_run(final)
    for label, final in [
        ("none", 0.988),
        ("bn", 0.9941),
        ("bn l1=0.001", 0.986),
        ("ln", 0.9943),
        ("ln l1=0.001", 0.9944),
        ("gn", 0.9942),
    ]
}
GAPS = {
    "bn": some_run(0.99, split="val"),
    "in": {"val_acc": np.r_[0.9, 0.97, [np.nan] * 18], "train_ce": None},
    "rms l1=0.1": {"test_acc": np.full(20, np.nan), "test_ce": np.full(20, np.inf)},
    "gn": {},
}
MANY = {f"{norm}{more}": some_run(0.991) for norm in [*CATALOGUE, "custom"] for more in ("", " l1=0.001")}

FIGURES: dict[str, Callable[[], Figure]] = {
    "no image": lambda: some_gallery(0),
    "3 images": lambda: some_gallery(3, title=LONG),
    "25 images": lambda: some_gallery(25),
    "50 images": lambda: some_gallery(50, FASHION),
    "8 images, 4 a row": lambda: some_gallery(8, FASHION, columns=4),
    "2 images, 1 a row": lambda: some_gallery(2, columns=1),
    "very long names": lambda: some_gallery(12, [f"an uncommonly long name {i}" for i in range(10)]),
    "99.4 %": lambda: confusion(some_counts(0.994), classes=DIGITS, title="ln, seed 0"),
    "60 %": lambda: confusion(some_counts(0.6), classes=FASHION, title="ln, seed 0"),
    "100 %": lambda: confusion(np.diag([30] * 10), classes=DIGITS, title="ln, seed 0"),
    "2 classes": lambda: confusion(some_counts(0.9, 2), classes=["odd", "even"], title=LONG),
    "20 classes": lambda: confusion(some_counts(0.9, 20), classes=[f"class {i}" for i in range(20)], title="ln"),
    "compact": lambda: confusion(12 * some_counts(0.97), classes=DIGITS, title=LONG, compact=True),
    "compact with long names": lambda: confusion(some_counts(0.6), classes=FASHION, title="ln, seed 0", compact=True),
    "compact, 2 classes": lambda: confusion(some_counts(0.9, 2), classes=["odd", "even"], title=LONG, compact=True),
    "1 filter": lambda: filters(np.ones((1, 1, 3, 3)), title=LONG),
    "10 filters": lambda: filters(np.random.default_rng(0).normal(size=(10, 1, 3, 3)), title="ln, seed 0"),
    "10 filters, 5 a row": lambda: filters(np.ones((10, 1, 3, 3)), title="ln, seed 0", columns=5),
    "32 filters": lambda: filters(np.random.default_rng(0).normal(size=(32, 1, 3, 3)), title="ln, seed 0"),
    "6 runs": lambda: curves(SIX, title="Replication"),
    "1 epoch": lambda: curves({label: some_run(0.9 + 0.0001 * i, 1) for i, label in enumerate(SIX)}, title="Start"),
    "far from 100 %": lambda: curves({"none": some_run(0.6), "bn": some_run(0.8)}, title="Slow"),
    "gaps": lambda: curves(GAPS, title="Gaps"),
    "26 runs that end together": lambda: curves(MANY, title="All"),
    "a label of 60 letters": lambda: curves({f"custom {'letters ' * 7}": some_run(0.99)}, title="Own"),
    "no runs": lambda: curves({}, title="Nothing yet"),
}


def texts(fig: Figure) -> list[Text]:
    """All that is written in a figure: a tick label only if its tick is in view."""
    found = [*fig.texts]
    for ax in fig.axes:
        found += ax.texts
        if ax.axison:
            found += [ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label]
            for axis in (ax.xaxis, ax.yaxis):
                low, high = sorted(axis.get_view_interval())
                slack = 1e-9 * (high - low)
                ticks = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
                found += [label for at, label in ticks if low - slack <= at <= high + slack]
    return [text for text in found if text.get_text() and text.get_visible()]


def pixels(fig: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


@pytest.mark.parametrize("case", FIGURES)
def test_no_text_is_cut_off_and_no_two_overlap(case: str) -> None:
    fig = FIGURES[case]()
    fig.draw_without_rendering()
    boxes = [(text, Text.get_window_extent(text)) for text in texts(fig)]  # Text's: without a leader line
    assert len(boxes) > 1
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= fig.bbox.width, text
        assert box.y1 <= fig.bbox.height, text
    for (one, a), (other, b) in combinations(boxes, 2):
        wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if one.get_rotation() == other.get_rotation() == 45:  # of slanted names only the frames may overlap
            apart = one.get_transform().transform(one.get_position()) - other.get_transform().transform(
                other.get_position()
            )
            assert np.linalg.norm(apart) / 2**0.5 > 20, f"{one} and {other} are too near"
        else:
            assert min(wide, high) <= 1.5, f"{one} and {other} overlap by {wide:.1f} x {high:.1f} pixels"


@pytest.mark.parametrize("case", ["25 images", "99.4 %", "10 filters", "6 runs"])
def test_a_reader_s_dark_style_changes_nothing(case: str) -> None:
    plain = pixels(FIGURES[case]())
    with style.context("dark_background"):
        dark = pixels(FIGURES[case]())
    np.testing.assert_array_equal(dark, plain)
    assert plain[0, 0].tolist() == [255, 255, 255]
    assert 800 <= plain.shape[1] <= 1200


def test_figures_touch_neither_pyplot_nor_torch() -> None:
    code = (
        "import sys, numpy as np, matplotlib; backend = matplotlib.rcParams._get('backend')\n"
        "from normlab.analysis.figures import curves, filters\n"
        "filters(np.ones((2, 1, 3, 3)), title='t'); curves({'bn': {'test_acc': np.ones(3)}}, title='t')\n"
        "print([m for m in ('matplotlib.pyplot', 'torch', 'lightning') if m in sys.modules], "
        "backend is matplotlib.rcParams._get('backend'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


class TestGallery:
    def test_a_tile_says_what_was_given(self) -> None:
        images = np.zeros((3, 28, 28), np.uint8)
        true, pred, prob = np.array([4, 7, 0], np.uint8), np.array([9, 1, 6]), np.array([0.984, 0.9996, 0.31])
        written = [text.get_text() for text in texts(gallery(images, true, pred, prob, classes=DIGITS, title="bn"))]
        assert written[0] == "bn"
        assert written[2:] == ["4 → 9", "98 %", "7 → 1", "> 99 %", "0 → 6", "31 %"]

    def test_long_names_take_two_lines(self) -> None:
        images, nine = np.zeros((1, 28, 28), np.uint8), np.array([9])
        written = texts(gallery(images, nine, nine - 2, np.array([0.5]), classes=FASHION, title="bn"))
        assert [text.get_text() for text in written][2:] == ["Ankle boot", "→ Sneaker", "50 %"]
        assert written[2].get_window_extent().y0 > written[3].get_window_extent().y0

    def test_a_digit_is_dark_on_white_and_3_by_3_pixels_for_each_of_its_own(self) -> None:
        image = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
        one = np.array([1])
        drawn = pixels(gallery(image[None], one, one, np.array([0.5]), classes=DIGITS, title="bn"))[..., 0].astype(int)
        want = 255 - np.kron(image, np.ones((3, 3), np.int16))
        starts = range(len(drawn) - 84)
        assert min(np.abs(drawn[y : y + 84, 24 : 24 + 84] - want).max() for y in starts) <= 1  # 1: 256 greys, rounded

    def test_rows_hold_as_many_as_asked(self) -> None:
        ax = some_gallery(25, columns=10).axes[0]
        corners = [(image.get_extent()[0], image.get_extent()[3]) for image in ax.images]
        assert len(set(corners)) == 25
        assert [sum(y == row for _, y in corners) for row in sorted({y for _, y in corners})] == [10, 10, 5]

    def test_no_images_is_said_in_words(self) -> None:
        fig = some_gallery(0)
        assert [text.get_text() for text in texts(fig)] == ["ln, seed 0", "No misclassified images"]
        assert not fig.axes[0].images

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                {"images": np.zeros((2, 1, 28, 28), np.uint8)},
                r"images must be uint8 \(N, H, W\) or \(N, H, W, 3\), not uint8 \(2, 1, 28",
            ),
            ({"images": np.zeros((2, 28, 28))}, r"images must be uint8 \(N, H, W\) or \(N, H, W, 3\), not float64"),
            ({"true": np.array([1])}, r"true must be \(2,\)"),
            ({"pred": np.array([1, 2, 3])}, r"pred must be \(2,\)"),
            ({"prob": np.ones((2, 10))}, r"prob must be \(2,\)"),
            ({"pred": np.array([1, 10])}, "pred must index the 10 classes"),
            ({"true": np.array([-1, 1])}, "true must index the 10 classes"),
            ({"columns": 0}, "columns must be at least 1"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, change: dict[str, object], message: str) -> None:
        two = np.array([1, 2])
        given = {"images": np.zeros((2, 28, 28), np.uint8), "true": two, "pred": two, "prob": two / 4} | change
        with pytest.raises(ValueError, match=message):
            gallery(**given, classes=DIGITS, title="bn")


class TestConfusion:
    @staticmethod
    def cells(fig: Figure) -> dict[tuple[int, int], list[str]]:
        found: dict[tuple[int, int], list[str]] = {}
        for text in fig.axes[0].texts:
            if text.get_horizontalalignment() == "center":
                found.setdefault((round(text.get_position()[1]), round(text.get_position()[0])), []).append(
                    text.get_text()
                )
        return found

    @staticmethod
    def colours(fig: Figure) -> np.ndarray:
        image = fig.axes[0].images[0]
        return image.cmap(image.norm(image.get_array()))[..., :3]

    def test_a_cell_holds_its_count_and_its_share_of_the_row_and_an_empty_one_nothing(self) -> None:
        counts = np.array([[1987, 12, 1], [0, 3, 1], [2, 0, 6]], np.uint16)
        assert self.cells(confusion(counts, classes=list("abc"), title="t")) == {
            (0, 0): ["1,987", "99.4 %"],
            (0, 1): ["12", "0.6 %"],
            (0, 2): ["1", "0.1 %"],
            (1, 1): ["3", "75.0 %"],
            (1, 2): ["1", "25.0 %"],
            (2, 0): ["2", "25.0 %"],
            (2, 2): ["6", "75.0 %"],
        }

    def test_rows_are_the_true_class(self) -> None:
        ax = confusion(some_counts(0.9), classes=FASHION, title="t").axes[0]
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")
        assert [label.get_text() for label in ax.get_yticklabels()] == FASHION
        assert ax.yaxis_inverted()
        assert [text.get_text() for text in ax.texts][-11:-1] == [str(980 + i) for i in range(10)]

    @pytest.mark.parametrize("accuracy", [0.6, 0.994])
    def test_the_diagonal_is_grey_and_the_scale_ends_at_the_largest_error(self, accuracy: float) -> None:
        counts = some_counts(accuracy)
        fig = confusion(counts, classes=DIGITS, title="t")
        diagonal = np.diagonal(self.colours(fig)).T
        assert np.ptp(diagonal) == 0  # red, green and blue alike, in all ten
        errors = 100 * (counts / counts.sum(1, keepdims=True))[~np.eye(10, dtype=bool)]
        assert fig.axes[0].images[0].get_clim() == pytest.approx((0, errors.max()))
        luminance = self.colours(fig)[~np.eye(10, dtype=bool)] @ [0.2126, 0.7152, 0.0722]
        assert (np.diff(luminance[np.argsort(errors)]) <= 1e-9).all()  # the more errors, the darker

    def test_a_class_without_images(self) -> None:
        counts = some_counts(0.9)
        counts[3] = 0
        with np.errstate(all="raise"):
            fig = confusion(counts, classes=DIGITS, title="t")
        assert not any(row == 3 for row, _ in self.cells(fig))
        assert self.colours(fig)[3, 0].tolist() == [1, 1, 1]

    def test_without_errors_there_is_no_scale(self) -> None:
        assert len(confusion(np.diag([3, 0, 5]), classes=list("abc"), title="t").axes) == 1

    def test_numbers_stand_out_from_their_ground(self) -> None:
        fig = confusion(some_counts(0.6), classes=DIGITS, title="t")
        grounds = self.colours(fig)
        for text in fig.axes[0].texts:
            if text.get_horizontalalignment() == "center":
                column, row = (round(at) for at in text.get_position())
                assert contrast(text.get_color(), grounds[row, column]) > 4

    @pytest.mark.parametrize("counts", [np.ones((2, 3), int), np.ones((3, 3), int), np.ones(2, int), np.ones((2, 2))])
    def test_what_does_not_fit_is_refused(self, counts: np.ndarray) -> None:
        with pytest.raises(ValueError, match=r"counts must be int \(2, 2\)"):
            confusion(counts, classes=["a", "b"], title="t")

    def test_compact_says_the_same_of_every_cell_in_less_room(self) -> None:
        full, small = (confusion(some_counts(0.994), classes=DIGITS, title="t", compact=c) for c in (False, True))
        assert self.cells(full) == self.cells(small)
        assert len(full.axes[0].texts) - len(small.axes[0].texts) == 11  # the images of each class, and a word above
        np.testing.assert_array_equal(self.colours(full), self.colours(small))
        assert len(small.axes) == 1  # no colour scale
        assert 350 / small.bbox.width > 0.6  # TensorBoard's thumbnail: 350 pixels wide


class TestFilters:
    def test_one_symmetric_scale_for_all(self) -> None:
        weights = np.random.default_rng(0).normal(size=(12, 1, 3, 3))
        weights[3, 0, 1, 1] = -7.5
        fig = filters(weights, title="t")
        images = fig.axes[0].images
        assert {image.get_clim() for image in images} == {(-7.5, 7.5)}
        np.testing.assert_array_equal([image.get_array() for image in images], weights[:, 0])
        assert [text.get_text() for text in texts(fig)][1:13] == [str(i) for i in range(1, 13)]
        assert [text.get_text() for text in texts(fig)][13:] == ["−7.50", "0", "+7.50"]
        low, middle, high = (np.array(images[0].cmap(x)[:3]) for x in (0.0, 0.5, 1.0))
        assert low[2] > low[0]  # negative is blue
        assert high[0] > high[2]  # positive is orange
        assert np.ptp(middle) < 0.02  # zero is neither

    def test_a_filter_of_zeros_and_one_that_is_not_finite(self) -> None:
        assert filters(np.zeros((1, 1, 3, 3)), title="t").axes[0].images[0].get_clim() == (-1, 1)
        weights = np.full((2, 1, 3, 3), np.nan)
        weights[1] = 0.5
        weights[1, 0, 0, 0] = np.inf
        fig = filters(weights, title="t")
        assert fig.axes[0].images[0].get_clim() == (-0.5, 0.5)
        pixels(fig)

    def test_columns_are_filled_row_by_row(self) -> None:
        numbers = texts(filters(np.ones((10, 1, 3, 3)), title="t", columns=5))[1:11]
        xs, ys = np.array([text.get_position() for text in numbers]).T
        assert len(set(xs)) == 5
        assert (np.diff(ys.reshape(2, 5), axis=0) > 0).all()
        with pytest.raises(ValueError, match="columns must be at least 1"):
            filters(np.ones((1, 1, 3, 3)), title="t", columns=0)

    @pytest.mark.parametrize("shape", [(10, 3, 3), (10, 2, 3, 3), (0, 1, 3, 3)])
    def test_what_does_not_fit_is_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"weights must be float \(C, 1, H, W\)"):
            filters(np.zeros(shape), title="t")


class TestCurves:
    def test_values_and_what_the_lines_are(self) -> None:
        accuracy, ax_ce = curves({"ln l1=0.001": some_run(0.99)}, title="t").axes
        run = some_run(0.99)
        for ax, factor, dashed, solid in [
            (accuracy, 100, "train_acc_running", "test_acc"),
            (ax_ce, 1, "train_ce", "test_ce"),
        ]:
            train, held = ax.lines
            np.testing.assert_allclose(train.get_ydata(), factor * run[dashed])
            np.testing.assert_allclose(held.get_ydata(), factor * run[solid])
            assert held.get_xdata().tolist() == list(range(1, 21))
            assert train.is_dashed()
            assert not held.is_dashed()
            assert train.get_color() == held.get_color() == norm_colour("ln")
            assert train.get_alpha() < 1

    def test_labels_hold_the_last_value_and_stand_in_its_order(self) -> None:
        fig = curves(SIX, title="t")
        for ax, key, form in zip(fig.axes, ("test_acc", "test_ce"), ("{:.2f}", "{:.4f}"), strict=True):
            factor = 100 if key == "test_acc" else 1
            want = {label: form.format(factor * run[key][-1]) + "  " + label for label, run in SIX.items()}
            notes = {note.get_text(): note for note in ax.texts}
            assert set(notes) == set(want.values())
            heights = [notes[want[label]].xyann[1] for label in sorted(SIX, key=lambda label: SIX[label][key][-1])]
            assert heights == sorted(heights)
            for label in SIX:
                assert notes[want[label]].get_color() == norm_colour(label.split()[0])

    def test_a_label_that_has_room_stands_level_with_its_line(self) -> None:
        fig = curves({"none": some_run(0.97), "bn": some_run(0.99)}, title="t")
        fig.draw_without_rendering()
        for ax in fig.axes:
            for note in ax.texts:
                level = ax.transData.transform(note.xy)[1]
                box = Text.get_window_extent(note)
                assert abs((box.y0 + box.y1) / 2 - level) < 2

    def test_the_second_setting_of_a_norm_is_hollow(self) -> None:
        solid = [line for line in curves(SIX, title="t").axes[0].lines if not line.is_dashed()]
        assert [line.get_markerfacecolor() == line.get_color() for line in solid] == [
            True,
            True,
            False,
            True,
            False,
            True,
        ]
        assert [line.get_marker() for line in solid] == [norm_marker(label.split()[0]) for label in SIX]

    def test_gaps_are_bridged_and_what_is_missing_is_said(self) -> None:
        fig = curves(GAPS, title="t")
        written = [text.get_text() for text in texts(fig)]
        assert "solid: validation     dashed: training, running average\nno values: rms l1=0.1, gn" in written
        assert "97.00  in, to epoch 2" in written
        sparse = {"bn": {"test_acc": np.array([np.nan, 0.5, np.nan, 0.75])}}
        line = curves(sparse, title="t").axes[0].lines[0]
        np.testing.assert_array_equal(line.get_xydata(), [[2, 50], [4, 75]])

    def test_validation_goes_before_test(self) -> None:
        both = {"gn": some_run(0.97) | {"val_acc": np.full(20, 0.5)}}
        fig = curves(both, title="t")
        assert "50.00  gn" in [text.get_text() for text in texts(fig)]
        assert any(
            "solid: validation or test" in text.get_text() for text in fig.texts
        )  # cross-entropy has only a test

    def test_an_accuracy_of_100_per_cent_is_drawn(self) -> None:
        fig = curves({"ln": {"test_acc": np.array([0.9, 1.0]), "test_ce": np.array([0.3, 0.0])}}, title="t")
        low, high = fig.axes[0].get_ylim()
        assert low < 90 < 100 < high
        assert 100 in fig.axes[0].get_yticks()
        assert [ax.get_yscale() for ax in fig.axes] == ["function", "linear"]  # a logarithm has no place for 0

    def test_equal_factors_of_error_are_about_equally_far_apart(self) -> None:
        ax = curves(SIX, title="t").axes[0]
        _, at_92, at_96, at_98 = ax.transData.transform([(1, y) for y in (90, 92, 96, 98)])[:, 1]
        assert (at_96 - at_92) == pytest.approx(at_98 - at_96, rel=0.05)

    def test_epochs_are_whole_numbers(self) -> None:
        for ax in FIGURES["1 epoch"]().axes:
            assert [label.get_text() for label in ax.get_xticklabels() if 0.9 <= label.get_position()[0] <= 1.1] == [
                "1"
            ]

    @pytest.mark.parametrize("run", [{"test_acc": np.ones((2, 3))}, {"test_acc": np.ones(3), "test_ce": np.ones(4)}])
    def test_what_does_not_fit_is_refused(self, run: dict[str, np.ndarray]) -> None:
        with pytest.raises(ValueError, match=r"'bn': the series must all be \(E,\) for one E"):
            curves({"bn": run}, title="t")


# Colours ------------------------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_keep_apart_for_every_eye(sight: str) -> None:
    apart = {
        (a, b): np.linalg.norm(cielab(norm_colour(a), sight) - cielab(norm_colour(b), sight))
        for a, b in combinations(NORMS, 2)
    }
    assert min(apart[pair] for pair in combinations(FREQUENT, 2)) > 27
    for (a, b), distance in apart.items():  # 27 norms are more than colour alone can tell apart
        assert distance > (13 if norm_marker(a) == norm_marker(b) else 6), (a, b)


def test_every_norm_has_a_colour_and_a_marker_that_no_other_has_both_of() -> None:
    assert len({(norm_colour(name), norm_marker(name)) for name in NORMS}) == len(NORMS)
    assert min(contrast(norm_colour(name), "white") for name in NORMS) > 3.4


def test_an_unknown_norm_always_gets_the_same_colour_and_none_of_the_others() -> None:
    assert norm_colour("mypackage.Mine") == norm_colour("mypackage.Mine")
    spare = {norm_colour(f"mine{i}") for i in range(50)}
    assert len(spare) == 4
    assert not spare & {norm_colour(name) for name in NORMS}
    assert norm_marker("mypackage.Mine") not in {norm_marker(name) for name in NORMS}
