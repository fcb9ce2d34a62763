"""Runs sorted into settings (cells). What may mislead in them, `normlab.lint` tells."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from normlab.analysis.table import Run, varying
from normlab.errors import NormlabError
from normlab.norms import CATALOGUE
from normlab.settings.conf import instead, spell
from normlab.settings.corruptions import CORRUPTIONS
from normlab.settings.parts import DATA_TITLES

# How much was learned from, and what was measured: the yardstick itself.
PROTOCOL = ("data", "epochs", "train_size", "val_size")


@dataclass(frozen=True)
class Cell:
    """The runs of one setting: they differ in the seed alone.

    Attributes:
        label: short and unique in its report, starting with the norm: "bn", "bn l1=0.001".
        levels: the value of each factor.
        ended: every run that left a record, in the order of seeds; completed: those whose numbers count.
    """

    label: str
    norm: str
    levels: Mapping[str, Any]
    ended: tuple[Run, ...]

    @cached_property
    def completed(self) -> tuple[Run, ...]:
        return tuple(run for run in self.ended if run.record.status == "completed")

    def values(self, metric: str) -> dict[int, float]:
        """seed → value of a metric of result.json, or of `unevenness`; runs without it left out."""
        found = {run.record.seed: value(run, metric) for run in self.completed}
        return {seed: number for seed, number in found.items() if number is not None}

    def mean(self, metric: str) -> float:
        """Of `values`; NaN where there are none."""
        values = self.values(metric)
        return float(np.mean(list(values.values()))) if values else float("nan")

    def series(self, name: str) -> npt.NDArray[np.float64]:
        """A column of metrics.csv: float (S, E), one row per seed, NaN where nothing was measured."""
        rows = [run.curves[name] for run in self.completed if name in run.curves]
        out = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
        for i, row in enumerate(rows):
            out[i, : len(row)] = row
        return out

    @cached_property
    def predicted(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] | None:
        """pred uint8 (S, N) and true uint8 (N,), of the runs that left predictions; None where none did."""
        found = [run.predictions for run in self.completed if run.predictions and "true" in run.predictions]
        same = [arrays for arrays in found if np.array_equal(arrays["true"], found[0]["true"])]
        return (np.stack([arrays["pred"] for arrays in same]), found[0]["true"]) if same else None

    @cached_property
    def best_epoch(self) -> float:
        """Mean over seeds of the best test accuracy of any epoch, as it is often published; NaN where none was
        drawn."""
        best = [float(np.nanmax(curve)) for curve in self.series("test_acc") if np.isfinite(curve).any()]
        return float(np.mean(best)) if best else float("nan")


@dataclass(frozen=True)
class RunsBySetting:
    """All runs of a report by setting. factors: what differs between settings; notes: what was left out."""

    cells: tuple[Cell, ...]
    factors: tuple[str, ...]
    data: str
    notes: tuple[str, ...]

    @property
    def data_title(self) -> str:
        """What people call the data set."""
        return DATA_TITLES.get(self.data, self.data)

    @property
    def norms(self) -> dict[str, str]:
        """The norm of each setting, by its label."""
        return {cell.label: cell.norm for cell in self.cells}

    @property
    def ended(self) -> list[Run]:
        return [run for cell in self.cells for run in cell.ended]

    @property
    def completed(self) -> list[Run]:
        return [run for cell in self.cells for run in cell.completed]

    @property
    def lost(self) -> list[Run]:
        return [run for run in self.ended if run.record.status != "completed"]


def chosen(found: Sequence[Run], choose: Sequence[str]) -> list[Run]:
    """Return the runs that have one of the wanted values of each setting: "norm=bn,ln", "l1=0".

    Raise `NormlabError` where a name is no setting of these runs, or nothing is left.
    """
    wanted = {}
    for given in choose:
        key, equals, values = given.partition("=")
        if not (key and equals and values):
            raise NormlabError(f"{given}: write setting=value, as in norm=bn,ln")
        wanted[key] = values.split(",")
    for key, words in wanted.items():
        have = {spell(run.config.get(key)) for run in found} if any(key in run.config for run in found) else set()
        if not have:
            differ = varying([run.config for run in found])
            raise NormlabError(f"{key} is no setting of these runs; they differ in {', '.join(differ) or 'nothing'}")
        for text in words:
            if not any(_same(text, other) for other in have):
                raise NormlabError(f"{key}={text}: no such run here; {instead(text, sorted(have))}")
    left = [
        run
        for run in found
        if all(any(_same(text, spell(run.config.get(key))) for text in words) for key, words in wanted.items())
    ]
    if not left:
        raise NormlabError("no run has all of these settings at once: leave one out")
    return left


def group_runs(
    found: Sequence[Run], factors: Sequence[str] = (), left_out: Sequence[str] = (), keys: Sequence[str] | None = None
) -> RunsBySetting:
    """Sort runs into settings.

    Args:
        factors: what the study varies on purpose, the protocol included. left_out: notes on what could not be read.
        keys: what settings are told apart by; what differs between them unless given.

    Raise `NormlabError` where runs of several data sets or protocols lie together.
    """
    for key in PROTOCOL:
        have = sorted({spell(run.config.get(key)) for run in found})
        if len(have) > 1 and (key == "data" or key not in factors):
            raise NormlabError(
                f"these runs differ in {key} ({', '.join(have)}), so they cannot be compared: choose some, "
                f"as in {key}={have[0]}"
            )
    keys = tuple(keys or factors_of([run.config for run in found], factors))
    notes = [*left_out]
    groups: dict[str, list[Run]] = {}
    for run in found:
        groups.setdefault(json.dumps([run.config.get(key) for key in keys]), []).append(run)
    cells = []
    for group in groups.values():
        kept: dict[int, Run] = {}
        for run in sorted(group, key=lambda run: (not run.record.done, str(run.folder))):
            if run.record.seed in kept:
                notes.append(_twice(kept[run.record.seed], run))
            else:
                kept[run.record.seed] = run
        first = group[0].config
        levels = {key: first.get(key) for key in keys}
        cells.append(
            Cell(setting_label(levels), str(first["norm"]), levels, tuple(kept[seed] for seed in sorted(kept)))
        )
    order = {key: _levels(key, cells) for key in keys}
    cells.sort(key=lambda cell: [order[key].index(cell.levels[key]) for key in keys])
    return RunsBySetting(tuple(cells), keys, str(found[0].config["data"]), tuple(notes))


def _twice(kept: Run, other: Run) -> str:
    """What to say of a second folder with a setting's seed."""
    accs = [run.record.metrics.get("test_acc") for run in (kept, other)]
    differ = "the same result" if kept.record.metrics == other.record.metrics else "two different results"
    if differ != "the same result" and None not in accs:
        differ += f" (test accuracy {100 * (accs[0] or 0):.2f} and {100 * (accs[1] or 0):.2f} %)"
    return f"{kept.folder} and {other.folder} hold {differ} of one run: the first counts. Move one of them away."


def factors_of(configs: Sequence[Mapping[str, Any]], first: Sequence[str] = ()) -> tuple[str, ...]:
    """What differs between the settings of these configurations, as `flatten` gives them: the norm, then those named
    first, then the others. What comes along with a choice is none, nor are seed and data. The order of the runs does
    not matter: a study that ends by itself asks what its report asks."""
    configs = sorted(configs, key=lambda config: json.dumps({**config, "seed": None}, sort_keys=True))
    differ = [key for key in varying(configs) if key not in ("seed", "data") and not _comes_along(key, configs)]
    named = [key for key in ("norm", *first, *differ) if any(key in config for config in configs)]
    return tuple(dict.fromkeys(key for key in named if key != "seed" and (key == "norm" or key in differ)))


def value(run: Run, metric: str) -> float | None:
    """A number of one run: a metric of result.json, or

    `shifted_acc`, `rotated_acc`, …: the mean accuracy over five strengths of a corruption of the test images, in eval
    mode; `robust_acc`: over all kinds of corruption. None where one was not measured;

    `unevenness`: Σ over epochs of max(0, acc(e-1) - acc(e)), in accuracy: how much ground the held-out accuracy lost on
    its way, 0 where it only rose. Test accuracy where it was drawn, else validation; None where neither was.
    """
    kind = metric.removesuffix("_acc")
    if kind in CORRUPTIONS or kind == "robust":
        return run.corrupted(CORRUPTIONS if kind == "robust" else [kind])
    if metric != "unevenness":
        return run.record.metrics.get(metric)
    for name in ("test_acc", "val_acc"):
        curve = run.curves.get(name, np.array([]))
        curve = curve[np.isfinite(curve)]
        if len(curve) > 1:
            return float(np.maximum(0, -np.diff(curve)).sum())
    return None


def at_chance(run: Run) -> bool:
    """Whether an accuracy is no better than always naming the commonest class (within three standard errors)."""
    acc, images = run.record.metrics.get("test_acc"), run.record.data.get("test") or 0
    true = (run.predictions or {}).get("true")
    chance = float(np.bincount(true).max() / true.size) if true is not None and true.size else 0.1
    return acc is not None and acc <= chance + 3 * (chance * (1 - chance) / max(images, 1)) ** 0.5


def trained(cell: Cell) -> bool:
    """Whether every run of a setting that came to an end trained: none diverged or stayed at chance."""
    diverged = any(run.record.status == "diverged" for run in cell.ended)
    return bool(cell.completed) and not diverged and not any(at_chance(run) for run in cell.completed)


def holds(cell: Cell, wanted: Mapping[str, Any]) -> bool:
    """Whether the runs of a setting have these values."""
    return all(level(cell, key) == wanted[key] for key in wanted)


def level(cell: Cell, factor: str) -> Any:
    """What a setting's runs have of a factor, whether or not it differs between settings."""
    return cell.ended[0].config.get(factor)


def without(cell: Cell, *factors: str) -> str:
    """A setting's label without some of its factors and their options."""
    return setting_label({key: x for key, x in cell.levels.items() if not {key, key.partition(".")[0]} & {*factors}})


def alike(cells: Sequence[Cell], factor: str) -> dict[str, list[Cell]]:
    """Settings that differ in a factor alone, by what they share; its levels upwards."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(without(cell, factor), []).append(cell)
    return {rest: sorted(group, key=lambda cell: level(cell, factor)) for rest, group in groups.items()}


def best(cells: Sequence[Cell]) -> Cell | None:
    """Return the setting with the highest validation accuracy, of those in which every run trained, mean over the seeds
    that all of these have; of equal ones the first. None where no images were held out, or nothing trained."""
    able = [(cell, cell.values("val_acc")) for cell in cells if trained(cell) and cell.values("val_acc")]
    common = set.intersection(*(set(values) for _, values in able)) if able else set[int]()

    def mean(each: tuple[Cell, dict[int, float]]) -> float:
        own = [acc for seed, acc in each[1].items() if seed in common or not common]
        return round(float(np.mean(own)), 6)  # runs keep val_acc in float32: the same images count as equal

    return max(able, key=mean)[0] if able else None


def tuned(found: RunsBySetting, factor: str) -> RunsBySetting:
    """Return the settings without a factor, each at its `best` level; at the lowest where nothing is best."""
    cells = [
        replace(best(of) or of[0], label=rest, levels={key: x for key, x in of[0].levels.items() if key != factor})
        for rest, of in alike(found.cells, factor).items()
    ]
    return replace(found, cells=tuple(cells), factors=tuple(name for name in found.factors if name != factor))


def _same(text: str, other: str) -> bool:
    try:
        return float(text) == float(other)
    except ValueError:
        return text == other


def setting_label(levels: Mapping[str, Any]) -> str:
    """ "bn l1=0.001": the norm, then every other factor; an L1 of 0 and an option that a norm lacks are left out."""
    left = {
        key: x for key, x in levels.items() if (key != "l1" or x) and (x is not None or not key.startswith("norm."))
    }
    return " ".join(str(x) if key == "norm" else f"{key}={spell(x)}" for key, x in left.items())


def _levels(key: str, cells: Sequence[Cell]) -> list[Any]:
    """A factor's levels: norms in the order of the catalogue, numbers upwards, then words by their letters."""
    have = list({spell(cell.levels[key]): cell.levels[key] for cell in cells}.values())
    if key == "norm":
        listed = list(CATALOGUE)
        return sorted(have, key=lambda name: (listed.index(name) if name in listed else len(listed), str(name)))
    return sorted(have, key=lambda level: (0, level, "") if numeric([level]) else (1, 0, spell(level)))


def numeric(levels: Sequence[Any]) -> bool:
    return all(isinstance(level, (int, float)) and not isinstance(level, bool) for level in levels)


def _comes_along(key: str, configs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an option changes only with what it is an option of (norm, net, optimizer), or the shift of images only
    from something to nothing, as their rotation does: `augment=false`. It then needs no mention of its own."""
    with_owner = "augment.rotation" if key == "augment.shift" else key.partition(".")[0]
    if with_owner == key or with_owner not in configs[0]:
        return False
    pairs = {(spell(config[with_owner]), spell(config.get(key))) for config in configs}
    if key == "augment.shift":
        return len(pairs) == 2 and ("0", "0") in pairs
    return len(pairs) == len({owner for owner, _ in pairs})
