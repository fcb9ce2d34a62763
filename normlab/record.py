"""What a run leaves behind, and how it is written: whole or not at all. No torch here."""

import csv
import io
import json
import math
import platform
import subprocess
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache, partial
from html import escape
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from pydantic import FiniteFloat, TypeAdapter, ValidationError

from normlab.errors import ConfigError, NormlabError
from normlab.files import write_atomically
from normlab.settings import Settings, check_recorded, line

SCHEMA = 1
Status = Literal["completed", "diverged", "failed", "unavailable", "interrupted"]
STATUSES: tuple[Status, ...] = get_args(Status)
DONE = ("completed", "diverged")  # the same question would get the same answer again: such runs are skipped

PROBE_COLUMNS = ("epoch", "step", "probe", "layer", "quantity", "value")
ProbeRow = tuple[float, int, str, str, str, float]  # in these columns; layer is "" where a value is the network's


class Robustness(NamedTuple):
    """A row of robustness.csv: a trained network's scores on the test images, corrupted in one way.

    Attributes:
        kind: of corruption, or clean. strength: from 1 to 5, or 0.
        mode: eval, or adapted: statistics of 500 of these images stand in the place of running averages.
        acc, …: accuracy in [0, 1], cross-entropy in nats, and `normlab.scores`.
    """

    kind: str
    strength: int
    mode: str
    acc: float
    ce: float
    prob_true: float
    brier: float
    calibration_error: float


class RecordError(NormlabError):
    """A result.json that cannot be read as one."""


class DamagedError(RecordError):
    """A file that is no whole one of ours: what made it can make it again."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """The content of result.json, one field per key. Accuracies are shares in [0, 1], times are seconds.

    Attributes:
        status: completed; diverged (a loss that is not finite); failed (with the error); unavailable (a device that is
            not there); interrupted (stopped from outside).
        config: every resolved setting, see `Settings.recorded`.
        config_hash: 12 hexadecimal digits over all that can change the result.
        setting: norm, l1 and what else departs from the defaults, without the seed.
        metrics: train_acc and train_ce are measured after training, in eval mode without augmentation;
            train_acc_running is the last epoch's, in train mode. A metric that was not measured is None.
    """

    status: Status
    error: str | None = None
    config: Mapping[str, Any]
    config_hash: str
    setting: Mapping[str, Any]
    seed: int
    data: Mapping[str, Any] = field(default_factory=dict)
    parameters: int | None = None
    device: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, FiniteFloat | None] = field(default_factory=dict)
    time: Mapping[str, FiniteFloat | int] = field(default_factory=dict)
    schema: int = SCHEMA

    @classmethod
    def of(cls, settings: Settings, status: Status, error: str | None = None, **more: Any) -> "Record":
        """Return the record of a run of these settings, with this machine's versions; more: other fields."""
        return cls(
            status=status,
            error=error,
            config=settings.recorded(),
            config_hash=settings.config_hash(),
            setting=settings.setting(),
            seed=settings.seed,
            versions=versions(),
            **more,
        )

    def _repr_html_(self) -> str:
        """Return a notebook's view: the settings and the results."""
        settings = " ".join(f"{key}={value}" for key, value in self.setting.items())
        rows = {
            "run": f"{settings} seed={self.seed}",
            "data": str(self.data.get("name", "")),
            "status": self.status + (f": {self.error}" if self.error else ""),
            **{key: f"{value:.4f}" for key, value in self.metrics.items() if value is not None},
            **{key: f"{self.time[key]:,.{n}f}" for key, n in (("fit_s", 1), ("images_per_s", 0)) if key in self.time},
            "config_hash": self.config_hash,
        }
        cells = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in rows.items())
        return f"<table>{cells}</table>"

    @property
    def done(self) -> bool:
        return self.status in DONE

    def save(self, folder: Path) -> None:
        """Write result.json, whole or not at all. Raise `NormlabError`, in one line, where nothing can be written."""
        values = asdict(self)
        text = json.dumps({"schema": values.pop("schema")} | values, indent=1, ensure_ascii=False, allow_nan=False)
        try:
            write_atomically(folder / "result.json", text.encode() + b"\n")
        except OSError as error:
            raise NormlabError(
                f"{folder}: result.json cannot be written ({error.strerror}): make room there, and the same command "
                "goes on"
            ) from error

    @classmethod
    def load(cls, folder: Path) -> "Record":
        """Read result.json, once while it stays as it is. Raise in one line: `DamagedError`, or `RecordError` where it
        is of another schema."""
        file = folder / "result.json"
        try:
            stamp = file.stat()
            return cls._load(file.absolute(), (stamp.st_mtime_ns, stamp.st_size, stamp.st_ino))
        except OSError as error:
            raise DamagedError(f"{file} cannot be read ({error.strerror})") from error

    @classmethod
    @lru_cache(maxsize=4096)  # a sweep, its display and its summary look at the same files
    def _load(cls, file: Path, _: tuple[int, int, int]) -> "Record":
        """Return the record if every field is what it should be, so that readers need not look again."""
        try:
            text = file.read_text(encoding="utf-8")
            if not text.strip():
                raise ValueError("it is empty")
            values = json.loads(text)
            if not isinstance(values, dict) or "schema" not in values:
                raise DamagedError(f"{file} is no result of a run here: it seems to be another program's")
            if values["schema"] != SCHEMA:
                raise RecordError(f"{file}: schema {values['schema']}, but this version reads schema {SCHEMA}")
            record = _reader().validate_json(text, strict=True)
            check_recorded(record.config)
            return record
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = line(error) if isinstance(error, ValidationError) else error
            raise DamagedError(f"{file} is damaged ({reason}): the run has to be done again") from error

    @classmethod
    def find(cls, folder: Path) -> "Record | None":
        """Return the record of a folder, or None where no run has ended yet."""
        return cls.load(folder) if (folder / "result.json").exists() else None

    @classmethod
    def readable(cls, folder: Path) -> "Record | None":
        """Return the record of a folder; None also where it is damaged: nothing can then be known of the run."""
        try:
            return cls.find(folder)
        except DamagedError:
            return None

    @classmethod
    def finished_for(cls, folder: Path, config_hash: str) -> "Record | None":
        """Return the finished record that answers this configuration already, or None where the run has to be done: a
        damaged one answers nothing.

        Raise `ConfigError` where the folder holds the result of another configuration.
        """
        record = cls.readable(folder)
        if record is None:
            return None
        if record.config_hash != config_hash:
            norm = record.config.get("norm")
            own = norm.get("target") if isinstance(norm, Mapping) else None
            edited = f", or {own} was edited since" if own else ""
            data = record.config.get("data")
            if isinstance(data, Mapping) and data.get("name") == "folder":
                edited += f", or files in {data.get('root')} were changed since"
            force = "norm=custom force=true" if own else "force=true"  # of a sweep, that arm alone
            raise ConfigError(
                f"{folder} holds the result of another configuration ({record.config_hash}, not {config_hash})"
                f"{edited}: choose another name=…, or {force} to replace it"
            )
        return record if record.done else None


@cache
def _reader() -> TypeAdapter[Record]:
    return TypeAdapter(Record)


@cache
def versions() -> dict[str, str]:
    """Return the versions that the numbers were made with, for result.json; in a clone, its commit, with "+" if files
    were changed since."""
    from importlib.metadata import PackageNotFoundError, version  # a tenth of a second

    found = {"python": platform.python_version()} | _commit(Path(__file__).parents[1])
    for package in ("normlab", "torch", "lightning", "torchmetrics", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def _commit(clone: Path) -> dict[str, str]:
    if not (clone / ".git").exists():
        return {}
    ask = partial(subprocess.run, cwd=clone, capture_output=True, text=True, check=True, timeout=10)
    try:
        commit = ask(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip()
        changed = ask(["git", "status", "--porcelain", "--untracked-files=no", "--", "normlab", "conf"]).stdout
    except (OSError, subprocess.SubprocessError):  # no git, or a clone that it will not read
        return {}
    return {"commit": commit + "+" * bool(changed)}


# Files of rows


MEASURE_AGAIN = "delete it, and python -m normlab.probe measures again"


@contextmanager
def reading(file: Path, remedy: str) -> Iterator[None]:
    """Turn what is wrong with a file into a `RecordError` of one line that names the remedy."""
    try:
        yield
    except (ValueError, TypeError, KeyError, OSError, EOFError, csv.Error, zipfile.BadZipFile) as error:
        raise RecordError(f"{file} is damaged ({error}): {remedy}") from None


def _write_rows(file: Path, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_atomically(file, text.getvalue().encode())


def _read_rows(file: Path, columns: Sequence[str]) -> list[list[str]]:
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as stream:
        found, *rows = csv.reader(stream)
    if found != [*columns]:
        raise ValueError(f"its columns are not {', '.join(columns)}")
    return rows


def write_metrics(folder: Path, rows: Iterable[Mapping[str, float]], columns: Sequence[str]) -> None:
    """Write metrics.csv: one row per epoch; a cell is empty where nothing was measured."""
    _write_rows(folder / "metrics.csv", columns, ([row.get(column) for column in columns] for row in rows))


def write_probes(folder: Path, rows: Iterable[ProbeRow]) -> None:
    """Write probes.csv: one row per value that a probe measured. epoch: how many were done (0.5: half of the first),
    step: how many steps. Values in float32, as TensorBoard has them: nine digits bring those back exactly."""
    with np.errstate(over="ignore"):
        short = [(f"{epoch:.6g}", step, *names, f"{np.float32(value):.9g}") for epoch, step, *names, value in rows]
    _write_rows(folder / "probes.csv", PROBE_COLUMNS, short)


def read_probes(folder: Path) -> list[ProbeRow]:
    """Return the rows of probes.csv; none where the file is missing. Raise `RecordError`, in one line, where it is
    damaged."""
    file = folder / "probes.csv"
    with reading(file, MEASURE_AGAIN):
        rows = _read_rows(file, PROBE_COLUMNS)
        return [(float(e), int(s), probe, layer, what, float(value)) for e, s, probe, layer, what, value in rows]


def write_robustness(folder: Path, rows: Iterable[Robustness]) -> None:
    """Write robustness.csv, one row per way in which the test images were corrupted."""
    _write_rows(folder / "robustness.csv", Robustness._fields, rows)


def read_robustness(folder: Path) -> list[Robustness]:
    """Return the rows of robustness.csv, as `read_probes` does."""
    file = folder / "robustness.csv"
    with reading(file, MEASURE_AGAIN):
        rows = _read_rows(file, Robustness._fields)
        found = [Robustness(kind, int(strength), mode, *map(float, values)) for kind, strength, mode, *values in rows]
        if not all(math.isfinite(number) for row in found for number in row[3:]):
            raise ValueError("a value is not finite")
        return found


# Arrays


def write_predictions(folder: Path, log_probs: npt.NDArray[Any], true: npt.NDArray[Any]) -> None:
    """Write predictions.npz, over the N test images in file order: `log_probs` float16 (N, C), the logarithms of the
    probabilities of the C classes; `pred` (N,), the most probable class, which float16 alone may leave open; `true`
    (N,), the true class, so that errors are known where the images are not."""
    whole = np.min_scalar_type(log_probs.shape[1] - 1)  # uint8 up to 256 classes
    _write_arrays(
        folder / "predictions.npz",
        log_probs=log_probs.clip(np.finfo(np.float16).min).astype(np.float16),
        pred=log_probs.argmax(1).astype(whole),
        true=true.astype(whole),
    )


def write_support(folder: Path, support: npt.NDArray[np.bool_]) -> None:
    """Write support.npz: which of the penalised weights, bool (P,), are not exactly 0; `packed`, eight per byte, and
    `size`."""
    _write_arrays(folder / "support.npz", packed=np.packbits(support), size=np.array(support.size))


def _write_arrays(file: Path, **arrays: npt.NDArray[Any]) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]  # numpy's stubs take these for `allow_pickle`
    write_atomically(file, content.getvalue())


def read_support(folder: Path) -> npt.NDArray[np.bool_] | None:
    """Return the support as it was written; None where there is no file. Raise `RecordError`, in one line, where it is
    damaged."""
    file = folder / "support.npz"
    if not file.is_file():
        return None
    with reading(file, "delete it, and the report goes without it"), np.load(file, allow_pickle=False) as found:
        return np.unpackbits(found["packed"], count=int(found["size"])).astype(bool)
