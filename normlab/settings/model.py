"""The settings of a run: types and ranges. `conf/` holds their defaults and says what each one means.

No torch here: a wrong setting is answered at once.
"""

import difflib
import hashlib
import json
import math
import re
import sys
from collections.abc import Mapping
from functools import cached_property
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from normlab.errors import ConfigError
from normlab.norms import CATALOGUE
from normlab.settings.conf import GROUPS, choices, defaults, dotted
from normlab.settings.shape import NORM_CHANNELS

__all__ = [
    "SGD",
    "AdamW",
    "Augment",
    "Data",
    "Net",
    "Norm",
    "Penalty",
    "Probe",
    "Settings",
    "check_recorded",
    "checked",
    "device_of",
    "flatten",
    "line",
    "needs_gpu",
    "source_digest",
]

MOST, FLOAT32 = 1e30, 3e38  # of what multiplies a weight or a gradient; the largest float32
SMALL_ONLY = ("dropout", "placement", "weight_standardization")  # of the small network
# What changes no weight. The number of threads changes the last bits, as the machine does; it is recorded with the
# device. Probes and the test curve only look.
PLACES = ("log_dir", "name", "force", "threads", "probes", "test_curve", "data.root", "data.download")

Scalar = bool | int | float | str | None
Probe = Literal["layers", "landscape", "shift", "statistics"]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[Finite, Field(ge=0, lt=1)]
Strength = Annotated[Finite, Field(ge=0, le=MOST)]
Count = Annotated[int, Field(ge=1)]


def _of_group(group: str) -> AfterValidator:
    """A check that a name is one of the files in conf/<group>/."""

    def check(name: str) -> str:
        if name not in choices(group):
            raise ValueError(f"unknown: choose one of {', '.join(choices(group))}")
        return name

    return AfterValidator(check)


class Model(BaseModel):
    """Settings are read once and never change; an unknown name or a value of another type is an error. What is left
    out is filled from conf/."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    AT: ClassVar[str] = ""  # where it stands in the configuration

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, value: Any) -> Any:
        return _usual(cls.AT, value) | dict(value) if isinstance(value, Mapping) else value


def _usual(at: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of a part of the configuration, for the choice that `value` names if the part is a group."""
    name = value.get("name")
    return defaults(**({at: name} if name in choices(at) else {}))[at]  # type: ignore[no-any-return]  # a mapping


def _options(where: str, given: Any) -> dict[str, Any]:
    """Keyword arguments of a layer or a network. `ValueError` where JSON could not hold them."""
    if not isinstance(given or {}, Mapping):
        raise ValueError(f"{where}.options={given}: write a mapping, such as {{eps: 1e-3}}")
    for key, value in (given or {}).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{where}.{key}={value}: must be finite")
        if not _plain(value):
            raise ValueError(
                f"{where}.{key}: only finite numbers, words, true, false, null, lists and mappings of them"
            )
    return dict(given or {})


def _plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_plain, value))
    return value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value))


def _check_target(where: str, what: str, name: str, target: str | None) -> None:
    if name == "custom" and not re.fullmatch(r"[\w.]+:\w+", target or ""):
        raise ValueError(f"{where}=custom needs {where}.target=package.module:{what}")


class Norm(Model):
    """A normalization layer: `options` are its keyword arguments. `source`: sha256 of the file of a layer of one's own,
    filled in."""

    AT = "norm"

    name: Annotated[str, _of_group("norm")]
    target: str | None
    options: dict[str, Any]
    source: str | None

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, value: Any) -> Any:
        """Gather the options: conf/norm writes them flat (`norm.num_groups`), which is what one types."""
        if not isinstance(value, Mapping):
            return value
        value = {"name": defaults()["norm"]["name"], "target": None, "source": None} | dict(value)
        name, nested = value["name"], value.pop("options", None)
        options = {key: value.pop(key) for key in list(value) if key not in cls.model_fields}
        options |= _options("norm", nested)
        if name == "custom":
            value["source"] = value["source"] or source_digest(value["target"])
        elif name in choices("norm"):
            usual = {key: each for key, each in _usual("norm", value).items() if key not in cls.model_fields}
            known = set().union(*(CATALOGUE[each].options for each in CATALOGUE))
            if set(options) - set(usual) and set(options) <= known and nested is None:
                raise ValueError(f"norm.name={name}: write norm={name}, which brings its options")
            options = usual | options
            # null where conf/ has null: as if it were not there
            options = {key: each for key, each in options.items() if each is not None or usual.get(key) is not None}
            if "channels_per_group" in options:
                options.pop("num_groups", None)
        return value | {"options": options}

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_target("norm", "Class", self.name, self.target)
        if self.name == "custom":
            return self
        if self.target is not None:
            raise ValueError(f"norm.target goes with norm=custom, not with norm={self.name}")
        _options("norm", self.options)
        CATALOGUE[self.name].check(self.options)
        return self


class Data(Model):
    """Which images, and where they are. `size`: of data=folder alone."""

    AT = "data"

    name: Annotated[str, _of_group("data")]
    root: str | None
    download: bool
    size: Count | None

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, value: Any) -> Any:
        return {"size": None} | _usual("data", value) | dict(value) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name == "folder" and not self.root:
            raise ValueError("data=folder needs data.root=…, the folder of your images")
        if self.name != "folder" and self.size is not None:
            raise ValueError(f"data.size goes with data=folder, not with data={self.name}")
        return self


class Net(Model):
    """A network: `target` is called with `norm_layer`, `num_classes` and `options`. `source`: as of `Norm`."""

    AT = "net"

    name: Annotated[str, _of_group("net")]
    target: str | None
    options: dict[str, Any]
    channels: Count | None
    size: Count | None
    source: str | None

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        value = {"source": None} | _usual("net", value) | dict(value)
        own = value["target"] if value["name"] == "custom" else None
        return value | {"options": _options("net", value["options"]), "source": value["source"] or source_digest(own)}

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_target("net", "factory", self.name, self.target)
        if self.name != "custom" and self.target != (usual := defaults(net=self.name)["net"])["target"]:
            raise ValueError(f"net.target goes with net=custom; net={self.name} has {usual['target'] or 'none'}")
        if self.name == "small" and self.options:
            raise ValueError(
                f"net.options={self.options}: net=small takes none; its settings are {', '.join(SMALL_ONLY)}"
            )
        return self


class Penalty(Model):
    """Which parameters the L1 penalty covers, and how it acts on a step."""

    AT = "penalty"

    scope: Literal["weights", "conv", "norm", "all"]
    method: Literal["subgradient", "proximal"]


class SGD(Model):
    """`torch.optim.SGD`, with Nesterov's momentum where there is momentum."""

    AT = "optimizer"

    name: Literal["sgd"]
    momentum: Share
    weight_decay: Strength


class AdamW(Model):
    """`torch.optim.AdamW`."""

    AT = "optimizer"

    name: Literal["adamw"]
    betas: Annotated[list[Share], Field(min_length=2, max_length=2)]
    eps: Annotated[Finite, Field(gt=0, le=1)]
    weight_decay: Strength


class Augment(Model):
    """Random rotation (degrees) and shift (pixels) of training images, either way; both 0: none."""

    AT = "augment"

    rotation: Annotated[Finite, Field(ge=0, le=180)]
    shift: Annotated[Finite, Field(ge=0, le=14)]

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
    """All that a run needs. `conf/config.yaml` gives each setting's meaning, unit and reason.

    >>> Settings.model_validate({"norm": "gn", "epochs": 2}).norm.options["num_groups"]
    2
    """

    norm: Norm
    data: Data
    net: Net
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    l1: Strength
    penalty: Penalty
    dropout: Share
    placement: Literal["post", "pre"]
    weight_standardization: bool
    epochs: Count
    batch_size: Count
    optimizer: Annotated[SGD | AdamW, Field(discriminator="name")]
    lr: Annotated[Finite, Field(gt=0, le=MOST)]
    lr_per: Count | None
    schedule: Literal["onecycle", "constant"]
    gradient_clip: Annotated[Finite, Field(gt=0, le=MOST)] | None
    refit_epochs: Annotated[int, Field(ge=0)]
    augment: Augment
    train_size: Count | None
    val_size: Annotated[int, Field(ge=0)] | None
    test_curve: bool
    probes: list[Probe]
    accelerator: Literal["auto", "cpu", "gpu"]
    devices: Count
    sync_batchnorm: bool
    precision: Literal["32-true", "tf32", "64-true", "16-mixed", "bf16-mixed"]
    threads: Count | None
    log_dir: Annotated[str, Field(min_length=1)]
    name: Annotated[str, Field(pattern=r"^[^/\\=\x00]*[^/\\=\x00.]$")] | None  # not "." or ".."
    force: bool

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, value: Any) -> Any:
        """Fill what is left out from conf/; a group may be given by its name alone."""
        if not isinstance(value, Mapping):
            return value
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

    @field_validator("l1", "lr", mode="after")
    @classmethod
    def _canonical(cls, value: float) -> float:
        return abs(value)  # -0.0 is 0.0: one value, one name, one hash

    @field_validator("penalty", mode="after")
    @classmethod
    def _of_nothing(cls, value: Penalty, info: ValidationInfo) -> Penalty:
        """Without a penalty it does not matter how it acts: one setting, one name, one hash."""
        return value if info.data.get("l1", 1) else Penalty.model_validate({})

    @field_validator("accelerator", mode="after")
    @classmethod
    def _resolved(cls, value: str) -> str:
        return device_of(value)  # auto and what it comes to are one setting

    @field_validator("probes", mode="before")
    @classmethod
    def _a_list(cls, value: Any) -> Any:
        """`probes=layers` is what one types first."""
        if not isinstance(value, list):
            raise ValueError("write a list, as in probes=[layers,landscape]")
        return value

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
        scaleless = self.norm.name == "none" or self.norm.options.get("affine") is False
        if self.l1 and self.penalty.scope == "norm" and scaleless and self.norm.name != "custom":
            raise ValueError(f"penalty.scope=norm: norm={self.norm.name} has no scales here to be penalised")
        if self.net.name == "small":
            if self.norm.name != "custom":
                CATALOGUE[self.norm.name].check(self.norm.options, NORM_CHANNELS)
        elif mine := [key for key in SMALL_ONLY if getattr(self, key) != defaults()[key]]:
            raise ValueError(
                f"{mine[0]}={_spell(getattr(self, mine[0]))} goes with net=small, not with net={self.net.name}"
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
    def peak_lr(self) -> float:
        """The learning rate that a step of `batch_size` images has at the peak of the schedule.

        With `lr_per` it scales linearly (Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 2.1).
        """
        return self.lr if self.lr_per is None else self.lr * self.batch_size / self.lr_per

    def identity(self) -> dict[str, Any]:
        """Return every setting that the weights depend on, as plain nested values."""
        values = self.model_dump(exclude={key for key in PLACES if "." not in key})
        # images of one's own are known by their folder alone
        own = {"root", "size"} if self.data.name == "folder" else set()
        values["data"] = self.data.model_dump(include={"name"} | own)
        return values

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
        chosen = {
            "norm": self.norm.name,
            "data": self.data.name,
            "net": self.net.name,
            "optimizer": self.optimizer.name,
        }
        usual = {"norm.target": None} | _flat(defaults(**chosen))
        usual |= {"accelerator": "cpu", "seed": self.seed, "data.root": self.data.root}
        usual |= {group: defaults()[group]["name"] for group in ("net", "optimizer")}
        departs = {key: value for key, value in self.flat().items() if key not in usual or value != usual[key]}
        own = {"norm.target": departs.pop("norm.target")} if "norm.target" in departs else {}
        return {"norm": self.norm.name, "l1": departs.pop("l1", 0.0)} | own | departs

    def slug(self, fixed: Mapping[str, Any] = MappingProxyType({})) -> str:
        """Return the name of the run's folder: `ln-l1_0.001-seed_3`, with what departs from the defaults and no "=".

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
        taken = [key.rpartition(".")[2] for key in _flat(defaults()) if not key.startswith("norm.")]
        for key, value in setting.items():
            leaf = key.rpartition(".")[2]
            whole = key.startswith(("norm.", "net.")) and (leaf in taken or leaf == "target")
            parts.append(f"{key.replace('.', '_') if whole else leaf}_{_word(value)}")
        stem = re.sub(r"[^\w.+-]+", "_", "-".join(parts))
        if len(stem) > 150:  # file systems stop at 255 bytes
            stem = f"{stem[:130]}-{self.config_hash()}"
        return f"{stem}-seed_{self.seed}"


def device_of(accelerator: str) -> str:
    """Return "cpu" or "gpu": auto is a GPU where torch finds one. Torch is imported only where a driver may be."""
    if accelerator != "auto":
        return accelerator
    drivers = [Path("/dev", name) for name in ("nvidiactl", "nvidia0", "dxg", "kfd")]
    if "torch" not in sys.modules and sys.platform == "linux" and not any(driver.exists() for driver in drivers):
        return "cpu"
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


def needs_gpu(precision: str) -> str | None:
    """Return why there is no such precision on CPU, and which to take; None where there is."""
    # Lightning takes bf16 for 16-mixed on CPU, and says so in a log alone
    instead = {"16-mixed": "bf16-mixed", "tf32": "32-true"}.get(precision)
    return f"precision={precision} needs a GPU: use precision={instead} on CPU" if instead else None


_read: dict[str, tuple[ModuleSpec | None, str]] = {}  # module: how this process imported it, digest of its file then


def source_digest(target: str | None) -> str | None:
    """Return sha256 over the file that defines a "package.module:Class"; None where there is no such file.

    Of a module that this process has imported, the file as it was then: what runs, whatever was edited since.
    """
    name = (target or "").partition(":")[0]
    try:
        module = sys.modules.get(name)
        spec = find_spec(name) if name else None
        known = _read.get(name)
        if module is None or known is None or (known[0] is not None and known[0] is not spec):
            if not (spec and spec.origin):
                return None
            known = None, file_digest(spec.origin)
        _read[name] = (spec if module else None), known[1]
        return known[1]
    except Exception:  # find_spec imports the parent packages, and those may raise anything
        return None


def file_digest(file: str | Path) -> str:
    """Return sha256 over a file."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    values = dotted(config)
    for key in ("norm.source", "net.source", *PLACES):
        if key != "data.root" or values.get("data.name") != "folder":
            values.pop(key, None)
    return {group: values.pop(f"{group}.name") for group in GROUPS if f"{group}.name" in values} | values


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded configuration by dotted name, without places and probes; what a record of an earlier version
    lacks has its default."""
    usual = {key: value for key, value in _flat(defaults()).items() if not key.startswith("norm.")}
    return usual | _flat(config)


def check_recorded(config: Mapping[str, Any]) -> None:
    """Raise `ValueError`, in one line, where a value in a result.json is not of the type of its setting. Settings that
    this version does not know may stand in it, and those that it added may be missing."""
    for group in ("norm", "data"):
        if not isinstance(config[group]["name"], str):
            raise ValueError(f"{group}.name is no word")
    _check_types(Settings, config, "")


def _check_types(model: type[Model], config: Mapping[str, Any], prefix: str) -> None:
    for key, field in model.model_fields.items():
        if key not in config:
            continue
        value, kinds = config[key], kinds_of(field.annotation)
        parts = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Model)]
        if parts and isinstance(value, Mapping):
            _check_types(parts[0], value, f"{prefix}{key}.")
        elif type(value) not in kinds and not (type(value) is int and float in kinds):
            raise ValueError(f"{prefix}{key}={_spell(value)} is not of its type")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{prefix}{key}={value} is not finite")


def kinds_of(annotation: Any) -> list[Any]:
    """Return the types that an annotation stands for, without ranges: `Literal["a"] | None` -> [str, NoneType]."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kinds_of(arguments[0])
    if origin is Literal:
        return list({type(each): None for each in arguments})
    if origin in (Union, UnionType):
        return [kind for each in arguments for kind in kinds_of(each)]
    return [origin or annotation]


def checked(values: Mapping[str, Any]) -> Settings:
    """Return typed settings from nested values; what is left out is as in conf/. Raise `ConfigError`, in one line,
    where a value does not fit."""
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(line(error)) from None


def line(error: ValidationError) -> str:
    """Return pydantic's errors in one line: `name=value: what to write instead`."""
    return "; ".join(map(_line, error.errors()))


def _line(error: Any) -> str:
    message = error["msg"].removeprefix("Value error, ")
    where = ".".join(str(part) for part in error["loc"] if part not in ("sgd", "adamw"))  # a union's choice is no name
    if error["type"] == "value_error":
        return message if "=" in message or not where else f"{where}={_spell(error['input'])}: {message}"
    if error["type"] == "extra_forbidden":
        return f"{where} is no setting; {near(where)}"
    if error["type"] == "missing":
        return f"{where} is missing"
    message = message.replace("Input should", "must").replace("String should", "must")
    return f"{where}={_spell(error['input'])}: {message}"


def near(name: str, chosen: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the setting that was probably meant by a dotted name, or all that there are beside it."""
    parent, _, leaf = name.rpartition(".")
    known = defaults(**{group: each for group, each in chosen.items() if each in choices(group)})
    beside = known.get(parent)
    names = {key: f"{parent}.{key}" for key in beside} if isinstance(beside, dict) else {key: key for key in known}
    close = [names[key] for key in difflib.get_close_matches(leaf, names, n=1)]
    if not parent and not close:
        close = [key for key in dotted(known) if key.rpartition(".")[2] == leaf]  # momentum: optimizer.momentum
    return f"did you mean {' or '.join(close)}?" if close else f"choose one of {', '.join(names.values())}"


def _spell(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("name", dict(value)))
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _word(value: Any) -> str:
    """A value in a folder's name: 0.001, true, null; short where that says all of it."""
    if isinstance(value, float):
        return short if float(short := f"{value:g}") == value else repr(value)
    return _spell(value)
