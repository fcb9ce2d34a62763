"""Whether two run folders hold the same run, to the last bit; and stopping one on its way."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import csv_rows
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from normlab.record import Record

TIMES = ("images_per_s", "seconds")


@contextmanager
def stop_at(call: int, where: Any, name: str, error: BaseException | type = KeyboardInterrupt) -> Iterator[None]:
    """Within it, the so many-th call of a function, from 1, raises an error before it does anything."""
    real, left = getattr(where, name), [call]

    def stopping(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise error
        return real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, name, stopping)
        yield


@contextmanager
def stopped(call: int, where: Any, name: str) -> Iterator[None]:
    """Within it, somebody presses Ctrl-C at the so many-th call of a function, and all ends."""
    with stop_at(call, where, name), pytest.raises(KeyboardInterrupt):
        yield


def curves(folder: Path) -> list[dict[str, str]]:
    rows = csv_rows(folder / "metrics.csv")
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def shown(folder: Path) -> dict[str, list[Any]]:
    """All that TensorBoard shows, times apart."""
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0, "images": 0, "tensors": 0})
    found.Reload()
    tags = found.Tags()
    scalars = [tag for tag in tags["scalars"] if not tag.startswith("speed/")]
    said: dict[str, list[Any]] = {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in scalars}
    said |= {tag: [(e.step, e.histogram_value.num) for e in found.Histograms(tag)] for tag in tags["histograms"]}
    return said | {tag: [e.step for e in found.Images(tag)] for tag in tags["images"]}


def same(resumed: Path, whole: Path) -> None:
    """Weights, optimizer, curves, predictions, probes, result and views: equal to the last bit."""
    left, expected_left = ({file.name for file in at.iterdir() if file.name[:6] != "events"} for at in (resumed, whole))
    assert left == expected_left
    expected, got = Record.load(whole), Record.load(resumed)
    assert got.status == expected.status
    assert json.dumps(got.metrics) == json.dumps(expected.metrics)
    assert curves(resumed) == curves(whole)
    for name in left & {"last.ckpt", "best.ckpt"}:
        a, b = (torch.load(folder / name, weights_only=True) for folder in (resumed, whole))
        assert (a["epoch"], a["global_step"]) == (b["epoch"], b["global_step"]), name
        optimizers = [each["optimizer_states"][0]["state"][0] for each in (a, b)]
        for one, other in ((a["state_dict"], b["state_dict"]), optimizers):
            assert one.keys() == other.keys()
            for key, values in other.items():
                assert torch.equal(one[key], values), (name, key)
    if expected.status == "completed":
        a, b = (np.load(folder / "predictions.npz") for folder in (resumed, whole))
        assert all(a[name].tobytes() == b[name].tobytes() for name in b.files)
    for name in left & {"probes.csv", "robustness.csv"}:
        assert (resumed / name).read_text() == (whole / name).read_text()
    views, expected_views = shown(resumed), shown(whole)
    assert views.keys() == expected_views.keys()
    for tag, points in expected_views.items():
        assert views[tag] == points, tag
