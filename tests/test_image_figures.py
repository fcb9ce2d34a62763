"""Figures of images and matrices: what was given stands where it belongs, and nothing is cut off or overlaps."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from drawn import check_text, words
from matplotlib.figure import Figure
from test_figures import DIGITS, FASHION, LONG, LONGER, contrast

from normlab.analysis.image_figures import confusions, filters, gallery, overlap

SIX = ["bn", "bn l1=0.001", "ln", "ln l1=0.001", "gn", "gn l1=0.001"]


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


FIGURES: dict[str, Callable[[], Figure]] = {
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
    "confusion of 6 settings": lambda: of_settings(SIX),
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
}


@pytest.mark.parametrize("case", FIGURES)
def test_no_text_is_cut_off_and_no_two_overlap(case: str) -> None:
    fig = FIGURES[case]()
    check_text(fig)
    assert fig.bbox.width <= 1500


NAMES, AB = [("1", "2")], ["a", "b"]
REFUSED: list[tuple[Callable[..., Figure], tuple[Any, ...], str]] = [
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


# Matrices


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


# Filters


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
