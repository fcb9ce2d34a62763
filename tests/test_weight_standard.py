"""Filters that are a function of their weights: standardised, normalised, scaled; and what a network forgets by it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from normlab.nets import Net
from normlab.nets.layers import ScaledStandardisedConv2d, StandardisedConv2d, WeightNormConv2d

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


def test_scale_and_shift_of_a_filter_are_forgotten() -> None:
    conv = StandardisedConv2d(3, 5, 3, bias=False).double()
    conv.weight.data = 1e3 * torch.randn_like(conv.weight)  # ε is 1e-11 of the variance
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    before = conv(x)
    a, b = 4 * torch.rand(5, 1, 1, 1).double() + 0.5, 1e4 * torch.randn(5, 1, 1, 1).double()
    with torch.no_grad():
        conv.weight.mul_(a).add_(b)
    torch.testing.assert_close(conv(x), before, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(before, F.conv2d(x, StandardisedConv2d.reparametrise(conv.weight)), rtol=1e-8, atol=1e-8)
    plain = nn.Conv2d(3, 5, 3, bias=False).double()
    first = plain(x)
    with torch.no_grad():
        plain.weight.mul_(a)
    assert (plain(x) - first).abs().max() > 0.05, "another convolution does not"


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
    for (name, plain), other in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(plain, other), name
    kinds = [type(m) for m in nets[1].modules() if isinstance(m, nn.Conv2d)]
    assert kinds.count(StandardisedConv2d) == 5
    assert kinds.count(nn.Conv2d) == 2, "the 1x1 convolutions stay as they are"
    assert not any(isinstance(m, StandardisedConv2d) for m in nets[0].modules())
    x = torch.randn(2, 1, 28, 28)
    by_hand = Net("gn")
    by_hand.load_state_dict(nets[1].state_dict())
    for name, module in by_hand.named_modules():
        if name.endswith(".conv"):
            module.weight.data = StandardisedConv2d.reparametrise(module.weight.data)
    torch.testing.assert_close(nets[1](x), by_hand(x))


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
    with pytest.raises(ValueError, match="padding_mode='reflect' cannot be reparametrised"):
        kind.of(nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"))


def test_norms_and_weight_standardization_do_not_mix() -> None:
    with pytest.raises(ValueError, match="norm=wn reparametrises the convolutions itself: set weight_standard"):
        Net("wn", weight_standardization=True)
