"""Ghost batch norm, batch renorm, the other layer norms and those that subtract no mean, against their papers' formulas
in numpy."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_norms import apply, by_hand, epsilons, maps, seeds
from torch import nn

from normlab.nets import NORMS, Net, make_norm

BUILT_IN = [name for name in NORMS if name != "custom"]
MAPS = (3, 4, 2, 3)

sizes = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(2, 4))  # N, C, H, W


def layer_of(name: str, shape: tuple[int, ...], seed: int | None = None, **options: Any) -> nn.Module:
    """The package's layer in float64, with random numbers in all its parameters where a seed is given."""
    layer = make_norm(name, shape[1], size=shape[2:], **options).double()  # type: ignore[arg-type]
    if seed is not None:
        rng = np.random.default_rng(seed + 1)
        for parameter in layer.parameters():
            parameter.data = torch.from_numpy(rng.uniform(-2, 2, parameter.shape))
    return layer


def numbers(layer: nn.Module) -> dict[str, np.ndarray]:
    """Parameters as numpy, one a channel standing in its place of (C, 1, 1)."""
    found = {name: p.detach().numpy() for name, p in layer.named_parameters()}
    return {name: p if p.ndim == 3 else p[:, None, None] for name, p in found.items()}


def root_mean_square(x: np.ndarray, axes: tuple[int, ...], eps: float) -> np.ndarray:
    """x / sqrt(Σx² / m + ε), over the m numbers along some axes."""
    m = np.prod([x.shape[axis] for axis in axes])
    return x / np.sqrt((x * x).sum(axes, keepdims=True) / m + eps)


def ghosts(x: np.ndarray, size: int) -> list[np.ndarray]:
    return [x[start : start + size] for start in range(0, len(x), size)]


# The formulas


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", ["ln_elem", "ln2d", "rms", "frn", "dyt"])
@given(shape=sizes, eps=epsilons, seed=seeds)
@settings(deadline=None, max_examples=25)
def test_output_is_the_formula(name: str, mode: str, shape: tuple[int, ...], eps: float, seed: int) -> None:
    n, c, h, w = shape
    c += name == "ln2d"  # of one channel it would be β
    x = maps((n, c, h, w), seed)
    layer = layer_of(name, x.shape, seed, **({"alpha": eps} if name == "dyt" else {"eps": eps})).train(mode == "train")
    p = numbers(layer)
    if name == "ln_elem":
        expected = p["weight"] * by_hand(x, [np.s_[i, :] for i in range(n)], eps) + p["bias"]
    elif name == "ln2d":
        pixels = [np.s_[i, :, j, k] for i in range(n) for j in range(h) for k in range(w)]
        expected = p["weight"] * by_hand(x, pixels, eps) + p["bias"]
    elif name == "rms":
        expected = p["weight"] * root_mean_square(x, (1, 2, 3), eps)
    elif name == "frn":
        expected = np.maximum(p["weight"] * root_mean_square(x, (2, 3), eps) + p["bias"], p["tau"])
    else:
        expected = p["weight"] * np.tanh(p["alpha"] * x) + p["bias"]
    np.testing.assert_allclose(apply(layer, x), expected, rtol=1e-8, atol=1e-8)


@given(shape=sizes, size=st.integers(1, 4), eps=epsilons, momentum=st.floats(0, 1), seed=seeds)
@settings(deadline=None, max_examples=40)
def test_ghost_batches_are_batches_of_their_own(
    shape: tuple[int, ...], size: int, eps: float, momentum: float, seed: int
) -> None:
    """Output, and running averages as a weighted sum: n ghost batches leave (1 - m)^n of what was there."""
    layer = layer_of("gbn", shape, seed, virtual_batch_size=size, eps=eps, momentum=momentum)
    p, mean, variance = numbers(layer), np.zeros(shape[1]), np.ones(shape[1])
    for step in range(2):
        x = maps(shape, seed + step)
        plain = [by_hand(ghost, [np.s_[:, j] for j in range(shape[1])], eps) for ghost in ghosts(x, size)]
        np.testing.assert_allclose(apply(layer, x), p["weight"] * np.concatenate(plain) + p["bias"], atol=1e-8)
        found = [ghost.transpose(1, 0, 2, 3).reshape(shape[1], -1) for ghost in ghosts(x, size)]
        weights = [momentum * (1 - momentum) ** (len(found) - i) for i in range(1, len(found) + 1)]
        kept = (1 - momentum) ** len(found)
        mean = kept * mean + sum(a * g.mean(1) for a, g in zip(weights, found, strict=True))
        variance = kept * variance + sum(a * g.var(1, ddof=1) for a, g in zip(weights, found, strict=True))
        assert kept + sum(weights) == pytest.approx(1)
    np.testing.assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(layer.running_var.numpy(), variance, rtol=1e-10, atol=1e-12)
    x, centre, spread = maps(shape, seed + 9), mean[:, None, None], variance[:, None, None]
    expected = p["weight"] * (x - centre) / np.sqrt(spread + eps) + p["bias"]
    np.testing.assert_allclose(apply(layer.eval(), x), expected, rtol=1e-8, atol=1e-8)
    assert layer.num_batches_tracked == 2


def limits(step: int, begin: int, r_end: int, d_end: int, r_max: float, d_max: float) -> tuple[float, float]:
    """r_max and d_max after so many steps: 1 and 0 until `begin`, then on a line to their ends."""
    return float(np.interp(step, [begin, r_end], [1, r_max])), float(np.interp(step, [begin, d_end], [0, d_max]))


@given(shape=sizes, eps=epsilons, momentum=st.floats(0, 1), seed=seeds, ends=st.tuples(*[st.integers(1, 6)] * 2))
@settings(deadline=None, max_examples=30)
def test_batch_renorm_is_algorithm_1(
    shape: tuple[int, ...], eps: float, momentum: float, seed: int, ends: tuple[int, int]
) -> None:
    """Eight steps, from plain batch norm to the widest limits, with data that reach them; then eval mode."""
    schedule = {"begin": 1, "r_end": 1 + ends[0], "d_end": 1 + ends[1], "r_max": 1.5, "d_max": 0.7}
    layer = layer_of("brn", shape, seed, eps=eps, momentum=momentum, **schedule)
    p, mean, variance = numbers(layer), np.zeros((shape[1], 1, 1)), np.ones((shape[1], 1, 1))
    for step in range(8):
        x = maps(shape, seed + step)
        r_max, d_max = limits(step, **schedule)  # type: ignore[arg-type]
        centre, spread = x.mean((0, 2, 3), keepdims=True)[0], x.var((0, 2, 3), keepdims=True)[0]
        sigma_batch, sigma = np.sqrt(spread + eps), np.sqrt(variance + eps)
        r = np.clip(sigma_batch / sigma, 1 / r_max, r_max)
        d = np.clip((centre - mean) / sigma, -d_max, d_max)
        expected = p["weight"] * ((x - centre) / sigma_batch * r + d) + p["bias"]
        np.testing.assert_allclose(apply(layer, x), expected, rtol=1e-8, atol=1e-8)
        count = x.size / shape[1]
        mean = mean + momentum * (centre - mean)
        variance = variance + momentum * (spread * count / (count - 1) - variance)
        np.testing.assert_allclose(layer.running_mean.numpy(), mean.ravel(), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(layer.running_var.numpy(), variance.ravel(), rtol=1e-10, atol=1e-12)
    x = maps(shape, seed + 9)
    expected = p["weight"] * (x - mean) / np.sqrt(variance + eps) + p["bias"]
    np.testing.assert_allclose(apply(layer.eval(), x), expected, rtol=1e-8, atol=1e-8)


# What they have in common with others


def test_ghost_batch_norm_is_batch_norm_where_the_batch_is_one_ghost() -> None:
    ghost, batch = (layer_of(name, MAPS, seed=1) for name in ("gbn", "bn"))  # 16 images a ghost by default
    for step in range(3):
        x = maps(MAPS, step)
        assert np.array_equal(apply(ghost, x), apply(batch, x))
    for name, value in batch.state_dict().items():
        assert torch.equal(ghost.state_dict()[name], value), name
    smaller = layer_of("gbn", MAPS, seed=1, virtual_batch_size=2)
    assert np.abs(apply(smaller, x) - apply(batch, x)).max() > 0.01


def test_batch_renorm_is_batch_norm_until_it_begins() -> None:
    renorm, batch = layer_of("brn", MAPS, seed=1, begin=3, r_end=5, d_end=5), layer_of("bn", MAPS, seed=1)
    for step in range(4):  # step 3 is the first of the schedule: its limits are still 1 and 0
        x = maps(MAPS, step)
        np.testing.assert_allclose(apply(renorm, x), apply(batch, x), rtol=1e-12, atol=1e-12)
    assert np.abs(apply(renorm, x) - apply(batch, x)).max() > 0.01, "from here on they part"
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(renorm, name), getattr(batch, name), rtol=1e-12, atol=1e-12)


def test_batch_renorm_without_limits_trains_with_what_eval_mode_sees() -> None:
    layer = layer_of("brn", MAPS, seed=1, r_max=1e9, d_max=1e9, begin=0, r_end=1, d_end=1)
    for step in range(4):
        x = maps(MAPS, step)
        in_use = apply(copy.deepcopy(layer).eval(), x)  # the running statistics as they stand before the step
        assert np.allclose(apply(layer, x), in_use, rtol=1e-9, atol=1e-9) == (step > 0)  # at 0 the limits are closed


def test_group_norm_by_channels_a_group() -> None:
    x = maps((3, 6, 4, 4))
    one, instance = layer_of("gn", x.shape, 1, channels_per_group=1), layer_of("in", x.shape, 1)
    np.testing.assert_allclose(apply(one, x), apply(instance, x), rtol=1e-10, atol=1e-10)
    three, two_groups = layer_of("gn", x.shape, 1, channels_per_group=3), layer_of("gn", x.shape, 1, num_groups=2)
    assert np.array_equal(apply(three, x), apply(two_groups, x))
    with pytest.raises(ValueError, match="channels_per_group=4 does not divide 6 channels"):
        make_norm("gn", 6, channels_per_group=4)


@pytest.mark.parametrize("name", ["ln_elem", "ln2d"])
def test_layer_norms_are_torchs(name: str) -> None:
    x = torch.from_numpy(maps(MAPS))
    layer = layer_of(name, MAPS, seed=2)
    torchs = nn.LayerNorm(list(MAPS[1:]) if name == "ln_elem" else MAPS[1]).double()
    torchs.load_state_dict(layer.state_dict())
    expected = torchs(x) if name == "ln_elem" else torchs(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_layer_norm_for_every_position_needs_their_number() -> None:
    with pytest.raises(ValueError, match=r"norm 'ln_elem' has numbers for every position: give size=\(H, W\)"):
        make_norm("ln_elem", 10)


PARAMETERS = {
    "none": 7466, "bn": 7614, "gbn": 7614, "brn": 7614, "ln": 7614, "ln_elem": 50_426, "ln2d": 7614, "gn": 7614,
    "in": 7614, "rms": 7540, "frn": 7688, "dyt": 7619,
}  # fmt: skip


@pytest.mark.parametrize("name", BUILT_IN)
def test_parameters_of_the_network(name: str) -> None:
    assert sum(p.numel() for p in Net(name).parameters()) == PARAMETERS[name]
    options = {} if name == "none" else {"affine": False} | ({"threshold": False} if name == "frn" else {})
    extra = 5 if name == "dyt" else 0  # α stays
    assert sum(p.numel() for p in Net(name, norm_options=options).parameters()) == 7466 + extra


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name != "none"])
def test_affine_false_is_scale_1_and_shift_0(name: str) -> None:
    x = maps(MAPS)
    plain, started = layer_of(name, MAPS, affine=False), layer_of(name, MAPS)
    np.testing.assert_allclose(apply(plain, x), apply(started, x), rtol=1e-12, atol=1e-12)


def test_the_threshold_unit_starts_as_relu_and_can_be_left_out() -> None:
    x = maps(MAPS)
    without = apply(layer_of("frn", MAPS, threshold=False), x)
    assert without.min() < 0
    assert np.array_equal(apply(layer_of("frn", MAPS), x), np.maximum(without, 0))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"r_max": 0.5}, "r_max=0.5, d_max=5.0: r_max is at least 1"),
        ({"d_max": -1.0}, "d_max=-1.0"),
        ({"begin": 800}, "begin=800, r_end=800, d_end=500: begin comes first"),
    ],
)
def test_limits_of_batch_renorm_that_cannot_be(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make_norm("brn", 10, **options)
    with pytest.raises(ValueError, match="virtual_batch_size=0: must be 1 or more"):
        make_norm("gbn", 10, virtual_batch_size=0)
