"""The parts of a run's settings: types and ranges of norm, data, net, optimizer, penalty and augmentation."""

import json
import os
import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from normlab.norms import CATALOGUE
from normlab.settings.conf import choices, defaults, instead
from normlab.settings.custom import files_digest, source_digest

MOST = 1e30  # of what multiplies a weight or a gradient
SMALL_ONLY = ("dropout", "placement", "weight_standardization")  # of the small network
DATA_TITLES = {  # what people call a data set
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "kmnist": "Kuzushiji-MNIST",
    "digits": "scikit-learn digits",
    "folder": "own images",
}

Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[Finite, Field(ge=0, lt=1)]
Strength = Annotated[Finite, Field(ge=0, le=MOST), AfterValidator(abs)]  # -0.0 is 0.0: one value, one name, one hash
Count = Annotated[int, Field(ge=1)]


def _of_group(group: str, name: str) -> str:
    """Return a name, if it is one of the files in conf/<group>/."""
    if name not in choices(group):
        raise ValueError(instead(name, choices(group)))
    return name


class Model(BaseModel):
    """Settings are read once and never change; an unknown name or a value of another type is an error. What is left
    out is filled from conf/."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    AT: ClassVar[str] = ""  # its place in the configuration

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, value: Any) -> Any:
        return cls._filled(dict(value)) if isinstance(value, Mapping) else value

    @classmethod
    def _filled(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Fill what is left out from conf/."""
        return _usual(cls.AT, value) | value


def _usual(at: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of a part of the configuration, for the choice that `value` names if the part is a group."""
    name = value.get("name")
    return defaults(**({at: name} if name in choices(at) else {}))[at]  # type: ignore[no-any-return]  # a mapping


def _options(where: str, given: Any) -> dict[str, Any]:
    """Keyword arguments of a layer or a network. `ValueError` where JSON could not hold them."""
    if not isinstance(given or {}, Mapping):
        raise ValueError(f"{where}.options={given}: write a mapping, such as {{eps: 1e-3}}")
    for key, value in (given or {}).items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError(
                f"{where}.{key}={value}: only finite numbers, words, true, false, null, lists and mappings of them"
            ) from None
    return dict(given or {})


def _check_target(where: str, what: str, name: str, target: str | None) -> None:
    if name != "custom":
        return
    if re.fullmatch(r"[\w.]+:\w+", target or "") and ".py:" not in str(target):
        return
    form = f"{where}.target=package.module:{what}"
    if target is None:
        raise ValueError(f"{where}=custom needs {form}")
    # mine.py:RMS, folder/mine.py:RMS, mine.RMS
    path, _, attribute = target.replace(":", ".").replace("/", ".").replace(".py.", ".").strip(".").rpartition(".")
    if target.startswith(("/", "~", "..")):  # a module is found from where the command runs
        folder, _, module = target.partition(".py")[0].rpartition("/")
        meant = f"write {where}.target={module}:{attribute}, and start the command in {folder}"
        raise ValueError(f"{where}.target={target}: {meant}")
    meant = f"{path}:{attribute}"
    did = f"did you mean {where}.target={meant}?" if re.fullmatch(r"[\w.]+:\w+", meant) else f"write {form}"
    raise ValueError(f"{where}.target={target}: {did}")


class Norm(Model):
    """A normalization layer: `options` are its keyword arguments. `source`: sha256 of the file of a custom layer,
    filled in."""

    AT = "norm"

    name: Annotated[str, AfterValidator(partial(_of_group, "norm"))]
    target: str | None
    options: dict[str, Any]
    source: str | None

    @classmethod
    def _filled(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Gather the options: conf/norm writes them flat (`norm.num_groups`), which is what one types."""
        value = {"name": defaults()["norm"]["name"], "target": None, "source": None} | value
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
    """Which images, and where they are. `size`: of data=folder alone, as is `files`: a digest of the names and sizes of
    its files, filled in."""

    AT = "data"

    name: Annotated[str, AfterValidator(partial(_of_group, "data"))]
    root: str | None
    download: bool
    size: Count | None
    files: str | None

    @classmethod
    def _filled(cls, value: dict[str, Any]) -> dict[str, Any]:
        value = {"size": None, "files": None} | super()._filled(value)
        if value["root"] and isinstance(value["root"], str):  # however a folder is spelt, it is one
            value["root"] = os.path.abspath(os.path.expanduser(value["root"]))
            if value["name"] == "folder":
                value["files"] = value["files"] or files_digest(value["root"])
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name == "folder" and not self.root:
            raise ValueError("data=folder needs data.root=…, the folder of your images")
        if self.name != "folder" and self.size is not None:
            raise ValueError(f"data.size goes with data=folder, not with data={self.name}")
        if self.name == "digits" and self.root:
            others = ", ".join(name for name in choices("data") if name != "digits")
            raise ValueError(f"data.root goes with data={others}, not with data=digits, which needs no files")
        return self


class Net(Model):
    """A network: `target` is called with `norm_layer`, `num_classes` and `options`. `source`: as of `Norm`."""

    AT = "net"

    name: Annotated[str, AfterValidator(partial(_of_group, "net"))]
    target: str | None
    options: dict[str, Any]
    channels: Count | None
    size: Count | None
    source: str | None

    @classmethod
    def _filled(cls, value: dict[str, Any]) -> dict[str, Any]:
        value = {"source": None} | super()._filled(value)
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
        return value
