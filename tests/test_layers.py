"""The layers that torch lacks: filters that are a function of their weights, dropout by masks that can be drawn again,
images fitted to a network."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from normlab.nets import Net
from normlab.nets.layers import (
    Dropout,
    FitImages,
    ScaledStandardisedConv2d,
    StandardisedConv2d,
    WeightNormConv2d,
    keep_mask,
)

# Filters: standardised, normalised, scaled

KINDS = [StandardisedConv2d, WeightNormConv2d, ScaledStandardisedConv2d]


def by_hand(kind: type, w: np.ndarray, gain: float) -> np.ndarray:
    """One filter: (w - μ) / sqrt(σ² + 1e-5); g · v / ‖v‖; sqrt(2 / (1 - 1/π)) · g · (w - μ) / sqrt(Σ (w - μ)²)."""
    centred = w - w.sum() / w.size
    squares = (centred**2).sum()
    if kind is StandardisedConv2d:
        return centred / np.sqrt(squares / w.size + 1e-5)
    if kind is WeightNormConv2d:
        return gain * w / np.sqrt((w**2).sum())
    return (2 / (1 - 1 / np.pi)) ** 0.5 * gain * centred / max(squares, 1e-4) ** 0.5


@pytest.mark.parametrize("kind", KINDS)
@given(shape=st.tuples(*[st.integers(1, 4)] * 3), scale=st.floats(1e-4, 10), seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_the_formula(kind: type, shape: tuple[int, int, int], scale: float, seed: int) -> None:
    """Filter by filter; shape: filters, channels, side."""
    filters, channels, side = shape
    rng = np.random.default_rng(seed)
    w, gains = rng.normal(3 * scale, scale, (filters, channels, side, side)), rng.normal(size=filters)
    found = kind.reparametrise(torch.from_numpy(w), torch.from_numpy(gains)).numpy()
    expected = np.stack([by_hand(kind, *each) for each in zip(w, gains, strict=True)])
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_and_gains_have_the_gradients_of_finite_differences(kind: type) -> None:
    w = (0.3 * torch.randn(3, 2, 3, 3, dtype=torch.float64) + 0.1).requires_grad_()
    g = torch.randn(3, dtype=torch.float64, requires_grad=True)
    arguments = (w,) if kind is StandardisedConv2d else (w, g)
    assert torch.autograd.gradcheck(kind.reparametrise, arguments)
    assert torch.autograd.gradgradcheck(kind.reparametrise, arguments)
    together = kind.reparametrise(torch.stack([w, 2 * w + 1]), torch.stack([g, -g]))
    torch.testing.assert_close(together[1], kind.reparametrise(2 * w + 1, -g), rtol=1e-12, atol=1e-12)


def test_the_network_standardises_its_3x3_convolutions_and_starts_from_the_same_weights() -> None:
    nets = []
    for standardised in (False, True):
        torch.manual_seed(0)
        nets.append(Net("gn", weight_standardization=standardised))
    by_hand, net = nets
    for (name, plain), other in zip(by_hand.named_parameters(), net.parameters(), strict=True):
        assert torch.equal(plain, other), name
    for name, module in by_hand.named_modules():  # the 1x1 convolutions stay as they are
        if name.endswith(".conv"):
            module.weight.data = StandardisedConv2d.reparametrise(module.weight.data)
    x = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(net(x), by_hand(x))


def test_scaled_standardised_filters_keep_the_variance_through_a_relu() -> None:
    """Var(conv(ReLU(z))) = 1 for standard normal z: the factor undoes what the ReLU takes."""
    torch.manual_seed(0)
    conv = ScaledStandardisedConv2d(64, 200, 3, bias=False).double()
    y = conv(torch.randn(8, 64, 20, 20, dtype=torch.float64).relu())
    assert y.var(correction=0).item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("kind", [WeightNormConv2d, ScaledStandardisedConv2d])
def test_a_filter_that_the_penalty_has_set_to_zero_stays_finite(kind: type) -> None:
    w, g = torch.zeros(2, 3, 3, 3, requires_grad=True), torch.ones(2, requires_grad=True)
    y = kind.reparametrise(w, g)
    grads = torch.autograd.grad(y.sum(), (w, g))
    assert not y.any()
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("kind", KINDS)
def test_one_is_made_of_torchs_convolution(kind: type) -> None:
    plain = nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0), dilation=(1, 2), groups=2)
    conv, x = kind.of(plain), torch.randn(2, 4, 9, 9)
    assert conv.weight is plain.weight
    assert conv.bias is plain.bias
    filters = conv.reparametrise(conv.weight, conv.gain)
    expected = F.conv2d(x, filters, plain.bias, stride=2, padding=(1, 0), dilation=(1, 2), groups=2)
    torch.testing.assert_close(conv(x), expected)
    if kind is WeightNormConv2d:
        torch.testing.assert_close(conv(x), plain(x), msg="its gains start as the lengths of the filters")
    with pytest.raises(ValueError, match="padding_mode='reflect' cannot be reparametrised"):
        kind.of(nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"))


def test_norms_and_weight_standardization_do_not_mix() -> None:
    with pytest.raises(ValueError, match="norm=wn reparametrises the convolutions itself: set weight_standard"):
        Net("wn", weight_standardization=True)


# Dropout

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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_masks_are_alike_in_every_dtype_and_lie_in_memory_as_activations_do(dtype: torch.dtype) -> None:
    mask = drawn(0.3, dtype=dtype)
    assert mask.dtype == dtype
    assert torch.equal(mask != 0, drawn(0.3) != 0)
    assert mask.is_contiguous(memory_format=torch.channels_last)


def test_rates_at_the_ends_stay_finite_and_any_number_of_elements_is_drawn() -> None:
    assert all(drawn(p).isfinite().all() for p in (1e-9, 1 - 1e-9))
    for size in range(1, 10):
        shape = torch.Size((1, size, 1, 1))
        assert keep_mask(shape, 0.5, torch.empty(0), torch.Generator().manual_seed(0)).shape == shape


def test_dropout_draws_from_torchs_generator_while_training() -> None:
    layer, x = Dropout(0.4), torch.rand(SHAPE) + 1
    torch.manual_seed(3)
    y = layer(x)
    torch.manual_seed(3)
    assert torch.equal(y, x * keep_mask(SHAPE, 0.4, x))
    assert layer.eval()(x) is x
    before = torch.get_rng_state()
    Dropout(0.0)(x)
    assert torch.equal(before, torch.get_rng_state()), "nothing to drop, nothing to draw"


# Images


@pytest.mark.parametrize(("size", "inner"), [(32, slice(2, 30)), (35, slice(3, 31))])
def test_small_images_are_padded_by_their_edges(size: int, inner: slice) -> None:
    images = torch.rand(2, 1, 28, 28)
    y = FitImages((1, 28, 28), (3, size, size))(images)
    assert y.shape == (2, 3, size, size)
    for channel in range(3):
        assert torch.equal(y[:, channel, inner, inner], images[:, 0])
    assert torch.equal(y[:, 0, 0, inner], images[:, 0, 0])


@pytest.mark.parametrize("size", [36, 14, 56])
def test_others_are_scaled(size: int) -> None:
    """A ramp stays a ramp between its ends, and what is the same everywhere stays so."""
    ramp = torch.linspace(0, 1, 28).expand(1, 1, 28, 28)
    y = FitImages((1, 28, 28), (1, size, size))(ramp)
    assert y.shape == (1, 1, size, size)
    steps = y[0, 0, 0].diff()[3:-3]
    torch.testing.assert_close(steps, torch.full_like(steps, 28 / 27 / size), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(FitImages((1, 28, 28), (1, size, size))(ramp * 0 + 0.3), torch.full_like(y, 0.3))
