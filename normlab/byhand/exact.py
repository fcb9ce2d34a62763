"""Normalization in exact arithmetic: y of a batch of shape (N, C, H, W), by the formula and the axes of a norm's file.

Every number is a `fractions.Fraction`. Sums, means, variances and running averages are exact. A square root is exact
where it is rational, as sqrt(25/4) = 5/2; any other one, like π, sigmoid and tanh, is cut off after 50 significant
digits, and so is what is computed from it where it grows beyond all reading: far more than a float64 holds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache, cached_property
from math import isqrt, prod

from normlab.byhand.formula import (
    Node,
    axes_of,
    formula,
    greek,
    inner,
    is_known,
    kept,
    kept_roots,
    label,
    steps,
    symbols_in_eval,
    text,
)
from normlab.errors import ConfigError
from normlab.norms import CATALOGUE, About
from normlab.settings.conf import group_values

__all__ = [
    "NORMS",
    "Batch",
    "Result",
    "Rules",
    "Running",
    "Statistic",
    "calculate",
    "default_groups",
    "sets",
    "square_root",
]

DIGITS = 50  # of a root that is not rational
LONG = 800  # bits of a denominator beyond which nobody means the fraction
PI = Fraction("3.1415926535897932384626433832795028841971693993751058209749445923")

Shape = tuple[int, int, int, int]
Values = tuple[Fraction | None, ...]  # None: undefined, 0 divided by 0


def _title(about: About) -> str:
    title = about.title.replace("normalization", "norm")
    return title[0].upper() + title[1:]


NORMS = {name: _title(about) for name, about in CATALOGUE.items() if is_known(about)}


@dataclass(frozen=True)
class Batch:
    """N images of C channels of H x W numbers, flat and in row-major order. source: where they are from, for people.

    Raises `ConfigError` where shape and values do not fit.
    """

    shape: Shape
    values: tuple[Fraction, ...]
    source: str = ""

    def __post_init__(self) -> None:
        n, c, h, w = self.shape
        if min(self.shape) < 1 or n * c * h * w != len(self.values):
            raise ConfigError(f"{len(self.values)} numbers are not a batch of shape {n},{c},{h},{w}")

    @property
    def area(self) -> int:
        """H · W, the numbers of one map: those of map m = i · C + j are values[m · area : (m + 1) · area]."""
        return self.shape[2] * self.shape[3]


@dataclass(frozen=True)
class Rules:
    """What a calculation takes beside its batch.

    Attributes:
        groups: of channels; None: 2 where that divides the channels, else their smallest divisor above 1.
        images: of a ghost batch.
        eps: None: the norm's own, from conf/norm.
        gamma, beta: scale γ and shift β, one per channel; None: those that the norm starts from, as a rule 1 and 0.
        momentum: torch's sense: running = (1 - momentum) · running + momentum · batch.
        learned: any other number of a formula by its sign, such as {"τ": …}; else what the norm starts from.
    """

    groups: int | None = None
    eps: Fraction | None = None
    gamma: tuple[Fraction, ...] | None = None
    beta: tuple[Fraction, ...] | None = None
    momentum: Fraction = Fraction(1, 10)
    images: int = 2
    learned: dict[str, Fraction] = field(default_factory=dict)

    def check(self, channels: int) -> None:
        """Raises `ConfigError`, in one line, where something is out of range or does not fit so many channels."""
        groups = self.groups
        if groups is not None and (groups < 1 or channels % groups):
            divisors = ", ".join(str(g) for g in range(1, channels + 1) if channels % g == 0)
            raise ConfigError(f"--groups {groups} does not divide {channels} channels: choose one of {divisors}")
        if self.images < 1:
            raise ConfigError(f"--images {self.images}: a ghost batch has at least 1 image")
        if self.eps is not None and self.eps < 0:
            raise ConfigError(f"--eps {float(self.eps):g} is negative: it is added to a variance, so give 0 or more")
        if not 0 <= self.momentum <= 1:
            raise ConfigError(
                f"--momentum {float(self.momentum):g} is outside [0, 1]: it is the share of the new batch"
            )
        for name, values in {"gamma": self.gamma, "beta": self.beta}.items():
            if values is not None and len(values) != channels:
                raise ConfigError(f"--{name} has {len(values)} numbers for {channels} channels: give one per channel")


@dataclass(frozen=True)
class Statistic:
    """One set of numbers that share a mean, a variance, or what else the norm has.

    Attributes:
        letter: A, B, …, Z, AA, …: its name in pictures and tables. where: "channel 2", "image 1, group 2".
        axes: which of the norm's axes it is over. members: the places of its numbers in the batch, ascending.
        total: Σx. values: by name in the formula, such as μ, σ², √(σ² + ε) and, where a running average takes it,
        "unbiased σ²": σ² · m / (m - 1), with m numbers of a channel. None: undefined.
    """

    letter: str
    where: str
    axes: int
    members: tuple[int, ...]
    total: Fraction
    values: dict[str, Fraction | None]

    @property
    def count(self) -> int:
        """How many numbers share it."""
        return len(self.members)


@dataclass(frozen=True)
class Running:
    """Running averages of a channel after one step, from mean 0 and variance 1, and the roots of eval mode by name.

    What follows from an unbiased variance of 0 / 0 is None: the batch has one number per channel.
    """

    where: str
    values: dict[str, Fraction | None]


@dataclass(frozen=True)
class Grid:
    """Values, and which of them is that of each number of the batch."""

    owner: Sequence[int]
    values: Sequence[Fraction | None]

    def all(self) -> Values:
        return tuple(self.values[k] for k in self.owner)


class Result:
    """One norm of one batch. Values are flat, in the batch's order; None where undefined.

    Attributes:
        about: what the norm's file says. groups: of channels; 1 where the norm has none.
        tree, inner: the formula of y, and with γ = 1 and β = 0.
        statistics: one per set, those over the first axes first. owner: for each number, the set of the first axes.
        normalised: y with γ = 1 and β = 0. output: y. evaluated: y in eval mode.
        running: of a norm with running averages, one per channel; of the others empty.
    """

    def __init__(self, norm: str, batch: Batch, rules: Rules) -> None:
        if norm not in NORMS:
            raise ConfigError(f"norm {norm!r} is unknown: choose one of {', '.join(NORMS)}, all")
        self.norm, self.batch, self.rules, self.about = norm, batch, rules, CATALOGUE[norm]
        c = batch.shape[1]
        rules.check(c)
        grouped = any("G" in over for over in self.about.axes)
        self.groups = (rules.groups or default_groups(c)) if grouped else 1
        self.tree = formula(norm)
        self.inner = inner(norm)
        size = len(batch.values)
        self._one, self._each = [0] * size, range(size)
        self._channel = [k // batch.area % c for k in self._each]
        self._map = [k // batch.area for k in self._each]
        self._sets = [
            _owner(self.about, batch.shape, self.groups, rules.images, i) for i in range(len(self.about.axes))
        ]
        self._known: dict[tuple[Node, bool], Grid] = {}
        self.owner = self._sets[0]
        self.statistics = self._statistics()
        self.normalised = self.grid(self.inner).all()
        self.output = self.normalised if self.inner == self.tree else self.grid(self.tree).all()
        self.evaluated = self.grid(self.tree, True).all() if kept(self.tree) else self.output
        self.running = self._running() if kept(self.tree) else ()

    @cached_property
    def given(self) -> dict[str, tuple[Fraction, ...]]:
        """The numbers that a formula takes beside x, by sign: one, or one per channel."""
        return starts(self.norm, self.rules)

    @cached_property
    def plain(self) -> bool:
        """Whether γ = 1 and β = 0 everywhere, so that output and normalised are the same."""
        return self.output == self.normalised

    def at(self, node: Node, place: int, evaluating: bool = False) -> Fraction | None:
        """The value of a part of the formula at a number of the batch."""
        grid = self.grid(node, evaluating)
        return grid.values[grid.owner[place]]

    def grid(self, node: Node, evaluating: bool = False) -> Grid:
        """The values of a part of the formula, in train mode or in eval mode."""
        key = node, evaluating
        if key not in self._known:
            self._known[key] = self._computed(node, evaluating)
        return self._known[key]

    def _computed(self, node: Node, evaluating: bool) -> Grid:
        match node:
            case ("x",):
                return Grid(self._each, self.batch.values)
            case ("number", word):
                return Grid(self._one, (PI if word == "π" else Fraction(word),))
            case ("given", sign):
                values = self.given[sign]
                return Grid(self._channel if len(values) > 1 else self._one, values)
            case ("kept", start, inner):
                return self._average(start, inner) if evaluating else self.grid(inner)
            case ("called", _, inner):
                return self.grid(inner, evaluating)
            case ("mean" | "sum" as what, i, inner):
                return _gathered(self.grid(inner, evaluating), self._sets[i], what == "mean")
            case ("map", inner):
                return _gathered(self.grid(inner, evaluating), self._map, False)
        sign, *parts = node
        grids = [self.grid(part, evaluating) for part in parts]
        owners = {id(grid.owner): grid.owner for grid in grids if grid.owner is not self._one}
        if len(owners) > 1:
            grids = [Grid(self._each, grid.all()) if grid.owner is not self._one else grid for grid in grids]
        owner = self._each if len(owners) > 1 else next(iter(owners.values()), self._one)
        many = max(len(grid.values) for grid in grids)
        columns = [list(grid.values) * (many if len(grid.values) == 1 else 1) for grid in grids]
        compute = OPERATIONS[sign]
        return Grid(owner, [None if None in row else compute(*row) for row in zip(*columns, strict=True)])

    def _average(self, start: int, inner: Node) -> Grid:
        """The running average of a statistic after one step: per channel, set by set in their order."""
        grid, m = self.grid(inner), self.rules.momentum
        seen: list[dict[int, int]] = [{} for _ in range(self.batch.shape[1])]  # numbers of a channel by set
        for channel, k in zip(self._channel, grid.owner, strict=True):
            seen[channel][k] = seen[channel].get(k, 0) + 1
        averages: list[Fraction | None] = []
        for counts in seen:
            average: Fraction | None = Fraction(start)
            for k, count in counts.items():
                value = _unbiased(grid.values[k], count) if start else grid.values[k]
                average = None if value is None or average is None else (1 - m) * average + m * value
            averages.append(average)
        return Grid(self._channel, averages)

    def _statistics(self) -> tuple[Statistic, ...]:
        found: list[Statistic] = []
        for i, owner in enumerate(self._sets):
            members: list[list[int]] = [[] for _ in range(max(owner) + 1)]
            for place, k in enumerate(owner):
                members[k].append(place)
            named = [(label(node), node) for node in steps(self.tree, i)]
            variances = [(node[2], label(node)) for node in kept(self.tree) if node[1] and axes_of(node) == {i}]
            for places in members:
                first = places[0]
                values = {name: self.at(node, first) for name, node in named}
                count = sum(self._channel[place] == self._channel[first] for place in places)
                for node, name in variances:
                    values[f"unbiased {name}"] = _unbiased(self.at(node, first), count)
                where = _where(self.about.axes[i], self.batch.shape, self.groups, self.rules.images, first)
                total = sum((self.batch.values[place] for place in places), Fraction(0))
                found.append(Statistic(_letter(len(found)), where, i, tuple(places), total, values))
        return tuple(found)

    def _running(self) -> tuple[Running, ...]:
        nodes = {f"running {label(node)}": node for node in kept(self.tree)}
        nodes |= {text(node, symbols_in_eval): node for node in kept_roots(self.tree)}
        area = self.batch.area
        return tuple(
            Running(f"channel {j + 1}", {name: self.at(node, j * area, True) for name, node in nodes.items()})
            for j in range(self.batch.shape[1])
        )


def calculate(norm: str, batch: Batch, rules: Rules | None = None) -> Result:
    """Every number of a norm of the catalogue over a batch: statistics, normalised values, output, running averages.

    Batch norm, for one: y = γ · (x - μ) / sqrt(σ² + ε) + β, with μ = Σx / m and the biased σ² = Σ(x - μ)² / m over the
    m numbers of a set. Running averages make one step from mean 0 and variance 1, with the unbiased
    Σ(x - μ)² / (m - 1), and take the place of μ and σ² in eval mode. Formula, axes and source of each norm are in its
    file, normlab/norms/<name>.py.

    Raises `ConfigError` where the norm is unknown or the rules do not fit.
    """
    return Result(norm, batch, rules or Rules())


def starts(norm: str, rules: Rules) -> dict[str, tuple[Fraction, ...]]:
    """The numbers that a norm's formula takes beside x, by sign: those given, else those that the norm starts from."""
    about, options = CATALOGUE[norm], group_values("norm", norm)
    found: dict[str, tuple[Fraction, ...]] = {
        greek(key): (_exact(value),) for key, value in options.items() if _is_number(value)
    }
    found["ε"] = (_exact(options.get("eps", 0)) if rules.eps is None else rules.eps,)
    for learned in about.learned.values():
        start = options[learned.start] if isinstance(learned.start, str) else learned.start
        # Several that are no channel's are shares of as many statistics, alike at the start.
        share = int(learned.shape) if learned.shape.isdecimal() else 1
        found[learned.sign] = (_exact(start) / share,)
    found |= {"γ": rules.gamma} if rules.gamma and "γ" in found else {}
    found |= {"β": rules.beta} if rules.beta and "β" in found else {}
    return found | {sign: (value,) for sign, value in rules.learned.items() if sign in found}


def sets(norm: str, shape: Shape, groups: int = 2, images: int = 2, axes: int = 0) -> list[tuple[str, tuple[int, ...]]]:
    """Which numbers share a statistic: for each set, where it is ("channel 2") and the places of its numbers.

    Raises `ConfigError` where the norm is unknown or `groups` does not divide the channels.
    """
    result = Result(norm, Batch(shape, (Fraction(0),) * prod(shape)), Rules(groups=groups, images=images))
    return [(s.where, s.members) for s in result.statistics if s.axes == axes]


def square_root(value: Fraction) -> Fraction:
    """sqrt(value), value ≥ 0: exact where it is rational, else its first 50 significant digits."""
    n, d = value.numerator, value.denominator
    if isqrt(n) ** 2 == n and isqrt(d) ** 2 == d:
        return Fraction(isqrt(n), isqrt(d))
    # sqrt(n / d) = sqrt(n · d · 100^k) / (d · 10^k)
    k = max(DIGITS - len(str(n * d)) // 2, 0)
    return Fraction(isqrt(n * d * 100**k), d * 10**k)


def default_groups(channels: int) -> int:
    """2 where it divides the channels, else their smallest divisor above 1; 1 for one channel."""
    return next((g for g in range(2, channels + 1) if channels % g == 0), 1)


def _owner(about: About, shape: Shape, groups: int, images: int, axes: int) -> list[int]:
    """The set of each number, counted in the order in which they begin."""
    n, c, h, w = shape
    numbers: dict[int, int] = {}
    found = about.sets(n, c, h * w, groups, images, axes).ravel().tolist()
    return [numbers.setdefault(k, len(numbers)) for k in found]


def _gathered(grid: Grid, owner: Sequence[int], mean: bool) -> Grid:
    """The sum or the mean of the values of each set."""
    many = max(owner) + 1
    totals, counts, undefined = [Fraction(0)] * many, [0] * many, set()
    for k, at in zip(owner, grid.owner, strict=True):
        value = grid.values[at]
        counts[k] += 1
        if value is None:
            undefined.add(k)
        else:
            totals[k] += value
    values = [total / count if mean else total for total, count in zip(totals, counts, strict=True)]
    return Grid(owner, [None if k in undefined else value for k, value in enumerate(values)])


def _unbiased(value: Fraction | None, count: int) -> Fraction | None:
    return None if value is None or count == 1 else value * count / (count - 1)


def _short(value: Fraction) -> Fraction:
    """A fraction that has grown beyond all reading, to 50 significant digits."""
    if value.denominator.bit_length() < LONG:
        return value
    k = DIGITS + max(value.denominator.bit_length() - abs(value.numerator).bit_length(), 0) * 301 // 1000
    return Fraction(round(value * 10**k), 10**k)


def _divided(a: Fraction, b: Fraction) -> Fraction | None:
    return _short(a / b) if b else None


def _sigmoid(value: Fraction) -> Fraction:
    """1 / (1 + exp(-value))"""
    with localcontext() as context:
        context.prec = DIGITS + 10
        context.Emin, context.Emax = -999_999, 999_999
        size = -abs(Decimal(value.numerator) / value.denominator)
        small = Fraction((size if size > -200_000 else Decimal(-200_000)).exp())  # no more than 1
    return (Fraction(1) if value >= 0 else small) / (1 + small)


OPERATIONS: dict[str, Callable[..., Fraction | None]] = {
    "+": lambda a, b: _short(a + b),
    "-": lambda a, b: _short(a - b),
    "·": lambda a, b: _short(a * b),
    "/": _divided,
    "max": max,
    "√": cache(lambda a: square_root(a) if a >= 0 else None),
    "²": lambda a: _short(a * a),
    "|": abs,
    "sigmoid": lambda a: _short_digits(_sigmoid(a)),
    "tanh": lambda a: _short_digits(2 * _sigmoid(2 * a) - 1),
}


def _short_digits(value: Fraction) -> Fraction:
    return Fraction(round(value * 10**DIGITS), 10**DIGITS)


def _where(over: str, shape: Shape, groups: int, images: int, place: int) -> str:
    """Where the set is that a number belongs to: "image 1, group 2"."""
    n, c, h, w = shape
    i, j, row, column = place // (c * h * w), place // (h * w) % c, place // w % h, place % w
    words = []
    if "V" in over:
        start = i // images * images
        last = min(start + images, n)
        words.append(f"image {last}" if last == start + 1 else f"images {start + 1} to {last}")
    elif "N" not in over:
        words.append(f"image {i + 1}")
    if "G" in over:
        words.append(f"group {j // (c // groups) + 1}")
    elif "C" not in over:
        words.append(f"channel {j + 1}")
    if "H" not in over:
        words.append(f"row {row + 1}, column {column + 1}")
    return ", ".join(words) or "all numbers"


def _exact(value: float) -> Fraction:
    return Fraction(str(value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _letter(k: int) -> str:
    """A, B, …, Z, AA, AB, …: as a spreadsheet names its columns."""
    name = ""
    k += 1
    while k:
        k, rest = divmod(k - 1, 26)
        name = chr(ord("A") + rest) + name
    return name
