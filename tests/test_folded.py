"""Many networks in one forward pass compute what each computes alone."""

from collections.abc import Callable

import pytest
import torch
from conftest import KINDS
from torch import nn
from torch.nn.functional import nll_loss

from normlab.nets import Net, norm_layers
from normlab.nets.folded import Numbers, Stack, log_probs


class Own(nn.Module):
    """A user's norm, with a scale and a buffer that training moves."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels, 1, 1))
        self.register_buffer("seen", torch.zeros(num_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen.mul_(0.9).add_(x.detach().mean((0, 2, 3)), alpha=0.1)
        return self.weight * x * (x.square().mean((1, 2, 3), keepdim=True) + 1e-5).rsqrt()


class Derived(nn.BatchNorm2d):
    """Of a class that folds, but not it: what it overrides must not be lost."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


STANDARDISED = "weight_standardization"  # in the place of a norm: gn behind standardised convolutions
EVERY = [*KINDS, STANDARDISED, Own, Derived]
OPTIONS = {"gbn": {"virtual_batch_size": 2}, "brn": {"begin": 1, "r_end": 3, "d_end": 4}}


def networks(norm: str | Callable[[int], nn.Module], count: int, dtype: torch.dtype, **options: object) -> list[Net]:
    """Networks with weights of their own, γ and β included."""
    nets, options = [], {"norm_options": OPTIONS.get(norm)} | options
    if norm == STANDARDISED:
        norm, options = "gn", options | {norm: True}
    for seed in range(count):
        torch.manual_seed(seed)
        net = Net(norm, **options).to(dtype)
        for layer in norm_layers(net).values():
            for parameter in layer.parameters():
                parameter.data += 0.3 * torch.randn_like(parameter)
        nets.append(net)
    return nets


def batch(count: int, size: int, dtype: torch.dtype, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    numbers = torch.Generator().manual_seed(seed)
    images = torch.randn(count, size, 1, 28, 28, dtype=dtype, generator=numbers)
    return images, torch.randint(10, (count, size), generator=numbers)


def together(stack: Stack, net: Net, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What all networks say, and the gradient of each one's loss: (K, P)."""
    leaf = stack.parameters.clone().requires_grad_()
    said = log_probs(net, Numbers(stack.named(leaf), stack.buffers), images, training=True)
    losses = torch.stack([nll_loss(each, own) for each, own in zip(said, labels, strict=True)])
    return said.detach(), torch.autograd.grad(losses.sum(), leaf)[0]


def alone(net: Net, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    net.zero_grad()
    said = net(images)
    nll_loss(said, labels).backward()
    return said.detach(), Stack.row(parameter.grad for parameter in net.parameters())


def far(got: torch.Tensor, expected: torch.Tensor) -> float:
    """The distance, relative to the length of what is expected."""
    return ((got - expected).norm() / expected.norm().clamp_min(1e-30)).item()  # all zeros where every unit is dead


@pytest.mark.parametrize("norm", EVERY, ids=str)
@pytest.mark.parametrize(("count", "placement"), [(1, "post"), (2, "pre"), (24, "post"), (48, "pre")])
def test_outputs_and_gradients_in_float64(norm: str, count: int, placement: str) -> None:
    nets = networks(norm, count, torch.float64, placement=placement)
    stack = Stack(nets)
    images, labels = batch(count, 3, torch.float64)
    said, grads = together(stack, nets[0], images, labels)
    for index, net in enumerate(nets):
        expected, grad = alone(net.train(), images[index], labels[index])
        assert far(said[index], expected) < 1e-12
        assert far(grads[index], grad) < 1e-10


# They scale a map or a pixel that is all but dead a thousandfold, and its rounding too.
AMPLIFIED = ("frn", "ln2d")


@pytest.mark.parametrize("norm", [norm for norm in EVERY if norm is not Derived], ids=str)
@pytest.mark.parametrize("count", [1, 2, 24, 48])
def test_gradients_in_float32(norm: str, count: int) -> None:
    """Against the single network in float64. `Derived` is torch's batch norm, which alone is off by more than that."""
    options = {"norm_options": {"virtual_batch_size": 4}} if norm == "gbn" else {}
    nets = networks(norm, count, torch.float32, **options)
    images, labels = batch(count, 8, torch.float32)
    _, grads = together(Stack(nets), nets[0], images, labels)
    errors, errors_alone = [], []
    for index, net in enumerate(nets):
        rounded = alone(net.train(), images[index], labels[index])[1] if norm in AMPLIFIED else None
        _, grad = alone(net.double().train(), images[index].double(), labels[index])
        errors.append(far(grads[index].double(), grad))
        errors_alone += [] if rounded is None else [far(rounded.double(), grad)]
    if norm in AMPLIFIED:  # alone as in an array
        assert sorted(errors)[count // 2] < 3 * sorted(errors_alone)[count // 2]
        return
    # Rounding may flip which of two nearly equal numbers max-pool takes, or the sign of one that is nearly 0 at a ReLU:
    # about one network in fifty has such a gradient, alone as in an array.
    assert sum(error > 1e-5 for error in errors) <= count // 12, errors
    assert sorted(errors)[count // 2] < 4e-6


@pytest.mark.parametrize("norm", ["bn", "gbn", "brn", Own, Derived], ids=str)
def test_running_statistics_after_several_steps(norm: str) -> None:
    nets = networks(norm, 5, torch.float64)
    stack = Stack(nets)
    for step in range(4):
        images, labels = batch(5, 6 - step, torch.float64, seed=step)  # the last batch of an epoch is shorter
        together(stack, nets[0], images, labels)
        for index, net in enumerate(nets):
            net.train()(images[index])
    for index, net in enumerate(nets):
        assert len(dict(net.named_buffers())) > 0
        for name, values in net.named_buffers():
            torch.testing.assert_close(stack.buffers[name][index], values, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("norm", EVERY, ids=str)
def test_in_eval_mode(norm: str) -> None:
    nets = networks(norm, 3, torch.float64)
    for net in nets:
        for buffer in net.buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand_like(buffer) + 0.5)
    images, _ = batch(3, 4, torch.float64)
    stack = Stack(nets)
    kept = {name: values.clone() for name, values in stack.buffers.items()}
    said = log_probs(nets[0], Numbers(stack.named(stack.parameters), stack.buffers), images, training=False)
    for index, net in enumerate(nets):
        torch.testing.assert_close(said[index], net.eval()(images[index]), rtol=1e-10, atol=1e-12)
    assert all(torch.equal(values, kept[name]) for name, values in stack.buffers.items()), "nothing moves"


@pytest.mark.parametrize("norm", EVERY, ids=str)
def test_a_network_of_nan_leaves_its_neighbours_as_they_are(norm: str) -> None:
    nets = networks(norm, 3, torch.float32)
    images, labels = batch(3, 4, torch.float32)
    stack, broken = Stack(nets), Stack(nets)
    broken.parameters[1] = float("nan")
    said, grads = together(stack, nets[0], images, labels)
    said_beside, grads_beside = together(broken, nets[0], images, labels)
    assert said_beside[1].isnan().all()
    for index in (0, 2):
        assert torch.equal(said[index], said_beside[index])
        assert torch.equal(grads[index], grads_beside[index])
        for name, values in stack.buffers.items():
            assert torch.equal(values[index], broken.buffers[name][index]), name


def test_networks_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        Stack([Net("bn"), Net("none")])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_row_begins_where_a_vector_may(dtype: torch.dtype) -> None:
    """Elsewhere some of torch's operations round otherwise: a network's bits would depend on its place."""
    nets = networks("bn", 3, dtype)
    stack = Stack(nets)
    stack.own(nets)
    for rows in (stack.parameters, stack.grads):
        assert [row.data_ptr() % 64 for row in rows] == [0, 0, 0]
    for net in nets:
        assert net.block2.conv.weight.is_contiguous(memory_format=torch.channels_last), "as convolutions are fastest"
