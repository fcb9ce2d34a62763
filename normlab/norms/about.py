"""What a norm's file says of it before torch is imported: formula, axes, options, learned numbers, source, colour."""

import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

FAMILIES = ("control", "batch", "layer", "group", "mixed", "statistic-free", "weights")  # the order of the catalogue
STANDARDISED = "γ · (x − μ) / √(σ² + ε) + β"
ROOT_MEAN_SQUARE = "γ · x / √(mean(x²) + ε)"
TINY, LARGEST = sys.float_info.min, sys.float_info.max
AXES = {"N": "N", "V": "V images", "C": "C", "G": "C / G", "H": "H", "W": "W"}  # an axis of a statistic, in words


@dataclass(frozen=True)
class Number:
    """An option that is a number of a range; `words` says which ("above 0"). null: whether null is a value too.
    divides: whether it has to divide the number of channels, which `About.check` looks at."""

    least: float
    most: float
    words: str
    whole: bool = False
    null: bool = False
    divides: bool = False

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value, as in "must be above 0"; None where nothing is."""
        kind = int if self.whole else (int, float)
        if value is None and self.null:
            return None
        if isinstance(value, bool) or not isinstance(value, kind):
            return f"write a {'whole ' * self.whole}number{' or null' * self.null}"
        return None if self.least <= value <= self.most else f"must be {self.words}"


@dataclass(frozen=True)
class Switch:
    """An option that is true or false."""

    words: str = "true or false"

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value; None where nothing is."""
        return None if isinstance(value, bool) else "choose one of true, false"


Option = Number | Switch
Divisor = partial(Number, 1, LARGEST, "a divisor of the channels", whole=True, divides=True)


@dataclass(frozen=True)
class Learned:
    """A learned parameter.

    Attributes:
        shape: "C" (one number per channel), "C·H·W" (one per position) or a number ("1").
        start: its initial value, or the name of the option that holds it.
        when: the option that switches it on; "": always there.
        scale: whether it multiplies a normalised value: the L1 penalty's scopes `norm` and `weights` cover it.
        sign: of it in the formula.
    """

    shape: str = "C"
    start: float | str = 0.0
    when: str = ""
    scale: bool = False
    sign: str = ""

    def size(self, num_channels: int, size: tuple[int, int] | None) -> tuple[int, ...]:
        """Its shape. Raise `ValueError` where it has a number per position and `size` is None."""
        if self.shape == "C·H·W":
            if size is None:
                raise ValueError("has numbers for every position: give size=(H, W) of its maps")
            return (num_channels, *size)
        return (num_channels,) if self.shape == "C" else (int(self.shape),)


EPS = Number(TINY, LARGEST, "above 0")
MOMENTUM = Number(0, 1, "between 0 and 1", null=True)
SWITCH = Switch()
AFFINE: Mapping[str, Learned] = {
    "weight": Learned(start=1.0, when="affine", scale=True, sign="γ"),
    "bias": Learned(when="affine", sign="β"),
}


@dataclass(frozen=True, kw_only=True)
class About:
    """A norm in words and numbers: `ABOUT` of each file in `normlab/norms/`.

    Attributes:
        name, title, layer: the file's name, the name in words that its docstring begins with, and the class in it; see
            `normlab.norms.catalogue`.
        formula: y, of x and the learned numbers. source: the paper, and where in it.
        family: one of `FAMILIES`.
        axes: the axes of each statistic: letters of N (images), V (images of a ghost batch), C (channels), G (channels
            of a group), H and W; empty where there is no statistic.
        statistic: what one is, and the plural.
        centred: whether a mean is subtracted.
        options: what each option of conf/norm/<name>.yaml may be.
        ordered: an option that is below all of some others.
        learned: the parameters, by name.
        state: what it keeps from step to step, as buffers. modes: how train and eval mode differ. Empty: nothing.
        chained: whether each statistic is of what the one before it normalised; else all of them are of x.
        conv: the way the convolution before it is reparametrised (`normlab.nets`); "": not at all. Where it is, that
            convolution holds what `learned` names, per filter, and the layer holds nothing.
        colour, marker: in every figure.
    """

    name: str = ""
    title: str = ""
    layer: str = ""
    family: str
    formula: str = STANDARDISED
    axes: tuple[str, ...] = ()
    statistic: tuple[str, str] = ("mean and variance", "means and variances")
    centred: bool = True
    options: Mapping[str, Option] = field(default_factory=dict)
    ordered: tuple[str, tuple[str, ...]] | None = None
    learned: Mapping[str, Learned] = field(default_factory=lambda: AFFINE)
    state: str = ""
    modes: str = ""
    chained: bool = False
    conv: str = ""
    source: str
    colour: str
    marker: str

    @property
    def short(self) -> str:
        """ "batch norm": its title for a heading."""
        return self.title.partition(",")[0].replace("normalization", "norm")

    @property
    def of_batch(self) -> bool:
        """Whether a statistic is over several images."""
        return any(set(over) & {"N", "V"} for over in self.axes)

    @property
    def per_map(self) -> bool:
        """Whether every statistic is over one map of one image, so that the map's mean says nothing of the image."""
        return self.centred and bool(self.axes) and all(set(over) <= {"H", "W"} for over in self.axes)

    @property
    def over(self) -> str:
        """The axes in words: "C / G, H, W"."""
        return "; ".join(", ".join(AXES[axis] for axis in over) for over in self.axes)

    def check(self, options: Mapping[str, Any], channels: Iterable[int] = ()) -> None:
        """Raise `ValueError`, in one line, where an option is unknown, out of its range, or divides no `channels`."""
        if unknown := sorted(set(options) - set(self.options)):
            takes = f"it takes {', '.join(self.options)}" if self.options else "it takes none"
            raise ValueError(f"norm.{unknown[0]} is no option of norm={self.name}; {takes}")
        widths = sorted(set(channels))
        for key, value in options.items():
            option = self.options[key]
            if problem := option.problem(value):
                typed = json.dumps(value) if value is None or isinstance(value, bool) else value
                raise ValueError(f"norm.{key}={typed}: {problem}")
            divides = isinstance(option, Number) and option.divides and value is not None
            if divides and any(width % value for width in widths):
                fits = [g for g in range(1, widths[0] + 1) if not any(width % g for width in widths)]
                raise ValueError(
                    f"norm.{key}={value} does not divide the channels ({', '.join(map(str, widths))}): choose one of "
                    f"{', '.join(map(str, fits))}"
                )
        if self.ordered and set(options) >= {self.ordered[0], *self.ordered[1]}:
            first, others = self.ordered
            if not options[first] < min(options[key] for key in others):
                values = ", ".join(f"norm.{key}={options[key]}" for key in (first, *others))
                raise ValueError(f"{values}: {first} must come before {' and '.join(others)}")

    def groups(self, num_channels: int, options: Mapping[str, Any]) -> int:
        """How many groups the channels form: 1 where they form none."""
        if per_group := options.get("channels_per_group"):
            return num_channels // int(per_group)
        return int(options.get("num_groups", 1))

    def values(self, num_channels: int, size: tuple[int, int], options: Mapping[str, Any]) -> int:
        """How many numbers of one image go into the smallest statistic; 0 where there is none."""
        group = num_channels // self.groups(num_channels, options)
        lengths = {"C": num_channels, "G": group, "H": size[0], "W": size[1]}
        return min((math.prod(lengths.get(axis, 1) for axis in over) for over in self.axes), default=0)

    def parameters(self, num_channels: int, size: tuple[int, int], options: Mapping[str, Any]) -> int:
        """Return how many numbers a layer, or the convolution before it (`conv`), learns."""
        there = [number for number in self.learned.values() if not number.when or options.get(number.when, True)]
        return sum(math.prod(number.size(num_channels, size)) for number in there)

    @property
    def counts(self) -> str:
        """How many statistics there are, as a formula: what is left of N, C, H and W; "0" where there are none."""
        found = []
        for over in self.axes:
            left = {"N": "N / V" if "V" in over else "N", "C": "G" if "G" in over else "C", "H": "H", "W": "W"}
            found.append(" · ".join(many for axis, many in left.items() if axis not in over) or "1")
        return " + ".join(found) or "0"

    def sets(
        self, images: int, channels: int, positions: int, groups: int, ghost: int = 2, index: int = 0
    ) -> npt.NDArray[np.int64]:
        """The number of the set that each element of an array (N, C, H·W) shares its statistic with: int (N, C, P).

        Sets are counted from 0; -1 throughout where there is no statistic. index: of the statistic in `axes`. Raise
        `ValueError` where `groups` does not divide the channels.
        """
        if channels % groups:
            raise ValueError(f"groups={groups} does not divide {channels} channels")
        if not self.axes:
            return np.full((images, channels, positions), -1)
        over = self.axes[index]
        n, c, p = np.ogrid[:images, :channels, :positions]
        n = n * 0 if "N" in over else n // ghost if "V" in over else n
        c = c * 0 if "C" in over else c // (channels // groups) if "G" in over else c
        p = p * 0 if "H" in over else p
        return np.asarray((n * channels + c) * positions + p + np.zeros((images, channels, positions), np.int64))
