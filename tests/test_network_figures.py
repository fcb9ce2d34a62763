"""Pictures of one network, for TensorBoard: they say what was given, and nothing is cut off or overlaps."""

from collections.abc import Callable

import numpy as np
import pytest
from drawn import check_text, words
from matplotlib.figure import Figure
from test_figures import DIGITS, FASHION, LONG, contrast

from normlab.analysis.figures import confusion, filters, gallery


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


FIGURES: dict[str, Callable[[], Figure]] = {
    "no image": lambda: some_gallery(0),
    "3 images": lambda: some_gallery(3, title=LONG),
    "50 images": lambda: some_gallery(50, FASHION),
    "2 images, 1 per row": lambda: some_gallery(2, columns=1),
    "very long names": lambda: some_gallery(12, [f"an uncommonly long name {i}" for i in range(10)]),
    "99.4 %": lambda: confusion(some_counts(0.994), classes=DIGITS, title="ln, seed 0"),
    "60 %": lambda: confusion(some_counts(0.6), classes=FASHION, title="ln, seed 0"),
    "2 classes": lambda: confusion(some_counts(0.9, 2), classes=["odd", "even"], title=LONG),
    "compact": lambda: confusion(12 * some_counts(0.97), classes=DIGITS, title=LONG, compact=True),
    "compact with long names": lambda: confusion(some_counts(0.6), classes=FASHION, title="ln, seed 0", compact=True),
    "1 filter": lambda: filters(np.ones((1, 1, 3, 3)), title=LONG),
    "10 filters, 5 per row": lambda: filters(np.ones((10, 1, 3, 3)), title="ln, seed 0", columns=5),
    "32 filters": lambda: filters(np.random.default_rng(0).normal(size=(32, 1, 3, 3)), title="ln, seed 0"),
}


@pytest.mark.parametrize("case", FIGURES)
def test_no_text_is_cut_off_and_no_two_overlap(case: str) -> None:
    check_text(FIGURES[case]())


class TestGallery:
    def test_a_tile_says_what_was_given(self) -> None:
        images = np.zeros((3, 28, 28), np.uint8)
        true, pred, prob = np.array([4, 7, 0], np.uint8), np.array([9, 1, 6]), np.array([0.984, 0.9996, 0.31])
        written = words(gallery(images, true, pred, prob, classes=DIGITS, title="bn"))
        assert "4 → 9\n98 %\n7 → 1\n> 99 %\n0 → 6\n31 %" in written

    def test_long_names_take_two_lines(self) -> None:
        images, nine = np.zeros((1, 28, 28), np.uint8), np.array([9])
        assert "Ankle boot\n→ Sneaker\n50 %" in words(
            gallery(images, nine, nine - 2, np.array([0.5]), classes=FASHION, title="bn")
        )

    @pytest.mark.parametrize("colours", [(), (3,)])
    def test_images_stand_row_by_row_as_they_are(self, colours: tuple[int, ...]) -> None:
        images = np.random.default_rng(0).integers(0, 255, (3, 28, 28, *colours), dtype=np.uint8)
        two = np.array([1, 1, 1])
        fig = gallery(images, two, two, two / 2, classes=DIGITS, title="bn", columns=2)
        sheet = np.asarray(fig.axes[0].images[0].get_array())
        high, wide = np.array(sheet.shape[:2]) // 2
        for i, image in enumerate(images):
            top, left = i // 2 * high, i % 2 * wide + (wide - 28) // 2
            np.testing.assert_array_equal(sheet[top : top + 28, left : left + 28], image)

    def test_no_images_is_said_in_words(self) -> None:
        fig = some_gallery(0)
        assert "No misclassified images" in words(fig)
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
        (beside,) = ax.child_axes
        assert [label.get_text() for label in beside.get_yticklabels()] == [str(980 + i) for i in range(10)]

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
        assert "images" not in words(small)
        np.testing.assert_array_equal(self.colours(full), self.colours(small))
        assert len(small.axes) == 1  # no colour scale
        assert 350 / small.bbox.width > 0.6  # TensorBoard's thumbnail: 350 pixels wide


class TestFilters:
    def test_one_symmetric_scale_for_all(self) -> None:
        weights = np.random.default_rng(0).normal(size=(12, 1, 3, 3))
        weights[3, 0, 1, 1] = -7.5
        fig = filters(weights, title="t")
        images = [ax.images[0] for ax in fig.axes[:-1]]
        assert {image.get_clim() for image in images} == {(-7.5, 7.5)}
        np.testing.assert_array_equal([image.get_array() for image in images], weights[:, 0])
        assert [ax.get_title() for ax in fig.axes[:-1]] == [str(i) for i in range(1, 13)]
        assert [label.get_text() for label in fig.axes[-1].get_yticklabels()] == ["−7.50", "0", "+7.50"]
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
        fig.draw_without_rendering()

    def test_columns_are_asked_for(self) -> None:
        fig = filters(np.ones((10, 1, 3, 3)), title="t", columns=5)
        assert fig.axes[0].get_gridspec().get_geometry() == (2, 5)
        with pytest.raises(ValueError, match="columns must be at least 1"):
            filters(np.ones((1, 1, 3, 3)), title="t", columns=0)

    @pytest.mark.parametrize("shape", [(10, 3, 3), (10, 2, 3, 3), (0, 1, 3, 3)])
    def test_what_does_not_fit_is_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"weights must be float \(C, 1, H, W\)"):
            filters(np.zeros(shape), title="t")
