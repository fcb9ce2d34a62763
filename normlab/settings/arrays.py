"""Which runs of a sweep can be trained as one array. No torch: a plan is made before anything heavy is imported."""

import json
from collections.abc import Sequence

from normlab.settings.model import Settings

AFTERWARDS = ("statistics",)  # probes of the trained network: how it was trained is no matter to them
MANY = 4

# What may differ inside an array: the computation needs one value of each per network.
FREE = {
    "seed", "l1", "penalty", "dropout", "optimizer", "lr", "lr_per", "schedule", "gradient_clip",
    "log_dir", "name", "force",
}  # fmt: skip


def why_not_array(settings: Settings) -> str | None:
    """Return why a run cannot be trained in an array at all, in one line; None where it can."""
    if settings.precision == "16-mixed":
        return "precision=16-mixed scales the gradients of a network by its own history"
    if settings.devices > 1:
        return f"devices={settings.devices} is one network on several devices"
    if settings.refit_epochs:
        return "refit_epochs continues each network on its own"
    if within := [probe for probe in settings.probes if probe not in AFTERWARDS]:
        return f"probes=[{','.join(within)}] measures inside a network that trains individually"
    return None


def key(settings: Settings) -> str:
    """Return a text that is equal exactly where two runs can share a computation: the same network shape, norm, batch
    size, epochs, data and device."""
    return json.dumps(settings.model_dump(exclude=FREE), sort_keys=True)


def arrays(settings: Sequence[Settings], largest: int, workers: int = 1) -> tuple[list[list[int]], dict[int, str]]:
    """Return how runs are divided into arrays, by their index, the largest first; and why the others run individually.

    An array has at most `largest` runs. Groups are split so that every worker gets a part of each, unless there are so
    many of them (`MANY` per worker) that all are busy anyway: a large array is the faster one.
    """
    groups: dict[str, list[int]] = {}
    single: dict[int, str] = {}
    for index, each in enumerate(settings):
        if reason := why_not_array(each):
            single[index] = reason
        else:
            groups.setdefault(key(each), []).append(index)
    found = []
    for group in groups.values():
        if len(group) == 1:
            single[group[0]] = "no other run of this sweep has its norm, batch size, epochs, data and device"
            continue
        shares = workers if len(groups) < MANY * workers else 1
        parts = max(-(-len(group) // largest), min(shares, len(group) // 2))
        found += [group[len(group) * i // parts : len(group) * (i + 1) // parts] for i in range(parts)]
    return sorted(found, key=len, reverse=True), single
