"""What a run writes while it trains: metrics.csv, TensorBoard's events, checkpoints. Knows no Lightning."""

import io
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from normlab.board import COLUMNS, FINAL, first_of_setting
from normlab.errors import first_line
from normlab.files import write_atomically
from normlab.nets import Network
from normlab.probes.layers import Value
from normlab.record import ProbeRow, RecordError, read_probes, write_metrics, write_probes
from normlab.settings import Settings
from normlab.training.loggers import Loggers
from normlab.training.views import show_filters, show_graph, show_hyperparameters, show_norms, show_settings

OWN_KEY = "normlab"  # the key of a checkpoint that is not Lightning's
EVENTS = "events.out.tfevents."
STATE_OF = {"sgd": ("momentum_buffer",), "adamw": ("exp_avg", "exp_avg_sq")}  # of an optimizer, by torch's names


@dataclass(frozen=True)
class ResumePoint:
    """A run that stopped after a completed epoch.

    Attributes:
        file: its checkpoint. step: how many optimizer steps are taken. rows: of metrics.csv, one per completed epoch.
        fit_s: seconds of training so far. resumed: how often it was resumed before. kernels: whether the kernels
        trained it. loggers: the id of its run in each.
    """

    file: Path
    step: int
    rows: Mapping[int, dict[str, float]]
    fit_s: float
    resumed: int
    kernels: bool
    loggers: Mapping[str, str]

    @property
    def epoch(self) -> int:
        return max(self.rows)

    def content(self) -> dict[str, Any]:
        """Return the whole checkpoint, on the CPU."""
        return torch.load(self.file, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]


def resume_point(settings: Settings, folder: Path) -> ResumePoint | str | None:
    """Return how far a run has come whose last.ckpt lies in a folder; why that cannot be used, in one line; None if
    there is none."""
    file = folder / "last.ckpt"
    if not file.is_file():
        return None
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        own = content[OWN_KEY]
        if own["config_hash"] != settings.config_hash():
            for accelerator in ("cpu", "gpu"):
                if own["config_hash"] == settings.model_copy(update={"accelerator": accelerator}).config_hash():
                    return f"last.ckpt was trained by accelerator={accelerator}, which would resume it"
            return f"last.ckpt is of another configuration ({own['config_hash']})"
        rows = {int(epoch): dict(row) for epoch, row in own["rows"].items()}
        if sorted(rows) != list(range(1, max(rows) + 1)):
            return "last.ckpt lacks epochs of metrics.csv"
        if settings.probes:
            read_probes(folder)
        times = float(own["fit_s"]), int(own["resumed"])
        return ResumePoint(file, int(content["global_step"]), rows, *times, bool(own["kernels"]), dict(own["loggers"]))
    except RecordError:
        return "probes.csv is damaged"
    except Exception as error:  # a damaged file may raise anything
        return f"last.ckpt cannot be read ({first_line(error)[:80]})"


class RunFiles:
    """The files of one run, from its first epoch on.

    Args:
        before: where the run resumes; None: it begins.

    Attributes:
        rows: of metrics.csv, by epoch. fit_s: seconds of training. resumed: how often the run was resumed.
    """

    def __init__(self, settings: Settings, folder: Path, before: ResumePoint | None = None) -> None:
        self.settings, self.folder, self.before = settings, folder, before
        self.rows: dict[int, dict[str, float]] = {**before.rows} if before else {}
        self.fit_s, self.resumed = (before.fit_s, before.resumed + 1) if before else (0.0, 0)
        shown = "tensorboard" in settings.logger
        self.writer = _event_writer(folder, before.epoch if before else None) if shown else None
        self.loggers = Loggers(settings, folder, before.loggers if before else {})
        self.probes = ProbeTable(folder, self.log)

    def show(self, view: Callable[..., None], *args: Any, **more: Any) -> None:
        """Show what TensorBoard alone has: pictures, histograms, text."""
        if self.writer is not None:
            view(self.writer, *args, **more)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to curves, by tag, in every logger."""
        if self.writer is not None:
            for tag, value in values.items():
                self.writer.add_scalar(tag, value, step)
        self.loggers.log(values, step)

    def begin(self, net: Network, image: Sequence[int] = ()) -> None:
        """Show what a run begins with; of one that resumes, what TensorBoard may not have kept of its last epoch.

        Args:
            image: shape (C, H, W) of the network's input; without it, its graph is not drawn.
        """
        if self.before is None:
            self.show(show_settings, self.settings)
            self.show(show_filters, net, 0)
            self.show(show_norms, net, 0)
            if image and first_of_setting(self.folder):
                self.show(show_graph, net, image)
            return
        self._write(self.before.epoch)
        if self.settings.probes:
            self.probes.restore(step=self.before.step, shown=self.before.epoch)
        self.show(show_norms, net, self.before.epoch)

    def end(self, metrics: Mapping[str, float | None]) -> None:
        """Log what was measured once, by the names of result.json, and the run's row in the HPARAMS tab."""
        curve = self.settings.test_curve  # which ends in what is measured of the test set
        measured = {tag: metrics.get(key) for key, tag in FINAL.items() if not (curve and key.startswith("test"))}
        values = {tag: value for tag, value in measured.items() if value is not None}
        if values:
            self.log(values, self.settings.epochs)
        self.show(show_hyperparameters, self.settings)
        self.flush()

    def flush(self) -> None:
        if self.writer is not None:
            self.writer.flush()

    def end_epoch(self, epoch: int, measured: Mapping[str, float], net: Network) -> None:
        """Write the measurements of an epoch, from 1, by TensorBoard's tag."""
        self.rows[epoch] = {"epoch": epoch} | {name: measured[t] for name, t in COLUMNS.items() if t in measured}
        self._write(epoch)
        self.show(show_norms, net, epoch)

    def _write(self, epoch: int) -> None:
        """Write metrics.csv anew, so that it never ends in half a row, and show an epoch's row."""
        write_metrics(self.folder, [self.rows[each] for each in sorted(self.rows)], ["epoch", *COLUMNS])
        row = self.rows[epoch]
        self.log({tag: row[column] for column, tag in COLUMNS.items() if column in row}, epoch)

    def save(self, content: Mapping[str, Any], *, kernels: bool) -> None:
        """Write a checkpoint of the last epoch: best.ckpt if no epoch before was as good on held-out images, which the
        test set is not; then last.ckpt, from which a run resumes. What a checkpoint holds is in all other files by
        then."""
        self.flush()
        own = {
            "config_hash": self.settings.config_hash(),
            "rows": {epoch: dict(row) for epoch, row in self.rows.items()},
            "fit_s": self.fit_s,
            "resumed": self.resumed,
            "kernels": kernels,
            "loggers": self.loggers.ids,
        }
        stream = io.BytesIO()
        torch.save({**content, OWN_KEY: own}, stream)
        scores = {epoch: row["val_acc"] for epoch, row in self.rows.items() if "val_acc" in row}
        best = max(scores, key=lambda epoch: (scores[epoch], -epoch), default=None)  # the first of equals
        for name in ["best"] * (best == max(self.rows)) + ["last"]:
            write_atomically(self.folder / f"{name}.ckpt", stream.getvalue())

    def close(self) -> None:
        """Close TensorBoard's file, and the other loggers. What a full disk does not take of it was an error before, if
        the run needs it."""
        with suppress(OSError):
            if self.writer is not None:
                self.writer.close()
        self.loggers.close(ended=self.trained)

    @property
    def diverged(self) -> int | None:
        """The epoch in which the training loss was not finite, the last one then; None if there is none."""
        found = [epoch for epoch, row in self.rows.items() if not math.isfinite(row.get("train_ce", 0.0))]
        return min(found, default=None)

    @property
    def trained(self) -> bool:
        """Whether no epoch is left to do."""
        return self.diverged is not None or len(self.rows) >= self.settings.epochs

    def last(self, column: str) -> float | None:
        """Return a column's value in the last epoch; None if it was not measured or is not finite."""
        value = self.rows[max(self.rows)].get(column) if self.rows else None
        return value if value is not None and math.isfinite(value) else None

    def images_per_s(self, images: int) -> float:
        """Over all epochs, each of so many images: from the first step of an epoch to its last, without evaluation."""
        seconds = sum(row.get("seconds", 0.0) for row in self.rows.values())
        return len(self.rows) * images / seconds if seconds else 0.0


def _event_writer(folder: Path, before: int | None) -> SummaryWriter:
    """Return a writer of TensorBoard's events of a run, in a new file. before: how many epochs a run that resumes had
    completed.

    TensorBoard reads the files of a folder by their names, in which the clock's seconds stand, and leaves out of the
    older ones what stands at `before` or later on its axis: that has to be written again. The older ones are renamed,
    so that they come first also if the run resumes within a second, or the clock went back.
    """
    if before is not None:
        for number, file in enumerate(sorted(folder.glob(f"{EVENTS}*"))):
            _, _, rest = file.name.removeprefix(EVENTS).partition(".")
            file.rename(folder / f"{EVENTS}{number:010d}.{rest}")
    return SummaryWriter(str(folder), purge_step=before)


class ProbeTable:
    """probes.csv and the curves of what a run's probes measured.

    Args:
        log: adds a point to curves, by tag.
    """

    def __init__(self, folder: Path, log: Callable[[Mapping[str, float], int], None]) -> None:
        self.folder, self.log = folder, log
        self.rows: list[ProbeRow] = []

    def restore(self, *, step: int, shown: int) -> None:
        """Restore the rows of a stopped run up to a step; write those at `shown` or later on TensorBoard's axis
        again."""
        self.rows = [row for row in read_probes(self.folder) if row[1] <= step]
        for epoch, at, probe, layer, quantity, value in self.rows:
            self._show(probe, (layer, quantity, value), round(epoch) if probe == "layers" else at, shown)

    def add(self, probe: str, values: Sequence[Value], *, epoch: float, step: int, at: int) -> None:
        """at: where the values stand on TensorBoard's axis."""
        self.rows += [(epoch, step, probe, layer, quantity, value) for layer, quantity, value in values]
        for each in values:
            self._show(probe, each, at)

    def _show(self, probe: str, value: Value, at: int, first: int = 0) -> None:
        layer, quantity, number = value
        if at >= first and math.isfinite(number):  # TensorBoard draws a nan as a triangle at 0
            self.log({f"probe.{probe}/{quantity}{layer and f'.{layer}'}": number}, at)

    def save(self) -> None:
        """Write probes.csv with all rows so far, whole or not at all."""
        write_probes(self.folder, self.rows)


# One checkpoint of K networks, as Lightning has it, and the checkpoints of K runs


def part(content: Mapping[str, Any], index: int, hparams: Mapping[str, Any], optimizer: str) -> dict[str, Any]:
    """Return the checkpoint of one run: that of an array of one, but for the names in `state_dict`, which are those of
    its `Classifier`."""
    prefix = f"models.{index}."
    state = {n.removeprefix(prefix): v for n, v in content["state_dict"].items() if n.startswith(prefix)}
    [states] = content["optimizer_states"]
    [rows] = states["state"].values()
    own = {name: rows[name][index : index + 1].clone() for name in STATE_OF[optimizer]} | {"step": rows["step"]}
    return {
        **content,
        "state_dict": OrderedDict((name, values.clone()) for name, values in state.items()),
        "optimizer_states": [{**states, "state": {0: own}}],
        "hparams_name": None,
        "hyper_parameters": dict(hparams),
    }


def join(contents: Sequence[Mapping[str, Any]], optimizers: Sequence[str]) -> dict[str, Any]:
    """Return the checkpoint of K networks from those of their runs, which stopped after the same epoch.

    Args:
        optimizers: of each run, "sgd" or "adamw".
    """
    state_dict: dict[str, torch.Tensor] = {}
    for index, content in enumerate(contents):
        state_dict |= {f"models.{index}.{name}": values for name, values in content["state_dict"].items()}
    rows: list[Mapping[str, torch.Tensor]] = [content["optimizer_states"][0]["state"][0] for content in contents]
    like = next(values for name, values in rows[0].items() if name != "step")
    names = {name: None for optimizer in optimizers for name in STATE_OF[optimizer]}
    joined = {name: torch.cat([row.get(name, torch.zeros_like(like)) for row in rows]) for name in names}
    joined["step"] = rows[0]["step"]
    [optimizer] = contents[0]["optimizer_states"]
    return {**contents[0], "state_dict": state_dict, "optimizer_states": [{**optimizer, "state": {0: joined}}]}
