"""Other networks: any factory with `norm_layer` and `num_classes`, held to torchvision's own networks."""

import math
import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18
from torchvision.models.resnet import BasicBlock, ResNet

from normlab.errors import ConfigError
from normlab.lint import lint
from normlab.lint.design import parameters
from normlab.nets import Net, in_order, make_net, norm_layers, penalised, sparsity, uncovered
from normlab.nets.factory import check_net
from normlab.nets.folded import Stack, StackedState, log_probs
from normlab.nets.layers import FilterConv2d
from normlab.norms import CATALOGUE
from normlab.probes.layers import convolutions, layer_statistics
from normlab.probes.layers import parameters as moved
from normlab.settings import Settings, group_values
from normlab.settings.plan import load
from normlab.training.build import bytes_per_image, unfoldable

TINY = f"{__name__}:Tiny"
NORMS = list(CATALOGUE)
OPTIONS = {"gbn": {"virtual_batch_size": 2}, "brn": {"begin": 0, "r_end": 3, "d_end": 4}}


class Tiny(nn.Module):
    """A residual network whose layers are defined in another order than they are used, and share one ReLU."""

    def __init__(self, norm_layer: Any, num_classes: int, width: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc = nn.Linear(2 * width, num_classes)
        self.relu = nn.ReLU()
        self.conv1 = nn.Conv2d(3, width, 3, stride=2, bias=False)
        self.norm1 = norm_layer(width)
        self.down = nn.Sequential(nn.Conv2d(width, 2 * width, 1, bias=False), norm_layer(2 * width))
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=True)
        self.norm2 = norm_layer(2 * width)
        self.temperature = nn.Parameter(torch.tensor(0.7))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.norm1(self.conv1(x)))
        x = self.relu(self.norm2(self.conv2(x)) + self.down(x))
        return self.temperature * self.fc(self.drop(F.adaptive_avg_pool2d(x, 1).flatten(1)))


class Gamma(nn.Module):
    """A custom norm that draws random numbers, with scales, a shift and something else under its own names."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(num_channels)), nn.Parameter(torch.zeros(num_channels))
        self.mix, self.turn = nn.Parameter(torch.rand(3)), nn.Conv2d(num_channels, num_channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.turn(x) - self.mix.softmax(0)[0] * x.mean((1, 2, 3), keepdim=True)
        return x * self.gamma[:, None, None] + self.beta[:, None, None]


def tiny(norm: Any = "gn", **more: Any) -> Any:
    return make_net("custom", TINY, **{"channels": 3, "norm": norm, "norm_options": OPTIONS.get(norm)} | more)


def some(net: Any, seed: int = 0) -> Any:
    """The network with weights of its own, scales and shifts included."""
    torch.manual_seed(seed)
    for parameter in net.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return net


# Making


def test_a_resnet_is_torchvisions() -> None:
    torch.manual_seed(3)
    net = make_net("custom", "torchvision.models:resnet18", channels=3, norm="bn", num_classes=7)
    torch.manual_seed(3)
    theirs = resnet18(num_classes=7, norm_layer=nn.BatchNorm2d)
    ours = {name.removeprefix("body."): values for name, values in net.state_dict().items()}
    assert ours.keys() == theirs.state_dict().keys()
    assert all(torch.equal(values, ours[name]) for name, values in theirs.state_dict().items())
    images = torch.rand(4, 1, 28, 28)
    expected = theirs(images.expand(-1, 3, -1, -1)).log_softmax(1)
    torch.testing.assert_close(net(images), expected, rtol=1e-4, atol=1e-4)
    assert len(norm_layers(net)) == 20
    assert penalised(net, "conv").keys() | penalised(net, "norm").keys() == penalised(net, "weights").keys()


def test_resnet10_is_there_by_configuration_alone() -> None:
    net = make_net(**group_values("net", "resnet10"), norm="bn")
    theirs = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert net(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_what_a_factory_does_to_its_norms_is_done_to_ours() -> None:
    net = make_net("custom", "torchvision.models:resnet18", {"zero_init_residual": True}, 3, norm="gn")
    zero = [name for name, norm in norm_layers(net).items() if not norm.weight.any()]
    assert len(zero) == 8
    assert all(name.endswith("bn2") for name in zero)
    assert len(penalised(net, "norm")) == 20, "a scale that starts at zero is one"
    make_net("custom", "torchvision.models:resnet18", {"zero_init_residual": True}, 3, norm="none")


@pytest.mark.parametrize("norm", [*NORMS, Gamma])
def test_a_seed_gives_every_norm_the_same_weights(norm: Any) -> None:
    torch.manual_seed(5)
    plain = dict(tiny("none").named_parameters())
    torch.manual_seed(5)
    net = tiny(norm)
    drawn = {name: p for name, p in net.named_parameters() if not name.startswith(tuple(norm_layers(net)))}
    drawn = {name: p for name, p in drawn.items() if not name.endswith(".gain")}
    assert drawn.keys() == plain.keys()
    assert all(torch.equal(drawn[name], plain[name]) for name in plain)
    assert net(torch.rand(4, 1, 28, 28)).exp().sum(1).tolist() == pytest.approx([1.0] * 4, abs=1e-5)


def test_layers_are_known_in_the_order_of_the_forward_pass() -> None:
    net = tiny("ln")
    names = [net.label(name) for name, _ in in_order(net)]
    order = "fit conv1 norm1 relu conv2 norm2 down.0 down.1 drop fc log_probs"
    assert names == order.split()
    assert [net.label(name) for name in norm_layers(net)] == ["norm1", "norm2", "down.1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": None}, "net=custom needs net.target=package.module:factory"),
        ({"target": "torchvision.models"}, "net.target='torchvision.models': write package.module:factory"),
        ({"target": "no_such_module:net"}, "there is no module no_such_module here; write package.module:factory"),
        ({"target": "torchvision.models:resnet"}, "torchvision.models has no resnet; its classes and functions: "),
        ({"options": {"widht": 3}}, "unexpected keyword argument 'widht'"),
        ({"channels": None}, "does not take images of 1x28x28 (RuntimeError"),
        ({"channels": None}, "set net.channels=3"),
        ({"target": "torchvision.models:densenet121"}, "densenet121: its factory takes no norm_layer"),
        ({"target": "torch.nn:Identity"}, "returns (2, 3, 28, 28) for 2 images"),
        ({"target": f"{__name__}:without_norms"}, "uses no norm_layer"),
        ({"target": f"{__name__}:tokens"}, "a norm of 4 channels gets (2, 784, 4)"),
        ({"target": "builtins:dict"}, "gave a dict, not a torch.nn.Module"),
        ({"norm": "gn", "norm_options": {"num_groups": 3}}, "norm.num_groups=3 does not divide the channels (8)"),
        ({"dropout": 0.5}, "go with net=small, not with net=custom"),
        ({"image": (2, 28, 28)}, "only grey images are repeated, and these have 2 channels"),
    ],
)
def test_what_does_not_work_is_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        make_net(**{"name": "custom", "target": TINY, "channels": 3} | arguments)
    assert "\n" not in str(caught.value)


def without_norms(norm_layer: Any, num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, num_classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def tokens(norm_layer: Any, num_classes: int) -> nn.Module:
    turned = nn.Flatten(2), Turned(), norm_layer(4), nn.Flatten()
    return nn.Sequential(nn.Conv2d(3, 4, 1), *turned, nn.Linear(3136, num_classes))


class Turned(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2)


# Images


def test_the_small_network_takes_other_images() -> None:
    net = make_net(num_classes=3, image=(3, 40, 52))
    assert net(torch.rand(2, 3, 40, 52)).shape == (2, 3)
    assert net.image == (3, 40, 52)
    fitted = make_net("small", channels=3, size=28, image=(1, 100, 100), norm="ln_elem")
    assert fitted(torch.rand(2, 1, 100, 100)).shape == (2, 10)
    assert sum(p.numel() for p in fitted.parameters()) == 50_426 + 2 * 90
    with pytest.raises(ValueError, match=r"images of 17x28 pixels are too small for net=small: set net.size=28"):
        make_net(image=(1, 17, 28))


# Penalties


def test_scopes_go_by_the_kind_of_parameter() -> None:
    """In a custom layer ones are scales, and so are the weights of a convolution; zeros are shifts."""
    net = tiny(Gamma)
    body = {scope: {net.label(name) for name in penalised(net, scope)} for scope in ("conv", "norm", "weights", "all")}
    norms = ("norm1", "norm2", "down.1")
    assert body["conv"] == {"conv1.weight", "conv2.weight", "down.0.weight", "fc.weight"}
    assert body["norm"] == {f"{norm}.{name}" for norm in norms for name in ("gamma", "turn.weight")}
    assert body["weights"] == body["conv"] | body["norm"]
    assert len(body["all"]) == len(list(net.parameters()))
    left = {"temperature", *(f"{norm}.mix" for norm in norms)}
    assert {net.label(name) for name in uncovered(net, "weights")} == left
    assert uncovered(net, "all") == []
    assert sparsity(net)["zero_scales"] == 0


@pytest.mark.parametrize("norm", NORMS)
def test_the_catalogue_says_which_parameters_are_scales(norm: str) -> None:
    """And a convolution that is reparametrised is one everywhere."""
    about = CATALOGUE[norm]
    for net, left in ((Net(norm), []), (tiny(norm), ["body.temperature"])):
        scales = {name for name, learned in about.learned.items() if learned.scale}
        assert {name.rpartition(".")[2] for name in penalised(net, "norm")} == scales
        assert uncovered(net, "weights") == left
    kinds = [type(layer) for _, layer in in_order(net) if isinstance(layer, nn.Conv2d)]
    assert len(kinds) == 3
    assert all(issubclass(kind, FilterConv2d) == bool(about.conv) for kind in kinds)


# Many at once


@pytest.mark.parametrize("norm", [*NORMS, Gamma])
def test_many_compute_what_each_computes_alone(norm: Any) -> None:
    nets = [some(tiny(norm), seed).double() for seed in range(3)]
    stack = Stack(nets)
    for step in range(2):
        images = torch.randn(3, 5, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        weights = stack.parameters.clone().requires_grad_()
        y = log_probs(nets[0], StackedState(stack.named(weights), stack.buffers), images, training=True)
        (grads,) = torch.autograd.grad(y[..., 0].sum(), weights)
        for index, net in enumerate(nets):
            alone = net.train()(images[index])
            torch.testing.assert_close(y[index], alone, rtol=1e-9, atol=1e-9)
            own = torch.autograd.grad(alone[:, 0].sum(), [*net.parameters()], allow_unused=True, materialize_grads=True)
            torch.testing.assert_close(grads[index], Stack.row(own), rtol=1e-7, atol=1e-9)
            for name, values in net.named_buffers():
                torch.testing.assert_close(stack.buffers[name][index], values, msg=name)
    y = log_probs(nets[0], StackedState(stack.named(stack.parameters), stack.buffers), images, training=False)
    for index, net in enumerate(nets):
        torch.testing.assert_close(y[index], net.eval()(images[index]), rtol=1e-9, atol=1e-9)


def asked_for(*words: str) -> Settings:
    return load("net=custom", f"net.target={TINY}", "net.channels=3", "data=digits", "accelerator=cpu", *words)


def test_whether_it_can_be_trained_with_others_is_tried() -> None:
    assert unfoldable(asked_for("norm=gn")) is unfoldable(asked_for("norm=bn")) is None
    told = "net=custom cannot run for several networks at once (RuntimeError: vmap: called random"
    assert str(unfoldable(asked_for("norm=gn", "net.options={dropout: 0.5}"))).startswith(told)


# What is built around it


def test_probes_measure_every_layer() -> None:
    net = some(tiny("gn"))
    images, labels = torch.rand(6, 1, 28, 28), torch.arange(6)
    values = {(layer, what): value for layer, what, value in layer_statistics(net, images, labels)}
    assert list(convolutions(net)) == ["conv1", "conv2", "down.0"]
    assert moved(net)["conv1"] == ["body.conv1.weight", "body.norm1.weight", "body.norm1.bias"]
    first = net.body.norm1(net.body.conv1(images.expand(-1, 3, -1, -1)))
    assert values["norm1", "norm_mean"] == pytest.approx(first.mean().item(), abs=1e-6)
    assert values["relu", "relu_mean"] == pytest.approx(first.relu().mean().item(), rel=1e-5), "at its first call"
    assert values["norm2", "gamma_mean"] == pytest.approx(net.body.norm2.weight.mean().item())
    assert all(math.isfinite(value) for value in values.values())


def test_memory_is_measured_on_its_own_images() -> None:
    at_28, at_56 = (bytes_per_image(make_net("custom", TINY, channels=3, size=size)) for size in (28, 56))
    assert 3.5 < at_56 / at_28 < 5


def test_rules_about_the_small_network_leave_others_alone() -> None:
    words = ["net.size=64", "norm=in"]
    assert [finding.code for finding in lint([asked_for(*words)])] == []
    assert [finding.code for finding in lint([load("norm=in", "data=digits")])] == ["NL001"]
    assert parameters(asked_for("norm=gn")) is None


def test_a_network_is_tried_before_its_run() -> None:
    check_net(asked_for("norm=gn"))
    with pytest.raises(ConfigError, match=r"norm\.num_groups=3 does not divide the channels \(8\)"):
        check_net(asked_for("norm=gn", "norm.num_groups=3"))
    with pytest.raises(ConfigError, match="net=custom with norm=test_networks:Broken raised TypeError: no forward he"):
        check_net(asked_for("norm=custom", f"norm.target={__name__}:Broken"))


class Broken(nn.Module):
    def __init__(self, num_channels: int) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise TypeError("no forward here")
