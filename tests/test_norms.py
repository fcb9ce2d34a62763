"""Every norm of the catalogue, against a formula of its own in numpy and against what its file says of it."""

import copy
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, reduce
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import one_line
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from torch.nn import functional as F

from normlab.norms import CATALOGUE, make_norm
from normlab.norms.about import Number, Switch
from normlab.settings.conf import choices, group_values

SHAPE = (4, 6, 2, 3)
STATE = {"running_mean": "running mean", "running_var": "variance", "num_batches_tracked": "running"}
BATCH = [name for name, about in CATALOGUE.items() if about.of_batch]
OPEN = {"r_max": 1.5, "d_max": 0.7, "begin": 1, "r_end": 3, "d_end": 4}  # brn: limits that a few steps reach
NHW, CHW, HW = (0, 2, 3), (1, 2, 3), (2, 3)
Array = np.ndarray


@pytest.fixture(scope="module", params=CATALOGUE)
def name(request: pytest.FixtureRequest) -> str:
    """Each norm of the catalogue in turn."""
    return str(request.param)


def maps(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Array:
    """Maps whose mean and spread differ from image to image and from channel to channel."""
    rng = np.random.default_rng(seed)
    n, c = shape[:2]
    return rng.uniform(0.02, 3, (n, c, 1, 1)) * rng.normal(size=shape) + rng.uniform(-2, 2, (n, c, 1, 1))


def layer_of(name: str, shape: tuple[int, ...] = SHAPE, seed: int | None = None, **options: Any) -> nn.Module:
    """A layer in float64; its parameters are random, from 0.1 to 0.9, where a seed is given."""
    layer = make_norm(name, shape[1], options, size=(shape[2], shape[3])).double()
    rng = np.random.default_rng(seed)
    for parameter in layer.parameters() if seed is not None else ():
        parameter.data = torch.from_numpy(rng.uniform(0.1, 0.9, parameter.shape))
    return layer


def apply(layer: nn.Module, x: Array) -> Array:
    with torch.no_grad():
        return layer(torch.from_numpy(x)).numpy()  # type: ignore[no-any-return]


def buffers(layer: nn.Module) -> dict[str, Tensor]:
    """Running statistics by their own names, wherever the layer keeps them."""
    return {name.rpartition(".")[2]: value for name, value in layer.named_buffers()}


# Formulas ------------------------------------------------------------------------------------------------------------


@dataclass
class Running:
    """Running statistics per channel, (C, 1, 1), as the papers describe them."""

    running_mean: Array
    running_var: Array
    momentum: float | None
    training: bool = True
    num_batches_tracked: int = 0

    def move(self, mean: Array, var: Array, count: int) -> None:
        """One batch, with the biased variance of `count` numbers per channel."""
        self.num_batches_tracked += 1
        m = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean = (1 - m) * self.running_mean + m * mean
        self.running_var = (1 - m) * self.running_var + m * var * count / (count - 1)

    def __call__(self, x: Array, var: Callable[[Array], Array] | None = None) -> tuple[Array, Array]:
        """Mean and variance of a channel: those of the batch, which is taken in, or the running ones."""
        if self.training:
            mean = x.mean(NHW, keepdims=True)
            biased = ((x - mean) ** 2).mean(NHW, keepdims=True) if var is None else var(x - mean)
            self.move(mean[0], np.broadcast_to(biased[0], mean[0].shape), x[:, 0].size)
            return mean[0], biased[0]
        return self.running_mean, self.running_var


def standard(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    """(x − μ) / sqrt(σ² + ε) with μ = Σx / m and σ² = Σ(x − μ)² / m over the m numbers along `axes`."""
    m = math.prod(x.shape[axis] for axis in axes)
    d = x - x.sum(axes, keepdims=True) / m
    return d / np.sqrt((d * d).sum(axes, keepdims=True) / m + eps)


def in_groups(x: Array, groups: int, function: Callable[..., Array], *args: Any) -> Array:
    """A function over (C / groups, H, W) of each image."""
    n, c, h, w = x.shape
    return function(x.reshape(n, groups, c // groups, h, w), (2, 3, 4), *args).reshape(x.shape)


def rms(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    return x / np.sqrt((x * x).mean(axes, keepdims=True) + eps)


def batch_norm(x: Array, p: Any, o: Any, running: Running) -> Array:
    mean, var = running(x)
    return (x - mean) / np.sqrt(var + o.eps)


def ghost(x: Array, p: Any, o: Any, running: Running) -> Array:
    """momentum null: all ghosts of a batch count the same, and so do all batches."""
    if not running.training:
        return batch_norm(x, p, o, running)
    parts = np.split(x, range(o.virtual_batch_size, len(x), o.virtual_batch_size))
    steps, cumulative = running.num_batches_tracked, running.momentum is None
    own = [replace(running, momentum=1.0) if cumulative else running for _ in parts]
    y = np.concatenate([batch_norm(part, p, o, each) for part, each in zip(parts, own, strict=True)])
    if cumulative:
        mean, var = (sum(getattr(each, f"running_{of}") for each in own) / len(own) for of in ("mean", "var"))
        running.move(mean, var, 2**53)
    running.num_batches_tracked = steps + 1
    return y


def renorm(x: Array, p: Any, o: Any, running: Running) -> Array:
    if not running.training:
        return batch_norm(x, p, o, running)
    r_max = np.interp(running.num_batches_tracked, [o.begin, o.r_end], [1, o.r_max])
    d_max = np.interp(running.num_batches_tracked, [o.begin, o.d_end], [0, o.d_max])
    before, sigma = running.running_mean, np.sqrt(running.running_var + o.eps)
    mean, var = running(x)
    r = np.clip(np.sqrt(var + o.eps) / sigma, 1 / r_max, r_max)
    return (x - mean) / np.sqrt(var + o.eps) * r + np.clip((mean - before) / sigma, -d_max, d_max)


def evonorm_b0(x: Array, p: Any, o: Any, running: Running) -> Array:
    own = np.sqrt(x.var(HW, keepdims=True) + o.eps)
    return x / np.maximum(np.sqrt(running(x)[1] + o.eps), p.v * x + own)


def evonorm_s0(x: Array, p: Any, o: Any, running: Running) -> Array:
    sigma = in_groups(x, o.num_groups, lambda x, axes: x * 0 + np.sqrt(x.var(axes, keepdims=True) + o.eps))
    return x / (1 + np.exp(-p.v * x)) / sigma


def batch_channel(x: Array, p: Any, o: Any, running: Running) -> Array:
    z = batch_norm(x, p, o, running) * p.batch_weight + p.batch_bias
    return in_groups(z, o.num_groups, standard, o.eps)


def switch(x: Array, p: Any, o: Any, running: Running) -> Array:
    found = []
    for of, weights, of_batch in zip((np.mean, np.var), (p.mean_weight, p.var_weight), running(x), strict=True):
        three = of(x, HW, keepdims=True), of(x, CHW, keepdims=True), of_batch
        shares = np.exp(weights) / np.exp(weights).sum()
        found.append(sum(share * value for share, value in zip(shares, three, strict=True)))
    return (x - found[0]) / np.sqrt(found[1] + o.eps)


def batch_instance(x: Array, p: Any, o: Any, running: Running) -> Array:
    rho = np.clip(p.rho, 0, 1)
    return rho * batch_norm(x, p, o, running) + (1 - rho) * standard(x, HW, o.eps)


def extended(x: Array, p: Any, o: Any, running: Running) -> Array:
    mean, var = running(x, lambda d: (d * d).mean(keepdims=True))
    return (x - mean) / np.sqrt(var + o.eps)


def l1(x: Array, p: Any, o: Any, running: Running) -> Array:
    mean, square = running(x, lambda d: np.pi / 2 * np.abs(d).mean(NHW, keepdims=True) ** 2)
    return (x - mean) / np.sqrt(square + o.eps)


def response(x: Array, p: Any, o: Any, running: Running) -> Array:
    length = np.sqrt((x * x).sum(HW, keepdims=True))
    return x * length / (length.mean(1, keepdims=True) + o.eps)


def seednorm(x: Array, p: Any, o: Any, running: Running) -> Array:
    gate = np.tanh(np.einsum("nchw,c->nhw", x, p.beta[:, 0, 0]))[:, None]
    return (p.weight + p.alpha * gate) * rms(x, (1,), o.eps)


CASES: dict[str, Callable[[Array, Any, Any, Running], Array]] = {  # before γ and β
    **dict.fromkeys(("none", "wn", "nf"), lambda x, p, o, running: x),
    "bn": batch_norm,
    "gbn": ghost,
    "brn": renorm,
    "ebn": extended,
    "l1bn": l1,
    "center": lambda x, p, o, running: x - running(x)[0],
    "scale": lambda x, p, o, running: x / np.sqrt(running(x)[1] + o.eps),
    **dict.fromkeys(("ln", "ln_elem"), lambda x, p, o, running: standard(x, CHW, o.eps)),
    "ln2d": lambda x, p, o, running: standard(x, (1,), o.eps),
    "rms": lambda x, p, o, running: rms(x, CHW, o.eps),
    "grn": response,
    "seednorm": seednorm,
    "gn": lambda x, p, o, running: in_groups(
        x, x.shape[1] // o.channels_per_group if o.channels_per_group else o.num_groups, standard, o.eps
    ),
    "in": lambda x, p, o, running: standard(x, HW, o.eps),
    "frn": lambda x, p, o, running: rms(x, HW, o.eps),
    "evonorm_s0": evonorm_s0,
    "evonorm_b0": evonorm_b0,
    "bcn": batch_channel,
    "sn": switch,
    "bin": batch_instance,
    "dyt": lambda x, p, o, running: np.tanh(p.alpha * x),
    "derf": lambda x, p, o, running: np.vectorize(math.erf)(p.alpha * x + p.shift),
}


def by_hand(name: str, layer: nn.Module, x: Array, options: dict[str, Any], running: Running) -> Array:
    """y of a layer with these parameters and options."""
    numbers = {"weight": np.ones(1), "bias": np.zeros(1), "batch_weight": np.ones(1), "batch_bias": np.zeros(1)}
    numbers |= {key: value.detach().numpy() for key, value in layer.named_parameters()}
    numbers = {key: value[:, None, None] if value.ndim == 1 else value for key, value in numbers.items()}
    p, o = SimpleNamespace(**numbers), SimpleNamespace(**options)
    y = CASES[name](x, p, o, running)
    if name == "seednorm":
        return y
    y = y * p.weight + p.bias + (x if name == "grn" else 0)
    return np.maximum(y, p.tau) if "tau" in numbers else y


def drawn(draw: st.DataObject, name: str, width: int) -> dict[str, Any]:
    """A value for each option of a norm with 2 · width channels."""
    ranges: dict[str, st.SearchStrategy[Any]] = {
        "eps": st.floats(1e-6, 1), "momentum": st.none() | st.floats(0, 1), "virtual_batch_size": st.integers(1, 4),
        "num_groups": st.sampled_from([1, 2, width]), "channels_per_group": st.sampled_from([None, 1, 2, width]),
        "r_max": st.floats(1, 2), "d_max": st.floats(0, 1), "begin": st.integers(0, 1), "r_end": st.integers(2, 4),
        "d_end": st.integers(2, 4), "alpha": st.floats(-2, 2), "shift": st.floats(-2, 2), "rho": st.floats(0, 1),
    }  # fmt: skip
    return {key: draw.draw(ranges.get(key, st.booleans()), key) for key in CATALOGUE[name].options}


@given(data=st.data(), n=st.integers(1, 4), width=st.integers(1, 3), h=st.integers(1, 3), w=st.integers(2, 3))
@settings(deadline=None, max_examples=12)
def test_output_and_state_are_the_formula(name: str, data: st.DataObject, n: int, width: int, h: int, w: int) -> None:
    """Three steps of training, whatever the shape, options and parameters; then eval mode, which moves nothing."""
    shape, seed = (n, 2 * width, h, w), data.draw(st.integers(0, 2**32 - 1), "seed")
    options = drawn(data, name, width)
    layer = layer_of(name, shape, **options)
    for parameter in layer.parameters():
        parameter.data = torch.from_numpy(np.random.default_rng(seed).uniform(-2, 2, parameter.shape))
    running = Running(np.zeros((shape[1], 1, 1)), np.ones((shape[1], 1, 1)), options.get("momentum"))
    for step in range(4):
        running.training = step < 3
        layer.train(running.training)
        x = maps(shape, seed + step)
        expected = by_hand(name, layer, x, options, running)
        np.testing.assert_allclose(apply(layer, x), expected, rtol=1e-7, atol=1e-7)
        kept = buffers(layer)
        for key, word in STATE.items():
            if word in CATALOGUE[name].state:
                expected = np.ravel(getattr(running, key))
                np.testing.assert_allclose(kept[key].reshape(-1), expected, rtol=1e-9, atol=1e-11, err_msg=key)


@pytest.mark.parametrize("momentum", [0.1, 1.0, None])
@pytest.mark.parametrize("shape", [(88, 20, 3, 5), (1, 12, 7, 7), (2, 3, 1, 2), (16, 10, 26, 26)], ids=str)
def test_batch_norm_is_torchs(shape: tuple[int, ...], momentum: float | None) -> None:
    """Outputs, gradients, layout and state, on channels_last maps; momentum null is the mean of all batches."""
    ours = layer_of("bn", shape, seed=1, momentum=momentum)
    torchs = nn.BatchNorm2d(shape[1], momentum=momentum).double()
    torchs.load_state_dict(ours.state_dict())
    for step in range(3):
        x = torch.from_numpy(maps(shape, step)).to(memory_format=torch.channels_last).requires_grad_()
        layout = [torch.channels_last, torch.contiguous_format][step % 2]
        grad = torch.from_numpy(maps(shape, 9)).contiguous(memory_format=layout)
        both = [(layer(x), layer) for layer in (ours, torchs)]
        ys = [y for y, _ in both]
        grads = [torch.autograd.grad(y, (x, *layer.parameters()), grad) for y, layer in both]
        torch.testing.assert_close((ys[0], *grads[0]), (ys[1], *grads[1]), rtol=1e-8, atol=1e-8)
        assert ys[0].is_contiguous(memory_format=torch.channels_last)
    for key, value in torchs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 16, 32])
def test_group_norms_are_torchs_on_channels_last_maps(groups: int, affine: bool) -> None:
    layer = layer_of("gn", (3, 32, 4, 5), 1, num_groups=groups, affine=affine)
    x = torch.from_numpy(maps((3, 32, 4, 5))).to(memory_format=torch.channels_last).requires_grad_()
    ys = layer(x), F.group_norm(x, groups, layer.weight, layer.bias, 1e-5)
    grads = [torch.autograd.grad(y, (x, *layer.parameters()), torch.ones_like(y) * x.detach()) for y in ys]
    torch.testing.assert_close((ys[0], *grads[0]), (ys[1], *grads[1]), rtol=1e-8, atol=1e-8)


def test_single_precision_is_no_less_exact_than_torchs() -> None:
    x = torch.from_numpy(3 * np.random.default_rng(0).normal(size=(128, 20, 24, 24)) + 5).float()
    x = x.to(memory_format=torch.channels_last)
    exact = nn.BatchNorm2d(20).double()(x.double())
    ours, torchs = ((layer(x) - exact).abs().max().item() for layer in (make_norm("bn", 20), nn.BatchNorm2d(20)))
    assert ours <= max(torchs, 5e-6)


# What of the input is forgotten --------------------------------------------------------------------------------------

# What of its input cannot be seen in y: of those with centred statistics "scale" and "shift", but for these.
FORGETS = {"brn": "", "center": "shift", **dict.fromkeys(("scale", "rms", "frn", "evonorm_b0"), "scale")}
PATTERNS = ("", "C", "N", "HW", "NC", "NHW")  # the axes along which a factor or a summand varies


@pytest.mark.parametrize("pattern", PATTERNS)
def test_scales_and_shifts_that_are_forgotten(name: str, pattern: str) -> None:
    """norm(a·x) = norm(x), a > 0, and norm(x + b) = norm(x), exactly where a and b are alike for all that share a
    statistic, and as far as the norm forgets them."""
    about, rng, x = CATALOGUE[name], np.random.default_rng(5), maps((4, 6, 3, 3))
    forgets = FORGETS.get(name, "scale, shift" if about.axes and about.centred else "")
    options = {"eps": 1e-14, "virtual_batch_size": 2, "threshold": False, **OPEN, "begin": 0}
    layer = layer_of(name, x.shape, 4, **{key: value for key, value in options.items() if key in about.options})
    apply(layer, maps(x.shape, 1))  # brn: from here on its limits are open
    expected = apply(copy.deepcopy(layer), x)
    shape = [length if axis in pattern else 1 for axis, length in zip("NCHW", x.shape, strict=True)]
    shared = set("".join(about.axes[:1] if about.chained else about.axes))  # later statistics see what is left
    shared = {{"V": "N", "G": "C"}.get(axis, axis) for axis in shared}
    for kind, changed in (("scale", rng.uniform(0.2, 5, shape) * x), ("shift", x + rng.uniform(-5, 5, shape))):
        change = np.abs(apply(copy.deepcopy(layer), changed) - expected).max()
        if name == "ebn" and kind == "shift":
            shared = set("NHW")  # its mean is of a channel, its variance of all
        forgotten = kind in forgets and not shared & set(pattern)
        assert change < 1e-6 if forgotten else change > 0.02, (kind, change)


# Which numbers share a statistic -------------------------------------------------------------------------------------


def test_statistics_are_over_the_axes_that_it_names(name: str) -> None:
    """∂y/∂x is zero between two numbers exactly where they share no statistic, by the sets of its axes."""
    about, size = CATALOGUE[name], math.prod(SHAPE)
    options = {key: 2 if key == "virtual_batch_size" else False for key in about.options if key[:2] in ("vi", "th")}
    depends = np.zeros((size, size), bool)
    for seed in range(8 if "max" in about.formula else 1):  # a maximum hides a statistic of some inputs
        x = torch.from_numpy(maps(seed=seed))
        jacobian = torch.autograd.functional.jacobian(layer_of(name, seed=seed, **options), x)
        depends |= jacobian.reshape(size, size).abs().numpy() > 1e-12
    sets = [about.sets(*SHAPE[:2], SHAPE[2] * SHAPE[3], 2, 2, index).ravel() for index in range(len(about.axes))]
    shares = [np.eye(size, dtype=bool), *(of[:, None] == of for of in sets)]
    expected = reduce(np.matmul if about.chained else np.logical_or, shares)
    np.testing.assert_array_equal(depends, expected)
    of_an_image = [np.unique(of[: size // SHAPE[0]], return_counts=True)[1].min() for of in sets]
    in_two = {"num_groups": 2} if "num_groups" in about.options else {}
    assert about.values(SHAPE[1], (2, 3), in_two) == min(of_an_image, default=0)


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name not in BATCH])
def test_images_do_not_touch_each_other(name: str) -> None:
    """Another second image leaves the first one's output as it was, in every bit."""
    layer, x = layer_of(name, seed=2), maps()
    other = np.concatenate([x[:1], 10 * x[1:] + 3])
    assert np.array_equal(apply(layer, x)[0], apply(layer, other)[0])


# Parameters, state, modes --------------------------------------------------------------------------------------------


def test_the_catalogue_is_what_the_configuration_offers() -> None:
    assert {*CATALOGUE, "custom"} == set(choices("norm"))
    assert set(CASES) == set(CATALOGUE)
    assert len({about.title for about in CATALOGUE.values()}) == len(CATALOGUE)
    known = {
        "in": ("instance normalization", "instance norm", "InstanceNorm2d"),
        "l1bn": ("L1 batch normalization", "L1 batch norm", "L1BatchNorm2d"),
        "ln_elem": ("layer normalization, γ and β for every position", "layer norm", "LayerNormElementwise"),
        "evonorm_b0": ("EvoNorm-B0", "EvoNorm-B0", "EvoNormB0"),
    }
    assert {name: (CATALOGUE[name].title, CATALOGUE[name].short, CATALOGUE[name].layer) for name in known} == known
    for name, about in CATALOGUE.items():
        assert name == "none" or re.search(r"\b20\d\d\b.*, arXiv:\d{4}\.\d{5}\b", about.source), name


def test_learned_numbers_are_those_that_it_names(name: str) -> None:
    """And they start as the options say, which are given with the switches on and left out with the switches off."""
    about, starts = CATALOGUE[name], group_values("norm", name)
    own = {of.start: 0.75 for of in about.learned.values() if isinstance(of.start, str)}
    for switched in (False, True):
        options: dict[str, Any] = {key: switched for key, of in about.options.items() if isinstance(of, Switch)}
        options |= own if switched else {}
        starts |= options
        layer = make_norm(name, 6, options, size=(2, 3))
        wanted = {key: of for key, of in about.learned.items() if not of.when or switched}
        sizes = {key: of.size(6, (2, 3)) for key, of in wanted.items()}
        assert about.parameters(6, (2, 3), options) == sum(map(math.prod, sizes.values()))
        if about.conv:  # held by the convolution
            assert not list(layer.parameters())
            continue
        assert {key: tuple(p.shape) for key, p in layer.named_parameters()} == sizes
        for key, of in wanted.items():
            assert of.sign, key
            assert of.sign in about.formula, key
            assert (layer.get_parameter(key) == (starts[of.start] if isinstance(of.start, str) else of.start)).all()


def test_state_and_modes_are_those_that_it_names(name: str) -> None:
    """And whether a mean is subtracted."""
    about, layer, x = CATALOGUE[name], layer_of(name, seed=2), maps()
    before = {key: value.clone() for key, value in buffers(layer).items()}
    in_use = apply(copy.deepcopy(layer).eval(), x)
    in_training = apply(layer, x)
    moved = {key for key, value in buffers(layer).items() if not torch.equal(value, before[key])}
    assert moved == {key for key, word in STATE.items() if word in about.state}
    assert bool(about.modes) == (not np.allclose(in_training, in_use, rtol=1e-6, atol=1e-6))
    assert bool(about.state) == (name in BATCH)
    assert about.state or np.array_equal(in_training, in_use)
    shifted = apply(layer_of(name, seed=2), x + 3)
    assert about.centred == np.allclose(shifted, in_training, rtol=1e-5, atol=1e-6)


# Gradients -----------------------------------------------------------------------------------------------------------


def called(layer: nn.Module) -> Callable[..., Tensor]:
    """The layer as a function of x and its parameters; every call starts from the same running statistics."""
    names = [name for name, _ in layer.named_parameters()]

    def function(x: Tensor, *values: Tensor) -> Tensor:
        state = {name: value.clone() for name, value in layer.named_buffers()}
        return functional_call(layer, state | dict(zip(names, values, strict=True)), (x,))  # type: ignore[no-any-return]

    return function


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_gradients_are_those_of_finite_differences(name: str, training: bool) -> None:
    """First and second derivatives; of batch renorm where its limits are closed: r and d are constants then."""
    shape = (3, 4, 2, 2)
    layer = layer_of(name, shape, seed=3, **({"virtual_batch_size": 2} if name == "gbn" else {}))
    apply(layer, maps(shape, 7))  # running statistics other than 0 and 1
    layer.train(training)
    inputs = [torch.from_numpy(maps(shape)), *(p.detach().clone() for p in layer.parameters())]
    for values in inputs:
        values.requires_grad_()
    function = called(layer)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)
    inputs[0] = inputs[0].detach().to(memory_format=torch.channels_last).requires_grad_()
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


def test_no_gradient_flows_through_the_corrections_of_batch_renorm() -> None:
    """With r and d inside their limits, training sees what eval mode does, with the gradient of r and d frozen."""
    layer = layer_of("brn", seed=3, r_max=1e9, d_max=1e9, begin=0, r_end=1, d_end=1)
    apply(layer, maps(seed=7))
    mean, sigma = buffers(layer)["running_mean"].clone(), (buffers(layer)["running_var"] + 1e-5).sqrt()
    x = torch.from_numpy(maps()).requires_grad_()
    own_mean, own_sigma = x.mean((0, 2, 3)), (x.var((0, 2, 3), correction=0) + 1e-5).sqrt()
    r, d = (own_sigma / sigma).detach(), ((own_mean - mean) / sigma).detach()
    tilt = torch.from_numpy(maps(seed=1))
    wide = [values[:, None, None] for values in (own_mean, own_sigma, r, d, layer.weight)]
    frozen = wide[4] * ((x - wide[0]) / wide[1] * wide[2] + wide[3])
    found, expected = (torch.autograd.grad((y * tilt).sum(), x, retain_graph=True)[0] for y in (layer(x), frozen))
    torch.testing.assert_close(found, expected)
    in_use = copy.deepcopy(layer).eval()(x)
    torch.testing.assert_close(layer(x), in_use, rtol=1e-9, atol=1e-9)


def test_a_share_beyond_its_limits_is_clipped_and_can_return() -> None:
    """bin: ρ = 1.5 mixes as 1 does, with the gradient that it has there."""
    x, found = torch.from_numpy(maps()), []
    for rho in (1.0, 1.5):
        layer = layer_of("bin", seed=1)
        layer.rho.data.fill_(rho)
        y = layer(x)
        found.append((y.detach(), torch.autograd.grad(y.square().sum(), layer.rho)[0]))
    torch.testing.assert_close(found[0], found[1])
    assert found[0][1].abs().min() > 1e-3


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_constant_maps_give_finite_outputs_and_gradients(name: str, value: float) -> None:
    """σ² = 0: y = β where a mean is subtracted."""
    layer = layer_of(name, seed=3)
    for training in (True, False):
        x = torch.full(SHAPE, value, dtype=torch.float64, requires_grad=True)
        y = layer.train(training)(x)
        grads = torch.autograd.grad(y.sin().sum(), (x, *layer.parameters()), create_graph=True)
        again = torch.autograd.grad(sum(values.square().sum() for values in grads), x)
        assert all(values.isfinite().all() for values in (y, *grads, *again))
        if training and CATALOGUE[name].centred and not CATALOGUE[name].chained:
            bias = layer.bias.reshape(1, SHAPE[1], *layer.bias.shape[1:] or (1, 1))
            torch.testing.assert_close(y, bias.expand(SHAPE), rtol=0, atol=1e-9)


# K of them at once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_networks_at_once_are_networks_alone(name: str, training: bool) -> None:
    """Stacked numbers and maps (N, K, C, H, W): outputs, gradients and state of each."""
    options = {**OPEN, "begin": 0} if name == "brn" else {"virtual_batch_size": 3} if name == "gbn" else {}
    layers = [layer_of(name, seed=k, **options).train() for k in range(3)]
    for k, layer in enumerate(layers):
        apply(layer, maps(seed=10 + k))
        layer.train(training)
    for layout in ((0, 1, 2, 3, 4), (0, 1, 4, 2, 3)):  # contiguous; channels_last, as a view
        x = torch.from_numpy(np.stack([maps(seed=k) for k in range(3)], 1))
        x = x.permute(0, 1, 3, 4, 2).contiguous().permute(layout) if layout[2] == 4 else x
        x.requires_grad_()
        parameters, state = stack_module_state(layers)
        state = {key: value.clone() for key, value in state.items()}
        y = functional_call(copy.deepcopy(layers[0]), parameters | state, (x,))
        grads = torch.autograd.grad(y.sin().sum(), [x, *parameters.values()])
        for k, layer in enumerate(map(copy.deepcopy, layers)):
            own = x[:, k].detach().clone().requires_grad_()
            alone = layer(own)
            expected = torch.autograd.grad(alone.sin().sum(), [own, *layer.parameters()])
            torch.testing.assert_close(y[:, k], alone)
            torch.testing.assert_close((grads[0][:, k], *(of[k] for of in grads[1:])), expected)
            for key, value in layer.named_buffers():
                torch.testing.assert_close(state[key][k], value)


# Maps of one pixel, statistics of one number -------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name not in ("in", "frn")])
def test_maps_of_one_pixel_are_normalized(name: str) -> None:
    layer, options = layer_of(name, (3, 4, 1, 1), seed=1), group_values("norm", name)
    running = Running(np.zeros((4, 1, 1)), np.ones((4, 1, 1)), options.get("momentum"))
    expected = by_hand(name, layer, maps((3, 4, 1, 1)), options, running)
    np.testing.assert_allclose(apply(layer, maps((3, 4, 1, 1))), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", [name for name in BATCH if name != "center"])
def test_batch_statistics_of_one_number_are_refused_and_leave_the_averages_as_they_are(name: str) -> None:
    layer = layer_of(name, (2, 4, 1, 1), 3)
    apply(layer, maps((2, 4, 1, 1)))
    before = {key: value.clone() for key, value in buffers(layer).items()}
    with one_line(ValueError, "one number per channel|more than 1 value per channel"):
        apply(layer, maps((1, 4, 1, 1)))
    for key in ("running_mean", "running_var"):
        assert torch.equal(buffers(layer)[key], before[key]), key
    assert np.isfinite(apply(layer.eval(), maps((1, 4, 1, 1)))).all()


def test_the_ghost_batch_that_is_too_small_is_named() -> None:
    layer = make_norm("gbn", 4, virtual_batch_size=2)
    with one_line(ValueError, "virtual_batch_size=2 makes a ghost batch of one of 5 images"):
        layer(torch.zeros(5, 4, 1, 1))
    layer(torch.randn(4, 4, 1, 1))


# Options -------------------------------------------------------------------------------------------------------------


OPTIONS = [(name, option) for name, about in CATALOGUE.items() for option in about.options]


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_values_out_of_range_are_refused(name: str, option: str) -> None:
    kind = CATALOGUE[name].options[option]
    bad: list[Any] = ["x", math.nan, math.inf]
    if isinstance(kind, Number):
        bad += [True, math.nextafter(kind.least, -math.inf), *[kind.least - 1, 1.5] * kind.whole]
        bad += [*[4, 12] * kind.divides, *[None] * (not kind.null)]
    else:
        bad += [None, 1, 0]
    for value in bad:
        with one_line(ValueError, rf"norm\.{option}="):
            make_norm(name, 6, {option: value}, size=(2, 3))


TAKES = {name: f"{name}; it takes {', '.join(about.options) or 'none'}" for name, about in CATALOGUE.items()}
UNKNOWN = {"LayerNorm": "ln", "LayerNorm2d": "ln2d", "batchnorm": "bn", "RMSNorm": "rms"}
ONE, ORDER = "each statistic is of one number", "norm.d_end=500: begin must come before r_end and d_end"


@pytest.mark.parametrize(
    ("name", "channels", "size", "options", "message"),
    [
        ("in", 4, (1, 1), {}, f"norm 'in' of 4 channels on maps of 1x1: {ONE}, so y is β whatever x is"),
        ("frn", 4, (1, 1), {}, f"norm 'frn' of 4 channels on maps of 1x1: {ONE}, so only the sign of x is left"),
        ("gn", 4, (1, 1), {"num_groups": 4}, "y is β whatever x is"),
        ("gn", 4, (1, 1), {"channels_per_group": 1}, "y is β whatever x is"),
        ("bcn", 4, (1, 1), {"num_groups": 4}, "y is β whatever x is"),
        ("ln", 1, (1, 1), {}, "y is β whatever x is"),
        ("ln2d", 1, None, {}, f"norm 'ln2d' of 1 channels: {ONE}"),
        ("rms", 1, (1, 1), {}, "only the sign of x is left"),
        ("evonorm_s0", 4, (1, 1), {"num_groups": 4}, "x is not normalized"),
        ("ln_elem", 4, None, {}, "norm 'ln_elem' has numbers for every position: give size=(H, W) of its maps"),
        ("brn", 4, None, {"begin": 800}, f"norm.begin=800, norm.r_end=800, {ORDER}"),
        ("sparse", 4, None, {}, f"norm 'sparse' is unknown: choose one of {', '.join([*CATALOGUE, 'custom'])}"),
        *((name, 4, None, {}, f"norm {name!r} is unknown: did you mean {meant}?") for name, meant in UNKNOWN.items()),
        *((name, 4, None, {"depth": 1}, f"norm.depth is no option of norm={takes}") for name, takes in TAKES.items()),
    ],
)
def test_a_layer_that_cannot_be_is_refused(name: str, channels: int, size: Any, options: Any, message: str) -> None:
    with one_line(ValueError, re.escape(message)):
        make_norm(name, channels, options, size=size)


# A custom layer ------------------------------------------------------------------------------------------------


def broken(num_channels: int, **options: Any) -> nn.Module:
    raise KeyError("first line\nsecond line")


def silent(num_channels: int, **options: Any) -> nn.Module:
    raise RuntimeError


def list_maker(num_channels: int, **options: Any) -> list[int]:
    return [num_channels]


broken_partial = partial(broken, depth=2)
a_number = 3


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_module:Layer", "there is no module no_such_module here"),
        ("torch.no_such_module:Layer", "there is no module torch.no_such_module here"),
        (".relative:Layer", "importing .relative failed"),
        ("here:Missing", "has no Missing; its classes: "),
        ("here:a_number", "has no a_number"),
        ("here:broken", "broken(8, depth=1) raised KeyError: 'first line"),
        ("here:broken_partial", "broken_partial(8, depth=1) raised KeyError: 'first line"),
        ("here:silent", "silent(8, depth=1) raised RuntimeError: no message"),
        ("here:list_maker", "gave a list, not a torch.nn.Module"),
        ("here", "write package.module:Class"),
        ("here.Scale", "write package.module:Class"),
        (":Scale", "write package.module:Class"),
        ("here:", "write package.module:Class"),
        ("", "write package.module:Class"),
    ],
)
def test_a_target_that_does_not_serve_is_told_in_one_line(target: str, message: str) -> None:
    target = target.replace("here", __name__)
    with one_line(ValueError, f"norm\\.target='?{re.escape(target)}.* {re.escape(message)}"):
        make_norm("custom", 8, {"depth": 1}, target=target or None)


class Recorder(nn.Module):
    """Keeps what it was built with."""

    def __init__(self, channels: int, /, **options: Any) -> None:
        super().__init__()
        self.given = (channels, options)


def test_options_reach_a_layer_of_ones_own_unchanged() -> None:
    """Whatever they are called."""
    options = {"size": 3, "name": "y", "target": "a:b", "num_channels": 7, "options": 1, "depth": [2]}
    assert make_norm("custom", 4, options, size=(9, 9), target=f"{__name__}:Recorder").given == (4, options)
