"""What every norm of the registry forgets of its input, its gradients, and batches and maps of one."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from test_more_norms import BUILT_IN, MAPS, layer_of, numbers, root_mean_square
from test_norms import apply, by_hand, maps
from torch import nn
from torch.func import functional_call

from normlab.nets import make_norm

BATCH = ["bn", "gbn", "brn"]

# What of the input is forgotten

FREEDOM = {
    "all": (1, 1, 1, 1),
    "channel": (1, 6, 1, 1),
    "image": (4, 1, 1, 1),
    "pixel": (1, 1, 3, 3),
    "image and channel": (4, 6, 1, 1),
    "image and pixel": (4, 1, 3, 3),
}
OF_A_BATCH, OF_AN_IMAGE = {"all", "channel"}, {"all", "image"}
OF_A_MAP, OF_A_PIXEL = {"all", "channel", "image", "image and channel"}, {"all", "image", "pixel", "image and pixel"}
FORGOTTEN: dict[str, tuple[set[str], set[str]]] = {  # scales, shifts
    "none": (set(), set()),
    "bn": (OF_A_BATCH, OF_A_BATCH),
    "gbn": (OF_A_BATCH, OF_A_BATCH),
    "brn": (OF_A_BATCH, OF_A_BATCH),  # before it begins; later the running statistics remember
    "ln": (OF_AN_IMAGE, OF_AN_IMAGE),
    "ln_elem": (OF_AN_IMAGE, OF_AN_IMAGE),
    "ln2d": (OF_A_PIXEL, OF_A_PIXEL),
    "gn": (OF_AN_IMAGE, OF_AN_IMAGE),
    "in": (OF_A_MAP, OF_A_MAP),
    "rms": (OF_AN_IMAGE, set()),
    "frn": (OF_A_MAP, set()),
    "dyt": (set(), set()),
}


@pytest.mark.parametrize("freedom", FREEDOM)
@pytest.mark.parametrize("name", BUILT_IN)
def test_scales_and_shifts_that_are_forgotten(name: str, freedom: str) -> None:
    """norm(a·x) = norm(x), a > 0, and norm(x + b) = norm(x), each exactly where it should be."""
    rng = np.random.default_rng(5)
    x = maps((4, 6, 3, 3))
    options = {} if name in ("none", "dyt") else {"eps": 1e-14}
    options |= {"gbn": {"virtual_batch_size": 2}, "frn": {"threshold": False}}.get(name, {})
    layer = layer_of(name, x.shape, 4, **options)
    expected = apply(copy.deepcopy(layer), x)
    a, b = rng.uniform(0.2, 5, FREEDOM[freedom]), rng.uniform(-5, 5, FREEDOM[freedom])
    for changed, forgotten in zip((a * x, x + b), FORGOTTEN[name], strict=True):
        change = np.abs(apply(copy.deepcopy(layer), changed) - expected).max()
        assert change < 1e-7 if freedom in forgotten else change > 0.05


def test_ghost_batches_forget_scales_and_shifts_of_their_own() -> None:
    x, layer = maps((4, 6, 3, 3)), layer_of("gbn", (4, 6, 3, 3), 4, virtual_batch_size=2, eps=1e-14)
    a = np.array([3.0, 3.0, 0.5, 0.5])[:, None, None, None]
    np.testing.assert_allclose(apply(layer, a * x + a), apply(layer, x), rtol=1e-7, atol=1e-7)
    assert np.abs(apply(layer, a[::-1][[0, 2, 1, 3]] * x) - apply(layer, x)).max() > 0.05, "not across them"


# Gradients


def called(layer: nn.Module) -> Callable[..., torch.Tensor]:
    """The layer as a function of x and its parameters; every call starts from the same running statistics."""
    names = [name for name, _ in layer.named_parameters()]

    def function(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        own = copy.deepcopy(layer)
        return functional_call(own, dict(zip(names, values, strict=True)), (x,))  # type: ignore[no-any-return]

    return function


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", BUILT_IN)
def test_gradients_are_those_of_finite_differences(name: str, training: bool) -> None:
    """Of batch renorm here where its limits are closed: r and d are constants then."""
    layer = layer_of(name, MAPS, seed=3, **({"virtual_batch_size": 2} if name == "gbn" else {}))
    apply(layer, maps(MAPS, 7))  # running statistics other than 0 and 1
    layer.train(training)
    for memory in (torch.contiguous_format, torch.channels_last):
        x = torch.from_numpy(maps(MAPS)).requires_grad_()
        inputs = (x, *(p.detach().clone().requires_grad_() for p in layer.parameters()))
        function = called(layer)
        assert torch.autograd.gradcheck(
            lambda x, *p, memory=memory, function=function: function(x.contiguous(memory_format=memory), *p), inputs
        )


def test_no_gradient_flows_through_the_corrections_of_batch_renorm() -> None:
    """With r and d inside their limits: the gradient is that of the formula with r and d as they are, frozen."""
    layer = layer_of("brn", MAPS, seed=3, r_max=1e9, d_max=1e9, begin=0, r_end=1, d_end=1)
    apply(layer, maps(MAPS, 7))
    x, p = maps(MAPS), numbers(layer)
    sigma = np.sqrt(layer.running_var.numpy() + 1e-5)[:, None, None]
    r = np.sqrt(x.var((0, 2, 3), keepdims=True)[0] + 1e-5) / sigma
    d = (x.mean((0, 2, 3), keepdims=True)[0] - layer.running_mean.numpy()[:, None, None]) / sigma
    tilt = np.random.default_rng(0).normal(size=MAPS)

    def frozen(x: np.ndarray) -> float:
        plain = by_hand(x, [np.s_[:, j] for j in range(MAPS[1])], 1e-5)
        return float((tilt * (p["weight"] * (plain * r + d) + p["bias"])).sum())

    numeric = np.zeros(MAPS)
    for index in np.ndindex(*MAPS):
        step = np.zeros(MAPS)
        step[index] = 1e-5
        numeric[index] = (frozen(x + step) - frozen(x - step)) / 2e-5
    given = torch.from_numpy(x).requires_grad_()
    (found,) = torch.autograd.grad((layer(given) * torch.from_numpy(tilt)).sum(), given)
    np.testing.assert_allclose(found.numpy(), numeric, rtol=1e-5, atol=1e-7)
    through_eval = p["weight"] / sigma * tilt  # what it would be if r and d carried a gradient
    assert np.abs(found.numpy() - through_eval).max() > 0.05


# Batches and maps of one


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", BUILT_IN)
def test_a_batch_of_one_image_is_the_formula(name: str, training: bool) -> None:
    shape = (1, 4, 2, 3)
    x = maps(shape)
    layer = layer_of(name, shape, 3).train(training)
    y = apply(layer, x)
    assert y.shape == shape
    assert np.isfinite(y).all()
    if name in BATCH and training:  # of one image, each channel is normalized over its map
        expected = numbers(layer)["weight"] * by_hand(x, [np.s_[:, j] for j in range(4)], 1e-5) + numbers(layer)["bias"]
        np.testing.assert_allclose(y, expected, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(layer.running_var.numpy(), 0.9 + 0.1 * x[0].var((1, 2), ddof=1), rtol=1e-8)
    elif name not in BATCH:  # alone as in a batch
        np.testing.assert_allclose(apply(layer, maps((2, *shape[1:])))[:1], apply(layer, maps((2, *shape[1:]))[:1]))


@pytest.mark.parametrize("name", ["ln", "ln_elem", "ln2d", "gn", "rms", "none", "dyt"])
def test_maps_of_one_pixel_are_normalized_over_channels(name: str) -> None:
    x = maps((3, 4, 1, 1))
    layer = layer_of(name, x.shape)
    expected = {
        "none": x,
        "dyt": np.tanh(0.5 * x),
        "rms": root_mean_square(x, (1, 2, 3), 1e-5),
        "gn": by_hand(x, [np.s_[i, j : j + 2] for i in range(3) for j in (0, 2)], 1e-5),
    }.get(name, by_hand(x, [np.s_[i, :] for i in range(3)], 1e-5))
    np.testing.assert_allclose(apply(layer, x), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "channels", "size", "options", "says"),
    [
        ("in", 4, (1, 1), {}, r"norm 'in' of 4 channels on maps of 1x1: .* so y is β whatever x is"),
        ("gn", 4, (1, 1), {"num_groups": 4}, "whatever x is"),
        ("gn", 4, (1, 1), {"channels_per_group": 1}, "whatever x is"),
        ("ln", 1, (1, 1), {}, "whatever x is"),
        ("ln_elem", 1, (1, 1), {}, "whatever x is"),
        ("ln2d", 1, None, {}, "norm 'ln2d' of 1 channels: each statistic is of one number"),
        ("frn", 4, (1, 1), {}, "only the sign of x is left"),
        ("rms", 1, (1, 1), {}, "only the sign of x is left"),
    ],
)
def test_a_statistic_of_one_number_is_refused(
    name: str, channels: int, size: tuple[int, int] | None, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        make_norm(name, channels, size=size, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", BATCH)
def test_batch_statistics_of_one_number_are_refused_and_leave_the_layer_as_it_is(name: str) -> None:
    layer = layer_of(name, (2, 4, 1, 1), 3)
    expected = by_hand(maps((2, 4, 1, 1)), [np.s_[:, j] for j in range(4)], 1e-5)
    np.testing.assert_allclose(
        apply(copy.deepcopy(layer), maps((2, 4, 1, 1))), numbers(layer)["weight"] * expected + numbers(layer)["bias"]
    )
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    with pytest.raises(ValueError, match=r"one number a channel|more than 1 value per channel"):
        apply(layer, maps((1, 4, 1, 1)))
    if name == "gbn":
        assert torch.equal(layer.num_batches_tracked, before["num_batches_tracked"])
    for key in ("running_mean", "running_var"):
        assert torch.equal(layer.state_dict()[key], before[key]), key
    assert np.isfinite(apply(layer.eval(), maps((1, 4, 1, 1)))).all()


def test_the_ghost_batch_that_is_too_small_is_named() -> None:
    layer = make_norm("gbn", 4, virtual_batch_size=2)
    with pytest.raises(ValueError, match=r"virtual_batch_size=2 makes a ghost batch of one of 5 images"):
        layer(torch.zeros(5, 4, 1, 1))
    layer(torch.randn(4, 4, 1, 1))
