"""The settings of a run: types and ranges. `conf/` holds their defaults and says what each one means.

No torch here: a wrong setting is answered at once.
"""

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from normlab.errors import ConfigError
from normlab.norms import CATALOGUE
from normlab.settings import parts
from normlab.settings.conf import GROUPS, choices, defaults, dotted, spell
from normlab.settings.corruptions import CORRUPTIONS, Corrupted
from normlab.settings.shape import NORM_CHANNELS

FLOAT32 = 3e38  # about the largest float32
# What changes no weight. The number of threads changes the last bits, as the machine does; it is recorded with the
# device. Probes, evaluations and the test curve only look.
UNHASHED = (
    "log_dir", "name", "force", "threads", "probes", "evaluate", "test_curve", "data.root", "data.download", "until",
    "max_seeds", "ignore", "logger",
)  # fmt: skip

Scalar = bool | int | float | str | None
Probe = Literal["layers", "landscape", "shift", "statistics"]
Logger = Literal["tensorboard", "csv", "wandb", "mlflow"]


def device_of(accelerator: str) -> str:
    """Return "cpu" or "gpu": auto is a GPU where torch finds one. Torch is imported only where a driver may be."""
    if accelerator != "auto":
        return accelerator
    drivers = [Path("/dev", name) for name in ("nvidiactl", "nvidia0", "dxg", "kfd")]
    if "torch" not in sys.modules and sys.platform == "linux" and not any(driver.exists() for driver in drivers):
        return "cpu"
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


class Settings(parts.Model):
    """All that a run needs. `conf/config.yaml` gives each setting's meaning, unit and reason.

    >>> Settings.model_validate({"norm": "gn", "epochs": 2}).norm.options["num_groups"]
    2
    """

    norm: parts.Norm
    data: parts.Data
    net: parts.Net
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    l1: parts.Strength
    penalty: parts.Penalty
    dropout: parts.Share
    placement: Literal["post", "pre"]
    weight_standardization: bool
    epochs: parts.Count
    batch_size: parts.Count
    optimizer: Annotated[parts.SGD | parts.AdamW, Field(discriminator="name")]
    lr: Annotated[parts.Finite, Field(gt=0, le=parts.MOST)]
    lr_per: parts.Count | None
    schedule: Literal["onecycle", "constant"]
    gradient_clip: Annotated[parts.Finite, Field(gt=0, le=parts.MOST)] | None
    refit_epochs: Annotated[int, Field(ge=0)]
    augment: parts.Augment
    train_size: parts.Count | None
    val_size: Annotated[int, Field(ge=0)] | None
    test_curve: bool
    probes: list[Probe]
    evaluate: list[Corrupted]
    accelerator: Annotated[Literal["auto", "cpu", "gpu"], AfterValidator(device_of)]  # auto is what it comes to
    devices: parts.Count
    sync_batchnorm: bool
    precision: Literal["32-true", "tf32", "64-true", "16-mixed", "bf16-mixed"]
    kernels: Literal["auto", "torch"]
    threads: parts.Count | None
    until: Literal["decided"] | None
    max_seeds: Annotated[int, Field(ge=2, le=10_000)]
    ignore: list[str]
    log_dir: Annotated[str, Field(min_length=1)]
    name: Annotated[str, Field(pattern=r"^[^/\\=\x00]*[^/\\=\x00.]$")] | None  # not "." or ".."
    force: bool
    logger: Annotated[list[Logger], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]

    @classmethod
    def _filled(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Fill what is left out from conf/; a group may be given by its name alone."""
        given = {
            key: {"name": each} if key in GROUPS and isinstance(each, str) else each for key, each in value.items()
        }
        chosen = {}
        for group in GROUPS:
            part = given.get(group)
            name = part.get("name") if isinstance(part, Mapping) else getattr(part, "name", None)
            if name in choices(group):
                chosen[group] = name
            elif isinstance(part, Mapping) and name is None:
                given[group] = {"name": defaults()[group]["name"], **part}
        return {**defaults(**chosen), **given}

    @field_validator("log_dir", mode="after")
    @classmethod
    def _is_a_folder(cls, value: str) -> str:
        """A run's folder is one on this machine, which TensorBoard must not take for another place."""
        if "://" in value:
            raise ValueError("runs are written to a folder of this machine: name one, and copy it from there")
        return value

    @field_validator("penalty", mode="after")
    @classmethod
    def _of_nothing(cls, value: parts.Penalty, info: ValidationInfo) -> parts.Penalty:
        """Without a penalty it does not matter how it acts: one setting, one name, one hash."""
        return value if info.data.get("l1", 1) else parts.Penalty.model_validate({})

    @field_validator("evaluate", mode="before")
    @classmethod
    def _beside_the_clean(cls, value: Any) -> Any:
        """Clean test images are always scored; records of version 0.1 name them too."""
        return [kind for kind in value if kind != "clean"] if isinstance(value, list) else value

    @model_validator(mode="after")
    def _together(self) -> Self:
        """What no setting shows alone."""
        self._check_devices()
        if self.accelerator == "cpu" and (problem := needs_gpu(self.precision)):
            raise ValueError(problem)
        if self.peak_lr * max(1.0, self.l1) / (1 - getattr(self.optimizer, "momentum", 0.0)) > FLOAT32:
            raise ValueError(
                f"lr={self.lr:g}: with these l1, momentum and lr_per a step is beyond what float32 can hold"
            )
        about, options = CATALOGUE.get(self.norm.name), self.norm.options
        scaled = about is None or any(each.scale and options.get(each.when, True) for each in about.learned.values())
        if self.l1 and self.penalty.scope == "norm" and not scaled:
            raise ValueError(f"penalty.scope=norm: norm={self.norm.name} has no scales here to be penalised")
        if self.net.name == "small":
            if self.norm.name != "custom":
                CATALOGUE[self.norm.name].check(self.norm.options, NORM_CHANNELS)
        elif departs := [key for key in parts.SMALL_ONLY if getattr(self, key) != defaults()[key]]:
            raise ValueError(
                f"{departs[0]}={spell(getattr(self, departs[0]))} goes with net=small, not with net={self.net.name}"
            )
        return self

    def _check_devices(self) -> None:
        if self.devices == 1:
            if not self.sync_batchnorm:
                raise ValueError("sync_batchnorm=false goes with devices=2 or more, not with one device")
            return
        several = f"devices={self.devices}"
        if self.devices > self.batch_size:
            raise ValueError(
                f"{several}: no more than the {self.batch_size} images of a batch, which the devices share"
            )
        if self.norm.name == "custom" and self.sync_batchnorm:
            raise ValueError(
                f"{several}: norm=custom cannot be synchronised; with sync_batchnorm=false each device normalizes its "
                "own share of a batch"
            )
        if within := [probe for probe in self.probes if probe != "statistics"]:
            raise ValueError(f"{several}: probes=[{','.join(within)}] needs a network on one device")

    @property
    def corruptions(self) -> list[Corrupted]:
        """Which corrupted test images the trained network is scored on, beside the clean ones, each once."""
        return [kind for kind in CORRUPTIONS if kind in self.evaluate]

    @property
    def peak_lr(self) -> float:
        """The learning rate that a step of `batch_size` images has at the peak of the schedule.

        With `lr_per` it scales linearly (Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 2.1).
        """
        return self.lr if self.lr_per is None else self.lr * self.batch_size / self.lr_per

    def steps_per_epoch(self, images: int) -> int:
        """Return how many batches so many training images make; the last one may be smaller."""
        return -(-images // self.batch_size)

    def identity(self) -> dict[str, Any]:
        """Return every setting that the weights depend on, as plain nested values."""
        values = self.model_dump(exclude={key for key in UNHASHED if "." not in key})
        # your own images are known by their folder alone
        own = {"root", "size", "files"} if self.data.name == "folder" else set()
        values["data"] = self.data.model_dump(include={"name"} | own)
        return values

    def recorded(self) -> dict[str, Any]:
        """Return every setting as plain nested values, but for `log_dir`: a run is where its files are, and they may be
        given to others."""
        return self.model_dump(exclude={"log_dir"})

    def config_hash(self) -> str:
        """Return 12 hexadecimal digits over `identity()`: equal exactly where two runs ask the same question."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        text = json.dumps(self.identity(), sort_keys=True, ensure_ascii=False, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's; the hash is not copied."""
        copied = super().model_copy(update=update, deep=deep)
        vars(copied).pop("_hash", None)
        return copied

    def flat(self) -> dict[str, Scalar]:
        """Return `identity()` by dotted name: {"norm": "gn", "norm.num_groups": 2, …}."""
        return _flat(self.identity())

    def setting(self) -> dict[str, Scalar]:
        """Return the setting (cell) that this run belongs to: norm, l1 and whatever else departs from the defaults of
        what is chosen, by dotted name, without the seed. Runs of one setting differ in the seed alone."""
        chosen = {group: getattr(self, group).name for group in GROUPS}
        usual = {"norm.target": None} | _flat(defaults(**chosen))
        usual |= {"accelerator": "cpu", "seed": self.seed}
        usual |= {group: defaults()[group]["name"] for group in ("net", "optimizer")}
        departs = {key: value for key, value in self.flat().items() if key not in usual or value != usual[key]}
        own = {"norm.target": departs.pop("norm.target")} if "norm.target" in departs else {}
        return {"norm": self.norm.name, "l1": departs.pop("l1", 0.0)} | own | departs

    def folder(self) -> Path:
        """Return where the command line puts a run of its own: `lightning_logs/runs/ln-seed_3`."""
        return Path(self.log_dir, self.name or "runs", self.slug())

    def slug(self, fixed: Mapping[str, Any] = MappingProxyType({})) -> str:
        """Return the name of the run's folder: `ln-l1_0.001-seed_3`, with what departs from the defaults and no "=".

        `fixed` are settings by dotted name that all runs of a study share: they need no mention where they hold.
        """
        setting = self.setting()
        norm, l1 = setting.pop("norm"), setting.pop("l1")
        setting = {key: value for key, value in setting.items() if key not in fixed or value != fixed[key]}
        target = setting.pop("norm.target", None)
        parts = [str(norm) if target is None else f"custom_{str(target).replace(':', '.')}"]
        parts += [self.data.name] if self.data.name != "mnist" else []
        parts += [f"l1_{spell(l1)}"] if l1 else []
        taken = [key.rpartition(".")[2] for key in _flat(defaults()) if not key.startswith("norm.")]
        for key, value in setting.items():
            leaf = key.rpartition(".")[2]
            whole = key.startswith(("norm.", "net.")) and (leaf in taken or leaf == "target")
            if key == "data.root":  # folders of one name may stand in several places
                value = f"{Path(str(value)).name}_{hashlib.sha256(str(value).encode()).hexdigest()[:6]}"
            parts.append(f"{key.replace('.', '_') if whole else leaf}_{spell(value)}")
        stem = re.sub(r"[^\w.+-]+", "_", "-".join(parts))
        if len(stem) > 150:  # file systems stop at 255 bytes
            stem = f"{stem[:130]}-{self.config_hash()}"
        return f"{stem}-seed_{self.seed}"


def check_loggers(settings: Settings) -> None:
    """Raise `ConfigError`, with what to do, where a logger lacks its package."""
    for name in settings.logger:
        if name in ("wandb", "mlflow") and find_spec(name) is None:
            raise ConfigError(
                f"logger={name}: {name} is not installed: pip install 'normlab[{name}]', or pip install {name}"
            )


def needs_gpu(precision: str) -> str | None:
    """Return why there is no such precision on CPU, and which to take; None where there is."""
    # Lightning takes bf16 for 16-mixed on CPU, and says so in a log alone
    instead = {"16-mixed": "bf16-mixed", "tf32": "32-true"}.get(precision)
    return f"precision={precision} needs a GPU: use precision={instead} on CPU" if instead else None


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    values = dotted(config)
    for key in ("norm.source", "net.source", "data.files", *UNHASHED):
        if key != "data.root" or values.get("data.name") != "folder":
            values.pop(key, None)
    return {group: values.pop(f"{group}.name") for group in GROUPS if f"{group}.name" in values} | values


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded configuration by dotted name, without places and probes; what a record of an earlier version
    lacks has its default."""
    usual = {key: value for key, value in _flat(defaults()).items() if not key.startswith("norm.")}
    return usual | _flat(config)
