"""A named study: the question, the claims it tests and the published numbers beside which its results stand.

Its file in conf/study/ is a Hydra experiment: the factors and seeds are `hydra.sweeper.params`, the protocol is every
other setting in it; names in its defaults list are studies that it starts from. This module reads its `study` section,
of which a copy, `study.yaml`, lies with the runs for the report.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from normlab.errors import ConfigError, NormlabError
from normlab.files import write_atomically
from normlab.settings.conf import group_values
from normlab.settings.messages import line
from normlab.settings.model import Scalar

STUDY_FILE = "study.yaml"
MEASURES = Literal[  # the outcomes of normlab.analysis, which this floor cannot ask
    "test_acc", "train_acc", "train_acc_running", "test_ce", "train_ce", "val_acc", "val_ce", "unevenness",
    "test_prob_true", "test_brier", "test_calibration_error", "shifted_acc", "rotated_acc", "noised_acc",
    "contrast_acc", "robust_acc",
]  # fmt: skip

MARGIN = 0.1  # of equivalence, percentage points: what 10,000 test images can resolve
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Claim(Model):
    """A claim about two settings, in a form that runs can test: `of` is `expect`-ed to be higher or lower
    than `against` in `measure`, or similar to it.

    Attributes:
        of, against: what a setting has to hold, such as {norm: bn, l1: 0.001}; all settings that hold it are tested.
        by: the size of the difference that was claimed, percentage points (nats for ce), within `give` either way.
        margin: how far apart "similar" may be; the study's margin unless given.
    """

    claim: str
    source: str
    measure: MEASURES = "test_acc"
    of: dict[str, Scalar]
    against: dict[str, Scalar]
    expect: Literal["lower", "higher", "similar"]
    by: Positive | None = None
    give: Positive | None = None
    margin: Positive | None = None

    @model_validator(mode="after")
    def _together(self) -> "Claim":
        if (self.by is None) != (self.give is None):
            raise ValueError("by (how large the difference is) and give (how far off it may be) go together")
        if self.expect == "similar" and self.by is not None:
            raise ValueError("expect: similar has a margin, not a size (by)")
        if self.expect != "similar" and self.margin is not None:
            raise ValueError(f"expect: {self.expect} has no margin")
        return self


class Published(Model):
    """Accuracies in per cent that somebody printed for a setting."""

    setting: dict[str, Scalar]
    source: str
    train_acc_running: float | None = None
    test_acc: float | None = None


class Study(Model):
    """The `study` section of a study's file.

    Attributes:
        margin: differences smaller than this, in percentage points of accuracy, do not matter: the margin of
            equivalence.
        primary: the outcome that settings are compared in.
        control: by factor, the level that the others are compared with: {norm: bn, l1: 0}; of a norm's options,
            {norm.num_groups: 1}.
        tune: a factor, such as lr, of which each setting takes the level that is best on held-out images; settings are
            compared at their own.
        factors: the settings that it varies; filled in when the study is started.
    """

    question: str
    margin: Positive = MARGIN
    primary: MEASURES = "test_acc"
    control: dict[str, Scalar] = {}
    tune: str = ""
    factors: list[str] = []
    claims: list[Claim] = []
    published: list[Published] = []

    @classmethod
    def named(cls, name: str) -> "Study":
        """Return a study of conf/study/."""
        values = group_values("study", name)
        try:
            study = cls.model_validate({"factors": [key for key in sweep_of(name) if key != "seed"]} | values["study"])
        except ValidationError as error:
            raise ConfigError(f"conf/study/{name}.yaml: {line(error)}") from None
        if study.tune and study.tune not in study.factors:
            raise ConfigError(f"conf/study/{name}.yaml: tune: {study.tune} is none of its factors: {study.factors}")
        return study

    @classmethod
    def find(cls, folder: Path) -> "Study | None":
        """Return the study that the runs in a folder belong to; None where they belong to none."""
        file = folder / STUDY_FILE
        if not file.is_file():
            return None
        try:
            return cls.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
        except (ValidationError, yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            reason = line(error) if isinstance(error, ValidationError) else "no YAML"
            raise NormlabError(
                f"{file} is damaged ({reason}): delete it, and the study's command writes it anew"
            ) from None

    def save(self, folder: Path) -> None:
        """Save the study beside its runs, so that the folder explains itself wherever it is moved."""
        folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(self.model_dump(exclude_none=True), sort_keys=False, allow_unicode=True, width=120)
        write_atomically(folder / STUDY_FILE, text.encode())


NO_STUDY = Study(question="")  # of runs that belong to none


def sweep_of(name: str) -> dict[str, str]:
    """Return what a study sweeps, as on a command line: {"seed": "range(5)", "norm": "bn,ln,gn"}; the last one varies
    fastest."""
    params = group_values("study", name).get("hydra", {}).get("sweeper", {}).get("params", {})
    return {str(key): str(value) for key, value in params.items()}


def protocol(name: str) -> dict[str, Any]:
    """Return the settings that a study fixes for all its runs, as its file and those it starts from write them."""
    return {key: value for key, value in group_values("study", name).items() if key not in ("hydra", "study")}
