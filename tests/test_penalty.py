"""The L1 penalty: what it covers, its gradient, its proximal step, how sparsity is counted, the refit without it."""

import math
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from normlab.errors import ConfigError
from normlab.nets import PLACEMENTS, SCOPES, Net, l1_norm, penalised, sparsity
from normlab.nets.penalty import adamw_scale, soft_threshold_
from normlab.norms import CATALOGUE
from normlab.record import read_support
from normlab.settings import checked
from normlab.settings.plan import load
from normlab.training import Classifier, outcome, run
from normlab.training.optim import StackedOptimizer, proximal_step_

singles = st.floats(-10, 10, width=32)


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values))


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.detach().clone().view(torch.int32)


# What a scope covers


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("norm", ["bn", "ln", "gn", "in"])
def test_scopes_by_what_they_hold(norm: str, placement: str) -> None:
    """conv: every convolution, nothing else. norm: every γ. weights: both. all: every parameter. None twice."""
    net = Net(norm, dropout=0.1, placement=placement)
    found = {scope: [*penalised(net, scope).values()] for scope in SCOPES}
    sizes = {scope: sum(p.numel() for p in parameters) for scope, parameters in found.items()}
    assert sizes == {"weights": 7466 + 74, "conv": 7466, "norm": 74, "all": 7614}
    held = {scope: {id(p) for p in parameters} for scope, parameters in found.items()}
    assert held["conv"] == {id(m.weight) for m in net.modules() if isinstance(m, nn.Conv2d)}
    assert held["norm"] == {id(net.get_submodule(f"block{i}").norm.weight) for i in range(1, 6)}
    assert held["weights"] == held["conv"] | held["norm"]
    assert held["all"] == {id(p) for p in net.parameters()}


def test_unknown_scope_lists_the_choices() -> None:
    with pytest.raises(ValueError, match=r"penalty.scope 'biases' is unknown: choose one of weights, conv, norm, all"):
        penalised(Net(), "biases")


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("norm", CATALOGUE)
def test_a_run_is_refused_exactly_where_the_scope_of_scales_holds_none(norm: str, affine: bool) -> None:
    options = {"affine": affine} if "affine" in CATALOGUE[norm].options else {}
    values = {"norm": {"name": norm, **options}, "l1": 1e-3, "penalty": {"scope": "norm"}}
    refused = pytest.raises(ConfigError, match=f"norm={norm} has no scales here to be penalised")
    with nullcontext() if penalised(Net(norm, norm_options=options), "norm") else refused:
        checked(values)


# λ·Σ|w| and its gradient


def test_l1_norm_sums_sizes() -> None:
    assert float(l1_norm([parameter(1.5, -2.0, 0.0), parameter(-0.25)]).detach()) == 3.75
    assert float(l1_norm(p for p in [torch.tensor(-1.0)])) == 1.0
    assert l1_norm([]).shape == ()
    assert float(l1_norm([])) == 0.0


# The proximal step


@given(values=st.lists(singles, min_size=1, max_size=20), threshold=st.floats(0, 4))
@settings(deadline=None, max_examples=100)
def test_soft_threshold_is_the_formula(values: list[float], threshold: float) -> None:
    """w ← sign(w) · max(|w| - t, 0), in place, over every parameter given."""
    p, other = parameter(*values), parameter(*values[::-1])
    soft_threshold_([p, other], threshold)
    w = np.array(values)
    expected = np.sign(w) * np.maximum(np.abs(w) - threshold, 0)
    np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(other.detach().numpy(), expected[::-1], rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("method", ["proximal", "subgradient"])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, None], ids=["sgd", "momentum .5", "momentum .9", "adamw"])
@pytest.mark.parametrize("rows", [False, True], ids=["torch", "rows"])
def test_both_methods_minimise_loss_plus_penalty(method: str, momentum: float | None, rows: bool) -> None:
    """Σ a/2·(w - c)² + λ·Σ|w| has its minimum at sign(c)·max(|c| - λ/a, 0), whatever the momentum, and under AdamW,
    whose threshold each coordinate divides by the scale of its own step. AdamW's lr falls to 0 as a schedule's does,
    since its steps do not shrink by themselves."""
    a, c = torch.tensor([1.0, 2.0, 0.5, 4.0, 1.0]).double(), torch.tensor([1.0, -0.5, 0.3, 0.1, -0.25]).double()
    w, steps, l1, lr = nn.Parameter(torch.zeros(5).double()), 4000, 0.3, 0.01
    words = [f"l1={l1}", f"lr={lr}", f"penalty.method={method}", "gradient_clip=null"]
    optimizer: torch.optim.SGD | torch.optim.AdamW
    if momentum is None:
        optimizer = torch.optim.AdamW([w], lr, (0.9, 0.999), 1e-8, weight_decay=0.0)
    else:
        optimizer = torch.optim.SGD([w], lr, momentum, nesterov=momentum > 0)
        words.append("schedule=constant")
    covered, row = torch.ones(1, 5, dtype=torch.bool), torch.zeros(1, 5).double()
    one_row = StackedOptimizer([load(*words)], [optimizer], steps, covered, ~covered, w.data[None], row)
    for step in range(steps):
        gradient = a * (w.detach() - c)
        if rows:
            row.copy_(gradient)
            one_row.step()
            continue
        optimizer.param_groups[0]["lr"] = one_row.lr(torch.tensor([step])).item()
        w.grad = gradient + l1 * w.detach().sign() * (method == "subgradient")
        optimizer.step()
        if method == "proximal":
            proximal_step_(optimizer, [w], l1)
    expected = c.sign() * (c.abs() - l1 / a).clamp(min=0)
    assert (expected == 0).tolist() == [False, False, True, False, True]
    hops = 1e-3 if momentum is None else 4 * lr * l1 / (1 - momentum)  # a subgradient jumps about 0
    near = 1e-3 if momentum is None else 1e-4
    torch.testing.assert_close(w.detach(), expected, rtol=0, atol=near if method == "proximal" else hops)
    assert (w == 0).tolist() == ((expected == 0).tolist() if method == "proximal" else [False] * 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_adamw_divides_its_step_by(dtype: torch.dtype) -> None:
    """torch's own step is lr · m / (1 - β₁ᵗ) / scale; here for two networks at once, with an ε that shows."""
    weights = nn.Parameter(torch.tensor([[1.0, -2.0], [3.0, 0.5]], dtype=dtype))
    adamw = torch.optim.AdamW([weights], lr=0.1, betas=(0.9, 0.99), eps=0.5, weight_decay=0)
    for step in range(1, 4):
        before = weights.detach().clone()
        weights.grad = step * before.square() - 1
        adamw.step()
        state = adamw.state[weights]
        scale = adamw_scale(state["exp_avg_sq"], state["step"].expand(2, 1), 0.99, 0.5)
        assert scale.dtype == dtype
        expected = 0.1 * state["exp_avg"] / (1 - 0.9**step) / scale
        assert torch.allclose(before - weights.detach(), expected, rtol=1e-5)


@pytest.mark.parametrize("adamw", [False, True], ids=["sgd", "adamw"])
@pytest.mark.parametrize("method", ["subgradient", "proximal"])
def test_nothing_moves_what_is_frozen(method: str, adamw: bool) -> None:
    """The functions on their own and the row-wise optimizer: neither L1 nor weight decay nor momentum."""
    frozen, free = (nn.Parameter(torch.tensor([0.5, -0.5]), requires_grad=free) for free in (False, True))
    soft_threshold_([frozen, free], 0.1)
    assert frozen.tolist() == [0.5, -0.5]
    assert frozen.grad is None
    assert free.tolist() == pytest.approx([0.4, -0.4])
    kind = torch.optim.AdamW if adamw else torch.optim.SGD
    optimizer = kind([free], 0.1, weight_decay=0.5)
    weights = torch.tensor([[0.5, -0.5, 0.5, -0.5]])
    settings = load("l1=0.1", "lr=0.1", f"penalty.method={method}", "gradient_clip=1", "schedule=constant")
    held = torch.tensor([[True, True, False, False]])
    rows = StackedOptimizer([settings], [optimizer], 1, torch.ones_like(held), held, weights, torch.ones(1, 4))
    for _ in range(2):
        rows.matrix.grad.fill_(1.0)
        rows.step()
    assert weights[0, :2].tolist() == [0.5, -0.5]
    assert weights[0, 2] < 0.5
    assert weights[0, 3] != -0.5


def test_soft_threshold_leaves_exact_zeros() -> None:
    """|w| ≤ t becomes exactly 0, the edge included."""
    p = parameter(0.25, -0.25, 0.2, -1e-30, 0.0, 0.2500001, -1.0)
    soft_threshold_([p], 0.25)
    assert (p == 0).tolist() == [True] * 5 + [False] * 2
    assert p[6].item() == -0.75


@given(values=st.lists(st.floats(width=32), min_size=1, max_size=20))
@settings(deadline=None, max_examples=100)
def test_threshold_zero_changes_no_bit(values: list[float]) -> None:
    """t = 0 gives w back, infinities and the smallest numbers included; only the sign of a zero may go."""
    p = parameter(*values)
    before = p.detach().clone()
    soft_threshold_([p], 0.0)
    numbers = (before != 0) & ~before.isnan()
    assert torch.equal(bits(p)[numbers], bits(before)[numbers])
    assert torch.equal(p == 0, before == 0)


@pytest.mark.parametrize("size", [1, 100])
def test_what_is_not_a_number_stays_so(size: int) -> None:
    """A run that diverged has to look diverged: no NaN becomes 0, in a scalar or in a vector register."""
    p = parameter(*[float("nan")] * size)
    soft_threshold_([p], 0.5)
    assert p.isnan().all()


# Sparsity


def ones() -> Net:
    """A network whose convolution weights are all 1 (7,466 numbers in 94 filters) and whose γ and β are 0."""
    net = Net("bn")
    for name, p in net.named_parameters():
        nn.init.constant_(p, 0.0 if ".norm." in name else 1.0)
    return net


def test_sparsity_of_weights_made_by_hand() -> None:
    """10 zeros, one filter whole among them; two more weights within 1 % of their own filter's largest."""
    net = ones()
    assert sparsity(net) == {"zeros": 0.0, "small": 0.0, "zero_filters": 0.0, "zero_scales": 1.0}
    with torch.no_grad():
        net.block1.conv.weight[0] = 0.0  # 9 numbers: a filter
        net.squeeze.weight[3, 7] = -0.0  # 1 of 20
        net.block2.conv.weight[4] *= 1000
        net.block2.conv.weight[4, 0, 0] = torch.tensor([9.9, -9.9, 10.1])
    assert sparsity(net) == {"zeros": 10 / 7466, "small": 12 / 7466, "zero_filters": 1 / 94, "zero_scales": 1.0}
    assert sparsity(net, 0.0)["small"] == 10 / 7466
    assert sparsity(net, 1.0)["small"] == 1.0


def test_zero_scales_of_those_that_there_are() -> None:
    net = Net("gn")
    with torch.no_grad():
        net.block2.norm.weight[:5] = 0.0
        net.block2.norm.bias[:] = 0.0
    assert sparsity(net)["zero_scales"] == 5 / 74
    assert math.isnan(sparsity(Net("none"))["zero_scales"])


def test_small_takes_no_notice_of_a_filters_scale() -> None:
    """Every filter times a power of two of its own (so nothing rounds): the same share is small, at any `relative`."""
    torch.manual_seed(0)
    net = Net("ln")
    before = {relative: sparsity(net, relative)["small"] for relative in (0.001, 0.01, 0.1, 0.5)}
    with torch.no_grad():
        for weight in penalised(net, "conv").values():
            weight *= 2.0 ** torch.randint(-12, 12, (len(weight), 1, 1, 1))
    assert {relative: sparsity(net, relative)["small"] for relative in before} == before
    assert before[0.1] == pytest.approx(0.1, abs=0.02)  # uniform weights: a tenth lies within a tenth of the largest


# The refit keeps what is zero at zero, moves the rest, and leaves the run itself as it was


WORDS = ["data=digits", "norm=gn", "epochs=2", "l1=1e-2", "penalty.method=proximal", "batch_size=64", "threads=1"]


def test_a_refit_after_a_single_epoch_begins_with_its_first_draws(tmp_path: Path) -> None:
    """It has the number of the refit's own first epoch."""
    words = ["data=digits", "epochs=1", "train_size=64", "val_size=0", "batch_size=32", "threads=1", "refit_epochs=1"]
    record = run(load(*words), tmp_path)
    assert record.status == "completed", record.error
    assert record.metrics["refit_test_acc"] is not None


def test_a_run_with_a_refit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> None:
    refitting: list[Classifier] = []
    supports: list[list[np.ndarray]] = []
    keep = outcome.keep_zeros

    def watched(model: Classifier) -> None:
        keep(model)
        refitting.append(model)
        supports.append([(p != 0).numpy() for p in model.net.parameters()])

    monkeypatch.setattr(outcome, "keep_zeros", watched)
    plain = run(load(*WORDS), tmp_path / "plain")
    refitted = run(load(*WORDS, "refit_epochs=2"), tmp_path / "refit")
    assert plain.metrics["zeros"] > 0.01
    for name, value in plain.metrics.items():
        assert refitted.metrics[name] == value, f"{name} is measured before the refit"
    assert 0 <= refitted.metrics["refit_test_acc"] <= 1
    assert refitted.metrics["refit_test_acc"] != plain.metrics["test_acc"]
    assert refitted.time["refit_s"] > 0
    assert "refit_test_acc" not in plain.metrics
    both = [(tmp_path / kind / "predictions.npz").read_bytes() for kind in ("plain", "refit")]
    assert both[0] == both[1]
    assert plain.config_hash != refitted.config_hash
    support = read_support(tmp_path / "refit")
    assert support is not None
    assert support.size == 7466 + 74
    conv = 1 - plain.metrics["zeros"]
    assert support.sum() == pytest.approx(conv * 7466 + (1 - (plain.metrics["zero_scales"] or 0)) * 74)
    for parameter, there in zip(refitting[0].net.parameters(), supports[0], strict=True):
        assert not ((parameter != 0).numpy() & ~there).any(), "no zero has moved"
