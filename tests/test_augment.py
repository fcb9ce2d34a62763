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


def blob(x: float, y: float, size: int = 41) -> torch.Tensor:
    """A smooth spot, x pixels right of the centre and y below it, as a batch of one."""
    at = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    return torch.exp(-((at[None, :] - x) ** 2 + (at[:, None] - y) ** 2) / 8)[None, None]


def centre(image: torch.Tensor) -> tuple[float, float]:
    """The centre of mass: pixels right of the image's centre, and below it."""
    height, width = image.shape[-2:]
    right, down = torch.arange(width) - (width - 1) / 2, torch.arange(height) - (height - 1) / 2
    mass = image.sum()
    return float((image.sum(-2) * right).sum() / mass), float((image.sum(-1) * down).sum() / mass)


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


# Nothing moves


def test_draws_of_zero_leave_images_alone() -> None:
    x = images()
    still = torch.zeros(3, 3)
    torch.testing.assert_close(rotate_and_shift(x, still.double(), rotation=7, shift=2), x, rtol=0, atol=1e-12)
    single = rotate_and_shift(x.float(), still, rotation=7, shift=2)
    torch.testing.assert_close(single, x.float(), rtol=0, atol=1e-5)
    assert single.dtype == torch.float32


def test_no_rotation_and_no_shift_leave_images_alone() -> None:
    x = images()
    moved = rotate_and_shift(x, draws((1, -1, 1), (-1, 1, 0.5), (0.3, 0.2, -1)), rotation=0, shift=0)
    torch.testing.assert_close(moved, x, rtol=0, atol=1e-12)


def test_images_given_are_not_written_to() -> None:
    x = images()
    before = x.clone()
    rotate_and_shift(x, draws((1, 1, 1), (1, 1, 1), (1, 1, 1)), rotation=30, shift=3)
    assert torch.equal(x, before)


# Shifts


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


def test_half_a_pixel_is_the_mean_of_two() -> None:
    x = images(1)
    moved = rotate_and_shift(x, draws((0, 0.25, 0)), rotation=7, shift=2)
    expected = (x + torch.nn.functional.pad(x, (1, 0))[..., :28]) / 2
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-10)


@given(across=draw, along=draw, shift=st.floats(0, 5))
@settings(deadline=None, max_examples=30)
def test_a_shift_is_the_drawn_share_of_the_largest(across: float, along: float, shift: float) -> None:
    """The centre of mass moves by draw · shift along each axis, so never farther than `shift`."""
    x = blob(2.0, -3.0)
    right, down = centre(rotate_and_shift(x, draws((0.0, across, along)), rotation=10, shift=shift))
    assert right == pytest.approx(2 + across * shift, abs=1e-3)
    assert down == pytest.approx(-3 + along * shift, abs=1e-3)


# Rotations


def test_a_quarter_turn_is_rot90() -> None:
    """A draw of +1 with 90 degrees turns counterclockwise, as `torch.rot90(k=1)` over (rows, columns) does; -1 back."""
    x = images(2)
    moved = rotate_and_shift(x, draws((1, 0, 0), (-1, 0, 0)), rotation=90, shift=2)
    torch.testing.assert_close(moved[0, 0], torch.rot90(x[0, 0], 1, (0, 1)), rtol=0, atol=1e-10)
    torch.testing.assert_close(moved[1, 0], torch.rot90(x[1, 0], -1, (0, 1)), rtol=0, atol=1e-10)
    half = rotate_and_shift(x, draws((1, 0, 0), (-1, 0, 0)), rotation=180, shift=2)
    torch.testing.assert_close(half, x.flip(2, 3), rtol=0, atol=1e-10)


@given(share=draw, rotation=st.floats(0, 60))
@settings(deadline=None, max_examples=30)
def test_an_angle_is_the_drawn_share_of_the_largest(share: float, rotation: float) -> None:
    """A spot right of the centre goes up (y points down) by draw · rotation degrees and keeps its distance."""
    right, down = centre(rotate_and_shift(blob(10.0, 0.0), draws((share, 0.0, 0.0)), rotation=rotation, shift=3))
    assert math.degrees(math.atan2(-down, right)) == pytest.approx(share * rotation, abs=0.1)
    assert math.hypot(right, down) == pytest.approx(10, abs=0.02)


# Both, image by image


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


def test_the_turn_is_about_the_images_centre_and_comes_first() -> None:
    """A quarter turn brings the spot from right to above the centre; the shift then moves it right and down."""
    right, down = centre(rotate_and_shift(blob(8.0, 0.0), draws((1, 1, 0.5)), rotation=90, shift=4))
    assert (right, down) == (pytest.approx(4, abs=1e-3), pytest.approx(-8 + 2, abs=1e-3))


def test_every_image_has_its_own_draw() -> None:
    x = images(1).expand(4, 1, 28, 28)
    rows = draws((0.2, 0.5, -1), (-1, 0, 0), (0, 1, 0), (0, 0, 0))
    moved = rotate_and_shift(x, rows, rotation=15, shift=3)
    for i in range(4):
        alone = rotate_and_shift(x[i : i + 1], rows[i : i + 1], rotation=15, shift=3)
        torch.testing.assert_close(moved[i : i + 1], alone, rtol=0, atol=1e-12)
        for j in range(i):
            assert (moved[i] - moved[j]).abs().max() > 0.1


@given(seed=seeds)
@settings(deadline=None, max_examples=20)
def test_small_moves_keep_the_ink(seed: int) -> None:
    """What stays inside the image keeps its sum, to one per cent, and no pixel leaves the range of the input."""
    rows = torch.rand(1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    x = blob(3.0, -2.0) + 0.5 * blob(-4.0, 4.0)
    moved = rotate_and_shift(x, rows, rotation=7, shift=2)
    assert float(moved.sum()) == pytest.approx(float(x.sum()), rel=0.01)
    assert moved.min() >= 0
    assert moved.max() <= x.max() + 1e-12
