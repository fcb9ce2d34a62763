"""The refit keeps what is zero at zero, moves the rest, and leaves the run itself as it was."""

from pathlib import Path

import numpy as np
import pytest

from normlab.record import read_support
from normlab.settings.arrays import refusal
from normlab.settings.plan import load
from normlab.training import Classifier, run
from normlab.training import outcome as module

WORDS = ["data=digits", "norm=gn", "epochs=2", "l1=1e-2", "penalty.method=proximal", "batch_size=64", "threads=1"]


def test_a_refit_after_a_single_epoch_begins_with_its_first_draws(tmp_path: Path) -> None:
    """It has the number of the refit's own first epoch."""
    words = ["data=digits", "epochs=1", "train_size=64", "val_size=0", "batch_size=32", "threads=1", "refit_epochs=1"]
    record = run(load(*words), tmp_path)
    assert record.status == "completed", record.error
    assert record.metrics["refit_test_acc"] is not None


@pytest.mark.usefixtures("undrawn")
def test_a_run_with_a_refit(tmp_path: Path) -> None:
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


@pytest.mark.usefixtures("undrawn")
def test_the_support_is_the_same_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[np.ndarray]] = []
    keep = module.keep_zeros

    def watched(model: Classifier) -> None:
        keep(model)
        seen.append([*model.net.parameters()])  # type: ignore[list-item]
        seen.append([(p != 0).numpy() for p in model.net.parameters()])

    monkeypatch.setattr(module, "keep_zeros", watched)
    run(load(*WORDS, "refit_epochs=1"), tmp_path)
    parameters, before = seen
    for parameter, there in zip(parameters, before, strict=True):
        assert np.array_equal((parameter != 0).numpy() & ~there, np.zeros_like(there)), "no zero has moved"


def test_nothing_is_refitted_in_an_array() -> None:
    assert refusal(load("refit_epochs=1")) is not None
    assert refusal(load()) is None
