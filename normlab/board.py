"""What TensorBoard shows, by its tags, and of a sweep the curves of each setting as a mean over its seeds. No torch."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from normlab.errors import NormlabError
from normlab.record import Record
from normlab.settings import flatten

if TYPE_CHECKING:
    from normlab.settings.plan import Job  # Hydra

MEAN = "mean"  # the folder beside a sweep's runs: TensorBoard's filter ^mean finds what is in it
LEAST = 3  # seeds from which a standard deviation is drawn: of two it says less than their curves

COLUMNS = {  # of metrics.csv -> tag
    "train_loss": "loss/train",
    "train_ce": "ce/train",
    "train_penalty": "penalty/train",
    "train_acc_running": "acc/train_running",
    "val_ce": "ce/val",
    "val_acc": "acc/val",
    "test_ce": "ce/test",
    "test_acc": "acc/test",
    "lr": "optim/lr",
    "images_per_s": "speed/images_per_s",
    "seconds": "speed/seconds",
}

FINAL = {  # of result.json, measured once, at the end -> tag
    "test_acc": "acc/test",
    "test_ce": "ce/test",
    "train_acc": "final/train_acc",
    "train_ce": "final/train_ce",
    "zeros": "final/zeros",
    "small": "final/small",
    "zero_filters": "final/zero_filters",
}

BANDS = ("acc/test", "acc/val", "acc/train_running", "ce/test", "ce/val", "ce/train", "loss/train")
LOWER, UPPER = "mean-sd/", "mean+sd/"  # before the tag of a curve

COMPARED = ("norm", "data", "seed", "l1", "dropout", "lr", "batch_size", "epochs")  # others: where they depart

ABOUT = f"""\
`mean/…` is the mean of a setting's curves over its seeds, of the runs that completed: filter the runs by `^mean`. From
{LEAST} seeds on, CUSTOM SCALARS draws one standard deviation on either side, though nowhere beyond the highest and the
lowest seed, so that an accuracy stays within 0 and 1.

In TIME SERIES, the palette above the runs groups colours by a regular expression: `^(?:mean/)?([a-z0-9_]+)` gives each
norm one colour.
"""


def hyperparameters(config: Mapping[str, Any], setting: Mapping[str, Any]) -> dict[str, float | str]:
    """Return what HPARAMS shows of a run: numbers as numbers, which sort, anything else as text.

    Args:
        config: all settings by dotted name. setting: those that depart from the defaults.
    """
    shown: dict[str, float | str] = {}
    for key, value in config.items():
        if value is None or not (key in COMPARED or key in setting or key.startswith("norm.")):
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and key != "seed"  # which is a name
        shown[key] = float(value) if number else value if isinstance(value, str) else json.dumps(value)
    return shown


def first_of_setting(folder: Path) -> bool:
    """Whether a run has the lowest seed of its setting, of the folders that are there."""
    name, _, seed = folder.name.rpartition("-seed_")
    others = (each.name.rpartition("-seed_")[2] for each in folder.parent.glob(f"{escape(name)}-seed_*"))
    return not any(each.isdecimal() and seed.isdecimal() and int(each) < int(seed) for each in others)


class Means:
    """The means over seeds of a sweep, written setting by setting as their runs end."""

    def __init__(self, jobs: "Sequence[Job]") -> None:
        self.open: dict[str, list[Path]] = {}
        jobs = [job for job in jobs if "tensorboard" in job.settings.logger]
        self.folders = [job.folder for job in jobs]
        for job in jobs:
            self.open.setdefault(_setting(flatten(job.settings.recorded())), []).append(job.folder)

    def update(self, over: Iterable[Path]) -> None:
        """Write the means of each setting whose runs have all ended and that was not written before."""
        ended = set(over)
        for key, folders in list(self.open.items()):
            if ended.issuperset(folders):
                del self.open[key]
                with _tolerant(folders[0].parent):
                    _write_setting(folders, key)

    def finish(self) -> None:
        """Write what is still missing, and what HPARAMS shows of this sweep."""
        self.update(self.folders)
        for parent in {folder.parent for folder in self.folders}:
            with _tolerant(parent):
                _write_columns(parent)


@contextmanager
def _tolerant(parent: Path) -> Iterator[None]:
    """Warn of what cannot be written, or of a damaged metrics.csv: no sweep ends for it."""
    try:
        yield
    except (OSError, NormlabError) as error:
        print(f"normlab: {parent / MEAN}: the means over seeds cannot be written ({error})", file=sys.stderr)


def _setting(config: Mapping[str, Any]) -> str:
    return json.dumps({key: value for key, value in config.items() if key != "seed"}, sort_keys=True)


def _write_setting(folders: Sequence[Path], key: str) -> None:
    """Write the mean and the standard deviation of a setting's curves over all its seeds that are there, those of
    earlier commands included, unless they stand."""
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb  # a third of a second

    from normlab.analysis.cells import Cell  # pandas
    from normlab.analysis.table import Run

    parent, name = folders[0].parent, folders[0].name.rpartition("-seed_")[0] or folders[0].name
    runs = []
    for folder in sorted({*folders, *parent.glob(f"{escape(name)}-seed_*")}):
        record = Record.readable(folder)
        if record is not None and record.status == "completed" and _setting(config := flatten(record.config)) == key:
            runs.append(Run(folder, record, config))
    place = parent / MEAN / name
    if len(runs) < 2 or _stands(place, [run.folder / "result.json" for run in runs]):
        return
    cell = Cell(name, runs[0].config["norm"], {}, tuple(runs))
    curves = {tag: each for column, tag in COLUMNS.items() if (each := cell.series(column)).size}
    for metric, tag in FINAL.items():
        final = cell.values(metric)
        if not np.isfinite(curves.get(tag, np.nan)).any() and len(final) == len(runs):
            curves[tag] = np.full((len(runs), runs[0].config["epochs"]), np.nan)
            curves[tag][:, -1] = list(final.values())
    shown = {}
    for tag, each in curves.items():
        shown[tag] = each.mean(0)
        if len(runs) >= LEAST and tag in BANDS:
            for side, times in ((LOWER, -1), (UPPER, 1)):
                edge = shown[tag] + times * each.std(0, ddof=1)
                shown[side + tag] = edge.clip(each.min(0), each.max(0))
    row = {k: v for k, v in hyperparameters(runs[0].config, runs[0].record.setting).items() if k != "seed"}
    seeds = ", ".join(str(run.record.seed) for run in runs)
    summary = hparams_pb(row, trial_id=f"{MEAN}/{name}")
    _write(place, shown, f"Mean over {len(runs)} seeds: {seeds}.", summary)


def _write_columns(parent: Path) -> None:
    """Tell HPARAMS which columns to show: the settings that vary among the runs of a folder, and acc/test first of what
    they measured; and CUSTOM SCALARS what belongs together."""
    files = sorted(parent.glob("*/result.json"))
    if not files or _stands(parent / MEAN, files):
        return
    from tensorboard.plugins.hparams import summary_v2 as hparams  # a third of a second

    found = [record for file in files if (record := Record.readable(file.parent)) is not None]
    rows = [hyperparameters(flatten(record.config), record.setting) for record in found]
    columns = []
    for key in dict.fromkeys(key for row in rows for key in row):
        values = {row[key] for row in rows if key in row}
        if len(values) > 1:
            numbers = all(isinstance(value, float) for value in values)
            columns.append(hparams.HParam(key, hparams.Discrete(sorted(values if numbers else map(str, values)))))
    if columns:
        metrics = [hparams.Metric(tag) for tag in dict.fromkeys((*FINAL.values(), *COLUMNS.values()))]
        held_out = any(record.config["val_size"] != 0 for record in found)
        bands = [tag for tag in BANDS if held_out or not tag.endswith("/val")]
        _write(parent / MEAN, {}, ABOUT, hparams.hparams_config_pb(columns, metrics), _bands(bands))


def _stands(place: Path, results: Sequence[Path]) -> bool:
    """Whether what was written in a place is newer than all results."""
    newest = max(file.stat().st_mtime for file in results)
    return any(file.stat().st_mtime >= newest for file in place.glob("events*"))


def _bands(tags: Iterable[str]) -> Any:
    """Return the charts of means with their bands."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata
    from tensorboard.util.tensor_util import make_tensor_proto

    charts = []
    for tag in tags:
        series = layout_pb2.MarginChartContent.Series(value=tag, lower=LOWER + tag, upper=UPPER + tag)
        charts.append(layout_pb2.Chart(title=tag, margin=layout_pb2.MarginChartContent(series=[series])))
    layout = layout_pb2.Layout(category=[layout_pb2.Category(title="Mean ± sd over seeds", chart=charts)])
    tensor, about = make_tensor_proto(layout.SerializeToString()), metadata.create_summary_metadata()
    return Summary(value=[Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, tensor=tensor, metadata=about)])


def _write(folder: Path, curves: Mapping[str, Any], text: str, *summaries: Any) -> None:
    """Write a run of TensorBoard in the place of an earlier one.

    Args:
        curves: float (E,) by tag, nan where nothing was measured; the first epoch is 1.
        text: for the Text tab. summaries: what else to show.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.text.summary_v2 import text_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("events*"):
        file.unlink(missing_ok=True)
    writer, now = EventFileWriter(str(folder)), time.time()
    for summary in (text_pb("about", text), *summaries):
        writer.add_event(Event(summary=summary, wall_time=now))
    for tag, values in curves.items():
        for epoch, value in enumerate(values, 1):
            if np.isfinite(value):
                point = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
                writer.add_event(Event(summary=point, step=epoch, wall_time=now))
    writer.close()
