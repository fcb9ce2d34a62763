"""The batch norm that gains from threads: the same layer as torch's, by another way through the formula."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from normlab.nets.batch_norm import BatchNorm2d


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def maps(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    x = 3 * torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)) + 5
    return x.to(memory_format=torch.channels_last)


def pair(channels: int, **options: object) -> tuple[nn.BatchNorm2d, nn.BatchNorm2d]:
    """Ours and torch's with the same random γ and β."""
    layers = BatchNorm2d(channels, **options).double(), nn.BatchNorm2d(channels, **options).double()
    if layers[0].affine:
        for name in ("weight", "bias"):
            values = torch.randn(channels, dtype=torch.float64, generator=torch.Generator().manual_seed(len(name)))
            for layer in layers:
                getattr(layer, name).data.copy_(values)
    return layers


@pytest.mark.parametrize("shape", [(128, 10, 26, 26), (88, 20, 3, 5), (1, 12, 7, 7), (2, 3, 1, 1)], ids=str)
@pytest.mark.parametrize("options", [{}, {"eps": 0.1, "momentum": 0.3}], ids=str)
def test_output_gradients_and_state_are_those_of_torch(shape: tuple[int, ...], options: dict[str, float]) -> None:
    ours, torchs = pair(shape[1], **options)
    for step in range(3):
        x = maps(*shape, seed=step).requires_grad_()
        assert ours._rows_pay(x)
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


def test_gradcheck() -> None:
    layer, _ = pair(3)
    x = maps(4, 3, 5, 7).requires_grad_()
    assert layer._rows_pay(x)
    assert torch.autograd.gradcheck(layer, (x,))


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


@pytest.mark.parametrize("case", ["eval", "contiguous", "one thread", "without scales", "cumulative"])
def test_everywhere_else_it_is_torchs_own(case: str) -> None:
    options = {"without scales": {"affine": False}, "cumulative": {"momentum": None}}.get(case, {})
    ours, torchs = pair(4, **options)
    x = maps(6, 4, 5, 5)
    if case == "eval":
        ours.eval()
        torchs.eval()
    if case == "contiguous":
        x = x.contiguous()
    if case == "one thread":
        torch.set_num_threads(1)
    assert not ours._rows_pay(x)
    assert torch.equal(ours(x), torchs(x))


def test_one_value_a_channel_is_refused_as_torch_refuses_it() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        BatchNorm2d(3)(torch.zeros(1, 3, 1, 1))
