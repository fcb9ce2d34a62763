"""Normalization in exact arithmetic: y of a batch of shape (N, C, H, W), by the formula and the axes of a norm's file.

Every number is a `fractions.Fraction`. Sums, means, variances and running averages are exact. A square root is exact
where it is rational, as sqrt(25/4) = 5/2; any other one, like π, sigmoid and tanh, is cut off after 50 significant
digits, and so is what is computed from it where it grows beyond all reading: far more than a float64 holds.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from fractions import Fraction
from math import isqrt

import numpy as np

from normlab.byhand.formula import GREEK, Node, axes_of, formula, is_known
from normlab.byhand.inputs import Batch
from normlab.errors import ConfigError
from normlab.norms import CATALOGUE
from normlab.settings.conf import group_values, instead

DIGITS = 50  # of a root that is not rational
LONG = 800  # bits of a denominator beyond which nobody means the fraction
PI = Fraction("3.1415926535897932384626433832795028841971693993751058209749445923")

Values = tuple[Fraction | None, ...]  # None: undefined, 0 divided by 0

NORMS = {  # in words: "Batch norm"
    name: (about.title[0].upper() + about.title[1:]).replace("normalization", "norm")
    for name, about in CATALOGUE.items()
    if is_known(about)
}


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
        """Raise `ConfigError`, in one line, where something is out of range or does not fit so many channels."""
        groups, eps, momentum = self.groups, self.eps, self.momentum
        if groups is not None and (groups < 1 or channels % groups):
            divisors = ", ".join(str(g) for g in range(1, channels + 1) if channels % g == 0)
            raise ConfigError(f"--groups {groups} does not divide {channels} channels: choose one of {divisors}")
        if self.images < 1:
            raise ConfigError(f"--images {self.images}: a ghost batch has at least 1 image")
        if eps is not None and eps < 0:
            raise ConfigError(f"--eps {float(eps):g} is negative: it is added to a variance, so give 0 or more")
        if not 0 <= momentum <= 1:
            raise ConfigError(f"--momentum {float(momentum):g} is outside [0, 1]: it is the share of the new batch")
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


class Result:
    """One norm of one batch. Values are flat, in the batch's order; None where undefined.

    Attributes:
        about: what the norm's file says. formula: what follows from its formula.
        groups: of channels; 1 where the norm has none.
        given: the numbers that the formula takes beside x, by sign: one, or one per channel.
        channels: the channel of each number. sets: for each of the norm's axes, the set of each number, counted from 0
        in the order in which they begin; owner: the set of the first axes.
        statistics: one per set, those over the first axes first.
        normalised: y with γ = 1 and β = 0. output: y. evaluated: y in eval mode.
        running: by channel, running averages after one step from mean 0 and variance 1, and the roots of eval mode, by
        name; empty where a norm has none. With one number per channel the unbiased variance is 0 / 0: None.
    """

    def __init__(self, norm: str, batch: Batch, rules: Rules) -> None:
        if norm not in NORMS:
            raise ConfigError(f"norm {norm!r} is unknown: {instead(norm, [*NORMS, 'all'])}")
        n, c, _, _ = batch.shape
        rules.check(c)
        self.norm, self.batch, self.rules = norm, batch, rules
        self.about, self.formula, self.given = CATALOGUE[norm], formula(norm), starts(norm, rules, batch.shape[1])
        self.groups = (rules.groups or default_groups(c)) if any("G" in over for over in self.about.axes) else 1
        self._maps = [place // batch.area for place in range(len(batch.values))]
        self.channels = [m % c for m in self._maps]
        self.sets = []
        for i in range(len(self.about.axes)):
            numbers = self.about.sets(n, c, batch.area, self.groups, rules.images, i)
            self.sets.append(np.unique(numbers, return_inverse=True)[1].ravel().tolist())
        self.owner = self.sets[0]
        self._shares: list[list[dict[int, list[int]]]] = []  # places by axes, channel and set
        for owner in self.sets:
            self._shares.append([{} for _ in range(c)])
            for place, (j, k) in enumerate(zip(self.channels, owner, strict=True)):
                self._shares[-1][j].setdefault(k, []).append(place)
        self._known: dict[tuple[Node, bool], Values] = {}
        self.statistics = tuple(self._statistics())
        self.normalised, self.output = self.values(self.formula.inner), self.values(self.formula.tree)
        self.plain = self.normalised == self.output  # γ = 1 and β = 0 everywhere
        self.evaluated = self.values(self.formula.tree, True) if self.formula.kept else self.output
        averages = self.formula.averages.items()
        self.running = tuple(
            {name: self.at(node, j * batch.area, True) for name, node in averages} for j in range(c if averages else 0)
        )

    def at(self, node: Node, place: int, evaluating: bool = False) -> Fraction | None:
        """The value of a part of the formula at a number of the batch."""
        return self.values(node, evaluating)[place]

    def values(self, node: Node, evaluating: bool = False) -> Values:
        """The values of a part of the formula at every number of the batch, in train mode or in eval mode."""
        key = node, evaluating
        if key not in self._known:
            self._known[key] = self._computed(node, evaluating)
        return self._known[key]

    def _computed(self, node: Node, evaluating: bool) -> Values:
        match node:
            case ("x",):
                return self.batch.values
            case ("number", word):
                return (PI if word == "π" else Fraction(word),) * len(self.channels)
            case ("given", sign):
                values = self.given[sign]
                return tuple(values[j % len(values)] for j in self.channels)
            case ("kept", _, inner):
                return self._averages(node) if evaluating else self.values(inner)
            case ("called", _, inner):
                return self.values(inner, evaluating)
            case ("mean" | "sum" as what, i, inner):
                return _gathered(self.values(inner, evaluating), self.sets[i], what == "mean")
            case ("map", inner):
                return _gathered(self.values(inner, evaluating), self._maps, False)
        sign, *parts = node
        computed: dict[tuple[int, ...], Fraction | None] = {}  # once for the numbers that share their values' objects
        found = []
        for row in zip(*(self.values(part, evaluating) for part in parts), strict=True):
            key = tuple(map(id, row))
            if key not in computed:
                computed[key] = None if id(None) in key else OPERATIONS[sign](*row)
            found.append(computed[key])
        return tuple(found)

    def taken(self, node: Node, channel: int) -> list[tuple[list[int], Fraction | None]]:
        """What a running average takes of a channel, set by set: places, and their value; unbiased of a variance."""
        _, start, inner = node
        (i,) = axes_of(node)
        values = self.values(inner)
        pairs = [(places, values[places[0]]) for places in self._shares[i][channel].values()]
        return [(places, _unbiased(value, len(places)) if start else value) for places, value in pairs]

    def _averages(self, node: Node) -> Values:
        """A running average after one step, at every number: per channel."""
        m = self.rules.momentum
        averages: list[Fraction | None] = []
        for channel in range(self.batch.shape[1]):
            average: Fraction | None = Fraction(node[1])
            for _, value in self.taken(node, channel):
                average = None if value is None or average is None else (1 - m) * average + m * value
            averages.append(average)
        return tuple(averages[j] for j in self.channels)

    def _statistics(self) -> Iterator[Statistic]:
        k = 0
        for i, owner in enumerate(self.sets):
            members: list[list[int]] = [[] for _ in range(max(owner) + 1)]
            for place, own in enumerate(owner):
                members[own].append(place)
            variances = {name: node for name, node in self.formula.kept.items() if node[1] and axes_of(node) == {i}}
            for own, places in enumerate(members):
                first = places[0]
                values = {name: self.at(node, first) for name, node in self.formula.steps[i].items()}
                count = len(self._shares[i][self.channels[first]][own])
                values |= {f"unbiased {name}": _unbiased(self.at(of, first), count) for name, of in variances.items()}
                total = sum((self.batch.values[place] for place in places), Fraction(0))
                yield Statistic(letter(k), self._where(self.about.axes[i], first), i, tuple(places), total, values)
                k += 1

    def _where(self, over: str, place: int) -> str:
        """Where the set is that a number belongs to: "image 1, group 2"."""
        i, j, row, column = map(int, np.unravel_index(place, self.batch.shape))
        images = self.rules.images
        first, last = i // images * images + 1, min(i // images * images + images, self.batch.shape[0])
        names = {
            "ghost batch": f"image {last}" if first == last else f"images {first} to {last}",
            "image": f"image {i + 1}",
            "group of channels": f"group {j // (self.batch.shape[1] // self.groups) + 1}",
            "channel": f"channel {j + 1}",
            "pixel": f"row {row + 1}, column {column + 1}",
        }
        return ", ".join(names[unit] for unit in units(over)) or "all numbers"


def units(over: str) -> list[str]:
    """Of what there is one set each, by the axes that a statistic is over: ["image", "group of channels"]."""
    image = [] if "N" in over else ["ghost batch" if "V" in over else "image"]
    channel = [] if "C" in over else ["group of channels" if "G" in over else "channel"]
    return image + channel + ([] if "H" in over else ["pixel"])


def calculate(norm: str, batch: Batch, rules: Rules | None = None) -> Result:
    """Every number of a norm of the catalogue over a batch.

    Batch norm, for one: y = γ · (x - μ) / sqrt(σ² + ε) + β, with μ = Σx / m and the biased σ² = Σ(x - μ)² / m over the
    m numbers of a set. Running averages take the unbiased Σ(x - μ)² / (m - 1), and the place of μ and σ² in eval mode.
    Raise `ConfigError` where the norm is unknown or the rules do not fit.
    """
    return Result(norm, batch, rules or Rules())


def starts(norm: str, rules: Rules, channels: int) -> dict[str, tuple[Fraction, ...]]:
    """The numbers that a norm's formula takes beside x, by sign, ε last: those given, else what the norm starts from.

    One, or one per channel.
    """
    about, options = CATALOGUE[norm], group_values("norm", norm)
    found: dict[str, tuple[Fraction, ...]] = {}
    for key, value in options.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[GREEK.get(key, key)] = (Fraction(str(value)),)
    for learned in about.learned.values():
        start = Fraction(str(options[learned.start] if isinstance(learned.start, str) else learned.start))
        # Several that are no channel's are shares of as many statistics, alike at the start.
        shares = int(learned.shape) if learned.shape.isdecimal() else 0
        found[learned.sign] = (start / shares,) if shares else (start,) * channels
    found["ε"] = (Fraction(str(options.get("eps", 0))) if rules.eps is None else rules.eps,)
    given = {sign: (value,) * len(found[sign]) for sign, value in rules.learned.items() if sign in found}
    chosen: dict[str, tuple[Fraction, ...] | None] = {"γ": rules.gamma, "β": rules.beta, **given}
    return {sign: chosen.get(sign) or value for sign, value in found.items() if sign in formula(norm).signs}


def square_root(value: Fraction) -> Fraction:
    """sqrt(value), value ≥ 0: exact where it is rational, else its first 50 significant digits."""
    n, d = value.numerator, value.denominator
    if isqrt(n) ** 2 == n and isqrt(d) ** 2 == d:
        return Fraction(isqrt(n), isqrt(d))
    # sqrt(n / d) = sqrt(n · d · 100^k) / (d · 10^k)
    k = max(DIGITS - len(str(n * d)) // 2, 0)
    return Fraction(isqrt(n * d * 100**k), d * 10**k)


def default_groups(channels: int) -> int:
    """The smallest divisor of the channels above 1, mostly 2; 1 for one channel."""
    return next((g for g in range(2, channels) if channels % g == 0), channels)


def letter(k: int) -> str:
    """A, B, …, Z, AA, AB, …: as a spreadsheet names its columns."""
    return (letter(k // 26 - 1) if k >= 26 else "") + chr(ord("A") + k % 26)


def _gathered(values: Values, owner: Sequence[int], mean: bool) -> Values:
    """The sum or the mean of the values of each set, at every number."""
    many = max(owner) + 1
    totals: list[Fraction | None] = [Fraction(0)] * many
    counts = [0] * many
    for k, value in zip(owner, values, strict=True):
        total = totals[k]
        totals[k] = None if total is None or value is None else total + value
        counts[k] += 1
    if mean:
        totals = [None if total is None else total / m for total, m in zip(totals, counts, strict=True)]
    return tuple(totals[k] for k in owner)


def _unbiased(value: Fraction | None, count: int) -> Fraction | None:
    return None if value is None or count == 1 else value * count / (count - 1)


def _short(value: Fraction) -> Fraction:
    """A fraction that has grown beyond all reading, to 50 significant digits."""
    if value.denominator.bit_length() < LONG:
        return value
    extra = max(value.denominator.bit_length() - abs(value.numerator).bit_length(), 0) * 301 // 1000  # digits
    return round(value, DIGITS + extra)


def _sigmoid(value: Fraction) -> Fraction:
    """1 / (1 + exp(-value)), which is 0 or 1 to 50 digits beyond ±200."""
    value = min(max(value, Fraction(-200)), Fraction(200))
    with localcontext() as context:
        context.prec = 2 * DIGITS
        return Fraction(1 / (1 + (Decimal(-value.numerator) / value.denominator).exp()))


OPERATIONS: dict[str, Callable[..., Fraction | None]] = {
    "+": lambda a, b: _short(a + b),
    "-": lambda a, b: _short(a - b),
    "·": lambda a, b: _short(a * b),
    "/": lambda a, b: _short(a / b) if b else None,
    "max": max,
    "√": lambda a: square_root(a) if a >= 0 else None,
    "²": lambda a: _short(a * a),
    "|": abs,
    "sigmoid": lambda a: round(_sigmoid(a), DIGITS),
    "tanh": lambda a: round(2 * _sigmoid(2 * a) - 1, DIGITS),
}
