"""Normalization over rows of pixels: the same layers as torch's, by another way through the formula."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from normlab.nets.batch_norm import BatchNorm2d
from normlab.nets.group_norm import FEW, InstanceNorm2d, group_norm
from normlab.nets.standardise import rows_fit, standardise

SHAPES = [(128, 10, 26, 26), (88, 20, 3, 5), (1, 12, 7, 7), (2, 3, 1, 2), (3, 64, 4, 4)]


def maps(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    x = 3 * torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)) + 5
    return x.to(memory_format=torch.channels_last)


def scales(channels: int) -> list[torch.Tensor]:
    """Random γ and β."""
    numbers = torch.Generator().manual_seed(channels)
    return [torch.randn(channels, dtype=torch.float64, generator=numbers).requires_grad_() for _ in range(2)]


def pair(channels: int, **options: object) -> tuple[nn.BatchNorm2d, nn.BatchNorm2d]:
    """Our batch norm and torch's with the same random γ and β."""
    layers = BatchNorm2d(channels, **options).double(), nn.BatchNorm2d(channels, **options).double()
    if layers[0].affine:
        for layer in layers:
            for name, values in zip(("weight", "bias"), scales(channels), strict=True):
                getattr(layer, name).data.copy_(values.detach())
    return layers


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", [{}, {"eps": 0.1, "momentum": 0.3}], ids=str)
def test_batch_norms_output_gradients_and_state_are_those_of_torch(
    shape: tuple[int, ...], options: dict[str, float]
) -> None:
    ours, torchs = pair(shape[1], **options)
    for step in range(3):
        x = maps(*shape, seed=step).requires_grad_()
        assert rows_fit(x, ours.weight)
        grad = maps(*shape, seed=step + 9)
        results = []
        for layer in (ours, torchs):
            y = layer(x)
            results.append([y, *torch.autograd.grad(y, (x, layer.weight, layer.bias), grad)])
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8)
        assert results[0][0].is_contiguous(memory_format=torch.channels_last)
    for name, value in torchs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("groups", ["one", "two", "channels"])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(5, 10, 26, 26), (4, 12, 3, 5), (2, 20, 1, 2)], ids=str)
def test_groups_output_and_gradients_are_those_of_group_norm(shape: tuple[int, ...], affine: bool, groups: str) -> None:
    count = {"one": 1, "two": 2, "channels": shape[1]}[groups]
    x, grad = maps(*shape).requires_grad_(), maps(*shape, seed=4)
    weight, bias = scales(shape[1]) if affine else (None, None)
    inputs = [x, weight, bias] if affine else [x]
    y, mean, var = standardise(x, count, weight, bias, 1e-3)
    expected = F.group_norm(x, count, weight, bias, 1e-3)
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    for got, wanted in zip(
        torch.autograd.grad(y, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-8)
    sets = x.reshape(shape[0], count, -1)
    torch.testing.assert_close(mean, sets.mean(2))
    torch.testing.assert_close(var, sets.var(2, correction=0))


@pytest.mark.parametrize("groups", [None, 1, 3])
def test_gradcheck(groups: int | None) -> None:
    x, (weight, bias) = maps(4, 3, 2, 5).requires_grad_(), scales(3)
    assert torch.autograd.gradcheck(
        lambda *inputs: standardise(inputs[0], groups, *inputs[1:], 1e-5)[0], (x, weight, bias)
    )


@pytest.mark.parametrize("affine", [True, False])
def test_instance_norm_is_torchs(affine: bool) -> None:
    ours, torchs = InstanceNorm2d(12, affine=affine).double(), nn.InstanceNorm2d(12, affine=affine).double()
    if affine:
        for layer in (ours, torchs):
            layer.weight.data, layer.bias.data = (values.detach().clone() for values in scales(12))
    for training in (True, False):
        x, grad = maps(6, 12, 8, 8).requires_grad_(), maps(6, 12, 8, 8, seed=2)
        results = []
        for layer in (ours.train(training), torchs.train(training)):
            y = layer(x)
            results.append([y, *torch.autograd.grad(y, (x, *layer.parameters()), grad)])
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8)
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        ours(maps(6, 12, 1, 1))


@pytest.mark.parametrize("groups", [FEW // 2, FEW * 2])
def test_group_norm_on_either_side_of_where_its_way_changes(groups: int) -> None:
    x, (weight, bias) = maps(3, 32, 4, 4), scales(32)
    torch.testing.assert_close(group_norm(x, groups, weight, bias, 1e-5), F.group_norm(x, groups, weight, bias, 1e-5))


def test_a_gradient_of_another_layout_is_taken() -> None:
    ours, torchs = pair(4)
    x, grad = maps(6, 4, 5, 5).requires_grad_(), maps(6, 4, 5, 5, seed=3).contiguous()
    got, expected = (torch.autograd.grad(layer(x), x, grad)[0] for layer in (ours, torchs))
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8)


def test_single_precision_is_no_less_exact_than_torchs() -> None:
    x = maps(128, 20, 24, 24, dtype=torch.float32)
    exact = nn.BatchNorm2d(20).double()(x.double())
    ours, torchs = ((layer(x) - exact).abs().max().item() for layer in (BatchNorm2d(20), nn.BatchNorm2d(20)))
    assert ours <= max(torchs, 5e-6)


@pytest.mark.parametrize("case", ["eval", "contiguous", "without scales", "cumulative", "mixed precision"])
def test_everywhere_else_batch_norm_is_torchs_own(case: str) -> None:
    options = {"without scales": {"affine": False}, "cumulative": {"momentum": None}}.get(case, {})
    channels = 4
    ours, torchs = pair(channels, **options)
    x = maps(6, channels, 5, 5)
    if case == "eval":
        ours.eval()
        torchs.eval()
    if case == "contiguous":
        x = x.contiguous()
    if case == "mixed precision":
        x, ours, torchs = x.bfloat16(), ours.float(), torchs.float()
    assert torch.equal(ours(x), torchs(x))
    for name, value in torchs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_one_value_a_channel_is_refused_as_torch_refuses_it() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        BatchNorm2d(3)(torch.zeros(1, 3, 1, 1))
