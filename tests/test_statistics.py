"""Where batch norm's loss comes from: each set of statistics against plain torch."""

import copy

import pytest
import torch
from torch import nn

from normlab.nets import Net, norm_layers
from normlab.probes.statistics import (
    averaging_layers,
    decompose,
    log_probs_by_batch,
    population,
    running_error,
    with_statistics,
)


def trained(norm: str = "bn") -> Net:
    """A network whose running averages and scales are no longer where they began."""
    torch.manual_seed(0)
    net = Net(norm).double()
    for layer in norm_layers(net).values():
        for parameter in layer.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    for _ in range(3):
        net.train()(torch.randn(8, 1, 28, 28, dtype=torch.float64) * 2 + 1)
    return net.eval()


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def state(net: nn.Module) -> list[torch.Tensor]:
    return [values.clone() for values in net.state_dict().values()]


@pytest.mark.parametrize(("size", "count"), [(2, 10), (3, 11), (8, 8), (16, 9), (1, 3)])
def test_batches_by_their_own_statistics_are_train_mode(size: int, count: int) -> None:
    net, x = trained(), images(count)
    before = state(net)
    found = log_probs_by_batch(net, x, size)
    alone = copy.deepcopy(net).train()
    with torch.no_grad():
        expected = torch.cat([alone(part) for part in x.split(size)])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(a, b) for a, b in zip(before, state(net), strict=True))
    assert not net.training


def test_ghost_batches_are_no_larger_than_in_training() -> None:
    torch.manual_seed(0)
    net, x = Net("gbn", norm_options={"virtual_batch_size": 4}).double().eval(), images(10)
    torch.testing.assert_close(log_probs_by_batch(net, x, 10), log_probs_by_batch(net, x, 4), rtol=1e-9, atol=1e-9)


def test_the_population_of_the_first_layer_by_hand() -> None:
    """What the first norm sees does not depend on any other: its mean and biased variance over all images."""
    net, x = trained(), images(12)
    with torch.no_grad():
        maps = net.block1[:2](x)  # conv, ReLU
    mean, var = population(net, x, size=5)["block1.norm"]
    torch.testing.assert_close(mean, maps.mean((0, 2, 3)), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(var, maps.var((0, 2, 3), correction=0), rtol=1e-10, atol=1e-10)


def test_one_batch_of_all_images_is_its_own_population() -> None:
    """With the statistics of the batch itself, eval mode computes what train mode does."""
    net, x = trained(), images(20)
    before = state(net)
    with with_statistics(net, population(net, x)), torch.no_grad():
        found = net(x)
        assert max(e["mean"] + e["log_var"] for e in running_error(net, population(net, x)).values()) < 1e-9
    torch.testing.assert_close(found, log_probs_by_batch(net, x, 20), rtol=1e-9, atol=1e-9)
    assert all(torch.equal(a, b) for a, b in zip(before, state(net), strict=True))


def test_running_error_by_hand() -> None:
    net = nn.Sequential(nn.BatchNorm2d(2, eps=0.0))
    net[0].running_mean.copy_(torch.tensor([1.0, 2.0]))
    net[0].running_var.copy_(torch.tensor([2.0, 4.0]))
    precise = {"0": (torch.tensor([1.0, 5.0]), torch.tensor([2.0, 9.0]))}
    (found,) = running_error(net, precise).values()
    assert found["mean"] == pytest.approx((((2 - 5) / 3) ** 2 / 2) ** 0.5)
    assert found["log_var"] == pytest.approx((torch.tensor(4 / 9).log().item() ** 2 / 2) ** 0.5)


def test_the_parts_of_a_decomposition() -> None:
    """The running averages of a network that saw other images fail here; precise statistics mend that."""
    net, x = trained(), images(300) * 5 - 9
    with torch.no_grad():
        labels = log_probs_by_batch(net, x, 300).argmax(1)
    found, errors = decompose(net, x, (x, labels), (x, labels), size=300)
    assert found["test_precise"] == found["train_precise"] == 1
    assert found["test_batch"] == found["train_batch"] == 1
    assert found["test_running"] == found["train_running"] < 0.9
    assert errors.keys() == averaging_layers(net).keys()
    assert errors["block1.norm"]["mean"] > 1


@pytest.mark.parametrize("norm", ["bn", "gbn", "brn", "gn", "l1bn", "ebn", "center"])
def test_what_a_norm_averages_is_measured(norm: str) -> None:
    """Averages of another kind than means and variances are left alone; without any, all accuracies are one."""
    torch.manual_seed(0)
    net, images, labels = Net(norm).double(), torch.randn(24, 1, 28, 28).double(), torch.arange(24) % 10
    accuracies, errors = decompose(net, images, (images, labels), (images, labels), 8)
    if norm in ("l1bn", "ebn", "center"):
        assert list(accuracies) == ["test_running", "train_running"]
    else:
        assert len(accuracies) == 6
    if norm in ("bn", "gbn", "brn"):
        assert list(averaging_layers(net)) == list(errors) == list(norm_layers(net))
        assert all(each["log_var"] > 0.1 for each in errors.values()), "untrained averages are far off"
    else:
        assert errors == {}
    if norm == "gn":
        assert averaging_layers(net) == {}
        assert len(set(accuracies.values())) == 1
