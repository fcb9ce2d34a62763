"""Figures of errors: numbers stand where they belong, nothing overlaps or is cut off."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from test_figures import DIGITS, FASHION, LONG, contrast

from normlab.analysis.colours import MUTED
from normlab.analysis.error_figures import confusions, overlap, persistent_gallery, variance_shares

SIX = ["bn", "bn l1=0.001", "ln", "ln l1=0.001", "gn", "gn l1=0.001"]
LONGER = ["custom_mine.RMS placement=pre lr=0.05 l1=0.001", "gn batch_size=64 num_groups=5 l1=0.001 augment=shift"]
LONGER += ["bn batch_size=16 lr=0.05 weight_decay=0.0005", "none"]
SHARES = {label: (0.02 + 0.03 * i, 0.9 - 0.1 * i, 0.08 + 0.07 * i) for i, label in enumerate(SIX)}


def some_gallery(m: int, classes: Sequence[str] = DIGITS, lines: int = 3) -> Figure:
    images = np.random.default_rng(m).integers(0, 256, (m, 28, 28), dtype=np.uint8)
    names = [(classes[i % 10], classes[(i + 3) % 10]) for i in range(m)]
    below = ["\n".join([f"image {900 * i}", "30 of 30 runs", "12 %, 86 %"][:lines]) for i in range(m)]
    return persistent_gallery(images, names, below, title=LONG, note="true → predicted" * 12)


def some_overlap(labels: Sequence[str]) -> np.ndarray:
    half = np.random.default_rng(0).uniform(0.1, 0.3, (len(labels), len(labels)))
    return half + half.T


def some_confusions(labels: Sequence[str], classes: Sequence[str] = DIGITS) -> Figure:
    rng, k = np.random.default_rng(1), len(classes)
    return confusions({label: rng.poisson(0.8, (k, k)) * 1.4 for label in labels}, classes, title=LONG)


FIGURES: dict[str, Callable[[], Figure]] = {
    "30 images": lambda: some_gallery(30),
    "3 images of clothes": lambda: some_gallery(3, FASHION),
    "25 images of clothes": lambda: some_gallery(25, FASHION, 2),
    "no image": lambda: some_gallery(0),
    "overlap of 3": lambda: overlap(some_overlap("abc"), ["bn", "ln", "gn"], title="Which errors are shared"),
    "overlap of 12": lambda: overlap(some_overlap(range(12)), [f"bn lr={i}" for i in range(12)], title=LONG),
    "overlap with long labels": lambda: overlap(some_overlap(LONGER), LONGER, title="Which errors are shared"),
    "overlap of 1": lambda: overlap(np.array([[np.nan]]), ["bn"], title="t"),
    "shares of 6": lambda: variance_shares(SHARES, title="Where the variance comes from"),
    "shares of 1": lambda: variance_shares({LONGER[0]: (0.001, 0.002, 0.997)}, title=LONG),
    "shares of none": lambda: variance_shares({}, title="Nothing yet"),
    "confusion of 6": lambda: some_confusions(SIX),
    "confusion of 1": lambda: some_confusions(["bn"]),
    "confusion of 2, long labels": lambda: some_confusions(LONGER[:2], FASHION),
    "confusion of 20 classes": lambda: some_confusions(["bn", "ln"], [f"class {i}" for i in range(20)]),
}


@pytest.mark.parametrize("case", FIGURES)
def test_no_text_is_cut_off_and_no_two_overlap(case: str) -> None:
    fig = FIGURES[case]()
    fig.draw_without_rendering()
    shown = [text for text in written(fig) if text.get_window_extent().width]
    ends = np.array([text.get_window_extent().extents for text in shown])
    assert len(shown) > 1
    assert ends[:, :2].min() >= -0.5
    assert (ends[:, 2:] <= np.array(fig.bbox.size) + 0.5).all()
    shared = np.minimum(ends[:, None, 2:], ends[:, 2:]) - np.maximum(ends[:, None, :2], ends[:, :2])
    close = np.triu(shared.min(axis=2) > 1.5, 1)  # pixels
    assert not close.any(), [(shown[i], shown[j]) for i, j in zip(*np.nonzero(close), strict=True)]
    assert fig.bbox.width <= 1320


def written(fig: Figure) -> list[Text]:
    """All that is written in a figure, less the ticks that are out of view."""
    found = [*fig.findobj(Text)]
    for ax in (ax for ax in fig.axes):
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            hidden = [
                tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high or not ax.get_visible()
            ]
            found = [text for text in found if not any(text in (tick.label1, tick.label2) for tick in hidden)]
    return [text for text in found if text.get_text().strip() and text.get_visible()]


def words(fig: Figure) -> list[str]:
    return [text.get_text() for text in written(fig)]


class TestPersistentGallery:
    def test_each_image_has_its_names_above_and_its_words_below(self) -> None:
        images = np.stack([np.full((28, 28), i, np.uint8) for i in range(3)])
        fig = persistent_gallery(images, [("4", "9"), ("7", "1"), ("0", "6")], ["a", "b", "c"], title="bn")
        shown = [ax for ax in fig.axes if ax.get_visible()]
        assert [ax.get_title() for ax in shown] == ["4 → 9", "7 → 1", "0 → 6"]
        assert [ax.get_xlabel() for ax in shown] == ["a", "b", "c"]
        assert [ax.images[0].get_array()[0, 0] for ax in shown] == [0, 1, 2]

    def test_colour_is_drawn_as_it_is(self) -> None:
        images = np.random.default_rng(0).integers(0, 256, (1, 9, 9, 3), dtype=np.uint8)
        fig = persistent_gallery(images, [("1", "2")], [""], title="bn")
        assert np.array_equal(fig.axes[0].images[0].get_array(), images[0])

    def test_no_images_is_said_in_words(self) -> None:
        assert "No misclassified images" in words(some_gallery(0))

    def test_what_does_not_fit_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"images must be uint8 \(M, H, W\) or \(M, H, W, 3\), not float64"):
            persistent_gallery(np.zeros((1, 28, 28)), [("1", "2")], [""], title="bn")
        with pytest.raises(ValueError, match="a pair of names and a text below"):
            persistent_gallery(np.zeros((2, 28, 28), np.uint8), [("1", "2")], [""], title="bn")


class TestConfusions:
    def test_numbers_stand_in_their_cells_and_none_on_the_diagonal(self) -> None:
        one = np.array([[9.0, 0.4, 0.0], [12.0, 5.0, 0.0], [0.0, 0.2, 7.0]])
        fig = confusions({"bn": one, "ln": 2 * one}, ["a", "b", "c"], title="t")
        cells = [{tuple(text.get_position())[::-1]: text.get_text() for text in ax.texts} for ax in fig.axes[:2]]
        assert cells == [{(0, 1): "0.4", (1, 0): "12", (2, 1): "0.2"}, {(0, 1): "0.8", (1, 0): "24", (2, 1): "0.4"}]

    def test_the_settings_share_a_scale(self) -> None:
        one = np.array([[0, 1.0], [2.0, 0]])
        fig = confusions({"bn": one, "ln": 5 * one}, ["a", "b"], title="t")
        assert len({(ax.images[0].norm.vmin, ax.images[0].norm.vmax) for ax in fig.axes}) == 1

    def test_what_does_not_fit_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"'bn': errors must be \(3, 3\)"):
            confusions({"bn": np.zeros((2, 2))}, ["a", "b", "c"], title="t")


class TestOverlap:
    def test_every_pair_has_its_number_the_darker_the_more_and_the_diagonal_none(self) -> None:
        matrix = np.array([[1, 0.25, np.nan], [0.25, 1, 0.6], [np.nan, 0.6, 1]])
        [ax] = overlap(matrix, ["bn", "ln", "gn"], title="t").axes
        cells = {tuple(text.get_position())[::-1]: text.get_text() for text in ax.texts}
        assert cells == {(0, 1): "0.25", (1, 0): "0.25", (1, 2): "0.60", (2, 1): "0.60"}
        image = ax.images[0]
        colours = image.cmap(image.norm(image.get_array()))
        assert colours[1, 2].sum() < colours[0, 1].sum()
        assert [patch.get_xy() for patch in ax.patches] == [(-0.5, -0.5), (0.5, 0.5), (1.5, 1.5)]
        assert {to_hex(patch.get_facecolor()).upper() for patch in ax.patches} == {MUTED}
        assert contrast("#222222", colours[1, 2]) > 4.5

    def test_long_labels_are_numbered(self) -> None:
        [ax] = overlap(some_overlap(LONGER), LONGER, title="t").axes
        assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "3", "4"]
        named = [" ".join(label.get_text().split()) for label in ax.get_yticklabels()]
        assert named == [f"{label} {i + 1}" for i, label in enumerate(LONGER)]

    @pytest.mark.parametrize("matrix", [np.ones((2, 3)), np.ones(2), np.full((2, 2), 1.1), np.full((2, 2), -0.1)])
    def test_what_does_not_fit_is_refused(self, matrix: np.ndarray) -> None:
        with pytest.raises(ValueError, match="matrix must"):
            overlap(matrix, ["a", "b"], title="t")


class TestVarianceShares:
    def test_parts_join_and_hold_their_per_cent(self) -> None:
        [ax] = variance_shares({"bn": (0.05, 0.7, 0.25), "ln": (np.nan,) * 3}, title="t").axes
        bars = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
        assert [bar.get_x() for bar in bars] == pytest.approx([0, 5, 75])
        assert [bar.get_width() for bar in bars] == pytest.approx([5, 70, 25])
        assert [text.get_text() for text in ax.texts] == ["70 %", "25 %", "no values"]

    def test_parts_are_told_apart_in_grey(self) -> None:
        bars = variance_shares({"bn": (0.2, 0.5, 0.3)}, title="t").axes[0].patches
        for one, other in itertools.pairwise(bars):
            assert contrast(one.get_facecolor(), other.get_facecolor()) > 1.7
        assert [bool(bar.get_hatch()) for bar in bars] == [False, False, True]

    @pytest.mark.parametrize("parts", [(0.5, 0.6, -0.1), (0.5, 0.4, 0.2), (0.5, 0.5)])
    def test_what_does_not_fit_is_refused(self, parts: tuple[float, ...]) -> None:
        with pytest.raises(ValueError, match="'bn': shares must be"):
            variance_shares({"bn": parts}, title="t")
