"""Whether two run folders hold the same run, to the last bit."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from normlab.record import Record

TIMES = ("images_per_s", "seconds")


def curves(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]


def shown(folder: Path) -> dict[str, list[Any]]:
    """All that TensorBoard shows, times apart."""
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0, "images": 0, "tensors": 0})
    found.Reload()
    tags = found.Tags()
    said: dict[str, list[Any]] = {
        tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in tags["scalars"] if not tag.startswith("speed/")
    }
    said |= {tag: [(e.step, e.histogram_value.num) for e in found.Histograms(tag)] for tag in tags["histograms"]}
    return said | {tag: [e.step for e in found.Images(tag)] for tag in tags["images"]}


def same(resumed: Path, whole: Path) -> None:
    """Weights, optimizer, curves, predictions, probes, result and views: equal to the last bit."""
    expected, got = Record.load(whole), Record.load(resumed)
    assert got.status == expected.status
    assert json.dumps(got.metrics) == json.dumps(expected.metrics)
    assert curves(resumed) == curves(whole)
    for name in ("last.ckpt", "best.ckpt"):
        a, b = (torch.load(folder / name, weights_only=True) for folder in (resumed, whole))
        assert a["epoch"] == b["epoch"], name
        for key, value in b["state_dict"].items():
            assert torch.equal(a["state_dict"][key], value), (name, key)
        assert a["global_step"] == b["global_step"]
        states = [each["optimizer_states"][0]["state"][0] for each in (a, b)]
        assert states[0].keys() == states[1].keys()
        for key, state in states[1].items():
            assert torch.equal(states[0][key], state)
    if expected.status == "completed":
        a, b = (np.load(folder / "predictions.npz") for folder in (resumed, whole))
        for name in b.files:
            assert a[name].tobytes() == b[name].tobytes(), name
    for name in ("probes.csv", "support.npz", "robustness.csv"):
        assert (resumed / name).exists() == (whole / name).exists()
    for name in ("probes.csv", "robustness.csv"):
        if (whole / name).exists():
            assert (resumed / name).read_text() == (whole / name).read_text()
    expected_views, views = shown(whole), shown(resumed)
    assert views.keys() == expected_views.keys()
    for tag, points in expected_views.items():
        assert views[tag] == points, tag
    assert {f.name for f in resumed.iterdir() if not f.name.startswith("events")} == {
        f.name for f in whole.iterdir() if not f.name.startswith("events")
    }
