"""Figures of rows: the accuracy of each setting, and every effect with its interval and verdict."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from normlab.analysis.colours import FAINT, INK, MUTED, PAPER, QUIET
from normlab.analysis.drawing import (
    SMALL,
    TEXT,
    Array,
    Style,
    bars,
    check,
    empty,
    figure,
    finite,
    folded,
    key,
    log_ticks,
    looks_of,
    plain,
    room_for,
    styles,
    zero_place,
)
from normlab.analysis.numbers import NONE, signed

__all__ = ["VERDICTS", "Effect", "accuracies", "accuracy_rows", "effect_rows", "effects"]

SOURCES = ["x", "+", "1", "2", "3", "4", "|"]  # published values: thin, unlike every marker of a norm
VERDICTS = {  # colour, marker, filled
    "better": ("#0B6E75", ">", True),
    "worse": ("#B0470A", "<", True),
    "equivalent": (INK, "s", True),
    "less": (INK, "D", True),  # than the margin
    "undecided": (QUIET, "o", False),
}


class Effect(NamedTuple):
    """A row: a difference in the outcome's unit with its 95 % interval (NaN where there is none), the verdict, the
    seeds' own differences, float (S,), and the group that it is listed in."""

    label: str
    value: float
    low: float
    high: float
    verdict: str
    seeds: Sequence[float] = ()
    group: str = ""


def rows_of(
    ax: Axes, names: Sequence[str], numbers: Sequence[str], colours: Sequence[str] = (), places: Sequence[float] = ()
) -> None:
    """Rows counted from 0 at the top, or at these places, with labels at the left and numbers at the right."""
    places = places or range(len(names))
    ax.grid(axis="x")
    ax.grid(visible=False, axis="y")
    ax.set_ylim(max([0, *places]) + 0.5, -0.5)
    ax.set_yticks(places, names)
    ax.tick_params(axis="y", labelsize=TEXT, labelcolor=INK, pad=6)
    right = ax.secondary_yaxis("right")
    right.spines["right"].set_visible(False)
    right.set_yticks(places, numbers)
    right.tick_params(labelsize=TEXT, labelcolor=INK, pad=6, length=0)
    for label, colour in zip(right.get_yticklabels(), colours, strict=False):
        label.set_color(colour)


def dots(ax: Axes, values: Array, y: float, colour: object) -> None:
    """Draw the values of single seeds below the middle of a row, in three tracks."""
    lane = y + 0.27 + 0.06 * (np.arange(len(values)) % 3 - 1)
    ax.plot(values, lane, "o", ms=3.8, color=colour, alpha=0.55, mew=0)


def accuracy_rows(
    ax: Axes,
    values: Mapping[str, Array],
    estimates: Mapping[str, tuple[float, float, float]],
    looks: Mapping[str, Style],
    *,
    reference: Mapping[str, Sequence[tuple[str, float]]] | None = None,
    letters: int = 26,
) -> list[Line2D]:
    """Draw one row per setting: every seed, their mean with its interval; beside it mean ± standard deviation.

    Accuracies in per cent; where they come near 100 and differ by more than a factor of 10 in their error, that is
    drawn, on a logarithmic axis. Return a key of the published values.
    """
    seeds = {label: finite(given) for label, given in values.items()}
    reference = reference or {}
    sources = list(dict.fromkeys(source for some in reference.values() for source, _ in some))
    means = {label: estimates.get(label, (mean_of(of), np.nan, np.nan)) for label, of in seeds.items()}
    published = [value for some in reference.values() for _, value in some]
    points = finite(np.concatenate([*seeds.values(), [mean for mean, *_ in means.values()], published]))
    ends = finite([end for _, *bounds in means.values() for end in bounds])
    floor = zero_place(100 - points)
    errors = points.size > 0 and points.max() > 95 and 100 - points.min() > 10 * (100 - points.max())

    def shown(accuracy: object) -> Array:
        given = np.asarray(accuracy, dtype=float)
        return np.maximum(100 - given, floor) if errors else given

    rows_of(ax, [folded(label, letters) for label in values], [mean_sd(of) for of in seeds.values()])
    room_for(ax, "x", shown(points), shown(ends), "log" if errors else "linear")
    if errors:
        ax.invert_xaxis()  # better at the right, as in figures of accuracies
        log_ticks(ax.xaxis, floor)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    for y, (label, of) in enumerate(seeds.items()):
        mean, *bounds = means[label]
        dots(ax, shown(of), y, looks[label].colour)
        low, high = sorted(shown(bounds).tolist())
        bars(ax, y, low, high, looks[label].colour)
        ax.plot(shown([mean]), [y], linestyle="", **looks[label].mark(7.5))
        for source, value in reference.get(label, []):
            ax.plot(shown([value]), [y - 0.27], SOURCES[sources.index(source) % 7], ms=6, color=INK, mew=1.1)
    for before, (y, label) in zip(list(values), list(enumerate(values))[1:], strict=False):
        if looks[before].norm != looks[label].norm:
            ax.axhline(y - 0.5, color=FAINT, linewidth=0.8)
    ax.set_xlabel("test error, % (logarithmic)" if errors else "test accuracy, %")
    if not points.size:
        empty(ax)
    return [
        Line2D([], [], linestyle="", marker=SOURCES[i % 7], color=INK, mew=1.1, label=f"published, one seed: {source}")
        for i, source in enumerate(sources)
    ]


@plain()
def accuracies(
    values: Mapping[str, Array],
    estimates: Mapping[str, tuple[float, float, float]],
    norms: Mapping[str, str],
    *,
    title: str,
    reference: Mapping[str, Sequence[tuple[str, float]]] | None = None,
) -> Figure:
    """Draw the accuracy of each setting, in per cent.

    values: label -> float (S,), NaN is a missing seed. estimates: label -> (mean, low, high), the 95 % interval of the
    mean; with NaN bounds, or no entry, the mean stands alone. norms: label -> norm, of all settings of the report.
    reference: label -> (source, value), published values of one seed each. Raise ValueError if values are not (S,), if
    a label of ``estimates`` or ``reference`` has no values, or one of ``values`` no norm.
    """
    looks = looks_of(values, styles(norms))
    for name, others in {"estimates": estimates, "reference": reference or {}}.items():
        check(set(others) <= set(values), f"{name} without values: {', '.join(sorted(set(others) - set(values)))}")
    for label, given in values.items():
        check(np.ndim(given) == 1, f"{label!r}: values must be (S,), not {np.shape(given)}")
    fig = figure(title, row_height(list(values), 0.42) + 1.5)
    ax = fig.subplots()
    published = accuracy_rows(ax, values, estimates, looks, reference=reference)
    note = (
        "Mark and bar: mean with its 95 % interval; dots: one seed each; numbers: mean accuracy ± standard deviation."
    )
    key(fig, published, note if any(finite(v).size for v in values.values()) else "", 1)
    return fig


def effect_rows(
    ax: Axes, rows: Sequence[Effect], margin: float, unit: str, letters: int = 38, *, spans: bool = True
) -> None:
    """Draw differences, a row each from 0 downwards, with every seed, around the band of equivalence. spans: whether
    the intervals stand beside them in numbers, too."""
    low, high = limits_of(rows, margin)
    form = ".4f" if unit == "nats" else ".2f"
    names: list[str] = []
    numbers: list[str] = []
    colours: list[str] = []
    places: list[float] = []
    for i, row in enumerate(rows):
        if row.group and (not i or row.group != rows[i - 1].group):  # a row of its own
            names, numbers, colours = [*names, row.group], [*numbers, ""], [*colours, QUIET]
            places.append(places[-1] + 0.9 if places else -0.1)
        names.append(folded(row.label, letters))
        numbers.append(in_numbers(row, form, spans))
        colours.append(VERDICTS[first_word(row.verdict)][0])
        places.append(places[-1] + (0.75 if names[-2:-1] == [row.group] else 1) if places else 0.0)
    rows_of(ax, names, numbers, colours, places)
    at = [place for place, number in zip(places, numbers, strict=True) if number]
    for label, number in zip(ax.get_yticklabels(), numbers, strict=True):
        if not number:
            label.set(size=SMALL, color=QUIET)
    ax.set_xlim(low, high)
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: signed(x, "g")))
    ax.set_xlabel("difference, percentage points" if unit == "pp" else f"difference, {unit}")
    if not rows:
        empty(ax)
        return
    ax.axvspan(-margin, margin, color=MUTED, zorder=0.2, linewidth=0)
    ax.axvline(0, color=QUIET, linewidth=1, zorder=0.9)
    for y, row in zip(at, rows, strict=True):
        colour, marker, filled = VERDICTS[first_word(row.verdict)]
        seeds = finite(row.seeds)
        dots(ax, seeds[(seeds >= low) & (seeds <= high)], y, colour)
        bars(ax, y, row.low, row.high, colour)
        ax.plot([row.value], [y], marker=marker, ms=7, color=colour, mfc=colour if filled else PAPER, linestyle="")


@plain()
def effects(
    rows: Sequence[Effect], margin: float, *, title: str, unit: str = "pp", random: str = "new seeds"
) -> Figure:
    """Draw every declared difference, in the order given. margin: what lies within ± margin counts as equivalent.

    A verdict starts with better, worse, equivalent, less (than the margin) or undecided; more words may follow. random:
    what the intervals are for. Raise ValueError for another verdict or a margin that is not positive.
    """
    check(0 < margin < np.inf, f"margin must be positive, not {margin}")
    for row in rows:
        known = first_word(row.verdict) in VERDICTS
        check(known, f"{row.label!r}: a verdict starts with {', '.join(VERDICTS)}, not {row.verdict!r}")
    named = [*(row.label for row in rows), *{row.group for row in rows if row.group}]
    fig = figure(title, row_height(named, 0.4 if len(rows) < 16 else 0.3, 38) + 1.6)
    effect_rows(ax := fig.subplots(), rows, margin, unit)
    ax.tick_params(labeltop=len(rows) > 20)
    dotted = " Dots: single seeds." if any(len(row.seeds) for row in rows) else ""
    note = (
        f"Mark and bar: estimate with its 95 % interval for {random}.{dotted} Grey band: within ± {margin:g} {unit}, "
        "taken as equivalent."
    )
    key(fig, note=note if rows else "")
    return fig


def limits_of(rows: Sequence[Effect], margin: float) -> tuple[float, float]:
    """Ends of an axis that shows every difference, and as much of the intervals as leaves them readable: a bar of two
    seeds may be a hundred times its difference."""
    means = finite([row.value for row in rows])
    others = finite([end for row in rows for end in (row.low, row.high, *row.seeds)])
    far = max(2 * np.abs(means).max(initial=0), 3 * margin)
    shown = np.concatenate([means, np.clip(others, -far, far), [-1.3 * margin, 1.3 * margin]])
    pad = 0.03 * float(np.ptp(shown))
    return float(shown.min()) - pad, float(shown.max()) + pad


def in_numbers(row: Effect, form: str, spans: bool) -> str:
    if not np.isfinite(row.value):
        return f"{NONE}  {row.verdict}"
    span = f" ({signed(row.low, form)} to {signed(row.high, form)})" if spans and np.isfinite(row.low) else ""
    return f"{signed(row.value, form)}{span}  {row.verdict}"


def row_height(labels: Sequence[str], pitch: float, letters: int = 26) -> float:
    """Inches that rows with these labels need."""
    lines = max((folded(label, letters).count("\n") + 1 for label in labels), default=1)
    return max(len(labels), 2) * max(pitch, 0.1 + 0.16 * lines)


def mean_of(values: Array) -> float:
    return float(values.mean()) if values.size else np.nan


def mean_sd(values: Array) -> str:
    n = len(values)
    sd = f" ± {values.std(ddof=1):.2f}" if n > 1 else ""
    return f"{values.mean():.2f}{sd} (n = {n})" if n else "no values"


def first_word(verdict: str) -> str:
    return (re.match(r"\w*", verdict) or [""])[0]
