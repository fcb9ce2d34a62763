"""The network against its table, and against a forward pass written in numpy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import nn

from normlab.nets import PLACEMENTS, Net, norm_layers
from normlab.settings import NORM_CHANNELS

AFFINE = ["bn", "ln", "gn", "in"]
BLOCKS = ["block1", "block2", "block3", "block4", "block5"]

# stage: output shape of an image, numbers in its convolution, numbers in its norm
STAGES = {
    "block1": ((10, 26, 26), 90, 20),
    "block2": ((20, 24, 24), 1800, 40),
    "squeeze": ((10, 24, 24), 200, 0),
    "pool": ((10, 12, 12), 0, 0),
    "block3": ((20, 10, 10), 1800, 40),
    "block4": ((12, 8, 8), 2160, 24),
    "block5": ((12, 6, 6), 1296, 24),
    "head": ((10,), 120, 0),
}


class Drawing(nn.Module):
    """A user's layer that draws random numbers while it is built, and holds a module called norm."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.randn(num_channels, 1, 1))
        self.norm = nn.Dropout(torch.rand(()).item())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * x


def convolutions(net: Net) -> dict[str, torch.Tensor]:
    return {name: m.weight for name, m in net.named_modules() if isinstance(m, nn.Conv2d)}


def stage_outputs(net: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """What every direct part of the network gives, in the order in which they are called."""
    outputs: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, args, output: outputs.update({name: output.detach()})

    hooks = [part.register_forward_hook(keep(name)) for name, part in net.named_children()]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return outputs


# Norms


@pytest.mark.parametrize("norm", ["none", *AFFINE, Drawing])
def test_the_five_norms_and_nothing_else_are_of_the_widths_that_are_known_without_torch(norm: Any) -> None:
    net, given = Net(norm, dropout=0.5), []
    assert norm_layers(net) == {f"{block}.norm": net.get_submodule(block).norm for block in BLOCKS}
    assert list(norm_layers(net)) == [f"{block}.norm" for block in BLOCKS]
    for layer in norm_layers(net).values():
        layer.register_forward_hook(lambda module, args, output: given.append(args[0].shape[1]))
    net(torch.rand(2, 1, 28, 28))
    assert tuple(given) == NORM_CHANNELS


def test_options_reach_the_norm() -> None:
    assert {layer.eps for layer in norm_layers(Net("bn", norm_options={"eps": 0.25})).values()} == {0.25}


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("norm", [*AFFINE, "custom", Drawing])
def test_a_seed_gives_every_norm_the_same_convolutions(norm: Any, placement: str) -> None:
    """Runs pair by seed: what a norm draws while it is built comes after all convolutions were drawn."""
    torch.manual_seed(7)
    control = convolutions(Net("none"))
    torch.manual_seed(7)
    target = f"{__name__}:Drawing" if norm == "custom" else None
    drawn = convolutions(Net(norm, dropout=0.3, placement=placement, norm_target=target))
    assert drawn.keys() == control.keys()
    assert all(torch.equal(drawn[name], control[name]) for name in control)


@pytest.mark.parametrize("placement", ["Post", "before", ""])
def test_bad_placement(placement: str) -> None:
    with pytest.raises(ValueError, match=f"placement '{placement}' is unknown: choose one of post, pre"):
        Net(placement=placement)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 5, float("nan")])
def test_bad_dropout(dropout: float) -> None:
    with pytest.raises(ValueError, match=rf"dropout={dropout} is outside \[0, 1\)"):
        Net(dropout=dropout)


# The forward pass in numpy


def conv(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """y[n, o, r, c] = Σ x[n, k, r + i, c + j] · w[o, k, i, j]."""
    return np.einsum("nkrcij,okij->norc", sliding_window_view(x, weight.shape[2:], axis=(2, 3)), weight, optimize=True)


def normalise(x: np.ndarray, norm: str, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """γ · (x - μ) / sqrt(σ² + 1e-5) + β, statistics over the axes of this norm."""
    n, c, h, w = x.shape
    known = {"bn": ((0, 2, 3), x), "ln": ((1, 2, 3), x), "in": ((2, 3), x)}
    axes, grouped = known.get(norm, ((2, 3, 4), x.reshape(n, 2, c // 2, h, w)))
    quotient = (grouped - grouped.mean(axes, keepdims=True)) / np.sqrt(grouped.var(axes, keepdims=True) + 1e-5)
    return gamma[:, None, None] * quotient.reshape(x.shape) + beta[:, None, None]


def forward(net: Net, x: np.ndarray, norm: str, placement: str) -> dict[str, np.ndarray]:
    """The output of every stage, from the network's numbers alone."""
    state = {name: value.detach().numpy() for name, value in net.named_parameters()}

    def block(name: str, x: np.ndarray) -> np.ndarray:
        y = conv(x, state[f"{name}.conv.weight"])
        y = np.maximum(y, 0) if placement == "post" else y
        if norm != "none":
            y = normalise(y, norm, state[f"{name}.norm.weight"], state[f"{name}.norm.bias"])
        return np.maximum(y, 0) if placement == "pre" else y

    y: dict[str, np.ndarray] = {}
    y["block1"] = block("block1", x)
    y["block2"] = block("block2", y["block1"])
    y["squeeze"] = conv(y["block2"], state["squeeze.weight"])
    y["pool"] = y["squeeze"].reshape(len(x), 10, 12, 2, 12, 2).max((3, 5))
    y["block3"] = block("block3", y["pool"])
    y["block4"] = block("block4", y["block3"])
    y["block5"] = block("block5", y["block4"])
    [classify] = [value for name, value in state.items() if name.startswith("head.")]
    logits = y["block5"].mean((2, 3)) @ classify[:, :, 0, 0].T
    y["head"] = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return y


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("norm", ["none", *AFFINE])
def test_every_stage_is_that_of_the_table_and_computes_what_the_numpy_pass_does(norm: str, placement: str) -> None:
    """Order, output shape, numbers in the convolution and in the norm; and y, in train mode."""
    torch.manual_seed(0)
    net = Net(norm, placement=placement).double()
    for name, parameter in net.named_parameters():
        if ".norm." in name:
            parameter.data = torch.rand_like(parameter) * 2 - 0.5
    x = torch.rand(3, 1, 28, 28, dtype=torch.float64)
    expected, found = forward(net, x.numpy(), norm, placement), stage_outputs(net, x)
    assert list(found) == list(STAGES)
    for name, (shape, conv, scales_and_shifts) in STAGES.items():
        assert found[name].shape == (3, *shape), name
        np.testing.assert_allclose(found[name].numpy(), expected[name], rtol=1e-8, atol=1e-8, err_msg=name)
        stage = net.get_submodule(name)
        in_convs = sum(m.weight.numel() for m in stage.modules() if isinstance(m, nn.Conv2d))
        assert in_convs == conv, name
        others = sum(p.numel() for p in stage.parameters()) - in_convs
        assert others == (scales_and_shifts if norm != "none" else 0), name


# Dropout


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_dropout_comes_after_blocks_one_three_and_five(rate: float, placement: str) -> None:
    """While training, a share `rate` of the block's outputs is 0 and the others are y / (1 - rate); else it is y."""
    torch.manual_seed(0)
    net = Net("ln", dropout=rate, placement=placement).double()
    x = torch.rand(40, 1, 28, 28, dtype=torch.float64)
    inputs = dict(zip(list(STAGES), [x, *stage_outputs(net.eval(), x).values()], strict=False))
    for name in BLOCKS:
        block = net.get_submodule(name)
        with torch.no_grad():
            plain, trained = block.eval()(inputs[name]), block.train()(inputs[name])
        ratio = (trained / plain)[plain != 0]
        dropped = ratio == 0
        torch.testing.assert_close(ratio[~dropped], torch.full_like(ratio[~dropped], ratio.max().item()))
        if name in ("block1", "block3", "block5"):
            assert ratio.max().item() == pytest.approx(1 / (1 - rate))
            spread = 5 * (rate * (1 - rate) / len(ratio)) ** 0.5
            assert dropped.double().mean().item() == pytest.approx(rate, abs=spread)
        else:
            assert torch.equal(trained, plain)
