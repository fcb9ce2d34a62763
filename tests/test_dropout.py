"""Dropout by masks that can be drawn again."""

import pytest
import torch

from normlab.nets.layers import Dropout, keep_mask

SHAPE = torch.Size((64, 10, 26, 26))


def drawn(p: float, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return keep_mask(SHAPE, p, torch.empty(0, dtype=dtype), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_the_share_that_is_dropped_and_the_scale_of_the_rest(p: float) -> None:
    mask = drawn(p)
    n = mask.numel()
    dropped = (mask == 0).double().mean().item()
    assert abs(dropped - p) < 5 * (p * (1 - p) / n) ** 0.5 + 2**-17  # five standard errors and the rounding of p
    assert mask[mask != 0].unique().tolist() == pytest.approx([1 / (1 - p)])


def test_neighbours_and_positions_are_independent() -> None:
    """Four numbers are cut from one word: none of them may tell of another, nor sit at a place of its own."""
    kept = (drawn(0.5) != 0).double().permute(0, 2, 3, 1).flatten()
    centred = kept - kept.mean()
    bound = 5 / len(kept) ** 0.5
    for distance in (1, 2, 3, 4, 5, 10, 260):
        correlation = (centred[distance:] * centred[:-distance]).mean() / centred.square().mean()
        assert abs(correlation) < bound, distance
    for lane in range(4):
        assert abs(kept[lane::4].mean() - 0.5) < 5 * 0.5 / (len(kept) / 4) ** 0.5


def test_streams_differ_and_repeat() -> None:
    assert torch.equal(drawn(0.3, seed=1), drawn(0.3, seed=1))
    assert not torch.equal(drawn(0.3, seed=1), drawn(0.3, seed=2))


def test_it_lies_in_memory_as_activations_do() -> None:
    assert drawn(0.3).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_dtype_changes_no_mask(dtype: torch.dtype) -> None:
    mask = drawn(0.3, dtype=dtype)
    assert mask.dtype == dtype
    assert torch.equal(mask != 0, drawn(0.3) != 0)


@pytest.mark.parametrize("p", [1e-9, 1 - 1e-9])
def test_rates_at_the_ends_stay_finite(p: float) -> None:
    assert drawn(p).isfinite().all()


def test_any_number_of_elements() -> None:
    for size in range(1, 10):
        mask = keep_mask(torch.Size((1, size, 1, 1)), 0.5, torch.empty(0), torch.Generator().manual_seed(0))
        assert mask.shape == (1, size, 1, 1)


def test_the_layer() -> None:
    layer, x = Dropout(0.4), torch.rand(SHAPE) + 1
    torch.manual_seed(3)
    y = layer(x)
    torch.manual_seed(3)
    assert torch.equal(y, x * keep_mask(SHAPE, 0.4, x)), "from torch's default generator"
    assert layer.eval()(x) is x
    before = torch.get_rng_state()
    Dropout(0.0)(x)
    assert torch.equal(before, torch.get_rng_state()), "nothing to drop, nothing to draw"
