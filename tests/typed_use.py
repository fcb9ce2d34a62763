"""What a user's own typed script may look like; `tests/test_package.py` has mypy read it strictly against the wheel.

`assert_type` fails where a type is another one or has become Any, a `type: ignore` where nothing is wrong any more.
"""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from normlab import __version__, byhand
from normlab.analysis import read
from normlab.analysis.table import Run, runs
from normlab.errors import ConfigError, NormlabError
from normlab.lint import Finding, lint
from normlab.nets import Net, Network, l1_norm, norm_layers, penalised, sparsity
from normlab.norms import CATALOGUE, About, load_class, make_norm
from normlab.probes.gradients import StepLoss, along_gradient, covariate_shift, gradient
from normlab.probes.layers import moments
from normlab.record import ProbeRow, Record, Status, read_probes, read_support
from normlab.settings import Settings, Study
from normlab.settings.plan import Job, load, plan
from normlab.training import Classifier, run, run_array


def networks(images: torch.Tensor, labels: torch.Tensor) -> None:
    net = Net(norm="gn", dropout=0.05, norm_options={"num_groups": 2})
    assert_type(net(images), torch.Tensor)
    assert_type(norm_layers(net), dict[str, nn.Module])
    assert_type(make_norm("gn", 20, num_groups=4), nn.Module)
    assert_type(load_class("my_norm:Mine")(20), nn.Module)
    assert_type(make_norm("bn", 20), nn.Module)
    assert_type(CATALOGUE["bn"], About)
    assert_type(penalised(net, "weights"), dict[str, nn.Parameter])
    assert_type(l1_norm(penalised(net, "conv").values()), torch.Tensor)
    assert_type(sparsity(net), dict[str, float])
    Net(norm=lambda channels: nn.GroupNorm(1, channels))
    Net(norm=3)  # type: ignore[arg-type]
    Net("bn", "pre")  # type: ignore[arg-type]

    loss = StepLoss(net, images, labels)
    assert_type(loss(loss.weights), torch.Tensor)
    assert_type(gradient(loss, loss.weights), tuple[float, dict[str, torch.Tensor]])
    assert_type(along_gradient(loss, loss.weights, [0.1, 0.2]), dict[str, float])
    assert_type(moments(images), dict[str, float])
    shift = covariate_shift(loss, loss.weights, loss.weights, {"head": ["head.1.weight"]})
    assert_type(shift, dict[str, dict[str, float]])


def training(folder: Path) -> Record:
    settings = load("norm=gn", "l1=1e-3", "epochs=2")
    assert_type(settings, Settings)
    assert_type(settings.epochs, int)
    assert_type(settings.norm.name, str)
    assert_type(settings.config_hash(), str)
    assert_type(Classifier("gn", l1=1e-3).net, Network)
    assert_type(run_array([settings], [folder]), list[Record])
    load(norm="gn")  # type: ignore[call-arg]
    run(folder, settings)  # type: ignore[arg-type]
    try:
        return run(settings, folder / "gn")
    except ConfigError as error:
        raise NormlabError(f"{error} ({__version__})") from error


def results(folder: Path) -> pd.DataFrame:
    record = Record.load(folder / "gn")
    assert_type(record, Record)
    assert_type(Record.find(folder), Record | None)
    assert_type(record.status, Status)
    assert_type(record.metrics, Mapping[str, float | None])
    assert_type(record.config, Mapping[str, Any])
    assert_type(record.done, bool)
    record.status = "completed"  # type: ignore[misc]

    (one, *_) = runs(folder)
    assert_type(one, Run)
    assert_type(one.curves["test_acc"], npt.NDArray[np.float64])
    assert_type(one.support, npt.NDArray[np.bool_] | None)
    assert_type(read_support(folder), npt.NDArray[np.bool_] | None)
    assert_type(read_probes(folder), list[ProbeRow])
    return read(folder)


def planning() -> list[Finding]:
    jobs = plan(["norm=bn,ln", "seed=range(5)"], multirun=True)
    assert_type(jobs, list[Job])
    assert_type(jobs[0].folder, Path)
    assert_type(Study.named("replication").margin, float)
    return lint([job.settings for job in jobs], Study.named("replication"))


def by_hand() -> Fraction:
    result = byhand.calculate("bn", byhand.default_batch(), byhand.Rules(eps=Fraction(0)))
    assert_type(result, byhand.Result)
    return result.statistics[0].total
