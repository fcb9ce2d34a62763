"""A layer from elsewhere: what is seen of it before training, and that it trains unchanged, alone and in an array."""

import re
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, one_line
from rich.console import Console

from normlab.errors import ConfigError
from normlab.settings.custom import check_custom
from normlab.settings.plan import load
from normlab.training import run, run_array
from normlab.training.build import unfoldable


def checked(target: str, options: str = "{}") -> None:
    check_custom(load("norm=custom", f"norm.target={target}", f"norm.options={options}").norm)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("layers:InPlace", "modified by an inplace operation"),
        ("layers:Detached", "passes no gradient to the layers before it"),
        ("layers:TrainsOnly", "raised KeyError in eval mode: 'running_mean'"),
        ("layers:EvalFlat", r"turns shape \(2, 10, 6, 6\) into \(2, 360\) in eval mode"),
        ("layers:Doubles", r"turns torch\.float32 into torch\.float64: keep the type"),
        ("layers:Mute", r"AssertionError in train mode, without a message, at layers\.py:\d+: assert x\.shape"),
        ("torch.nn:LazyBatchNorm2d", "no shape before it is called"),
        ("torch.nn:GroupNorm", "missing 1 required positional argument"),
        ("torch.nn:LayerNorm", r"normalized_shape=\[10\]"),
    ],
)
def test_what_could_not_be_trained_is_seen_before_training(target: str, told: str) -> None:
    checked("layers:Layer")
    with one_line(ConfigError, told):
        checked(target)


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("torchvision.models.convnext:LayerNorm2d", "{}"),
        ("torchvision.ops:FrozenBatchNorm2d", "{}"),
        ("torchvision.ops.misc:FrozenBatchNorm2d", "{eps: 1e-3}"),
        ("torch.nn:InstanceNorm2d", "{affine: true, track_running_stats: true}"),
        *((f"timm.layers:{name}", "{}") for name in ("LayerNorm2d", "GroupNorm1", "RmsNorm2d", "BatchNormAct2d")),
        *((f"timm.layers:{name}", "{}") for name in ("FilterResponseNormTlu2d", "EvoNorm2dB0")),
        ("timm.layers:EvoNorm2dS0", "{groups: 2}"),
    ],
)
def test_a_layer_of_an_installed_package_serves_unchanged(target: str, options: str) -> None:
    """Whatever weights it is tried with: timm's FRN computes in float32, and its gradients are large."""
    checked(target, options)
    asked = load("norm=custom", f"norm.target={target}", f"norm.options={options}")
    for seed in (4, 5, 6):
        torch.manual_seed(seed)
        assert unfoldable(asked) is None


def test_an_infinite_number_hides_no_difference() -> None:
    """What a layer keeps outside of its buffers is another number in an array, beside whatever else a buffer holds."""
    told = unfoldable(load("norm=custom", "norm.target=layers:Counts"))
    assert "gives other results in an array" in str(told)


def test_it_trains_alone_as_in_an_array(tmp_path: Path, undrawn: None) -> None:
    words = ["norm=custom", "norm.target=torchvision.models.convnext:LayerNorm2d", "data=digits", "epochs=1"]
    words += ["train_size=128", "batch_size=64", "threads=1", "precision=64-true"]
    both = [load(*words, f"seed={seed}") for seed in (0, 1)]
    alone = run(both[0], tmp_path / "alone", console=Console(quiet=True))
    together, _ = run_array(both, [tmp_path / "0", tmp_path / "1"])
    assert alone.status == together.status == "completed"
    assert alone.parameters == 7614
    assert together.device["array"] == 2
    assert together.metrics["test_ce"] == pytest.approx(alone.metrics["test_ce"], rel=1e-9)


PAGE = (REPOSITORY / "docs" / "your_layer.md").read_text(encoding="utf-8")


def test_the_pages_layer_takes_its_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_norm.py").write_text(str(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]))  # type: ignore[index]
    monkeypatch.syspath_prepend(str(tmp_path))
    checked("my_norm:HalfAndHalf", "{share: 0.25}")


def test_the_pages_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\((?!https?://|#)([^)#]+)\)", PAGE):
        assert (REPOSITORY / "docs" / link).exists(), link
