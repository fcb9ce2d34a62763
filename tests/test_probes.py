"""Probes, held to functions whose answer is known; where batch norm's loss comes from, to plain torch."""

import copy

import numpy as np
import pytest
import torch
from conftest import KINDS
from scipy import stats
from torch import nn
from torch.nn.functional import nll_loss

from normlab.nets import Net, norm_layers
from normlab.norms import make_norm
from normlab.probes.gradients import Loss, StepLoss, Weights, along_gradient, covariate_shift, gradient, points
from normlab.probes.layers import convolutions, dead_share, layer_statistics, moments, parameters, stable_rank
from normlab.probes.statistics import (
    averaging_layers,
    decompose,
    log_probs_of,
    population,
    running_error,
    with_statistics,
)

STEPS = [0.05, 0.1, 0.4]
CURVATURES = torch.tensor([0.5, 1.0, 3.0, 7.0], dtype=torch.float64)


def quadratic(seed: int = 0) -> tuple[Loss, torch.Tensor, torch.Tensor]:
    """L(w) = ½ wᵀAw, as a function of two tensors that w is cut into; A, and its eigenvectors as columns."""
    vectors = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))).Q
    matrix = vectors @ torch.diag(CURVATURES) @ vectors.T

    def loss(weights: Weights) -> torch.Tensor:
        w = torch.cat([weights["a"], weights["b"]])
        return 0.5 * w @ matrix @ w

    return loss, matrix, vectors


def cut(w: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"a": w[:1], "b": w[1:]}


class TestLandscape:
    """Of a quadratic: g = Aw; L(w - ηg) = L - η gᵀg + ½ η² gᵀAg, and ∇L(w - ηg) - g = -ηAg."""

    def test_losses_changes_and_smoothness_in_closed_form(self) -> None:
        loss, matrix, vectors = quadratic()
        w = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
        g = matrix @ w
        value = float(0.5 * w @ matrix @ w)
        losses = [value - eta * float(g @ g) + 0.5 * eta**2 * float(g @ matrix @ g) for eta in STEPS]
        changes = [eta * float((matrix @ g).norm()) for eta in STEPS]
        expected = {"loss": value, "loss_min": min(losses), "loss_max": max(losses), "change_min": min(changes)}
        expected |= {"change_max": max(changes), "gradient_norm": float(g.norm())}
        expected |= {"smoothness": float((matrix @ g).norm() / g.norm())}
        assert along_gradient(loss, cut(w), STEPS) == pytest.approx(expected)
        for curvature, vector in zip(CURVATURES, vectors.T, strict=True):  # along an eigenvector
            assert along_gradient(loss, cut(2.5 * vector), STEPS)["smoothness"] == pytest.approx(float(curvature))

    @pytest.mark.parametrize(
        ("loss", "steps", "smoothness"),
        [
            # L = w⁴: from w = 1, 1 - 4η, (|4(1 - 4η)³ - 4|) / 4η falls as η grows: the largest ratio counts
            (lambda weights: weights["w"] ** 4, [0.05, 0.1], (4 - 4 * 0.8**3) / 0.2),
            (lambda weights: weights["w"] * 0, STEPS, np.nan),  # where the gradient is zero there is none
            (lambda weights: weights["w"].sqrt(), [0.1, 4.0], np.nan),  # a nan is not hidden
        ],
    )
    def test_the_smoothness(self, loss: Loss, steps: list[float], smoothness: float) -> None:
        found = along_gradient(loss, {"w": torch.tensor(1.0)}, steps)["smoothness"]
        assert found == pytest.approx(smoothness, rel=1e-5, nan_ok=True)


def linear_gradients(weights: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """∂/∂W_i of ½ Σ ‖W_k … W_1 x - y‖² / N, with the product before and behind each layer written out."""
    found = []
    for i in range(len(weights)):
        before, behind = np.eye(len(x)), np.eye(len(y))
        for w in weights[:i]:
            before = w @ before
        for w in reversed(weights[i + 1 :]):
            behind = behind @ w
        error = behind @ weights[i] @ before @ x - y
        found.append(behind.T @ error @ (before @ x).T / x.shape[1])
    return found


class TestShift:
    def test_three_linear_layers_by_hand(self) -> None:
        rng = np.random.default_rng(0)
        shapes = [(4, 3), (5, 4), (2, 5)]
        before = [rng.normal(size=shape) for shape in shapes]
        after = [w - 0.1 * rng.normal(size=w.shape) for w in before]
        x, y = rng.normal(size=(3, 8)), rng.normal(size=(2, 8))

        def loss(weights: Weights) -> torch.Tensor:
            out = torch.from_numpy(x)
            for name in ("0", "1", "2"):
                out = weights[name] @ out
            return 0.5 * (out - torch.from_numpy(y)).square().sum() / 8

        named = [{str(i): torch.from_numpy(w) for i, w in enumerate(ws)} for ws in (before, after)]
        found = covariate_shift(loss, *named, {"first": ["0"], "second": ["1"], "third": ["2"]})
        g = linear_gradients(before, x, y)
        moved = [None, linear_gradients([after[0], *before[1:]], x, y)[1]]
        moved += [linear_gradients([*after[:2], before[2]], x, y)[2]]
        assert list(found) == ["second", "third"]  # nothing is before the first
        for i, layer in enumerate(found, start=1):
            assert found[layer]["l2"] == pytest.approx(np.linalg.norm(g[i] - moved[i]))
            cosine = (g[i] * moved[i]).sum() / np.linalg.norm(g[i]) / np.linalg.norm(moved[i])
            assert found[layer]["cosine"] == pytest.approx(cosine)
            assert found[layer]["gradient_norm"] == pytest.approx(np.linalg.norm(g[i]))

    def test_a_step_that_moves_nothing_shifts_nothing_and_without_a_gradient_there_is_no_angle(self) -> None:
        loss, _, _ = quadratic()
        w = cut(torch.ones(4, dtype=torch.float64))
        (shift,) = covariate_shift(loss, w, w, {"a": ["a"], "b": ["b"]}).values()
        assert (shift["l2"], shift["cosine"]) == (0, pytest.approx(1))
        (shift,) = covariate_shift(lambda weights: weights["a"].sum(), w, w, {"a": ["a"], "b": ["b"]}).values()
        assert np.isnan(shift["cosine"])

    def test_a_layer_is_measured_by_some_of_its_weights_and_moved_by_all(self) -> None:
        def loss(weights: Weights) -> torch.Tensor:
            return weights["w1"] * weights["scale1"] * weights["w2"] * weights["scale2"]

        one, two = torch.tensor(1.0), torch.tensor(2.0)
        before = {"w1": one, "scale1": one, "w2": one, "scale2": one}
        after = {"w1": two, "scale1": two, "w2": two, "scale2": two}
        layers = {"1": ["w1", "scale1"], "2": ["w2", "scale2"]}
        found = covariate_shift(loss, before, after, layers, {"1": ["w1"], "2": ["w2"]})
        assert found == {"2": {"l2": 3.0, "cosine": 1.0, "gradient_norm": 1.0}}  # from 1 · 1 · scale2 to 2 · 2 · scale2


class TestLayers:
    def test_moments_are_those_of_scipy(self) -> None:
        maps = np.random.default_rng(0).gamma(2.0, size=(4, 3, 5, 5))
        found = moments(torch.from_numpy(maps))
        assert found["mean"] == pytest.approx(maps.mean())
        assert found["sd"] == pytest.approx(maps.std())
        assert found["skew"] == pytest.approx(stats.skew(maps, axis=None))
        assert np.isnan(moments(torch.ones(5))["skew"])

    def test_a_channel_is_dead_if_it_is_zero_everywhere(self) -> None:
        maps = torch.zeros(3, 5, 2, 2)
        maps[2, 0, 1, 1] = 1e-9  # one number of one image keeps a channel alive
        maps[:, 3] = 1
        assert dead_share(maps) == pytest.approx(3 / 5)

    def test_stable_rank_by_singular_values(self) -> None:
        weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
        singular = np.linalg.svd(weight.numpy().reshape(6, 36), compute_uv=False)
        assert stable_rank(weight) == pytest.approx((singular**2).sum() / singular[0] ** 2, rel=1e-5)
        assert stable_rank(torch.ones(6, 4, 3, 3)) == pytest.approx(1)
        assert stable_rank(torch.eye(6).reshape(6, 6, 1, 1)) == pytest.approx(6)
        assert np.isnan(stable_rank(torch.zeros(6, 4, 3, 3)))

    def test_a_network_by_its_own_parts(self) -> None:
        net, images, labels = some_net("gn", dropout=0.5)
        with torch.no_grad():
            net.block2.conv.weight[3] = -net.block2.conv.weight[3].abs()
            net.block2.norm.weight.copy_(torch.linspace(0, 3, 20))
        found = {(layer, quantity): value for layer, quantity, value in layer_statistics(net, images, labels)}
        for module in net.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        first = net.block1(images)
        relu = net.block2.relu(net.block2.conv(first))
        out = net.block2.norm(relu).detach().double().numpy()
        assert found["block2", "dead"] == pytest.approx(dead_share(relu))
        assert found["block2", "relu_mean"] == pytest.approx(float(relu.detach().mean()), rel=1e-5)
        assert found["block2", "norm_sd"] == pytest.approx(out.std(), rel=1e-4)
        assert found["block2", "norm_skew"] == pytest.approx(stats.skew(out, axis=None), rel=1e-3)
        assert found["block2", "gamma_mean"] == pytest.approx(1.5)
        assert found["block2", "gamma_sd"] == pytest.approx(np.linspace(0, 3, 20).std())
        assert found["block2", "beta_mean"] == 0
        nll_loss(net(images), labels).backward()
        for layer, name in convolutions(net).items():
            weight = net.get_parameter(name)
            assert found[layer, "gradient_norm"] == pytest.approx(float(weight.grad.norm()), rel=1e-4)
            assert found[layer, "stable_rank"] == pytest.approx(stable_rank(weight))
            assert found[layer, "weight_norm"] == pytest.approx(float(weight.norm()), rel=1e-5)

    def test_layers_come_in_the_order_of_the_forward_pass(self) -> None:
        net, images, labels = some_net("bn")
        order = ["block1", "block2", "squeeze", "block3", "block4", "block5", "head"]
        assert list(convolutions(net)) == list(parameters(net)) == order
        assert list(dict.fromkeys(layer for layer, _, _ in layer_statistics(net, images, labels))) == order
        assert sum(map(len, parameters(net).values())) == len(list(net.parameters()))

    @pytest.mark.parametrize("norm", KINDS)
    def test_every_norm_and_nothing_is_touched(self, norm: str) -> None:
        net, images, labels = some_net(norm, dropout=0.3)
        before, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
        values = layer_statistics(net, images, labels)
        loss = StepLoss(net, images, labels)
        along_gradient(loss, loss.weights, [0.1])
        assert all(np.isfinite(value) for _, what, value in values if not what.endswith("skew"))
        assert torch.equal(torch.get_rng_state(), random)
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        assert all(parameter.grad is None for parameter in net.parameters())
        assert not any(module._forward_hooks for module in net.modules())


def some_net(norm: str, dropout: float = 0.0) -> tuple[Net, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    net = Net(norm, dropout)
    return net, torch.randn(6, 1, 28, 28), torch.arange(6)


class TestStepLoss:
    def test_it_is_the_loss_of_the_training_step(self) -> None:
        """The same masks, the same gradient, bit for bit; and the same again, wherever the generator has gone since."""
        net, images, labels = some_net("bn", dropout=0.5)
        loss = StepLoss(net, images, labels)
        torch.rand(7)
        value, found = gradient(loss, loss.weights)
        again, _ = gradient(loss, loss.weights)
        torch.manual_seed(0)
        net, images, labels = some_net("bn", dropout=0.5)
        ce = nll_loss(net.train()(images), labels)
        ce.backward()
        assert value == again == ce.item()
        assert all(torch.equal(found[name], parameter.grad) for name, parameter in net.named_parameters())

    def test_buffers_that_a_norm_moves_start_anew(self) -> None:
        """Batch renormalization looks at its running statistics while it trains: moved ones would give another loss."""
        torch.manual_seed(0)
        net = Net(lambda channels: make_norm("brn", channels, begin=0, r_end=1, d_end=1))
        images, labels = 3 * torch.randn(6, 1, 28, 28), torch.arange(6)
        net.train()(images)  # past the first step, so that r and d count
        loss = StepLoss(net, images, labels)
        first, second = (float(loss(loss.weights)) for _ in range(2))
        assert first == second
        one, two = (nll_loss(net(images), labels).item() for _ in range(2))
        assert first == one != two


@pytest.mark.parametrize(("steps", "count"), [(1, 40), (7, 40), (40, 40), (1000, 40), (5160, 40), (0, 40)])
def test_points_are_spread_over_a_run(steps: int, count: int) -> None:
    found = points(steps, count)
    assert len(found) == min(steps, count)
    assert found[:1] == [0][:steps]
    gaps = np.diff([*found, steps])
    assert not steps or gaps.max() - gaps.min() <= 1


# Statistics


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
    found = log_probs_of(net, x, size)
    alone = copy.deepcopy(net).train()
    with torch.no_grad():
        expected = torch.cat([alone(part) for part in x.split(size)])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(a, b) for a, b in zip(before, state(net), strict=True))
    assert not net.training


def test_ghost_batches_are_no_larger_than_in_training() -> None:
    torch.manual_seed(0)
    net, x = Net("gbn", norm_options={"virtual_batch_size": 4}).double().eval(), images(10)
    torch.testing.assert_close(log_probs_of(net, x, 10), log_probs_of(net, x, 4), rtol=1e-9, atol=1e-9)


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
    torch.testing.assert_close(found, log_probs_of(net, x, 20), rtol=1e-9, atol=1e-9)
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
        labels = log_probs_of(net, x, 300).argmax(1)
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
