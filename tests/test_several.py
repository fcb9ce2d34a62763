"""K networks that train together: each as a plain loop trains it alone."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from conftest import KINDS
from plain_loop import by_hand
from torch.utils._python_dispatch import TorchDispatchMode

from normlab.data.datamodule import Batch, ImageData
from normlab.data.sources import Images
from normlab.data.sources import load as images
from normlab.kernels.compile import compilers
from normlab.nets import Network
from normlab.norms import CATALOGUE
from normlab.settings import Settings
from normlab.settings.plan import load
from normlab.training.build import bytes_per_image, initial_model, make_trainer, networks_at_once
from normlab.training.callbacks import RunCheckpoints
from normlab.training.device import Replayed
from normlab.training.networks import Networks, Place
from normlab.training.optim import Rows

CPU = torch.device("cpu")
BASE = ["data=digits", "epochs=2", "batch_size=16", "precision=64-true", "threads=1"]  # 54 images: 3 steps and 6 left


def few() -> Images:
    whole = images("digits")
    return replace(
        whole,
        train_images=whole.train_images[:60],
        train_labels=whole.train_labels[:60],
        test_images=whole.test_images[:30],
        test_labels=whole.test_labels[:30],
    )


def parts(settings: Sequence[Settings]) -> list[ImageData]:
    data = [ImageData.of(each) for each in settings]
    data[0].hold(few())
    for other in data[1:]:
        other.hold_as(data[0])
    return data


def networks(settings: Sequence[Settings], at_once: int = 2) -> Networks:
    both = zip(settings, parts(settings), strict=True)
    return Networks([Place(each, data, initial_model(each)) for each, data in both], at_once)


def trained(settings: Sequence[Settings], at_once: int = 2) -> Networks:
    found = networks(settings, at_once)
    make_trainer(settings[0], [], RunCheckpoints(found)).fit(found, datamodule=found.data)
    return found


def weights(net: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def same(found: Networks, settings: Sequence[Settings], tolerance: float = 1e-8) -> None:
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
        [
            "seed=3",
            "optimizer.momentum=0",
            "optimizer.weight_decay=1e-2",
            "gradient_clip=null",
            "dropout=0.1",
            "schedule=constant",
        ],
        ["seed=0", "l1=1e-3", "penalty.scope=conv", "gradient_clip=0.1"],
        ["seed=4", "optimizer=adamw", "l1=1e-3", "dropout=0.1"],
        ["seed=5", "optimizer=adamw", "optimizer.betas=[0.8,0.9]", "l1=1e-4", "penalty.method=proximal", "lr=1e-3"],
    ]
    shared = [f"norm={norm}", *SHARED.get(norm, [])] if norm in CATALOGUE else ["norm=gn", f"{norm}=true"]
    settings = [load(*BASE, *shared, *words) for words in own]
    assert [each.dropout for each in settings[2:4]] == [0.3, 0.1], "a run's own words come last"
    same(trained(settings), settings)


@pytest.mark.parametrize(("at_once", "own"), [(1, "dropout=0.2"), (3, "dropout=0.2"), (7, "augment=false")])
def test_however_many_share_a_pass(at_once: int, own: str) -> None:
    shared = ["norm=gn", "placement=pre", "epochs=1", own]
    settings = [load(*BASE, *shared, f"seed={seed}") for seed in range(7)]
    same(trained(settings, at_once), settings)


def digest(network: Network) -> str:
    content = b"".join(values.numpy().tobytes() for values in network.state_dict().values())
    return hashlib.sha256(content).hexdigest()


@pytest.mark.skipif(not compilers(), reason="there is no C++ compiler")
@pytest.mark.parametrize("method", ["subgradient", "proximal"])
@pytest.mark.parametrize("norm", ["bn", "ln", "gn"])
def test_the_bits_of_a_run_depend_on_nothing_beside_it(norm: str, method: str) -> None:
    """By the kernels: alone, in arrays of 2 and of 24, on 1 thread and on 2."""
    words = [f"norm={norm}", "l1=1e-3", f"penalty.method={method}", "precision=32-true", "epochs=1", "dropout=0.1"]
    settings = [load(*BASE, *words, f"seed={seed}") for seed in range(24)]
    found: dict[int, set[str]] = {0: set(), 1: set(), 2: set()}
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for some in ([0], [1], [2], [0, 1], [2, 1], range(24)):
                array = trained([settings[seed] for seed in some])
                assert array.kernel is not None
                for seed, net in zip(some, array.nets, strict=True):
                    if seed in found:
                        found[seed].add(digest(net))
    finally:
        torch.set_num_threads(before)
    assert {seed: len(digests) for seed, digests in found.items()} == {0: 1, 1: 1, 2: 1}
    assert len(set.union(*found.values())) == 3


@pytest.mark.parametrize("norm", ["bn", "gbn", "brn", "in"])
def test_one_image_a_step(norm: str) -> None:
    """Statistics of a batch are then those of a map; the maps of this network have 36 pixels or more."""
    settings = [load(*BASE, f"norm={norm}", "batch_size=1", "train_size=2", f"seed={seed}") for seed in range(2)]
    found = trained(settings)
    assert found.stack.parameters.isfinite().all()
    assert found.trainer.global_step == 4
    same(found, settings)


def test_what_an_epoch_measures() -> None:
    """Running accuracy and cross-entropy are means over images, the penalty over steps: with a rate of 0 nothing moves,
    and all can be measured again."""
    words = ["augment=false", "l1=1e-3", "lr=1e-30", "epochs=1"]
    settings = [load(*BASE, "norm=gn", *words, f"seed={seed}") for seed in (0, 1)]
    found = trained(settings)
    every, log_probs = found.end_epoch(), predicted(found)["train"]
    for index, measured in enumerate(every):
        labels = found.data.runs[index].train.labels
        ce = torch.nn.functional.nll_loss(log_probs[index], labels).item()
        assert measured["ce/train"] == pytest.approx(ce, rel=1e-5)
        accuracy = (log_probs[index].argmax(1) == labels).double().mean().item()
        assert measured["acc/train_running"] == pytest.approx(accuracy)
        net = initial_model(settings[index]).net
        covered = sum(p.abs().sum().item() for name, p in net.named_parameters() if "weight" in name)
        assert measured["penalty/train"] == pytest.approx(1e-3 * covered, rel=1e-5)
        assert measured["loss/train"] == pytest.approx(ce + 1e-3 * covered, rel=1e-5)


def predicted(found: Networks) -> dict[str, torch.Tensor]:
    batches = make_trainer(found.settings[0], [], RunCheckpoints(found)).predict(found, datamodule=found.data)
    return {part: torch.cat(each, 1) for part, each in zip(found.data.predicted, batches, strict=True)}


@pytest.mark.parametrize("at_once", [1, 200])  # 200 networks share a training pass: three share an evaluation's
def test_what_it_says_of_a_part_is_in_file_order(at_once: int) -> None:
    settings = [load(*BASE, "norm=bn", f"seed={seed}") for seed in (0, 1, 2)]
    found, data = trained(settings, at_once), parts(settings)
    for part, every in predicted(found).items():
        for index, log_probs in enumerate(every):
            model = found.models[index].eval()
            held = getattr(data[index], part)
            expected = model(held.images.double() / 255).float()
            torch.testing.assert_close(log_probs, expected, rtol=1e-4, atol=1e-5)


def test_held_out_images_are_each_runs_own() -> None:
    settings = [load(*BASE, "norm=bn", "epochs=1", f"seed={seed}") for seed in (0, 1, 2)]
    found = trained(settings)
    for index, measured in enumerate(found.end_epoch()):
        held = found.data.runs[index].val
        log_probs = found.models[index].eval()(held.images.double() / 255)
        assert measured["ce/val"] == pytest.approx(torch.nn.functional.nll_loss(log_probs, held.labels).item())
        assert measured["acc/val"] == pytest.approx((log_probs.argmax(1) == held.labels).double().mean().item())


class Asked(TorchDispatchMode):
    """Notes every operation that brings a value from the device to Python, or a shape that depends on one."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        if any(
            word in str(func) for word in ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "unique")
        ):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def ready(settings: Sequence[Settings]) -> tuple[Networks, Rows, Batch]:
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
    tensors |= {"penalty": found.penalty, "totals": found.totals, **rows.state[rows.rows]}
    before = {name: value.clone() for name, value in tensors.items()}
    found.replay(*batch)
    changed = {name for name, value in tensors.items() if not torch.equal(value, before[name])}
    assert {"grads", "totals", "penalty", "block1.norm.running_mean"} <= changed
    assert not {"parameters", "momentum_buffer", "step"} & changed
    where = {value.data_ptr() for value in named}
    assert all(tensors[name].data_ptr() in where for name in changed)


# Recording and replaying, with a stand-in for the GPU


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> tuple[list[Callable[[], None]], dict[str, bool]]:
    """torch.cuda as far as `Replayed` uses it: a graph is a list of what was called while it was open."""
    recorded: list[Callable[[], None]] = []
    recording = {"now": False}

    class Graph:
        def replay(self) -> None:
            for call in recorded:
                call()

    class Stream:
        def __init__(self, *_: object) -> None: ...
        def wait_stream(self, *_: object) -> None: ...

    class Context:
        def __init__(self, what: object = None) -> None:
            self.graph = isinstance(what, Graph)

        def __enter__(self) -> None:
            recording["now"] = self.graph

        def __exit__(self, *_: object) -> None:
            recording["now"] = False

    for name, value in {
        "CUDAGraph": Graph, "Stream": Stream, "stream": Context, "graph": Context,
        "current_stream": Stream, "synchronize": lambda *_: None,
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "set_rng_state": lambda state, *_: torch.set_rng_state(state),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    return recorded, recording


def counting(gpu: tuple, counter: torch.Tensor) -> Callable[[], None]:
    """Work that adds one, and is recorded instead while a graph is open."""
    recorded, recording = gpu

    def work() -> None:
        if recording["now"]:
            recorded.append(lambda: counter.add_(1))
        else:
            counter.add_(1)

    return work


def test_the_warm_up_is_no_step(gpu: tuple) -> None:
    counter = torch.zeros(1)
    step = Replayed(counting(gpu, counter), [counter], torch.device("cuda"))
    torch.manual_seed(0)
    random = torch.get_rng_state()
    for expected in (1, 2, 3):
        step()
        assert counter.item() == expected
    assert step.reason is None
    assert torch.equal(random, torch.get_rng_state())
    assert len(gpu[0]) == 1, "recorded once"


def test_what_cannot_be_recorded_runs_as_it_is_and_says_why(gpu: tuple) -> None:
    counter = torch.zeros(1)

    def work() -> None:
        if gpu[1]["now"]:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        counter.add_(1)

    step = Replayed(work, [counter], torch.device("cuda"))
    for expected in (1, 2, 3):
        step()
        assert counter.item() == expected
    assert step.reason == "operation not permitted when stream is capturing"


# How many share a pass


def test_bytes_per_image_by_hand() -> None:
    """Without a norm autograd keeps what goes into convolutions and what comes out of ReLU and the pool."""
    net = initial_model(load("norm=none")).net
    maps = 784 + 10 * 676 + 20 * 576 + 10 * 576 + 10 * 144 + 20 * 100 + 12 * 64 + 12 * 36
    small = 12 + 10 + 10
    least, most = 4 * maps, 4 * (maps + small) + 8 * 1440
    assert 1.5 * least <= bytes_per_image(net) <= 1.5 * most * 1.05
    assert bytes_per_image(initial_model(load("norm=gn")).net) > bytes_per_image(net)


def test_memory_is_a_limit_but_one_network_always_goes() -> None:
    net = initial_model(load("norm=gn")).net
    one = bytes_per_image(net) * 2 / 2**30
    assert networks_at_once(net, 2, 100, memory_limit=5.5 * one) == 5
    assert networks_at_once(net, 2, 100, memory_limit=one / 9) == 1
