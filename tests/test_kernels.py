"""The compiled kernels of the small network's step, held to torch and to themselves."""

import copy
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY
from torch import nn
from torch.nn.functional import nll_loss

from normlab.data.augment import rotate_and_shift
from normlab.kernels import Gathered, Kernel, library, unsupported
from normlab.kernels import compile as compilation
from normlab.kernels.step import BATCH, IMAGE, NONE, OUTSIDE, kind_of
from normlab.nets import Net
from normlab.nets.folded import Stack
from normlab.norms import CATALOGUE, make_norm

pytestmark = pytest.mark.skipif(not compilation.compilers(), reason="there is no C++ compiler")

NATIVE = ["none", "bn", "gbn", "ln", "gn", "in", "rms"]
LANES = compilation.vectors().bits // 32


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


def build(
    networks: int, norm: str | Callable[[int], nn.Module], dtype: torch.dtype = torch.float64, *, seed: int = 0,
    dropout: float = 0.0, **options: Any,
) -> tuple[list[Net], Kernel]:  # fmt: skip
    """Networks whose norms have learned something, and the kernels on their numbers."""
    nets = []
    for index in range(networks):
        torch.manual_seed(seed + index)
        net = Net(norm=norm, dropout=dropout, **options)
        for parameter in net.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.3 * torch.randn_like(parameter)
        nets.append(net.to(dtype, memory_format=torch.channels_last))  # type: ignore[call-overload]  # of Module.to
    stack = Stack(nets)
    stack.own(nets)
    at = torch.arange(seed, seed + networks)
    return nets, Kernel(nets, stack, 0.1 + 0.01 * at, 0.3 + 0.01 * at, [dropout] * networks)


def batch(kernel: Kernel, size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels: those of a network follow from its place and the seed alone."""
    images, labels = [], []
    for index in range(len(kernel.nets)):
        own = torch.Generator().manual_seed(100 * (seed + index) + size)
        images.append(torch.rand(size, *kernel.net.image, generator=own, dtype=torch.float32))
        labels.append(torch.randint(0, kernel.net.num_classes, (size,), generator=own))
    return torch.stack(images), torch.stack(labels)


def worst(kernel: Kernel, nets: Sequence[Net], size: int, steps: int = 2) -> dict[str, float]:
    """By how much steps of the kernels differ from torch's in float64: gradients relative to the network's largest."""
    wholes = [copy.deepcopy(net).double() for net in nets]
    kernel.stack.own(nets)
    found = dict.fromkeys(("gradients", "log_probs", "buffers", "evaluation"), 0.0)

    def note(name: str, value: torch.Tensor, expected: torch.Tensor, scale: float = 1.0) -> None:
        found[name] = max(found[name], (value - expected).detach().abs().max().item() / scale)

    def normal(index: int, images: torch.Tensor) -> torch.Tensor:
        return (images.to(kernel.mean) - kernel.mean[index]).div(kernel.std[index]).double()

    for step in range(steps):
        images, labels = batch(kernel, size, step)
        kernel.stack.grads.zero_()
        log_probs = kernel.gradients(images, labels, share=0.7)
        for index, (net, own) in enumerate(zip(wholes, nets, strict=True)):
            net.train()
            net.zero_grad()
            expected = net(normal(index, images[index]))
            (0.7 * nll_loss(expected, labels[index])).backward()
            note("log_probs", log_probs[index], expected)
            largest = max(float(parameter.grad.abs().max()) for parameter in net.parameters())  # type: ignore[union-attr]
            for parameter, mine in zip(net.parameters(), own.parameters(), strict=True):
                note("gradients", mine.grad, parameter.grad, largest)  # type: ignore[arg-type]  # both have one
            for buffer, mine in zip(net.buffers(), own.buffers(), strict=True):
                note("buffers", mine, buffer)
    log_probs = kernel.log_probs(images)
    for index, net in enumerate(wholes):
        note("evaluation", log_probs[index], net.eval()(normal(index, images[index])))
    return found


def of_two_kinds(width: int) -> nn.Module:
    return make_norm("bn" if width == 20 else "ln", width)


OPTIONS: list[dict[str, Any]] = [
    {"norm": "bn", "norm_options": {"momentum": None}},
    {"norm": "bn", "norm_options": {"affine": False, "momentum": 0.3}},
    {"norm": "gbn", "norm_options": {"virtual_batch_size": 5}},
    {"norm": "gbn", "norm_options": {"virtual_batch_size": 4, "momentum": None}},
    {"norm": "gn", "norm_options": {"channels_per_group": 1, "eps": 0.1}},
    {"norm": "rms", "norm_options": {"affine": False}},
    {"norm": "bn", "placement": "pre"},
    {"norm": "none", "placement": "pre"},
    {"norm": "dyt", "placement": "pre"},
    {"norm": "gn", "weight_standardization": True},
]
CASES: list[Any] = [
    *(({"norm": norm}, size) for norm in [*NATIVE, "dyt"] for size in (1, 2, 7, 16, 100, 128)),
    *(({"norm": norm}, 6) for norm in CATALOGUE if norm not in [*NATIVE, "dyt"]),
    *((options, size) for options in OPTIONS for size in (3, 37)),
    pytest.param({"norm": of_two_kinds}, 7, id="of two kinds"),  # torch computes them then
    pytest.param({"norm": "bn", "image": (3, 18, 18), "num_classes": 3}, 9, marks=pytest.mark.slow),
    pytest.param({"norm": "bn", "image": (1, 21, 26)}, 9, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("options", "size"), CASES, ids=str)
def test_equal_torch_in_float64(options: dict[str, Any], size: int) -> None:
    many = size <= LANES
    nets, kernel = build(3 if many else 1, **options)
    for name, difference in worst(kernel, nets, size, steps=2 if many else 1).items():
        assert difference < 1e-10, name


def test_kinds_follow_from_the_catalogue() -> None:
    kinds = {name: kind_of(Net(norm=name).block1.norm) for name in CATALOGUE}  # type: ignore[union-attr, arg-type]
    assert {name for name, kind in kinds.items() if kind == IMAGE} == {"ln", "gn", "in", "rms"}
    assert {name for name, kind in kinds.items() if kind == BATCH} == {"bn", "gbn"}
    assert {name for name, kind in kinds.items() if kind == NONE} == {"none", "wn", "nf"}
    assert kinds["sn"] == OUTSIDE


@pytest.mark.parametrize("norm", NATIVE)
def test_float32_is_near_float64(norm: str) -> None:
    # Among millions of numbers some lie so near zero, or so near another one that is pooled with them, that float32 has
    # another sign or order: a gradient of one image then goes another way. So all but one of the seeds have to agree.
    differences = []
    for seed in range(4):
        nets, kernel = build(2, norm, torch.float32, seed=seed)
        differences.append(worst(kernel, nets, 20, steps=1)["gradients"])
    assert sorted(differences)[2] < 1e-5, differences


# Bits


def bits(norm: str, seeds: Sequence[int], size: int, threads: int = 1, nan: int | None = None) -> list[torch.Tensor]:
    """All that two steps and an evaluation give each of some networks."""
    torch.set_num_threads(threads)
    built = [build(1, norm, torch.float32, seed=seed, dropout=0.1) for seed in seeds]
    nets = [own for own, _ in built for own in own]
    stack = Stack(nets)
    stack.own(nets)
    mean, std = (torch.cat([getattr(kernel, name) for _, kernel in built]) for name in ("mean", "std"))
    together = Kernel(nets, stack, mean, std, [0.1] * len(nets))
    batches = [batch(own, size, seed) for seed, (_, own) in zip(seeds, built, strict=True)]
    images, labels = (torch.cat(each) for each in zip(*batches, strict=True))
    if nan is not None:
        nets[nan].get_parameter("block2.conv.weight").data[0, 0, 0, 0] = torch.nan
    for step in range(2):
        log_probs = together.gradients(images, labels, seeds=[1000 + seed for seed in seeds], step=step)
    evaluated = together.log_probs(images)
    every = (stack.grads, log_probs, evaluated, *stack.buffers.values())
    return [torch.cat([each[index].flatten().double() for each in every]) for index in range(len(seeds))]


@pytest.mark.parametrize("size", [2, 5, 100])
@pytest.mark.parametrize("norm", ["none", "bn", "gbn", "gn", "dyt", "wn"])
def test_bits_are_those_of_the_network_alone(norm: str, size: int) -> None:
    alone = {seed: bits(norm, [seed], size)[0] for seed in range(3)}
    assert all(each.isfinite().all() for each in alone.values())
    many = [2, 1, 0] * 8 if size < 100 else [2, 1, 0]
    for seeds, threads in (([1], 2), ([1, 0], 1), ([0, 2], 2), (many, 2)):
        for seed, found in zip(seeds, bits(norm, seeds, size, threads), strict=True):
            assert torch.equal(found, alone[seed]), (seeds, threads, seed)
    broken, *others = bits(norm, [0, 1, 2], size, 2, nan=0)
    assert broken.isnan().any()
    assert all(torch.equal(found, alone[seed]) for seed, found in enumerate(others, 1)), "beside one that diverged"


@pytest.mark.parametrize("norm", ["none", "gn", "bn"])
def test_nan_stays_nan(norm: str) -> None:
    nets, kernel = build(1, norm, torch.float32)
    images, labels = batch(kernel, 20)
    images[0, 3, 0, 10, 10] = torch.nan
    found = kernel.gradients(images, labels)[0]
    expected = nets[0].train()((images[0] - kernel.mean) / kernel.std)
    assert torch.equal(found.isnan(), expected.isnan())
    assert found[3].isnan().all()
    assert kernel.stack.parameters.isfinite().all()
    assert kernel.stack.grads.isnan().any()


def test_after_a_fork() -> None:
    before = bits("gn", [0], 40, threads=2)[0]
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(torch.equal(bits("gn", [0], 40, threads=2)[0], before)))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert queue.get()


# Images


def seen(nets: Sequence[Net], block: str, call: Callable[[], Any]) -> list[torch.Tensor]:
    """What the norms of a block get to see, which torch computes."""
    maps: list[torch.Tensor] = []
    norms = [net.get_submodule(f"{block}.norm") for net in nets]
    hooks = [norm.register_forward_hook(lambda _, inputs, __: maps.append(inputs[0].detach())) for norm in norms]
    call()
    for hook in hooks:
        hook.remove()
    return maps


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_moved_as_by_torch(channels: int) -> None:
    nets, kernel = build(1, "dyt", torch.float32, image=(channels, 28, 28))
    kernel.mean.fill_(0)
    kernel.std.fill_(1)
    weight = nets[0].get_parameter("block1.conv.weight").data.zero_()
    for corner in range(9):
        weight[corner, channels - 1, corner // 3, corner % 3] = 1
    pool = torch.randint(0, 256, (50, channels, 28, 28), dtype=torch.uint8)
    where, draws = torch.randint(0, 50, (1, 21)), torch.rand(1, 21, 3) * 2 - 1
    draws[0, 0] = torch.tensor([1.0, 1.0, -1.0])
    for rotation, shift in ((15.0, 2.5), (180.0, 30.0), (0.0, 0.0)):
        images = Gathered(pool, where, draws, rotation, shift)
        [maps] = seen(nets, "block1", lambda images=images: kernel.log_probs(images))  # type: ignore[misc]
        expected = rotate_and_shift(pool[where[0]] / 255, draws[0], rotation=rotation, shift=shift)[:, channels - 1]
        for corner in range(9):
            window = expected[:, corner // 3 :, corner % 3 :][:, :26, :26]
            torch.testing.assert_close(maps[:, corner], window, rtol=0, atol=1e-5)


def test_a_norm_of_torch_sees_the_images_in_parts() -> None:
    """Of as many images as stay in cache: with the bits of the whole batch, turned images too."""
    nets, kernel = build(2, "sn", torch.float32)
    size = 2 * LANES + 3
    pool, where = torch.randint(0, 256, (90, 1, 28, 28), dtype=torch.uint8), torch.randint(0, 90, (2, size))
    images = Gathered(pool, where, torch.rand(2, size, 3) * 2 - 1, 15.0, 2.5)
    sizes: list[int] = []
    nets[0].block1.norm.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    found = kernel.log_probs(images)
    assert sizes == [2 * LANES, 3]
    for index in range(size):
        alone = images._replace(where=where[:, [index]], draws=images.draws[:, [index]])  # type: ignore[index]
        assert torch.equal(found[:, [index]], kernel.log_probs(alone))


@pytest.mark.parametrize("threads", [1, 4])
def test_a_layer_of_ones_own_sees_the_whole_batch(threads: int) -> None:
    """It may take its statistics from the batch in eval mode as well."""
    torch.set_num_threads(threads)
    [net], kernel = build(1, lambda channels: nn.BatchNorm2d(channels, track_running_stats=False))
    images, _ = batch(kernel, 9 * LANES)
    with torch.no_grad():
        expected = net.eval()((images[0].double() - kernel.mean[0]) / kernel.std[0])
    torch.testing.assert_close(kernel.log_probs(images)[0], expected)


# Dropout


def masks(seeds: Sequence[int], step: int, rate: float, size: int = 40) -> torch.Tensor:
    """What dropout behind block 1 makes of ones: (K, B, 10, 24, 24)."""
    nets, kernel = build(len(seeds), "dyt", torch.float32, dropout=rate)
    kernel.mean.fill_(0)
    kernel.std.fill_(1)
    for net in nets:
        net.block1.norm = nn.Identity()  # type: ignore[assignment]
        net.get_parameter("block1.conv.weight").data.zero_()[:, 0, 1, 1] = 1
        weight = net.get_parameter("block2.conv.weight").data.zero_()
        for channel in range(10):
            weight[channel, channel, 1, 1] = 1
    images, labels = torch.ones(len(seeds), size, 1, 28, 28), torch.zeros(len(seeds), size, dtype=torch.long)
    maps = seen(nets, "block2", lambda: kernel.gradients(images, labels, seeds=seeds, step=step))
    return torch.stack(maps)[:, :, :10]


def test_dropout_drops_its_share_and_scales_the_rest() -> None:
    for rate in (0.05, 0.3):
        found = masks([1], 0, rate)
        kept = found > 0
        torch.testing.assert_close(found[kept], torch.full_like(found[kept], 1 / (1 - rate)))
        sd = (rate * (1 - rate) / kept.numel()) ** 0.5
        assert abs(1 - kept.double().mean() - rate) < 4 * sd


def test_dropout_masks_are_independent() -> None:
    found = torch.cat([masks([1, 2], 0, 0.5), masks([1], 1, 0.5)]) > 0  # networks and steps
    rows = found.flatten(0, 1).flatten(1).double()
    correlations = torch.corrcoef(rows)[~torch.eye(len(rows), dtype=torch.bool)]
    assert correlations.abs().max() < 5.5 / rows.shape[1] ** 0.5  # of 7,140 pairs
    plane = (found[0].double() - 0.5) * 2
    for axis in range(4):  # images, channels, rows, columns
        low, high = plane.narrow(axis, 0, plane.shape[axis] - 1), plane.narrow(axis, 1, plane.shape[axis] - 1)
        assert abs((low * high).mean()) < 4.5 / low.numel() ** 0.5


def test_dropout_masks_do_not_depend_on_lanes() -> None:
    both = masks([7, 8], 3, 0.2, size=LANES + 2)
    assert torch.equal(masks([8], 3, 0.2, size=2)[0], both[1, :2])


@pytest.mark.parametrize("norm", ["none", "gn", "bn", "dyt"])
@pytest.mark.parametrize("placement", ["post", "pre"])
def test_gradient_with_dropout_is_the_slope(norm: str, placement: str) -> None:
    _, kernel = build(1, norm, dropout=0.3, placement=placement)
    images, labels = batch(kernel, 9)

    def loss() -> torch.Tensor:
        return nll_loss(kernel.gradients(images, labels, seeds=[5], step=2)[0], labels[0])

    loss()
    grad = kernel.stack.grads.clone()
    start, way = kernel.stack.parameters.clone(), torch.nn.functional.normalize(grad)
    values = []
    for step in (1e-6, -1e-6):
        kernel.stack.parameters.copy_(start + step * way)
        values.append(loss())
    assert (values[0] - values[1]).item() / 2e-6 == pytest.approx((grad * way).sum().item(), rel=1e-6)


@pytest.mark.parametrize("rates", [(0.2, 0.0), (0.0, 0.2)])
def test_networks_may_drop_at_different_rates(rates: tuple[float, float]) -> None:
    """Also where the first of an array has no dropout."""
    nets = [build(1, "gn", torch.float32, seed=seed, dropout=rate)[0][0] for seed, rate in enumerate(rates)]
    stack = Stack(nets)
    both = Kernel(nets, stack, torch.zeros(2), torch.ones(2), rates)
    images, labels = batch(both, 5)
    both.gradients(images, labels, seeds=[3, 4])
    dropping = [{f"block{block}.dropout" for block in (1, 3, 5)} if rate else set() for rate in rates]
    assert [set(both.masks(i, 5, seed=3, step=0)) for i in (0, 1)] == dropping
    for index, rate in enumerate(rates):
        own = Stack(nets[index : index + 1])
        alone = Kernel(nets[index : index + 1], own, torch.zeros(1), torch.ones(1), [rate])
        alone.gradients(images[index : index + 1], labels[index : index + 1], seeds=[3 + index])
        assert torch.equal(own.grads[0], stack.grads[index])


def test_two_python_threads_train_side_by_side() -> None:
    torch.set_num_threads(2)
    kernels = [build(1, norm, torch.float32, seed=3)[1] for norm in ("gn", "bn", "gn", "bn")]
    images, labels = batch(kernels[0], 100)

    def train(kernel: Kernel) -> torch.Tensor:
        kernel.stack.grads.zero_()
        for _ in range(3):
            kernel.gradients(images, labels)
        return kernel.stack.grads.clone()

    expected = [train(kernel) for kernel in kernels]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert all(map(torch.equal, pool.map(train, kernels), expected))


def test_small_batches_without_a_library_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    nets, kernel = build(3, "gn", torch.float32)
    images, labels = batch(kernel, 2)
    kernel.gradients(images, labels)
    other = Kernel(nets, Stack(nets), kernel.mean, kernel.std)
    monkeypatch.setattr("normlab.kernels.step.library", lambda *_: "the disk is full")
    other.gradients(images, labels)
    assert torch.equal(other.stack.grads, kernel.stack.grads)


# What is refused, and compilation


def test_what_is_not_supported() -> None:
    assert unsupported(Net()) is None
    assert "float16" in str(unsupported(Net().half()))
    assert "small" in str(unsupported(nn.Conv2d(1, 1, 1)))
    assert "size" in str(unsupported(Net(size=(32, 32))))
    _, kernel = build(1, "bn", torch.float32)
    kernel.stages = [kernel.stages[0].__class__("block5", 12, 12, 3, (1, 1), True, True, False)]
    with pytest.raises(ValueError, match="no variance"):
        kernel.gradients(*batch(kernel, 1))


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compilation, "find_spec", lambda _: None)
    reason = library.__wrapped__(1, 10, (28, 28))
    assert isinstance(reason, str)
    assert "normlab[compiler]" in reason
    assert "\n" not in reason


def compiler(folder: Path, text: str) -> str:
    script = folder / f"compiler{len(list(folder.iterdir()))}"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    return str(script)


def test_broken_compilers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # one of them writes where it stands
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for command, reason in (
        (compiler(tmp_path, 'echo "note\nx.h:1: error: too new\nmore" >&2; exit 1'), "error: too new"),
        (str(tmp_path / "absent"), "cannot be compiled"),
        (compiler(tmp_path, "exit 0"), "wrote nothing"),
        (compiler(tmp_path, 'for last; do :; done; echo no library > "$last"'), "cannot be compiled"),
    ):
        monkeypatch.setenv("CXX", command)
        found = library.__wrapped__(1, 10, (28, 28))
        assert isinstance(found, str)
        assert reason in found
        assert "\n" not in found
    assert not list(tmp_path.rglob("*.so")), "nothing damaged stays"


def test_two_processes_compile_once(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    text = f'[ "$1" = --version ] && exit 0; echo >> {calls}; sleep 0.5; for last; do :; done; echo library > "$last"'
    code = "import runpy, sys; of = runpy.run_path(sys.argv[1]); print(of['compiled'](of['HERE'] / 'step.cpp', {}))"
    environment = os.environ | {"CXX": compiler(tmp_path, text), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", code, compilation.__file__]  # without torch, which takes long
    how = {"env": environment, "cwd": REPOSITORY, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **how) for _ in range(2)]  # type: ignore[call-overload]
    first, second = (process.communicate(timeout=60)[0].strip() for process in both)
    assert first == second
    assert Path(first).read_text() == "library\n"
    assert len(calls.read_text().splitlines()) == 1
