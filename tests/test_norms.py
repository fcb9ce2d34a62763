"""Normalization layers against their formulas, worked out in float64 over explicit sets of numbers."""

import sys
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from normlab.nets import NORMS, load_class, make_norm

NORMALISING = ["bn", "ln", "gn", "in"]
PER_IMAGE = ["ln", "gn", "in"]

seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(2, 5))  # N, C / G, H, W
epsilons = st.floats(1e-6, 1.0)


def cells(name: str, shape: tuple[int, ...], groups: int = 2) -> list[tuple[slice | int, ...]]:
    """Where the numbers stand that share one μ and one σ²: an index into (N, C, H, W) for every set."""
    n, c = shape[:2]
    width = c // groups
    return {
        "none": [],
        "bn": [np.s_[:, j] for j in range(c)],
        "ln": [np.s_[i, :] for i in range(n)],
        "gn": [np.s_[i, g * width : (g + 1) * width] for i in range(n) for g in range(groups)],
        "in": [np.s_[i, j] for i in range(n) for j in range(c)],
    }[name]


def by_hand(x: np.ndarray, sets: list[tuple[slice | int, ...]], eps: float) -> np.ndarray:
    """(x - μ) / sqrt(σ² + ε) with μ = Σx / m and the biased σ² = Σ(x - μ)² / m, over every set of m numbers."""
    y = x.copy()
    for index in sets:
        numbers = x[index].ravel()
        mean = numbers.sum() / numbers.size
        variance = ((numbers - mean) ** 2).sum() / numbers.size
        y[index] = (x[index] - mean) / np.sqrt(variance + eps)
    return y


def maps(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Maps whose mean and spread differ from image to image and from channel to channel."""
    rng = np.random.default_rng(seed)
    n, c = shape[:2]
    return rng.uniform(0.02, 3, (n, c, 1, 1)) * rng.normal(size=shape) + rng.uniform(-2, 2, (n, c, 1, 1))


def layer_of(name: str, channels: int, seed: int | None = None, **options: Any) -> nn.Module:
    """The package's layer in float64, with random γ and β where a seed is given."""
    layer = make_norm(name, channels, **options).double()
    if seed is not None and name != "none":
        rng = np.random.default_rng(seed + 1)
        layer.weight.data = torch.from_numpy(rng.uniform(-2, 2, channels))
        layer.bias.data = torch.from_numpy(rng.uniform(-2, 2, channels))
    return layer


def apply(layer: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return layer(torch.from_numpy(x)).numpy()


def scaled_and_shifted(y: np.ndarray, layer: nn.Module) -> np.ndarray:
    """γ · y + β, one γ and one β a channel."""
    gamma, beta = (p.detach().numpy() for p in (layer.weight, layer.bias))
    return np.stack([gamma[j] * y[:, j] + beta[j] for j in range(y.shape[1])], axis=1)


# The formula


@pytest.mark.parametrize(("name", "groups"), [("bn", 1), ("ln", 1), ("gn", 1), ("gn", 2), ("gn", 3), ("in", 1)])
@given(sizes=sizes, eps=epsilons, seed=seeds)
@settings(deadline=None, max_examples=30)
def test_output_is_the_formula(name: str, groups: int, sizes: tuple[int, ...], eps: float, seed: int) -> None:
    """y = γ · (x - μ) / sqrt(σ² + ε) + β in training mode, whatever the shape, ε, γ and β."""
    n, width, h, w = sizes
    x = maps((n, width * groups, h, w), seed)
    options = {"num_groups": groups} if name == "gn" else {}
    layer = layer_of(name, width * groups, seed, eps=eps, **options)

    expected = scaled_and_shifted(by_hand(x, cells(name, x.shape, groups), eps), layer)

    np.testing.assert_allclose(apply(layer, x), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["none", *NORMALISING])
def test_layers_start_as_the_plain_formula_in_single_precision(name: str) -> None:
    """γ = 1, β = 0 and ε = 1e-5 unless said otherwise; gn has two groups."""
    x = maps((3, 6, 4, 5))
    x[0, 0] *= 1e-3  # σ² far below ε
    layer = make_norm(name, 6)
    y = layer(torch.from_numpy(x).float())

    assert y.dtype == torch.float32
    np.testing.assert_allclose(y.detach().numpy(), by_hand(x, cells(name, x.shape), 1e-5), rtol=1e-4, atol=1e-5)


def test_none_gives_back_what_it_gets() -> None:
    """y = x: no numbers change and there is nothing to learn."""
    x = torch.randn(2, 5, 3, 3)
    layer = make_norm("none", 5)
    assert torch.equal(layer(x), x)
    assert not list(layer.parameters())
    assert not list(layer.buffers())


def test_constant_maps_become_the_shift() -> None:
    """Where x = μ everywhere, σ² = 0 and ε keeps the quotient finite: y = β."""
    x = np.full((2, 4, 3, 3), 7.0)
    for name in NORMALISING:
        layer = layer_of(name, 4, seed=3)
        beta = layer.bias.detach().numpy()[None, :, None, None]
        np.testing.assert_allclose(apply(layer, x), np.broadcast_to(beta, x.shape), atol=1e-6)


def test_group_norm_with_one_group_is_layer_norm() -> None:
    x = maps((3, 6, 4, 4))
    one_group, layer_norm = layer_of("gn", 6, seed=1, num_groups=1), layer_of("ln", 6, seed=1)
    np.testing.assert_allclose(apply(one_group, x), apply(layer_norm, x), rtol=1e-12, atol=1e-12)


def test_group_norm_with_a_group_a_channel_is_instance_norm() -> None:
    x = maps((3, 6, 4, 4))
    by_group, by_channel = layer_of("gn", 6, seed=1, num_groups=6), layer_of("in", 6, seed=1)
    np.testing.assert_allclose(apply(by_group, x), apply(by_channel, x), rtol=1e-10, atol=1e-10)


# Which numbers share a statistic


@pytest.mark.parametrize(("name", "many"), [("bn", 4), ("ln", 3), ("gn", 6), ("in", 12)])
def test_number_of_statistics(name: str, many: int) -> None:
    """∂y/∂x is zero between two numbers exactly where they share no statistic: with N = 3, C = 4, G = 2 there are
    C sets for bn, N for ln, N·G for gn, N·C for in, and each holds what the table of the module says."""
    shape = (3, 4, 2, 3)
    layer = layer_of(name, 4)
    jacobian = torch.autograd.functional.jacobian(layer, torch.from_numpy(maps(shape)))
    shared = jacobian.reshape(72, 72).abs().numpy() > 1e-12

    found = {tuple(np.flatnonzero(row)) for row in shared}

    numbers = np.arange(72).reshape(shape)
    assert found == {tuple(numbers[index].ravel()) for index in cells(name, shape)}
    assert len(found) == many


@pytest.mark.parametrize("name", PER_IMAGE)
def test_images_do_not_touch_each_other(name: str) -> None:
    """Statistics per image: another second image leaves the first one's output as it was, in every bit."""
    x = maps((2, 4, 5, 5))
    other = x.copy()
    other[1] = 10 * other[1] + 3
    layer = layer_of(name, 4, seed=2)
    assert np.array_equal(apply(layer, x)[0], apply(layer, other)[0])
    np.testing.assert_allclose(apply(layer, x[:1])[0], apply(layer, x)[0], rtol=1e-12, atol=1e-12)


def test_batch_norm_ties_the_images_of_a_batch_together_in_training_only() -> None:
    x = maps((2, 4, 5, 5))
    other = x.copy()
    other[1] = 10 * other[1] + 3
    layer = layer_of("bn", 4)
    assert np.abs(apply(layer, x)[0] - apply(layer, other)[0]).max() > 0.1
    layer.eval()
    assert np.array_equal(apply(layer, x)[0], apply(layer, other)[0])


INVARIANT = {
    "bn": {"channel"},
    "ln": {"image"},
    "gn": {"image", "image and group"},
    "in": {"image", "channel", "image and group", "image and channel"},
}
FREEDOM = {"image": (3, 1, 1), "channel": (1, 2, 3), "image and group": (3, 2, 1), "image and channel": (3, 2, 3)}


@pytest.mark.parametrize("freedom", FREEDOM)
@pytest.mark.parametrize("name", NORMALISING)
def test_input_scale_and_shift_that_are_forgotten(name: str, freedom: str) -> None:
    """norm(a·x + b) = norm(x), a > 0, exactly where a and b are constant on every set that shares statistics."""
    rng = np.random.default_rng(5)
    x = maps((3, 6, 4, 4))
    layer = layer_of(name, 6, seed=4, eps=1e-14)
    for _ in range(5):
        a, b = rng.uniform(0.2, 5, FREEDOM[freedom]), rng.uniform(-5, 5, FREEDOM[freedom])
        a, b = (np.broadcast_to(v, (3, 2, 3)).reshape(3, 6, 1, 1) for v in (a, b))
        change = np.abs(apply(layer, a * x + b) - apply(layer, x)).max()
        assert change < 1e-8 if freedom in INVARIANT[name] else change > 0.1


# Running averages


@given(momentum=st.floats(0.0, 1.0), seed=seeds)
@settings(deadline=None, max_examples=20)
def test_batch_norm_running_averages(momentum: float, seed: int) -> None:
    """running ← (1 - m)·running + m·batch, from mean 0 and variance 1, with the unbiased Σ(x - μ)² / (n - 1)."""
    layer = layer_of("bn", 3, momentum=momentum)
    mean, variance = np.zeros(3), np.ones(3)
    for step in range(2):
        x = maps((2, 3, 2, 2), seed + step)
        apply(layer, x)
        for j in range(3):
            numbers = x[:, j].ravel()
            batch = numbers.sum() / 8
            mean[j] = (1 - momentum) * mean[j] + momentum * batch
            variance[j] = (1 - momentum) * variance[j] + momentum * ((numbers - batch) ** 2).sum() / 7
        np.testing.assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(layer.running_var.numpy(), variance, rtol=1e-10, atol=1e-12)


def test_batch_norm_momentum_is_a_tenth_unless_said() -> None:
    x = maps((4, 3, 5, 5))
    layer = layer_of("bn", 3)
    apply(layer, x)
    np.testing.assert_allclose(layer.running_mean.numpy(), 0.1 * x.mean((0, 2, 3)), rtol=1e-10)
    np.testing.assert_allclose(layer.running_var.numpy(), 0.9 + 0.1 * x.var((0, 2, 3), ddof=1), rtol=1e-10)


def test_batch_norm_in_eval_mode_uses_the_running_averages() -> None:
    """y = γ · (x - running_mean) / sqrt(running_var + ε) + β, and looking changes no average."""
    layer = layer_of("bn", 3, seed=1, eps=0.01)
    apply(layer, maps((4, 3, 5, 5)))
    layer.eval()
    mean, variance = layer.running_mean.numpy().copy(), layer.running_var.numpy().copy()
    x = maps((2, 3, 4, 4), seed=9)
    plain = np.stack([(x[:, j] - mean[j]) / np.sqrt(variance[j] + 0.01) for j in range(3)], axis=1)

    np.testing.assert_allclose(apply(layer, x), scaled_and_shifted(plain, layer), rtol=1e-10, atol=1e-10)
    assert np.array_equal(layer.running_mean.numpy(), mean)
    assert np.array_equal(layer.running_var.numpy(), variance)


@pytest.mark.parametrize("name", ["none", *PER_IMAGE])
def test_the_others_compute_the_same_in_training_and_in_use(name: str) -> None:
    x = maps((3, 4, 5, 5))
    layer = layer_of(name, 4, seed=6)
    in_training = apply(layer, x)
    assert np.array_equal(apply(layer.eval(), x), in_training)
    assert not list(layer.buffers())


# Options


@pytest.mark.parametrize("name", NORMALISING)
def test_parameters_are_a_scale_and_a_shift_a_channel(name: str) -> None:
    shapes = {key: tuple(p.shape) for key, p in make_norm(name, 6).named_parameters()}
    assert shapes == {"weight": (6,), "bias": (6,)}


@pytest.mark.parametrize("name", NORMALISING)
def test_affine_false_leaves_the_plain_quotient(name: str) -> None:
    x = maps((2, 6, 3, 3))
    layer = layer_of(name, 6, affine=False, eps=0.5)
    assert not list(layer.parameters())
    np.testing.assert_allclose(apply(layer, x), by_hand(x, cells(name, x.shape), 0.5), rtol=1e-8, atol=1e-8)


def test_unknown_names_list_the_choices() -> None:
    with pytest.raises(ValueError, match=f"norm 'layer' is unknown: choose one of {', '.join(NORMS)}"):
        make_norm("layer", 10)


@pytest.mark.parametrize(
    ("name", "option", "takes"),
    [
        ("none", "eps", "it takes no options"),
        ("bn", "num_groups", "it takes eps, momentum, affine"),
        ("ln", "num_groups", "it takes eps, affine"),
        ("gn", "momentum", "it takes num_groups, channels_per_group, eps, affine"),
        ("in", "momentum", "it takes eps, affine"),
        ("gbn", "r_max", "it takes virtual_batch_size, eps, momentum, affine"),
        ("brn", "alpha", "it takes r_max, d_max, begin, r_end, d_end, eps, momentum, affine"),
        ("frn", "momentum", "it takes eps, affine, threshold"),
        ("dyt", "eps", "it takes alpha, affine"),
    ],
)
def test_unknown_options_list_the_known_ones(name: str, option: str, takes: str) -> None:
    with pytest.raises(ValueError, match=f"norm '{name}' has no option {option}: {takes}"):
        make_norm(name, 10, **{option: 1})


@pytest.mark.parametrize("groups", [-2, 0, 3, 20])
def test_groups_have_to_divide_the_channels(groups: int) -> None:
    with pytest.raises(ValueError, match=f"num_groups={groups} does not divide 10 channels"):
        make_norm("gn", 10, num_groups=groups)


# A user's own layer


class Scale(nn.Module):
    """y = factor · x."""

    def __init__(self, num_channels: int, factor: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((num_channels, 1, 1), factor))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x


def broken(num_channels: int, **options: Any) -> nn.Module:
    raise KeyError("first line\nsecond line")


def list_maker(num_channels: int) -> list[int]:
    return [num_channels]


broken_partial = partial(broken, depth=2)
a_number = 3


def test_custom_builds_the_class_with_its_options() -> None:
    layer = make_norm("custom", 4, target=f"{__name__}:Scale", factor=2.5)
    assert isinstance(layer, Scale)
    assert layer.weight.shape == (4, 1, 1)
    x = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(layer(x), 2.5 * x)


def test_load_class_finds_functions_too() -> None:
    assert load_class(f"{__name__}:Scale") is Scale
    assert load_class("torch.nn:Identity") is nn.Identity
    assert load_class(f"{__name__}:list_maker") is list_maker


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("no_such_module:Layer", "importing no_such_module failed: No module named 'no_such_module'"),
        ("torch.no_such_module:Layer", "importing torch.no_such_module failed"),
        (".relative:Layer", "importing .relative failed"),
        ("here:Missing", "has no class Missing"),
        ("here:a_number", "has no class a_number"),
        ("here:broken", r"broken\(8, depth=1\) raised KeyError: 'first line"),
        ("here:broken_partial", r"broken_partial\(8, depth=1\) raised KeyError: 'first line"),
        ("here:Scale", r"Scale\(8, depth=1\) raised TypeError: .*depth"),
        ("here", "write package.module:Class"),
        ("here.Scale", "write package.module:Class"),
        (":Scale", "write package.module:Class"),
        ("here:", "write package.module:Class"),
        ("", "write package.module:Class"),
    ],
)
def test_custom_says_in_one_line_what_is_wrong(target: str, says: str) -> None:
    target = target.replace("here", __name__)
    with pytest.raises(ValueError, match=says) as caught:
        make_norm("custom", 8, target=target, depth=1)
    assert target in str(caught.value)
    assert "\n" not in str(caught.value)


def test_custom_has_to_give_a_module() -> None:
    with pytest.raises(ValueError, match=r"list_maker gave a list, not a torch\.nn\.Module"):
        make_norm("custom", 8, target=f"{__name__}:list_maker")


def test_custom_without_a_target() -> None:
    with pytest.raises(ValueError, match=r"write package\.module:Class"):
        make_norm("custom", 8)


@pytest.mark.parametrize("text", ["raise RuntimeError('no licence\\nfor you')", "raise RuntimeError", "1 +"])
def test_custom_module_that_fails_while_it_is_imported(
    text: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fails_to_import.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"importing fails_to_import failed: .") as caught:
        load_class("fails_to_import:Layer")
    assert "\n" not in str(caught.value)


def test_custom_layer_whose_error_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(num_channels: int) -> nn.Module:
        raise RuntimeError

    module = ModuleType("says_nothing")
    module.silent = silent  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "says_nothing", module)
    with pytest.raises(ValueError, match=r"silent\(8\) raised RuntimeError: no message"):
        make_norm("custom", 8, target="says_nothing:silent")
