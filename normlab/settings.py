"""The settings of a run: typed, with their ranges. `conf/` holds the values and says what each one means.

No torch here: a wrong setting is answered at once.
"""

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from normlab.places import choices, group_values, source_digest

__all__ = [
    "NORM_CHANNELS",
    "Augment",
    "Data",
    "Norm",
    "Penalty",
    "Probe",
    "Settings",
    "check_recorded",
    "dotted",
    "flatten",
    "needs_gpu",
    "problem",
]

NORM_CHANNELS = (10, 20, 20, 12, 12)  # channels at the five norms of `normlab.nets.Net`; a test holds the two together

MOST, FLOAT32 = 1e30, 3e38  # of what multiplies a weight or a gradient; the largest float32
LATER = {
    "weight_standardization": False,
    "lr_per": None,
    "train_size": None,
    "refit_epochs": 0,
    "sync_batchnorm": True,
}  # settings that came later: left out of the hash while they have these values

Scalar = bool | int | float | str | None
Probe = Literal["layers", "landscape", "shift", "statistics"]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Model(BaseModel):
    """Settings are read once and never change; an unknown name or a value of another type is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Norm(Model):
    """A normalization layer: `options` are the keyword arguments that `normlab.nets.make_norm` takes for this name."""

    name: str = "bn"
    target: str | None = None
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, value: Any) -> Any:
        """conf/norm writes options flat (`norm.num_groups`), which is what one types; here they are gathered."""
        if not isinstance(value, Mapping):
            return value
        value = dict(value)
        given = value.pop("options", None) or {}
        if not isinstance(given, Mapping):
            raise ValueError(f"norm.options={given}: write a mapping, such as {{eps: 1e-3}}")
        options = {key: value.pop(key) for key in list(value) if key not in ("name", "target")} | dict(given)
        if value.get("name", "bn") in choices("norm"):
            usual = {
                k: v for k, v in group_values("norm", value.get("name", "bn")).items() if k not in cls.model_fields
            }
            if unknown := sorted(set(options) - set(usual)) if value.get("name") != "custom" else []:
                if set(options) <= {key for name in choices("norm") for key in group_values("norm", name)}:
                    raise ValueError(f"norm.name={value['name']}: write norm={value['name']}, which brings its options")
                takes = f"it takes {', '.join(usual)}" if usual else "it takes none"
                raise ValueError(f"norm.{unknown[0]} is no option of norm={value['name']}; {takes}")
            options = usual | options
            if value.get("name") != "custom":  # null: as if it were not there
                options = {key: given for key, given in options.items() if given is not None}
                if "channels_per_group" in options:
                    options.pop("num_groups", None)
        return value | {"options": options}

    @model_validator(mode="after")
    def _check(self) -> "Norm":
        if self.name not in choices("norm"):
            raise ValueError(f"unknown: choose one of {', '.join(choices('norm'))}")
        if self.name == "custom" and not re.fullmatch(r"[\w.]+:\w+", self.target or ""):
            raise ValueError("norm=custom needs norm.target=package.module:Class")
        if self.name != "custom" and self.target is not None:
            raise ValueError(f"norm.target goes with norm=custom, not with norm={self.name}")
        for key, value in self.options.items():
            if not _plain(value):
                raise ValueError(f"norm.{key}: only numbers, words, true, false, null, lists and mappings of them")
        if self.name != "custom":
            _check_options(self.options)
        return self


def _plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _check_options(options: Mapping[str, Any]) -> None:
    """The ranges of the options that the package's own norms have."""

    def number(key: str, kind: type | tuple[type, ...] = (int, float)) -> Any:
        value = options[key]
        if isinstance(value, bool) or not isinstance(value, kind):
            raise ValueError(f"norm.{key}={value}: write a {'whole ' if kind is int else ''}number")
        return value

    for key, (kind, low, high, words) in RANGES.items():
        if key in options and not low <= number(key, kind) <= high:
            raise ValueError(f"norm.{key}={options[key]}: must be {words}")
    for key in ("affine", "threshold"):
        if key in options and not isinstance(options[key], bool):
            raise ValueError(f"norm.{key}={options[key]}: choose one of true, false")
    for key in ("num_groups", "channels_per_group"):
        fits = [g for g in range(1, min(NORM_CHANNELS) + 1) if all(c % g == 0 for c in NORM_CHANNELS)]
        if key in options and number(key, int) not in fits:
            widths = ", ".join(map(str, sorted(set(NORM_CHANNELS))))
            raise ValueError(
                f"norm.{key}={options[key]} does not divide the channels ({widths}): choose one of "
                f"{', '.join(map(str, fits))}"
            )
    if "begin" in options and not options["begin"] < min(options["r_end"], options["d_end"]):
        steps = ", ".join(f"norm.{key}={options[key]}" for key in ("begin", "r_end", "d_end"))
        raise ValueError(f"{steps}: begin must come before both ends")


FINITE, TINY = sys.float_info.max, sys.float_info.min
REAL = (int, float)
RANGES: dict[str, tuple[type | tuple[type, ...], float, float, str]] = {  # kind, least, most, in words
    "eps": (REAL, TINY, FINITE, "above 0"),
    "momentum": (REAL, 0, 1, "between 0 and 1"),
    "virtual_batch_size": (int, 1, FINITE, "1 or more"),
    "r_max": (REAL, 1, FINITE, "1 or more"),
    "d_max": (REAL, 0, FINITE, "0 or more"),
    "begin": (int, 0, FINITE, "0 or more"),
    "r_end": (int, 1, FINITE, "1 or more"),
    "d_end": (int, 1, FINITE, "1 or more"),
    "alpha": (REAL, -FINITE, FINITE, "finite"),
}


class Data(Model):
    """Which images, and where they are."""

    name: Literal["auto", "mnist", "fashion_mnist", "kmnist", "digits", "folder"] = "auto"
    root: str | None = None
    download: bool = True
    size: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _folder(self) -> "Data":
        if self.name == "folder" and not self.root:
            raise ValueError("data=folder needs data.root=…, the folder of your images")
        if self.name != "folder" and self.size is not None:
            raise ValueError(f"data.size goes with data=folder, not with data={self.name}")
        return self


class Penalty(Model):
    """Which parameters the L1 penalty covers, and how it acts on a step."""

    scope: Literal["weights", "conv", "norm", "all"] = "weights"
    method: Literal["subgradient", "proximal"] = "subgradient"


class Augment(Model):
    """Random rotation (degrees) and shift (pixels) of training images, either way; both 0: none."""

    rotation: Annotated[Finite, Field(ge=0, le=180)] = 7.0
    shift: Annotated[Finite, Field(ge=0, le=14)] = 2.0

    @model_validator(mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        """`augment=false` and `augment=true` are what one types first."""
        if isinstance(value, bool):
            return {} if value else {"rotation": 0.0, "shift": 0.0}
        if not isinstance(value, (Mapping, Augment)):
            raise ValueError("write true or false, or set augment.rotation and augment.shift")
        return value


class Settings(Model):
    """All that `normlab.training.run` needs. `conf/config.yaml` gives each setting's meaning, unit and reason."""

    norm: Norm = Norm()
    data: Data = Data()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    l1: Annotated[Finite, Field(ge=0, le=MOST)] = 0.0
    penalty: Penalty = Penalty()
    dropout: Annotated[Finite, Field(ge=0, lt=1)] = 0.0
    placement: Literal["post", "pre"] = "post"
    weight_standardization: bool = False
    epochs: Annotated[int, Field(ge=1)] = 12
    batch_size: Annotated[int, Field(ge=1)] = 128
    lr: Annotated[Finite, Field(gt=0, le=MOST)] = 0.1
    lr_per: Annotated[int, Field(ge=1)] | None = None
    schedule: Literal["onecycle", "constant"] = "onecycle"
    momentum: Annotated[Finite, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[Finite, Field(ge=0, le=MOST)] = 0.0
    gradient_clip: Annotated[Finite, Field(gt=0, le=MOST)] | None = 1.0
    refit_epochs: Annotated[int, Field(ge=0)] = 0
    augment: Augment = Augment()
    train_size: Annotated[int, Field(ge=1)] | None = None
    val_size: Annotated[int, Field(ge=0)] | None = None
    test_curve: bool = False
    probes: list[Probe] = []
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: Annotated[int, Field(ge=1)] = 1
    sync_batchnorm: bool = True
    precision: Literal["32-true", "tf32", "64-true", "16-mixed", "bf16-mixed"] = "32-true"
    threads: Annotated[int, Field(ge=1)] | None = None
    log_dir: Annotated[str, Field(min_length=1)] = "lightning_logs"
    name: Annotated[str, Field(pattern=r"^[^/\\=\x00]*[^/\\=\x00.]$")] | None = None  # not "." or ".."
    force: bool = False

    @field_validator("l1", "lr", mode="after")
    @classmethod
    def _canonical(cls, value: float) -> float:
        return abs(value)  # -0.0 is 0.0: one value, one name, one hash

    @field_validator("probes", mode="before")
    @classmethod
    def _a_list(cls, value: Any) -> Any:
        """`probes=layers` is what one types first."""
        if not isinstance(value, list):
            raise ValueError("write a list, as in probes=[layers,landscape]")
        return value

    @model_validator(mode="after")
    def _together(self) -> "Settings":
        """What no setting shows alone."""
        self._check_devices()
        if self.accelerator == "cpu" and (told := needs_gpu(self.precision)):
            raise ValueError(told)
        if self.peak_lr * max(1.0, self.l1) / (1 - self.momentum) > FLOAT32:
            raise ValueError(
                f"lr={self.lr:g}: with these l1, momentum and lr_per a step is beyond what float32 can hold"
            )
        scaleless = self.norm.name == "none" or self.norm.options.get("affine") is False
        if self.l1 and self.penalty.scope == "norm" and scaleless and self.norm.name != "custom":
            raise ValueError(f"penalty.scope=norm: norm={self.norm.name} has no scales here to be penalised")
        return self

    def _check_devices(self) -> None:
        if self.devices == 1:
            if not self.sync_batchnorm:
                raise ValueError("sync_batchnorm=false goes with devices=2 or more, not with one device")
            return
        asked = f"devices={self.devices}"
        if self.devices > self.batch_size:
            raise ValueError(f"{asked}: no more than the {self.batch_size} images of a batch, which the devices share")
        if self.norm.name == "custom" and self.sync_batchnorm:
            raise ValueError(
                f"{asked}: norm=custom cannot be synchronised; with sync_batchnorm=false each device normalizes its "
                "own share of a batch"
            )
        if within := [probe for probe in self.probes if probe != "statistics"]:
            raise ValueError(f"{asked}: probes=[{','.join(within)}] needs a network on one device")

    @property
    def peak_lr(self) -> float:
        """The learning rate that a step of `batch_size` images has at the peak of the schedule.

        With `lr_per` it scales linearly (Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 2.1).
        """
        return self.lr if self.lr_per is None else self.lr * self.batch_size / self.lr_per

    def identity(self) -> dict[str, Any]:
        """Every setting that can change the result, as plain nested values."""
        # The number of threads changes the last bits, as the machine does; it is recorded with the device. Probes
        # change nothing: a run with them has the weights of one without, bit for bit.
        places = {"log_dir": True, "name": True, "force": True, "threads": True, "probes": True}
        own = self.data.name == "folder"  # other data sets are the same wherever they are
        values = self.model_dump(exclude=places | {"data": {"download"} if own else {"root", "download", "size"}})
        # What came later is left out where it is not used: older runs answer the same question.
        return {key: value for key, value in values.items() if key not in LATER or value != LATER[key]}

    def config_hash(self) -> str:
        """12 hexadecimal digits over `identity()`: equal exactly where two runs ask the same question."""
        identity = self.identity()
        if self.norm.target is not None:  # a layer that was edited is another question
            identity["source"] = source_digest(self.norm.target)
        text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def flat(self) -> dict[str, Scalar]:
        """`identity()` by dotted names: {"norm": "gn", "norm.num_groups": 2, …}."""
        return flatten(self.identity())

    def setting(self) -> dict[str, Scalar]:
        """The setting (cell) that this run belongs to: norm, l1 and whatever else departs from the defaults, by dotted
        name, without the seed. Runs of one setting differ in the seed alone."""
        usual = Settings(norm=Norm(name=self.norm.name, target=self.norm.target), seed=self.seed, data=self.data).flat()
        departs = {key: value for key, value in self.flat().items() if key not in usual or value != usual[key]}
        if self.norm.target is not None:
            departs = {"norm.target": self.norm.target, **departs}
        return {"norm": self.norm.name, "l1": departs.pop("l1", 0.0)} | departs

    def slug(self, fixed: Mapping[str, Any] = MappingProxyType({})) -> str:
        """The name of the run's folder: `ln-l1_0.001-seed_3`, with what departs from the defaults and no "=".

        `fixed` are settings by dotted name that all runs of a study share: they need no mention where they hold.
        """
        setting = self.setting()
        departs = {key: value for key, value in setting.items() if key not in fixed or value != fixed[key]}
        setting = {key: setting[key] for key in ("norm", "l1")} | departs
        norm, l1 = setting.pop("norm"), setting.pop("l1")
        target = setting.pop("norm.target", None)
        parts = [str(norm) if target is None else f"custom_{str(target).replace(':', '.')}"]
        parts += [self.data.name] if self.data.name != "mnist" else []
        parts += [f"l1_{_word(l1)}"] if l1 else []
        taken = [key.rpartition(".")[2] for key in Settings().flat() if not key.startswith("norm.")]
        for key, value in setting.items():
            leaf = key.rpartition(".")[2]
            name = key.replace(".", "_") if key.startswith("norm.") and leaf in taken else leaf
            parts.append(f"{name}_{_word(value)}")
        stem = re.sub(r"[^\w.+-]+", "_", "-".join(parts))
        if len(stem) > 150:  # file systems stop at 255 bytes
            stem = f"{stem[:130]}-{self.config_hash()}"
        return f"{stem}-seed_{self.seed}"


def needs_gpu(precision: str) -> str | None:
    """Why there is no such precision on CPU, and which to take; None where there is."""
    # asked for 16-mixed on CPU, Lightning takes bf16 and says so in a log
    instead = {"16-mixed": "bf16-mixed", "tf32": "32-true"}.get(precision)
    return f"precision={precision} needs a GPU: use precision={instead} on CPU" if instead else None


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration, as `identity()` gives it or result.json has it, by dotted names; places left out, and probes."""
    values = dotted(config)
    for place in ("log_dir", "name", "force", "threads", "probes", "data.root", "data.download"):
        values.pop(place, None)
    if values.get("data.size") is None:
        values.pop("data.size", None)
    return {"norm": values.pop("norm.name"), "data": values.pop("data.name")} | LATER | values


def check_recorded(config: Mapping[str, Any]) -> None:
    """Raises `ValueError`, in one line, where the configuration of a result.json lacks a setting or holds a value of
    another type. Choices and settings that this version does not know may stand in it: another may have them."""
    flat = flatten(config)
    if missing := [key for key in Settings().flat() if key not in flat and not key.startswith("norm.")]:
        raise ValueError(f"{missing[0]} is missing")
    try:
        Settings.model_validate(config)
    except ValidationError as error:
        kinds = [each for each in error.errors() if each["type"].endswith("_type") or each["type"] in UNREAL]
        if kinds:
            raise ValueError(_problem(kinds[0])) from None
    if lists := [key for key, value in flat.items() if isinstance(value, list) and not key.startswith("norm.")]:
        raise ValueError(f"{lists[0]} is a list")


UNREAL = ("int_from_float", "finite_number")  # beside those that end in _type, pydantic's errors of types


def problem(error: ValidationError) -> str:
    """The first of pydantic's errors, in one line: where, and what."""
    return _problem(error.errors()[0])


def _problem(error: Any) -> str:
    return f"{'.'.join(map(str, error['loc']))}: {error['msg'].removeprefix('Value error, ')}"


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"norm": {"options": {"eps": 1}}} -> {"norm.eps": 1}"""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        path = prefix if key == "options" else f"{prefix}{key}."
        flat |= dotted(value, path) if isinstance(value, Mapping) else {path.removesuffix("."): value}
    return flat


def _word(value: Scalar) -> str:
    """A value in a folder's name: 0.001, true, null; short where that says all of it."""
    if isinstance(value, float):
        return short if float(short := f"{value:g}") == value else repr(value)
    return str(json.dumps(value)) if value is None or isinstance(value, bool) else str(value)
