"""Every norm of the catalogue with the tools that people use on torch's own layers; and their page, docs/norms.md, is
what their files and docs/norms.csv make of it."""

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import REPOSITORY
from torch import distributed, nn
from torch.optim.swa_utils import AveragedModel, update_bn
from torchvision.models.feature_extraction import create_feature_extractor

from benchmarks.norms import BATCH as BATCH_SIZE
from benchmarks.norms import main as measure
from benchmarks.norms import notes_of
from benchmarks.norms_page import catalogue_part, cost_part, costs, renew
from normlab.norms import CATALOGUE, make_norm, synchronise

CHANNELS, SIZE = 8, (6, 5)
# Options with which what a norm does differently is seen on a few small batches.
OPTIONS: dict[str, dict[str, Any]] = {
    "gbn": {"virtual_batch_size": 3},
    "brn": {"begin": 0, "r_end": 2, "d_end": 2},
    "bin": {"rho": 0.5},  # within its limits: beyond them its gradient is by intent not that of the clipped value
}
NORMS = list(CATALOGUE)
BATCH = [name for name, about in CATALOGUE.items() if about.of_batch]
AFFINE = [(name, {}) for name in NORMS]
AFFINE += [(name, {"affine": False}) for name in NORMS if "affine" in CATALOGUE[name].options]


@pytest.fixture(scope="module", params=NORMS)
def name(request: pytest.FixtureRequest) -> str:
    """Each norm of the catalogue in turn."""
    return str(request.param)


@pytest.fixture(params=[False, True], ids=["contiguous", "channels_last"])
def last(request: pytest.FixtureRequest) -> bool:
    """How maps lie in memory."""
    return bool(request.param)


def build(name: str, channels: int = CHANNELS, size: tuple[int, int] = SIZE, **options: Any) -> nn.Module:
    """The norm, with numbers learned at random."""
    layer = make_norm(name, channels, {**OPTIONS.get(name, {}), **options}, size=size)
    numbers = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=numbers))
    return layer


def maps(images: int = 7, seed: int = 0, *, scale=2.0, mean=1.0, last=False, channels=CHANNELS) -> torch.Tensor:
    x = torch.randn(images, channels, *SIZE, generator=torch.Generator().manual_seed(seed)) * scale + mean
    return x.contiguous(memory_format=torch.channels_last) if last else x


class Network(nn.Module):
    """Two convolutions, each followed by a norm."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, CHANNELS, 3, padding=1), build(name)
        self.conv2, self.norm2 = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), build(name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm2(torch.relu(self.conv2(self.norm1(torch.relu(self.conv1(x))))))  # type: ignore[no-any-return]


def network(name: str) -> Network:
    torch.manual_seed(0)
    return Network(name)


def same_state(got: nn.Module, expected: nn.Module) -> None:
    """Equal parameters and buffers; a graph lacks the buffers that it does not need."""
    state = expected.state_dict()
    assert {name for name, _ in expected.named_parameters()} <= got.state_dict().keys() <= state.keys()
    for name, value in got.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0, msg=lambda text, name=name: f"{name}: {text}")


def trains_alike(got: nn.Module, expected: nn.Module, channels: int = CHANNELS, exact: bool = True) -> None:
    """Three steps of both: the same outputs and, in the end, the same parameters and buffers."""
    for step in range(3):
        outputs = []
        for model in (got, expected):
            model.zero_grad()
            outputs.append(model(maps(seed=step, channels=channels)))
            if parameters := [*model.parameters()]:
                outputs[-1].square().mean().backward()
                torch.optim.SGD(parameters, 0.1).step()
        torch.testing.assert_close(*outputs, **({"rtol": 0, "atol": 0} if exact else {}))
    if exact:
        same_state(got, expected)


def trained(name: str) -> nn.Module:
    """In eval mode, after two training steps."""
    layer = build(name)
    with torch.no_grad():
        for step in range(2):
            layer(maps(seed=step))
    return layer.eval()


# Tracing


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_a_layer_by_fx_script_and_jit_trace(name: str) -> None:
    """Graphs of fx and scripts train alike; a trace is of eval mode, on another batch than it was made with."""
    for training in (True, False):
        layer = build(name).train(training)
        graph, script = torch.fx.symbolic_trace(copy.deepcopy(layer)), torch.jit.script(copy.deepcopy(layer))
        trains_alike(script, copy.deepcopy(layer), exact=False)
        trains_alike(graph, layer)
        for key, value in layer.state_dict().items():
            torch.testing.assert_close(script.state_dict()[key], value)
    layer = trained(name)
    for last in (False, True):
        traced = torch.jit.trace(layer, maps(4, last=last))
        torch.testing.assert_close(traced(maps(9, last=last)), layer(maps(9, last=last)))


def test_a_traced_network_follows_train_and_eval_mode(name: str) -> None:
    """As a graph of fx, and as torchvision's feature extractor."""
    net = network(name)
    graph = torch.fx.symbolic_trace(copy.deepcopy(net))
    trains_alike(graph, net, 3)
    extractor = create_feature_extractor(copy.deepcopy(net), {"norm1": "first", "norm2": "second"})
    x, first, second = maps(4, channels=3), [], []
    net.norm1.register_forward_hook(lambda module, inputs, y: first.append(y))
    for training in (True, False):
        second.append(net.train(training)(x))
        got = extractor.train(training)(x)
        assert torch.equal(got["first"], first[-1])
        assert torch.equal(got["second"], second[-1])
        assert torch.equal(graph.train(training)(x), second[-1])
    if CATALOGUE[name].modes:
        assert not torch.allclose(*second, atol=1e-3)


class Branches(nn.Module):
    """Every norm on the same maps, so that one export is of all."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(trained(name) for name in NORMS)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(layer(x) + 0 for layer in self.layers)  # + 0: an input is not an output


@pytest.fixture(scope="module")
def exported() -> tuple[nn.Module, Any]:
    """Every norm by torch.export, for batches of any size, and as an ONNX file that onnxruntime has opened."""
    import onnxruntime

    program = torch.export.export(Branches().eval(), (maps(4),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    found, file = torch.onnx.export(program, dynamo=True, verbose=False), io.BytesIO()
    assert found is not None
    found.save(file)
    return program.module(), onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("images", [2, 9])
def test_export_and_onnx_on_another_batch(images: int, exported: tuple[nn.Module, Any]) -> None:
    x, (module, session) = maps(images), exported
    by_onnx = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    for name, y, other in zip(NORMS, module(x), by_onnx, strict=True):
        expected, told = trained(name)(x), {"msg": lambda text, name=name: f"{name}: {text}"}
        torch.testing.assert_close(y, expected, **told)
        torch.testing.assert_close(torch.from_numpy(other), expected, rtol=1e-4, atol=1e-5, **told)


# Half precision


@pytest.mark.parametrize("kind", ["maps", "maps and layer"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("name", "options"), AFFINE)
def test_statistics_are_in_float32(name: str, options: Any, dtype: torch.dtype, kind: str, last: bool) -> None:
    """Maps of up to 1,000, whose squares float16 cannot hold, give what they give in float32."""
    reference = build(name, **options)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.copy_(parameter.to(dtype))  # rounded alike
    layer = copy.deepcopy(reference)
    if kind != "maps":
        layer = layer.to(dtype)
    x = maps(12, scale=200, mean=0, last=last).clamp(-1000, 1000).to(dtype)
    rtol, atol = (2e-3, 5e-3) if dtype == torch.float16 else (0.02, 0.03)  # eleven bits, or eight
    for training in (True, False):
        y, expected = layer.train(training)(x), reference.train(training)(x.float())
        assert y.dtype == dtype
        torch.testing.assert_close(y.float(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize(("name", "options"), AFFINE)
def test_autocast(name: str, options: Any, last: bool) -> None:
    """Under autocast, after a convolution in bfloat16, in train mode with gradients and in eval mode."""
    reference, conv = build(name, **options), nn.Conv2d(CHANNELS, CHANNELS, 1)
    layer, x = copy.deepcopy(reference), maps(last=last)
    for training in (True, False):
        with torch.autocast("cpu", torch.bfloat16):
            features = conv(x)
            y = layer.train(training)(features)
        expected = reference.train(training)(features.float())
        torch.testing.assert_close(y.float(), expected, rtol=0.02, atol=0.03)
        grad = maps(seed=5).sign()
        got = torch.autograd.grad(y, [features, *layer.parameters()], grad.to(y.dtype), retain_graph=True)
        wanted = torch.autograd.grad(expected, [features, *reference.parameters()], grad)
        for ours, theirs in zip(got, wanted, strict=True):
            torch.testing.assert_close(ours.float(), theirs.float(), rtol=0.05, atol=0.05)


# Layouts


@pytest.mark.parametrize("networks", [None, 1], ids=["alone", "array of one"])
def test_a_single_image_whose_gradient_has_another_layout(name: str, networks: int | None) -> None:
    """torch's batch norm, behind a view, sums such gradients in the wrong order."""
    layer, x, grad = build(name), maps(1), maps(3, seed=4, last=True)[2:]
    state = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
    if networks:
        x, grad = x[:, None], grad[:, None]
        state = {key: value.detach().clone()[None].requires_grad_(value.requires_grad) for key, value in state.items()}
    results = []
    for dy in (grad, grad.contiguous()):
        inputs = [x.clone().requires_grad_(), *(value for value in state.values() if value.requires_grad)]
        values = {key: value if value.requires_grad else value.clone() for key, value in state.items()}
        y = torch.func.functional_call(layer, values, (inputs[0],))
        results.append(torch.autograd.grad(y, inputs, dy))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)


def test_functional_derivatives(name: str) -> None:
    """`torch.func.grad` and `jacrev` give what autograd gives for contiguous maps."""
    layer = trained(name).double() if CATALOGUE[name].state else build(name).double()
    x = maps(2, last=True).double()
    plain = x.contiguous().requires_grad_()
    [expected] = torch.autograd.grad(layer(plain).sin().sum(), plain)
    torch.testing.assert_close(torch.func.grad(lambda x: layer(x).sin().sum())(x), expected)
    torch.testing.assert_close(torch.func.jacrev(lambda x: layer(x).sin().sum((1, 2, 3)))(x).sum(0), expected)


def test_vmap(name: str, last: bool) -> None:
    """Over batches, and the gradients of every image."""
    layer = trained(name) if CATALOGUE[name].state else build(name)
    x = torch.stack([maps(3, seed) for seed in range(4)])
    if last:
        x = x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    torch.testing.assert_close(torch.vmap(layer)(x), torch.stack([layer(each) for each in x]))
    derivative = torch.func.grad(lambda image: layer(image[None]).sin().sum())
    expected = torch.stack([derivative(image.contiguous()) for image in x[0]])
    torch.testing.assert_close(torch.vmap(derivative)(x[0]), expected)


def test_a_mean_of_10000_leaves_the_variance(name: str, last: bool) -> None:
    """Forward and backward, as near to float64 as a mean that is rounded to float32 allows."""
    layer, x, grad = build(name), maps(mean=1e4, last=last).requires_grad_(), maps(seed=4, last=last)
    exact, wide = copy.deepcopy(layer).double(), x.detach().double().contiguous().requires_grad_()
    results = []
    for model, inputs in ((layer, x), (exact, wide)):
        y = model(inputs)
        results.append([y, *torch.autograd.grad(y, [inputs, *model.parameters()], grad.to(inputs.dtype))])
    for got, expected in zip(*results, strict=True):
        atol = 2e-3 * max(1.0, expected.abs().max().item())
        if expected.shape != x.shape:  # a sum over maps, each of which is off by half a unit in the last place
            atol = max(atol, 1e-3 * grad.abs().sum().item() / expected.numel())
        torch.testing.assert_close(got.double(), expected, rtol=2e-3, atol=atol)


def test_a_relu_in_place_may_follow(name: str, last: bool) -> None:
    """As in torchvision's networks."""
    gradients = []
    for relu in (torch.relu, torch.relu_):
        x = maps(last=last).requires_grad_()
        gradients += torch.autograd.grad(relu(build(name)(x * 1)).square().sum(), x)
    torch.testing.assert_close(*gradients)


# Copies and averages


def test_copies(name: str) -> None:
    layer = trained(name).train()
    fresh = build(name)
    fresh.load_state_dict(layer.state_dict())
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), fresh]
    expected = layer(maps())
    for other in copies:
        assert torch.equal(other(maps()), expected)
        same_state(other, layer)


def test_averaged_weights_and_update_bn(name: str) -> None:
    """As StochasticWeightAveraging does it: running averages are the means over a pass, the momentum stays."""
    net = network(name)
    averaged = AveragedModel(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.1)
    averaged.update_parameters(net)
    batches = [maps(9, seed, channels=3) for seed in range(3)]
    momenta = [module.momentum for module in averaged.modules() if isinstance(module, nn.BatchNorm2d)]
    update_bn(batches, averaged)
    assert momenta == [module.momentum for module in averaged.modules() if isinstance(module, nn.BatchNorm2d)]
    if name in BATCH:
        running = getattr(averaged.module.norm1, "running", averaged.module.norm1)
        features = [torch.relu(averaged.module.conv1(x)) for x in batches]
        if CATALOGUE[name].centred:
            expected, average = [maps.mean((0, 2, 3)) for maps in features], running.running_mean
        else:
            expected, average = [maps.var((0, 2, 3)) for maps in features], running.running_var
        torch.testing.assert_close(average, torch.stack(expected).mean(0))
    assert averaged.eval()(batches[0]).isfinite().all()


# Several processes


SHARES = (6, 3)  # images of each process: whole ghost batches
WAYS = ("synchronise", "convert_sync_batchnorm")
SYNCED = [
    (name, way, momentum)
    for name in BATCH
    for way in WAYS
    for momentum in ((0.3, None) if "momentum" in CATALOGUE[name].options else ("",))
    if name != "bn" or way == "synchronise"  # it becomes torch's own SyncBatchNorm, which needs a GPU
]


def steps(name: str, way: str, momentum: Any, images: slice) -> dict[str, torch.Tensor]:
    """Two training steps on some of the images: outputs, gradients and, in the end, buffers."""
    layer = build(name, **({} if momentum == "" else {"momentum": momentum})).double()
    if way == "synchronise":
        synchronise(layer)
    else:
        layer = nn.SyncBatchNorm.convert_sync_batchnorm(layer)
    results = {}
    for step in range(2):
        x = maps(sum(SHARES), step).double()[images].requires_grad_()
        y = layer(x)
        inputs = {"x": x, **dict(layer.named_parameters())}
        grads = torch.autograd.grad(y, list(inputs.values()), maps(sum(SHARES), step + 5).double()[images])
        results |= {f"y{step}": y.detach(), **{f"d{key}{step}": g for key, g in zip(inputs, grads, strict=True)}}
    return results | dict(layer.named_buffers())


def process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=len(SHARES))
    images = slice(sum(SHARES[:rank]), sum(SHARES[: rank + 1]))
    torch.save({case: steps(*case, images) for case in SYNCED}, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def shares(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each of two processes computes, which are started once."""
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(process, (folder,), nprocs=len(SHARES))
    return [torch.load(folder / f"{rank}.pt") for rank in range(len(SHARES))]


def test_conversion_for_several_processes_keeps_the_formula(name: str) -> None:
    net = network(name)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(net))
    assert isinstance(converted.norm1, nn.SyncBatchNorm if name == "bn" else type(net.norm1))
    for step in range(3):
        torch.testing.assert_close(converted(maps(seed=step, channels=3)), net(maps(seed=step, channels=3)))
    assert converted.state_dict().keys() == net.state_dict().keys()
    torch.testing.assert_close(converted.eval()(maps(channels=3)), net.eval()(maps(channels=3)))


@pytest.mark.parametrize("case", SYNCED, ids=str)
def test_two_processes_compute_what_one_does(case: tuple[str, str, Any], shares: list[Any]) -> None:
    expected = steps(*case, slice(None))
    for key, value in expected.items():
        parts = [share[case][key] for share in shares]
        if key[0] == "y" or key[:2] == "dx":
            got = torch.cat(parts)
        elif key[0] == "d":
            got = sum(parts)
        else:
            got = parts[0]
            assert torch.equal(parts[0], parts[1]), key
        torch.testing.assert_close(got, value, rtol=1e-9, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}")


# Their page

PAGE = (REPOSITORY / "docs" / "norms.md").read_text(encoding="utf-8")


def test_the_committed_page_is_what_the_norms_and_the_measurements_say(tmp_path: Path) -> None:
    for name in ("norms.md", "norms.csv"):
        (tmp_path / name).write_bytes((REPOSITORY / "docs" / name).read_bytes())
    renew(tmp_path / "norms.md")
    assert (tmp_path / "norms.md").read_text(encoding="utf-8") == PAGE, "python -m benchmarks.norms_page"
    measured = pd.read_csv(tmp_path / "norms.csv")
    assert cost_part(measured, BATCH_SIZE) in PAGE
    assert set(measured["norm"]) == set(CATALOGUE)
    assert measured["round"].nunique() >= 30
    for word in ("Machine: ", "load before ", "Versions: ", "`python -m benchmarks.norms --rounds "):
        assert word in PAGE


def test_medians_and_ratios_by_hand() -> None:
    """The ratio is that of one round: a round that was slow as a whole changes nothing."""
    steps = {"none": [10, 10, 40, 10, 10], "bn": [20, 21, 80, 19, 20]}
    rows = [(i, name, of[i], 1 + i, 2 + i) for name, of in steps.items() for i in range(5)]
    found = costs(pd.DataFrame(rows, columns=["round", "norm", "step_ms", "forward_ms", "backward_ms"]))
    columns = ["step_ms", "ratio", "low", "high", "forward_ms", "backward_ms"]
    assert found.loc[["none", "bn"], columns].to_numpy().tolist() == [[10, 1, 1, 1, 3, 4], [20, 2, 2, 2, 3, 4]]


def test_the_command_measures_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure(["--rounds", "2", "--batch", "2", "--norms", "frn", "gbn", "--out", str(tmp_path)]) == 0
    page, measured = (tmp_path / "norms.md").read_text(encoding="utf-8"), pd.read_csv(tmp_path / "norms.csv")
    assert measured["norm"][measured["round"] == 1].tolist() != ["none", "frn", "gbn"], "rotates"
    pairs = set(zip(measured["round"], measured["norm"], strict=True))
    assert pairs == {(i, name) for i in (1, 2) for name in ("none", "frn", "gbn")}
    assert (measured[["step_ms", "forward_ms", "backward_ms"]] > 0).all(axis=None)
    assert page.startswith(catalogue_part())
    assert cost_part(measured, 2) in page
    assert "`python -m benchmarks.norms --rounds 2 --batch 2 --norms frn gbn --out docs`" in page
    assert "What they cost" in capsys.readouterr().out


def test_a_busy_machine_is_said() -> None:
    assert "others used the machine" in notes_of(1.7, 2.0, "x")[0]
    assert "others used the machine" not in notes_of(0.1, 1.0, "x")[0]
