"""One run on several devices: the gradients, weights and measures of a single process, every image counted once."""

import copy
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import KINDS
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from same_bits import same, stop_at, stopped

from normlab.data.datamodule import Batches, ImageSubset, share
from normlab.errors import ConfigError
from normlab.record import Record
from normlab.settings import Settings
from normlab.settings.plan import load
from normlab.training import run
from normlab.training.build import load_array
from normlab.training.fit import fit_networks
from normlab.training.networks import Member, NetworkArray
from normlab.training.ranks import Rank, as_rank, ranks

LINUX = sys.platform == "linux"
BASE = ["data=digits", "epochs=2", "accelerator=cpu", "threads=1", "precision=64-true", "l1=1e-3", "lr=0.05"]
ODD = ["batch_size=21", "train_size=50", "val_size=61"]  # shares of 10 and 11; 30 and 31 validation images
GHOSTS = ["batch_size=16", "train_size=40", "val_size=1"]  # one validation image: one share of it is empty
UNSYNCED = ["batch_size=16", "train_size=48", "val_size=0"]
OWN = {"gbn": [*GHOSTS, "norm.virtual_batch_size=4"], "brn": [*ODD, "norm.begin=1", "norm.r_end=4", "norm.d_end=3"]}
CASES = {norm: [f"norm={norm}", *OWN.get(norm, ODD)] for norm in KINDS}
CASES |= {
    "unsynced": ["norm=bn", *UNSYNCED],
    "half": ["norm=bn", "precision=bf16-mixed", *ODD],
    "no scales": ["norm=bn", "norm.affine=false", *ODD],
    "standardised": ["norm=bn", "weight_standardization=true", "penalty.method=proximal", *ODD],
}


class Gradients(Callback):
    """Every step's gradients, as the optimizer meets them, before they are clipped."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        named = pl_module.named_parameters()
        self.steps.append({name: p.grad.clone() for name, p in named if p.grad is not None})


class Measured(Checkpoint):
    """What the last epoch has measured."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, NetworkArray)
        [self.values] = pl_module.end_epoch()


Fitted = tuple[list[dict[str, torch.Tensor]], dict[str, torch.Tensor], dict[str, float]]


def fit(words: list[str], rank: Rank | None = None) -> Fitted:
    """The gradients of every step, the network in the end, what was measured in the last epoch."""
    settings = load(*BASE, *words)
    [data], [model] = load_array([settings])
    gradients, measured = Gradients(), Measured()
    module = NetworkArray([Member(settings, data, model)])
    fit_networks(module, [gradients, measured], rank)
    return gradients.steps, copy.deepcopy(model.net.state_dict()), measured.values


def on_two(name: str) -> list[str]:
    return [*CASES[name], "devices=2", f"sync_batchnorm={str(name != 'unsynced').lower()}"]


def beside(ready: Callable[[], None], rank: Rank, settings: Settings) -> None:
    torch.set_num_threads(1)
    ready()
    with as_rank(rank):
        for name in CASES:
            fit(on_two(name), rank)


def listens() -> set[str]:
    """The addresses at which this process listens, as Linux writes them."""
    own = {os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.exists()}
    rows = [row.split() for kind in ("tcp", "tcp6") for row in Path("/proc/net", kind).read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own}


@pytest.fixture(scope="module")
def processes() -> tuple[dict[str, Fitted], int, set[str]]:
    """Every case by two processes, which are started once; who may look where they meet; where the first listens."""
    with ranks(load(*BASE, *on_two("bn")), beside) as rank:
        mode = Path(rank.meeting).parent.stat().st_mode
        return {name: fit(on_two(name), rank) for name in CASES}, mode, listens() if LINUX else set()


@pytest.fixture(scope="module")
def together(processes: tuple[dict[str, Fitted], int, set[str]]) -> dict[str, Fitted]:
    return processes[0]


@pytest.mark.skipif(not LINUX, reason="what a process listens to is read from /proc")
def test_they_talk_over_the_loopback_device_alone(processes: tuple[dict[str, Fitted], int, set[str]]) -> None:
    _, mode, addresses = processes
    assert mode & 0o077 == 0, "where they meet is their owner's"
    assert addresses
    assert addresses <= {"0100007F", "00000000000000000000000001000000"}, "127.0.0.1 and ::1"


def agree(got: dict[str, Any], expected: dict[str, Any], **close: float) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, **close, msg=lambda text, name=name: f"{name}: {text}")


TAGS = ("acc/train_running", "ce/train", "penalty/train", "loss/train", "optim/lr")


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("unsynced", "half")])
def test_two_devices_compute_what_one_does(together: dict[str, Fitted], name: str) -> None:
    """In float64, so that a sum in another order is no difference; with augmentation, clipping and a penalty."""
    gradients, weights, measured = fit(CASES[name])
    got_gradients, got_weights, got = together[name]
    assert len(got_gradients) == len(gradients) == 2 * 3
    for step, expected in zip(got_gradients, gradients, strict=True):
        agree(step, expected, rtol=1e-7, atol=1e-10)
    agree(got_weights, weights, rtol=1e-7, atol=1e-10)
    tags = [*TAGS, "acc/val", "ce/val"]
    agree({t: got[t] for t in tags}, {t: measured[t] for t in tags}, rtol=1e-6, atol=1e-6)  # sums in float32


def test_batch_norm_that_is_not_synchronised_is_ghost_batch_norm(together: dict[str, Fitted]) -> None:
    """Of ghost batches of a device's images, but for the running averages: they are the first device's."""
    gradients, weights, measured = fit([*UNSYNCED, "norm=gbn", "norm.virtual_batch_size=8"])
    got_gradients, got_weights, got = together["unsynced"]
    for step, expected in zip(got_gradients, gradients, strict=True):
        agree(step, expected, rtol=1e-7, atol=1e-10)
    averages = [name for name in weights if "running_" in name]
    plain = {name: name.replace("norm.running.", "norm.") for name in averages}  # gbn keeps them a level deeper
    assert not any(torch.allclose(got_weights[plain[name]], weights[name], rtol=1e-3) for name in averages)
    parameters = [name for name in weights if name not in averages and "tracked" not in name]
    agree({n: got_weights[n] for n in parameters}, {n: weights[n] for n in parameters}, rtol=1e-7, atol=1e-10)
    agree({t: got[t] for t in TAGS}, {t: measured[t] for t in TAGS}, rtol=1e-6, atol=1e-6)


def test_half_precision(together: dict[str, Fitted]) -> None:
    """The first step: as near as eight bits of mantissa let it be, where other statistics would be far."""
    both = [fit(CASES["half"]), together["half"]]
    expected, got = (torch.cat([values.flatten() for values in fitted[0][0].values()]) for fitted in both)
    assert (got - expected).norm() < 0.1 * expected.norm()


WHOLE = ["data=digits", "epochs=2", "accelerator=cpu", "threads=1", "precision=64-true", "norm=bn", "dropout=0.1"]
WHOLE += ["batch_size=32", "train_size=101", "val_size=61", "devices=2", "l1=1e-2", "penalty.method=proximal"]
WHOLE += ["refit_epochs=1", "probes=[statistics]"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run; dropout masks are drawn by each device for its own images."""
    folder = tmp_path_factory.mktemp("devices") / "whole"
    run(load(*WHOLE), folder)
    return folder


def test_a_run_on_two_devices_leaves_what_a_run_leaves(whole: Path, tmp_path: Path) -> None:
    one = run(load(*WHOLE, "devices=1"), tmp_path)
    record = Record.load(whole)
    assert (record.status, record.device["devices"]) == ("completed", 2)
    assert "devices" not in one.device
    assert record.metrics.keys() == one.metrics.keys()
    assert record.metrics["test_acc"] == pytest.approx(one.metrics["test_acc"], abs=0.2), "other masks, one task"
    names = [sorted(file.name.partition("tfevents")[0] for file in place.iterdir()) for place in (whole, tmp_path)]
    assert names[0] == names[1]
    assert "WARNING" not in (whole / "train.log").read_text()


def test_stopped_on_two_devices_it_ends_as_if_it_had_not_been(whole: Path, tmp_path: Path) -> None:
    with stopped(4 + 3, NetworkArray, "training_step"):  # in the second epoch, on the first device
        run(load(*WHOLE), tmp_path)
    assert Record.load(tmp_path).status == "interrupted"
    assert run(load(*WHOLE), tmp_path).time["resumed"] == 1
    same(tmp_path, whole)


@pytest.mark.parametrize(
    ("killed", "told"),
    [("true", "signal 9: is there enough memory?"), ("false", "exit code 1: train.log says why")],
    ids=["killed", "raises"],
)
def test_a_process_that_dies_is_a_reason_in_one_line(tmp_path: Path, killed: str, told: str) -> None:
    own = ["norm=custom", "norm.target=layers:DiesOnASecondDevice", f"norm.options={{killed: {killed}}}"]
    record = run(load(*WHOLE, *own, "sync_batchnorm=false"), tmp_path / "run")
    assert record.status == "failed"
    assert f"the process of device 1 ended with {told}" in str(record.error)
    assert ("ValueError: not here" in (tmp_path / "run/train.log").read_text()) == (killed == "false")
    assert not torch.distributed.is_initialized()


def test_what_this_process_raises_is_told_and_not_blamed_on_another(tmp_path: Path) -> None:
    with stop_at(3, NetworkArray, "training_step", OSError("the disk is gone")):
        record = run(load(*WHOLE), tmp_path)
    assert (record.status, record.error) == ("failed", "OSError: the disk is gone (the traceback is in train.log)")
    assert not torch.distributed.is_initialized()


def test_a_last_step_that_leaves_a_device_without_images_is_refused(tmp_path: Path) -> None:
    """Other refusals of devices=…: test_messages.py."""
    with pytest.raises(ConfigError, match="the last step of an epoch has 1 of 97 training images"):
        run(load(*WHOLE, "train_size=97"), tmp_path)
    assert not (tmp_path / "result.json").exists()


def test_devices_and_their_statistics_are_part_of_a_setting() -> None:
    usual = load("norm=bn")
    assert usual.sync_batchnorm
    two = load("norm=bn", "devices=2")
    assert len({each.config_hash() for each in (usual, two, load("norm=bn", "devices=2", "sync_batchnorm=false"))}) == 3
    assert "devices_2" in two.slug()


@pytest.mark.parametrize("processes", [2, 3, 8])
@pytest.mark.parametrize("images", [1, 2, 7, 40])
def test_every_image_is_in_exactly_one_share(images: int, processes: int) -> None:
    part = ImageSubset(torch.empty(images, 1, 1, 1), torch.empty(images))
    loaders = [[[*range(images)][own] for own in Batches([part], 6, rank, processes)] for rank in range(processes)]
    assert len({len(batches) for batches in loaders}) == 1, "all take the same number of steps"
    assert [index for batches in zip(*loaders, strict=True) for batch in batches for index in batch] == [*range(images)]
    sizes = [[*range(images)][share(images, rank, processes)] for rank in range(processes)]
    assert max(map(len, sizes)) - min(map(len, sizes)) <= 1
