"""Many networks in one forward pass, and K that train together: each computes what it computes alone."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from unittest.mock import MagicMock

import pytest
import torch
from conftest import KINDS
from plain_loop import by_hand
from torch import nn
from torch.nn.functional import nll_loss
from torch.utils._python_dispatch import TorchDispatchMode

from normlab.data.datamodule import Batch, ImageData
from normlab.data.sources import load as images
from normlab.kernels.compile import compilers
from normlab.nets import Net, norm_layers
from normlab.nets.folded import Stack, StackedState, log_probs
from normlab.norms import CATALOGUE
from normlab.settings import Settings
from normlab.settings.plan import load
from normlab.training.build import bytes_per_image, initial_model, make_trainer, networks_at_once
from normlab.training.callbacks import RunCheckpoints
from normlab.training.device import Replayed
from normlab.training.networks import Member, NetworkArray
from normlab.training.optim import StackedOptimizer

# One forward pass


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


def initial(norm: str | Callable[[int], nn.Module], count: int, dtype: torch.dtype, **options: object) -> list[Net]:
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
    said = log_probs(net, StackedState(stack.named(leaf), stack.buffers), images, training=True)
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
@pytest.mark.parametrize(("count", "placement"), [(1, "post"), (5, "pre"), (24, "post"), (48, "pre")])
def test_in_float64(norm: str, count: int, placement: str) -> None:
    """Outputs, gradients, running statistics after several steps, and outputs in eval mode, which moves nothing."""
    nets = initial(norm, count, torch.float64, placement=placement)
    stack = Stack(nets)
    assert stack.buffers or norm not in ("bn", "gbn", "brn", Own, Derived)
    for step, size in enumerate([6, 5, 4, 3] if count == 5 else [3]):  # the last batch of an epoch is shorter
        images, labels = batch(count, size, torch.float64, seed=step)
        said, grads = together(stack, nets[0], images, labels)
        for index, net in enumerate(nets):
            expected, grad = alone(net.train(), images[index], labels[index])
            assert far(said[index], expected) < 1e-12
            assert far(grads[index], grad) < 1e-10
            for name, values in net.named_buffers():
                torch.testing.assert_close(stack.buffers[name][index], values, rtol=1e-10, atol=1e-12, msg=name)
    stack = Stack(nets)
    kept = {name: values.clone() for name, values in stack.buffers.items()}
    said = log_probs(nets[0], StackedState(stack.named(stack.parameters), stack.buffers), images, training=False)
    for index, net in enumerate(nets):
        torch.testing.assert_close(said[index], net.eval()(images[index]), rtol=1e-10, atol=1e-12)
    assert all(torch.equal(values, kept[name]) for name, values in stack.buffers.items())


AMPLIFIED = ("frn", "ln2d")  # they scale a map or a pixel that is all but dead a thousandfold, and its rounding too


@pytest.mark.parametrize("norm", [norm for norm in EVERY if norm is not Derived], ids=str)
@pytest.mark.parametrize("count", [1, 2, 24, 48])
def test_gradients_in_float32(norm: str, count: int) -> None:
    """Against the single network in float64. `Derived` is torch's batch norm, which alone is off by more than that."""
    options = {"norm_options": {"virtual_batch_size": 4}} if norm == "gbn" else {}
    nets = initial(norm, count, torch.float32, **options)
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


@pytest.mark.parametrize("norm", EVERY, ids=str)
def test_a_network_of_nan_leaves_its_neighbours_as_they_are(norm: str) -> None:
    nets = initial(norm, 3, torch.float32)
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_row_begins_where_a_vector_may(dtype: torch.dtype) -> None:
    """Elsewhere some of torch's operations round otherwise: a network's bits would depend on its place."""
    nets = initial("bn", 3, dtype)
    stack = Stack(nets)
    stack.own(nets)
    for rows in (stack.parameters, stack.grads):
        assert [row.data_ptr() % 64 for row in rows] == [0, 0, 0]
    for net in nets:
        assert net.block2.conv.weight.is_contiguous(memory_format=torch.channels_last), "as convolutions are fastest"


# Training


CPU = torch.device("cpu")
BASE = ["data=digits", "epochs=2", "batch_size=16", "precision=64-true", "threads=1"]  # 54 images: 3 steps and 6 left


def parts(settings: Sequence[Settings]) -> list[ImageData]:
    data, whole = [ImageData.of(each) for each in settings], images("digits")
    sizes = {"train_images": 60, "train_labels": 60, "test_images": 30, "test_labels": 30}
    data[0].hold(replace(whole, **{name: getattr(whole, name)[:size] for name, size in sizes.items()}))
    for other in data[1:]:
        other.hold_as(data[0])
    return data


def networks(settings: Sequence[Settings], at_once: int = 2) -> NetworkArray:
    both = zip(settings, parts(settings), strict=True)
    return NetworkArray([Member(each, data, initial_model(each)) for each, data in both], at_once)


def trained(settings: Sequence[Settings], at_once: int = 2) -> NetworkArray:
    found = networks(settings, at_once)
    make_trainer(settings[0], [], RunCheckpoints(found)).fit(found, datamodule=found.data)
    return found


def weights(net: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def same(found: NetworkArray, settings: Sequence[Settings], tolerance: float = 1e-8) -> None:
    data = parts(settings)
    for index, each in enumerate(settings):
        expected = by_hand(each, data[index])
        distance = ((weights(found.nets[index]) - weights(expected)).norm() / weights(expected).norm()).item()
        assert distance < tolerance, (each.slug(), distance)
        for name, values in expected.named_buffers():
            got = dict(found.nets[index].named_buffers())[name]
            torch.testing.assert_close(got, values, rtol=1e-6, atol=1e-8, msg=name)


# With frn and its ε of 1e-6 a map that is all but dead is scaled a thousandfold; with ln_elem positions of a flat
# background all but tie in max-pool. There the single run itself ends elsewhere (by 0.05 and 3e-5) when its first
# weights change by 1e-15. So frn has a larger ε here, and ln_elem dropout throughout, which leaves no background flat.
SHARED = {
    "gbn": ["norm.virtual_batch_size=12"],
    "brn": ["norm.begin=1", "norm.r_end=4", "norm.d_end=6"],
    "frn": ["norm.eps=1e-2"],
    "ln_elem": ["dropout=0.05"],
}


@pytest.mark.parametrize("norm", [*KINDS, "weight_standardization"])
def test_every_run_of_an_array_is_the_run_alone(norm: str) -> None:
    """Two epochs with their last short batch, augmentation, dropout and both penalty methods.

    Everything that may differ inside an array does, and acts on its own run only.
    """
    own = [
        ["seed=0", "l1=1e-3"],
        ["seed=1", "l1=1e-3", "penalty.method=proximal", "lr_per=64"],
        ["seed=2", "l1=1e-3", "penalty.method=proximal", "penalty.scope=all", "dropout=0.3", "lr=0.02"],
        ["seed=3", "optimizer.momentum=0", "optimizer.weight_decay=1e-2", "gradient_clip=null", "dropout=0.1"],
        ["seed=0", "l1=1e-3", "penalty.scope=conv", "gradient_clip=0.1", "schedule=constant"],
        ["seed=4", "optimizer=adamw", "l1=1e-3", "dropout=0.1"],
        ["seed=5", "optimizer=adamw", "optimizer.betas=[0.8,0.9]", "l1=1e-4", "penalty.method=proximal", "lr=1e-3"],
    ]
    shared = [f"norm={norm}", *SHARED.get(norm, [])] if norm in CATALOGUE else ["norm=gn", f"{norm}=true"]
    settings = [load(*BASE, *shared, *words) for words in own]
    assert [each.dropout for each in settings[2:4]] == [0.3, 0.1], "a run's own words come last"
    same(trained(settings), settings)


PASSES = [(1, ["dropout=0.2"]), (3, ["dropout=0.2"]), (7, ["augment=false"])]
# of one image a step: statistics of a batch are then those of a map; the maps of this network have 36 pixels or more
PASSES += [(2, [f"norm={norm}", "batch_size=1", "train_size=2", "epochs=2"]) for norm in ("bn", "gbn", "brn", "in")]


@pytest.mark.parametrize(("at_once", "words"), PASSES, ids=str)
def test_however_many_share_a_pass(at_once: int, words: list[str]) -> None:
    settings = [load(*BASE, "norm=gn", "placement=pre", "epochs=1", *words, f"seed={seed}") for seed in range(7)]
    same(trained(settings, at_once), settings)


@pytest.mark.skipif(not compilers(), reason="there is no C++ compiler")
@pytest.mark.parametrize("method", ["subgradient", "proximal"])
@pytest.mark.parametrize("norm", ["bn", "ln", "gn"])
def test_the_bits_of_a_run_depend_on_nothing_beside_it(norm: str, method: str) -> None:
    """By the kernels: alone, in arrays of 2 and of 24, on 1 thread and on 2."""
    words = [f"norm={norm}", "l1=1e-3", f"penalty.method={method}", "precision=32-true", "epochs=1", "dropout=0.1"]
    settings = [load(*BASE, *words, f"seed={seed}") for seed in range(24)]
    found: dict[int, set[bytes]] = {0: set(), 1: set(), 2: set()}
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for some in ([0], [1], [2], [0, 1], [2, 1], range(24)):
                array = trained([settings[seed] for seed in some])
                assert array.kernel is not None
                for seed, net in zip(some, array.nets, strict=True):
                    if seed in found:
                        found[seed].add(b"".join(values.numpy().tobytes() for values in net.state_dict().values()))
    finally:
        torch.set_num_threads(before)
    assert {seed: len(bits) for seed, bits in found.items()} == {0: 1, 1: 1, 2: 1}
    assert len(set.union(*found.values())) == 3


def test_what_an_epoch_measures() -> None:
    """Running accuracy and cross-entropy are means over images, the penalty over steps: with a rate of 0 nothing moves,
    and all can be measured again."""
    words = ["augment=false", "l1=1e-3", "lr=1e-30", "epochs=1"]
    settings = [load(*BASE, "norm=gn", *words, f"seed={seed}") for seed in (0, 1)]
    found = trained(settings)
    every, told = found.end_epoch(), predicted(found)["train"]
    for index, measured in enumerate(every):
        labels = found.data.runs[index].train.labels
        ce = nll_loss(told[index], labels).item()
        assert measured["ce/train"] == pytest.approx(ce, rel=1e-5)
        accuracy = (told[index].argmax(1) == labels).double().mean().item()
        assert measured["acc/train_running"] == pytest.approx(accuracy)
        net = initial_model(settings[index]).net
        covered = sum(p.abs().sum().item() for name, p in net.named_parameters() if "weight" in name)
        assert measured["penalty/train"] == pytest.approx(1e-3 * covered, rel=1e-5)
        assert measured["loss/train"] == pytest.approx(ce + 1e-3 * covered, rel=1e-5)


def predicted(found: NetworkArray) -> dict[str, torch.Tensor]:
    batches = make_trainer(found.settings[0], [], RunCheckpoints(found)).predict(found, datamodule=found.data)
    return {part: torch.cat(each, 1) for part, each in zip(found.data.predicted, batches, strict=True)}


@pytest.mark.parametrize("at_once", [1, 200])  # 200 networks share a training pass: three share an evaluation's
def test_what_it_says_of_a_part_is_in_file_order(at_once: int) -> None:
    """And of held-out images, which are each run's own, after every epoch."""
    settings = [load(*BASE, "norm=bn", f"seed={seed}") for seed in (0, 1, 2)]
    found, data = trained(settings, at_once), parts(settings)
    last_epoch, every = found.end_epoch(), predicted(found)
    for index, model in enumerate(found.models):
        for part, told in every.items():
            expected = model.eval()(getattr(data[index], part).images.double() / 255).float()
            torch.testing.assert_close(told[index], expected, rtol=1e-4, atol=1e-5)
        held = data[index].val
        said, measured = model(held.images.double() / 255), last_epoch[index]
        assert measured["ce/val"] == pytest.approx(nll_loss(said, held.labels).item())
        assert measured["acc/val"] == pytest.approx((said.argmax(1) == held.labels).double().mean().item())


class Asked(TorchDispatchMode):
    """Notes every operation that brings a value from the device to Python, or a shape that depends on one."""

    words = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        if any(word in str(func) for word in self.words):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def ready(settings: Sequence[Settings]) -> tuple[NetworkArray, StackedOptimizer, Batch]:
    """Networks on the point of their first step."""
    found = networks(settings)
    found.on_fit_start()
    rows = found.configure_optimizers()
    return found.train(), rows, found.data.on_after_batch_transfer(next(iter(found.data.train_dataloader())), 0)


@pytest.mark.parametrize("norm", ["bn", "rms", "ln2d"])  # on CPU alone gn asks whether its quick way is precise enough
def test_a_step_never_asks_the_device_for_a_value(norm: str) -> None:
    """Else it would wait for a GPU at every step, and could not be recorded as a CUDA graph."""
    words = [*BASE, "precision=32-true", "kernels=torch", f"norm={norm}", "dropout=0.1", "l1=1e-3"]
    settings = [load(*words, f"seed={seed}") for seed in (0, 1)]
    found, rows, batch = ready(settings)
    with Asked() as asked:
        found.gradients(*batch)
        rows.step()
    assert asked.found == []
    with Asked() as asked:
        torch.ones(1).item()
    assert asked.found, "the test can fail"


def test_gradients_change_nothing_that_is_not_named_as_their_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a CUDA graph's warm-up changes is put back; anything forgotten would keep the warm-up's steps."""
    named: list[torch.Tensor] = []

    class Named(Replayed):
        def __init__(self, work: Callable[[], None], state: Sequence[torch.Tensor], *_: object) -> None:
            named.extend(state)
            super().__init__(work, state, CPU, _[1])

    monkeypatch.setattr("normlab.training.networks.Replayed", Named)
    words = [*BASE, "precision=32-true", "kernels=torch", "norm=bn", "l1=1e-3"]
    settings = [load(*words, f"seed={seed}") for seed in (0, 1)]
    found, rows, batch = ready(settings)
    found.manual_backward = torch.Tensor.backward
    tensors = {"parameters": found.stack.parameters, "grads": found.stack.grads, **found.stack.buffers}
    tensors |= {"penalty": found.penalty, "totals": found.totals, **rows.state[rows.matrix]}
    before = {name: value.clone() for name, value in tensors.items()}
    found.replay(*batch)
    changed = {name for name, value in tensors.items() if not torch.equal(value, before[name])}
    assert {"grads", "totals", "penalty", "block1.norm.running_mean"} <= changed
    assert not {"parameters", "momentum_buffer", "step"} & changed
    where = {value.data_ptr() for value in named}
    assert all(tensors[name].data_ptr() in where for name in changed)


@pytest.mark.parametrize("why_not", [None, "operation not permitted when stream is capturing"])
def test_the_warm_up_is_no_step(monkeypatch: pytest.MonkeyPatch, why_not: str | None) -> None:
    """Work is recorded once and replayed; what cannot be recorded runs as it is and says why. By a stand-in for the
    GPU, whose graph is a list of what was called while it was open."""
    recorded: list[Callable[[], None]] = []
    counter, cuda = torch.zeros(1), MagicMock()
    cuda.get_rng_state.side_effect = lambda _: torch.get_rng_state()
    cuda.set_rng_state.side_effect = lambda state, _: torch.set_rng_state(state)
    graph, recording = cuda.graph.return_value, cuda.graph.return_value.__enter__
    cuda.CUDAGraph.return_value.replay.side_effect = lambda: [call() for call in recorded]

    def work() -> None:
        if recording.call_count == graph.__exit__.call_count:
            counter.add_(1)
        elif why_not:
            raise RuntimeError(f"{why_not}\nmore")
        else:
            recorded.append(lambda: counter.add_(1))

    step = Replayed(work, [counter], torch.device("cuda"))
    torch.manual_seed(0)
    random = torch.get_rng_state()
    monkeypatch.setattr(torch, "cuda", cuda)
    for expected in (1, 2, 3):
        step()
        assert counter.item() == expected
    assert step.reason == why_not
    assert torch.equal(random, torch.get_rng_state())
    assert len(recorded) == (0 if why_not else 1)


# How many share a pass


def test_bytes_per_image_by_hand() -> None:
    """Without a norm autograd keeps what goes into convolutions and what comes out of ReLU and the pool."""
    net, with_norm = (initial_model(load(f"norm={norm}")).net for norm in ("none", "gn"))
    maps = 784 + 10 * 676 + 20 * 576 + 10 * 576 + 10 * 144 + 20 * 100 + 12 * 64 + 12 * 36
    small = 12 + 10 + 10
    least, most = 4 * maps, 4 * (maps + small) + 8 * 1440
    assert 1.5 * least <= bytes_per_image(net) <= 1.5 * most * 1.05
    assert bytes_per_image(with_norm) > bytes_per_image(net)


def test_memory_is_a_limit_but_one_network_always_goes() -> None:
    net = initial_model(load("norm=gn")).net
    one = bytes_per_image(net) * 2 / 2**30
    assert networks_at_once(net, 2, 100, memory_limit=5.5 * one) == 5
    assert networks_at_once(net, 2, 100, memory_limit=one / 9) == 1
