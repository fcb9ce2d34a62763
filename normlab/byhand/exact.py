"""Normalization in exact arithmetic: y = γ · (x - μ) / sqrt(σ² + ε) + β over a batch of shape (N, C, H, W).

Every number is a `fractions.Fraction`. Sums, means, variances and running averages are exact. A square root is exact
where it is rational, as sqrt(25/4) = 5/2; any other one is cut off after 50 significant digits, and so is all that is
computed from it: far beyond what is ever printed, or what a float64 holds.

| name | statistics over            | how many | in eval mode     |
|------|----------------------------|----------|------------------|
| `bn` | N, H, W, per channel       | C        | running averages |
| `ln` | C, H, W, per image         | N        | the same         |
| `gn` | C / G, H, W, per image, G  | N · G    | the same         |
| `in` | H, W, per image, channel   | N · C    | the same         |

As torch computes them: `BatchNorm2d`, `GroupNorm(1, C)`, `GroupNorm(G, C)` and `InstanceNorm2d`. The last one's
`track_running_stats` is off by default, so it too computes the same in training and in use.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

from normlab.errors import ConfigError

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

NORMS = {"bn": "Batch norm", "ln": "Layer norm", "gn": "Group norm", "in": "Instance norm"}
DIGITS = 50  # of a root that is not rational

Shape = tuple[int, int, int, int]
Values = tuple[Fraction | None, ...]  # None: undefined, 0 divided by 0


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
        groups: of group norm; None: 2 where that divides the channels, else their smallest divisor above 1.
        gamma, beta: scale γ and shift β, one a channel; None: 1 and 0.
        momentum: torch's sense: running = (1 - momentum) · running + momentum · batch.
    """

    groups: int | None = None
    eps: Fraction = Fraction(1, 100_000)
    gamma: tuple[Fraction, ...] | None = None
    beta: tuple[Fraction, ...] | None = None
    momentum: Fraction = Fraction(1, 10)

    def check(self, channels: int) -> None:
        """Raises `ConfigError`, in one line, where something is out of range or does not fit so many channels."""
        groups = self.groups
        if groups is not None and (groups < 1 or channels % groups):
            divisors = ", ".join(str(g) for g in range(1, channels + 1) if channels % g == 0)
            raise ConfigError(f"--groups {groups} does not divide {channels} channels: choose one of {divisors}")
        if self.eps < 0:
            raise ConfigError(f"--eps {float(self.eps):g} is negative: it is added to a variance, so give 0 or more")
        if not 0 <= self.momentum <= 1:
            raise ConfigError(
                f"--momentum {float(self.momentum):g} is outside [0, 1]: it is the share of the new batch"
            )
        for name, values in {"gamma": self.gamma, "beta": self.beta}.items():
            if values is not None and len(values) != channels:
                raise ConfigError(f"--{name} has {len(values)} numbers for {channels} channels: give one a channel")


@dataclass(frozen=True)
class Statistic:
    """One mean and one variance, and the numbers that share them.

    Attributes:
        letter: A, B, …, Z, AA, …: its name in pictures and tables. where: "channel 2", "image 1, group 2".
        maps: the numbers m = i · C + j of the maps that take part, ascending.
        count, total, mean: m, Σx, μ = Σx / m.
        squares: Σ(x - μ)². variance: σ² = squares / m, the biased one, which normalises.
        unbiased: squares / (m - 1), which the running average takes; None where m = 1.
        root: sqrt(σ² + ε); 0 where all numbers are equal and ε = 0, and the quotient is undefined.
    """

    letter: str
    where: str
    maps: tuple[int, ...]
    count: int
    total: Fraction
    mean: Fraction
    squares: Fraction
    variance: Fraction
    unbiased: Fraction | None
    root: Fraction


@dataclass(frozen=True)
class Running:
    """Running averages of a channel after one step, from mean 0 and variance 1, and sqrt(variance + ε).

    variance and root are None where the batch has one number a channel: its unbiased variance is 0 / 0.
    """

    mean: Fraction
    variance: Fraction | None
    root: Fraction | None


@dataclass(frozen=True)
class Result:
    """One norm of one batch. Values are flat, in the batch's order; None where undefined.

    Attributes:
        owner: for each map, the index of its statistic.
        normalised: (x - μ) / sqrt(σ² + ε). output: γ · normalised + β.
        running: of batch norm, one a channel; of the others empty.
        evaluated: the output in eval mode: from the running averages for batch norm, for the others the same as
        `output`.
    """

    norm: str
    groups: int
    batch: Batch
    rules: Rules
    statistics: tuple[Statistic, ...]
    owner: tuple[int, ...]
    normalised: Values
    output: Values
    running: tuple[Running, ...]
    evaluated: Values

    @property
    def plain(self) -> bool:
        """Whether γ = 1 and β = 0 everywhere, so that output and normalised are the same."""
        gamma, beta = self.rules.gamma or (), self.rules.beta or ()
        return all(g == 1 for g in gamma) and not any(beta)


def calculate(norm: str, batch: Batch, rules: Rules | None = None) -> Result:
    """The statistics of `norm` ("bn", "ln", "gn" or "in") over a batch, and every value that follows from them.

    y = γ · (x - μ) / sqrt(σ² + ε) + β, with μ = Σx / m and the biased σ² = Σ(x - μ)² / m over the m numbers of a set.
    One γ and one β a channel. Batch norm's running averages make one step from 0 and 1, with the unbiased Σ(x - μ)² /
    (m - 1), and take the place of μ and σ² in eval mode.

    Raises `ConfigError` where the norm is unknown or the rules do not fit. Sources: Ioffe & Szegedy 2015, "Batch
    Normalization", algorithms 1 and 2; Ba, Kiros & Hinton 2016, "Layer Normalization", equation 3, for an image's
    (C, H, W); Wu & He 2018, "Group Normalization", equations 1 to 7; Ulyanov, Vedaldi & Lempitsky 2016, "Instance
    Normalization", equation 2.
    """
    rules = rules or Rules()
    n, c = batch.shape[:2]
    rules.check(c)
    groups = _groups(norm, rules, c)
    statistics = []
    owner = [0] * (n * c)
    for k, (where, maps) in enumerate(sets(norm, batch.shape, groups)):
        numbers = [x for m in maps for x in batch.values[m * batch.area : (m + 1) * batch.area]]
        statistics.append(_statistic(_letter(k), where, maps, numbers, rules.eps))
        for m in maps:
            owner[m] = k

    gamma, beta = rules.gamma or (Fraction(1),) * c, rules.beta or (Fraction(0),) * c
    means = [statistics[k].mean for k in owner]
    normalised = _normalised(batch, means, [statistics[k].root for k in owner])
    output = _scaled(normalised, batch, gamma, beta)
    if norm != "bn":
        return Result(norm, groups, batch, rules, tuple(statistics), tuple(owner), normalised, output, (), output)
    running = [_running(statistic, rules) for statistic in statistics]
    plain = _normalised(batch, [running[k].mean for k in owner], [running[k].root for k in owner])
    evaluated = _scaled(plain, batch, gamma, beta)
    return Result(
        norm, groups, batch, rules, tuple(statistics), tuple(owner), normalised, output, tuple(running), evaluated
    )


def sets(norm: str, shape: Sequence[int], groups: int = 2) -> list[tuple[str, tuple[int, ...]]]:
    """Which maps share a statistic: for each, where it is ("channel 2") and its maps m = i · C + j, image i, channel j.

    Raises `ConfigError` where the norm is unknown or `groups` does not divide the channels.
    """
    n, c = shape[:2]
    if norm == "bn":
        return [(f"channel {j + 1}", tuple(range(j, n * c, c))) for j in range(c)]
    if norm == "ln":
        return [(f"image {i + 1}", tuple(range(i * c, (i + 1) * c))) for i in range(n)]
    if norm == "gn":
        Rules(groups=groups).check(c)
        width = c // groups
        return [
            (f"image {i + 1}, group {g + 1}", tuple(range(i * c + g * width, i * c + (g + 1) * width)))
            for i in range(n)
            for g in range(groups)
        ]
    if norm == "in":
        return [(f"image {i + 1}, channel {j + 1}", (i * c + j,)) for i in range(n) for j in range(c)]
    raise ConfigError(f"norm {norm!r} is unknown: choose one of {', '.join(NORMS)}, all")


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


def _groups(norm: str, rules: Rules, channels: int) -> int:
    own = {"bn": 1, "ln": 1, "in": channels}
    return own.get(norm) or rules.groups or default_groups(channels)


def _statistic(letter: str, where: str, maps: tuple[int, ...], numbers: list[Fraction], eps: Fraction) -> Statistic:
    m = len(numbers)
    total = sum(numbers, Fraction(0))
    mean = total / m
    squares = sum(((x - mean) ** 2 for x in numbers), Fraction(0))
    unbiased = squares / (m - 1) if m > 1 else None
    variance = squares / m
    return Statistic(letter, where, maps, m, total, mean, squares, variance, unbiased, square_root(variance + eps))


def _running(statistic: Statistic, rules: Rules) -> Running:
    mean = rules.momentum * statistic.mean  # from 0
    if statistic.unbiased is None:
        return Running(mean, None, None)
    variance = 1 - rules.momentum + rules.momentum * statistic.unbiased  # from 1
    return Running(mean, variance, square_root(variance + rules.eps))


def _normalised(batch: Batch, means: Sequence[Fraction], roots: Sequence[Fraction | None]) -> Values:
    """(x - mean) / root, with a mean and a root for each map; None where the root is 0 or not there."""
    return tuple(
        (x - mean) / root if root else None
        for m, (mean, root) in enumerate(zip(means, roots, strict=True))
        for x in batch.values[m * batch.area : (m + 1) * batch.area]
    )


def _scaled(values: Values, batch: Batch, gamma: Sequence[Fraction], beta: Sequence[Fraction]) -> Values:
    """γ · value + β, with a γ and a β for each channel."""
    c, area = batch.shape[1], batch.area
    return tuple(
        None if value is None else gamma[k // area % c] * value + beta[k // area % c] for k, value in enumerate(values)
    )


def _letter(k: int) -> str:
    """A, B, …, Z, AA, AB, …: as a spreadsheet names its columns."""
    name = ""
    k += 1
    while k:
        k, rest = divmod(k - 1, 26)
        name = chr(ord("A") + rest) + name
    return name
