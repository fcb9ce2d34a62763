"""Three witnesses of one experiment: docs/naked.py, which is plain torch, the package by torch, and its kernels."""

import ast
import os
from pathlib import Path

import naked
import pytest
import torch
from conftest import REPOSITORY

from normlab.data.sources import load as load_images
from normlab.settings.plan import load
from normlab.training import run


def by_normlab(folder: Path, *words: str) -> tuple[list[torch.Tensor], float]:
    """Return parameters and running statistics, in the order of the network, and the test accuracy."""
    record = run(load("data=digits", "threads=1", *words), folder)
    state = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    accuracy = record.metrics["test_acc"]
    assert accuracy is not None
    return of_network({name: value for name, value in state.items() if name.startswith("net.")}), accuracy


def of_network(state: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [value.double() for value in state.values() if value.is_floating_point()]


def apart(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    return max(float((x - y).abs().max()) for x, y in zip(one, other, strict=True))


def test_it_is_short_and_plain_torch() -> None:
    text = (REPOSITORY / "docs" / "naked.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    nodes = [*ast.walk(ast.parse(text))]
    names = {each.name for node in nodes if isinstance(node, ast.Import) for each in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    roots = {name.partition(".")[0] for name in names}
    assert "torch" in roots
    assert not roots & {"normlab", "lightning", "hydra", "torchmetrics"}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("seed", "l1"), [(0, 0.0), (1, 1e-3), (2, 1e-2)])
@pytest.mark.parametrize("norm", naked.NORMS)
def test_two_epochs_end_with_the_same_weights_by_the_package(norm: str, seed: int, l1: float, tmp_path: Path) -> None:
    """In float64: rounding grows to 1e-11, a different image or number would make a thousandth of a weight."""
    net, accuracy = naked.train(norm, l1, seed, 2, naked.digits(), torch.float64)
    words = f"norm={norm}", f"l1={l1}", f"seed={seed}", "epochs=2", "precision=64-true", "kernels=torch"
    package, package_accuracy = by_normlab(tmp_path / "run", *words)
    assert apart(of_network(net.state_dict()), package) < 1e-9
    assert accuracy == package_accuracy
    assert apart(of_network(naked.network(norm, seed).state_dict()), package) > 0.05


@pytest.mark.parametrize("norm", naked.NORMS)
def test_the_kernels_take_the_same_steps(norm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn) -> None:
    """Three steps of float32, before its rounding has grown: it is half a per cent of their way at most."""
    monkeypatch.setattr(naked, "BATCH", 500)
    plain = of_network(naked.train(norm, 1e-3, 0, 1, naked.digits(), torch.float64)[0].state_dict())
    kernels, _ = by_normlab(tmp_path / "run", f"norm={norm}", "l1=1e-3", "epochs=1", "batch_size=500")
    way = apart(of_network(naked.network(norm, 0).state_dict()), plain)
    assert way > 0.01
    assert apart(plain, kernels) < 0.005 * way


@pytest.mark.mnist
def test_it_reads_mnist_and_digits_as_the_package_does() -> None:
    folder = Path(os.environ["NORMLAB_DATA"]) / "MNIST" / "raw"
    for name, found in ("mnist", naked.mnist(folder)), ("digits", naked.digits()):
        images = load_images(name)
        assert torch.equal(found[0][:, 0], torch.from_numpy(images.train_images).view(found[0][:, 0].shape))
        assert torch.equal(found[1][:, 0], torch.from_numpy(images.test_images).view(found[1][:, 0].shape))
        assert found[2].tolist() == images.train_labels.tolist()
        assert found[3].tolist() == images.test_labels.tolist()
