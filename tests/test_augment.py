"""Rotation and shift of a batch: what moves, how far, which way, against pixels worked out one by one."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normlab.data.augment import rotate_and_shift

seeds = st.integers(0, 2**32 - 1)
draw = st.floats(-1, 1)


def images(n: int = 3, height: int = 28, width: int = 28, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 1, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def draws(*rows: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def by_hand(image: np.ndarray, angle: float, right: float, down: float) -> np.ndarray:
    """Output pixel p shows the input at R⁻¹(p - t), p and t in pixels from the centre, y pointing down: content turns
    counterclockwise by `angle` (radians), then moves. Between pixels: the four neighbours by closeness, 0 outside."""
    height, width = image.shape
    out = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            x, y = column - (width - 1) / 2 - right, row - (height - 1) / 2 - down
            from_x = math.cos(angle) * x - math.sin(angle) * y + (width - 1) / 2
            from_y = math.sin(angle) * x + math.cos(angle) * y + (height - 1) / 2
            for i in (math.floor(from_y), math.floor(from_y) + 1):
                for j in (math.floor(from_x), math.floor(from_x) + 1):
                    if 0 <= i < height and 0 <= j < width:
                        out[row, column] += (1 - abs(from_y - i)) * (1 - abs(from_x - j)) * image[i, j]
    return out


def test_draws_of_zero_leave_images_alone() -> None:
    x = images()
    still = torch.zeros(3, 3)
    torch.testing.assert_close(rotate_and_shift(x, still.double(), rotation=7, shift=2), x, rtol=0, atol=1e-12)
    single = rotate_and_shift(x.float(), still, rotation=7, shift=2)
    torch.testing.assert_close(single, x.float(), rtol=0, atol=1e-5)
    assert single.dtype == torch.float32


def test_images_given_are_not_written_to() -> None:
    x = images()
    before = x.clone()
    rotate_and_shift(x, draws((1, 1, 1), (1, 1, 1), (1, 1, 1)), rotation=30, shift=3)
    assert torch.equal(x, before)


@pytest.mark.parametrize(("right", "down"), [(1, 0), (0, 1), (3, 0), (0, 4), (-2, 0), (0, -5), (2, -3), (-4, -4)])
@pytest.mark.parametrize("side", [28, 9])
def test_whole_pixels_move_right_and_down_and_zeros_come_in(right: int, down: int, side: int) -> None:
    x = images(1, side, side) + 1
    expected = torch.zeros_like(x)
    for row in range(side):
        for column in range(side):
            if 0 <= row - down < side and 0 <= column - right < side:
                expected[0, 0, row, column] = x[0, 0, row - down, column - right]

    moved = rotate_and_shift(x, draws((0.7, right / 5, down / 5)), rotation=0, shift=5)

    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-10)


def test_a_quarter_turn_is_rot90() -> None:
    """A draw of +1 with 90 degrees turns counterclockwise, as `torch.rot90(k=1)` over (rows, columns) does; -1 back."""
    x = images(2)
    moved = rotate_and_shift(x, draws((1, 0, 0), (-1, 0, 0)), rotation=90, shift=2)
    torch.testing.assert_close(moved[0, 0], torch.rot90(x[0, 0], 1, (0, 1)), rtol=0, atol=1e-10)
    torch.testing.assert_close(moved[1, 0], torch.rot90(x[1, 0], -1, (0, 1)), rtol=0, atol=1e-10)
    half = rotate_and_shift(x, draws((1, 0, 0), (-1, 0, 0)), rotation=180, shift=2)
    torch.testing.assert_close(half, x.flip(2, 3), rtol=0, atol=1e-10)


@given(
    height=st.integers(1, 8),
    width=st.integers(1, 8),
    row=st.tuples(draw, draw, draw),
    rotation=st.floats(0, 180),
    shift=st.floats(0, 4),
    seed=seeds,
)
@settings(deadline=None, max_examples=60)
def test_every_pixel_comes_from_where_the_formula_says(
    height: int, width: int, row: tuple[float, float, float], rotation: float, shift: float, seed: int
) -> None:
    x = images(1, height, width, seed)
    angle, right, down = math.radians(row[0] * rotation), row[1] * shift, row[2] * shift
    expected = by_hand(x[0, 0].numpy(), angle, right, down)
    moved = rotate_and_shift(x, draws(row), rotation=rotation, shift=shift)
    np.testing.assert_allclose(moved[0, 0].numpy(), expected, rtol=0, atol=1e-10)


def test_every_image_has_its_own_draw() -> None:
    x = images(1).expand(4, 1, 28, 28)
    rows = draws((0.2, 0.5, -1), (-1, 0, 0), (0, 1, 0), (0, 0, 0))
    moved = rotate_and_shift(x, rows, rotation=15, shift=3)
    for i in range(4):
        alone = rotate_and_shift(x[i : i + 1], rows[i : i + 1], rotation=15, shift=3)
        torch.testing.assert_close(moved[i : i + 1], alone, rtol=0, atol=1e-12)
        for j in range(i):
            assert (moved[i] - moved[j]).abs().max() > 0.1
