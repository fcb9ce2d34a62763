"""Figures of rows: the accuracy of each setting, every effect with its verdict, what a variance is made of."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from normlab.analysis import drawing
from normlab.analysis.colours import FAINT, INK, MUTED, PAPER, QUIET
from normlab.analysis.drawing import Array, Style, figure, key, plain, styles
from normlab.analysis.numbers import NONE, number, percent, signed

SOURCES = ["x", "+", "1", "2", "3", "4", "|"]  # published values: thin, unlike every marker of a norm
VERDICTS = {  # colour, marker, filled
    "better": ("#0B6E75", ">", True),
    "worse": ("#B0470A", "<", True),
    "equivalent": (INK, "s", True),
    "less": (INK, "D", True),  # than the margin
    "undecided": (QUIET, "o", False),
}
PARTS = [("seed", "#1F4E82", ""), ("test set", "#9DB9D6", ""), ("interaction of both", "#F4F4F4", "////")]


class Effect(NamedTuple):
    """A row: a difference in the outcome's unit with its 95 % interval (NaN where there is none), the verdict (one of
    `VERDICTS`; more words may follow), the seeds' own differences, float (S,), and the group that it is listed in."""

    label: str
    value: float
    low: float
    high: float
    verdict: str
    seeds: Sequence[float] = ()
    group: str = ""

    @property
    def look(self) -> tuple[str, str, bool]:
        """Colour, marker, filled."""
        return VERDICTS[self.verdict.partition(" ")[0]]


def rows_of(
    ax: Axes, names: Sequence[str], numbers: Sequence[str], colours: Sequence[str] = (), places: Sequence[float] = ()
) -> None:
    """Rows counted from 0 at the top, or at these places, with labels at the left and numbers at the right."""
    places = places or range(len(names))
    ax.grid(axis="x")
    ax.grid(visible=False, axis="y")
    ax.set_ylim(max([0, *places]) + 0.5, -0.5)
    ax.set_yticks(places, names)
    right = ax.secondary_yaxis("right")
    right.spines["right"].set_visible(False)
    right.set_yticks(places, numbers)
    for axis in (ax, right):
        axis.tick_params(axis="y", labelsize=drawing.TEXT, labelcolor=INK, pad=6, length=0)
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
    seeds = {label: drawing.finite(given) for label, given in values.items()}
    reference = reference or {}
    sources = list(dict.fromkeys(source for some in reference.values() for source, _ in some))
    nothing = np.nan, np.nan
    means = {label: estimates.get(label, (of.mean() if of.size else np.nan, *nothing)) for label, of in seeds.items()}
    published = [value for some in reference.values() for _, value in some]
    points = drawing.finite(*seeds.values(), [mean for mean, *_ in means.values()], published)
    ends = drawing.finite([end for _, *bounds in means.values() for end in bounds])
    floor = drawing.zero_place(100 - points)
    errors = drawing.as_errors(points, 10)

    def shown(accuracy: object) -> Array:
        given = np.asarray(accuracy, dtype=float)
        return np.maximum(100 - given, floor) if errors else given

    words = [mean_sd(of, means[label][0]) for label, of in seeds.items()]
    rows_of(ax, [drawing.folded(label, letters) for label in values], words)
    drawing.room_for(ax, "x", shown(points), shown(ends), log=errors)
    if errors:
        ax.invert_xaxis()  # better at the right, as in figures of accuracies
        drawing.log_ticks(ax.xaxis, floor)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    for y, (label, of) in enumerate(seeds.items()):
        mean, *bounds = means[label]
        dots(ax, shown(of), y, looks[label].colour)
        low, high = sorted(shown(bounds).tolist())
        drawing.bars(ax, y, low, high, looks[label].colour)
        ax.plot(shown([mean]), [y], linestyle="", **looks[label].mark(7.5))
        for source, value in reference.get(label, []):
            ax.plot(shown([value]), [y - 0.27], SOURCES[sources.index(source) % 7], ms=6, color=INK, mew=1.1)
    for (_, before), (y, label) in pairwise(enumerate(values)):
        if looks[before].norm != looks[label].norm:
            ax.axhline(y - 0.5, color=FAINT, linewidth=0.8)
    ax.set_xlabel("test error, % (logarithmic)" if errors else "test accuracy, %")
    if not points.size:
        drawing.empty(ax)
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
    reference: label -> (source, value), published values of one seed each. Raise ValueError if values are not (S,) or
    a label of ``estimates`` or ``reference`` has no values.
    """
    looks = styles(norms)
    for name, others in {"estimates": estimates, "reference": reference or {}}.items():
        alone = ", ".join(sorted(set(others) - set(values)))
        drawing.check(not alone, f"{name} without values: {alone}")
    for label, given in values.items():
        drawing.check(np.ndim(given) == 1, f"{label!r}: values must be (S,), not {np.shape(given)}")
    fig = figure(title, row_height(list(values), 0.42) + 1.5)
    ax = fig.subplots()
    published = accuracy_rows(ax, values, estimates, looks, reference=reference)
    note = (
        "Mark and bar: mean with its 95 % interval; dots: one seed each; numbers: mean accuracy ± standard deviation."
    )
    key(fig, published, note if any(drawing.finite(v).size for v in values.values()) else "", 1)
    return fig


def effect_rows(
    ax: Axes, rows: Sequence[Effect], margin: float, unit: str, letters: int = 38, *, spans: bool = True
) -> int:
    """Draw differences, a row each from 0 downwards, with every seed, around the band of equivalence. spans: whether
    the intervals stand beside them in numbers, too. Return how many seeds lie beyond the axis."""
    form = ".4f" if unit == "nats" else ".2f"
    lines: list[tuple[float, str, str, str]] = []  # place, name, number, colour; the heading of a group has no number
    place = -1.0
    for before, row in zip(["", *(row.group for row in rows)], rows, strict=False):
        headed = row.group not in ("", before)
        if headed:
            lines.append((place := place + 0.9, row.group, "", QUIET))
        place += 0.75 if headed else 1
        lines.append((place, drawing.folded(row.label, letters), in_numbers(row, form, spans), row.look[0]))
    places, names, numbers, colours = zip(*lines, strict=True) if lines else ((), (), (), ())
    rows_of(ax, names, numbers, colours, places)
    for label, (_, _, told, _) in zip(ax.get_yticklabels(), lines, strict=True):
        if not told:
            label.set(size=drawing.SMALL, color=QUIET)
    points = drawing.finite([row.value for row in rows], [-1.3 * margin, 1.3 * margin])
    drawing.room_for(ax, "x", points, drawing.finite(*((row.low, row.high, *row.seeds) for row in rows)))
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: signed(x, "g")))
    ax.set_xlabel("difference, percentage points" if unit == "pp" else f"difference, {unit}")
    if not rows:
        drawing.empty(ax)
        return 0
    beyond = 0
    ax.axvspan(-margin, margin, color=MUTED, zorder=0.2, linewidth=0)
    ax.axvline(0, color=QUIET, linewidth=1, zorder=0.9)
    for y, row in zip([place for place, _, told, _ in lines if told], rows, strict=True):
        colour, marker, filled = row.look
        seeds = drawing.finite(row.seeds)
        inside = seeds[(seeds >= low) & (seeds <= high)]
        beyond += seeds.size - inside.size
        dots(ax, inside, y, colour)
        drawing.bars(ax, y, row.low, row.high, colour)
        ax.plot([row.value], [y], marker=marker, ms=7, color=colour, mfc=colour if filled else PAPER, linestyle="")
    return beyond


@plain()
def effects(
    rows: Sequence[Effect], margin: float, *, title: str, unit: str = "pp", random: str = "new seeds"
) -> Figure:
    """Draw every declared difference, in the order given. margin: what lies within ± margin counts as equivalent.

    random: what the intervals are for. Raise ValueError for another verdict or a margin that is not positive.
    """
    drawing.check(0 < margin < np.inf, f"margin must be positive, not {margin}")
    for row in rows:
        known = row.verdict.partition(" ")[0] in VERDICTS
        drawing.check(known, f"{row.label!r}: a verdict starts with {', '.join(VERDICTS)}, not {row.verdict!r}")
    named = [*(row.label for row in rows), *{row.group for row in rows if row.group}]
    fig = figure(title, row_height(named, 0.4 if len(rows) < 16 else 0.3, 38) + 1.6)
    beyond = effect_rows(ax := fig.subplots(), rows, margin, unit)
    ax.tick_params(labeltop=len(rows) > 20)
    left_out = f"; {beyond} beyond the axis left out" if beyond else ""
    dotted = f" Dots: single seeds{left_out}." if any(len(row.seeds) for row in rows) else ""
    note = (
        f"Mark and bar: estimate with its 95 % interval for {random}.{dotted} Grey band: within ± {margin:g} {unit}, "
        "taken as equivalent."
    )
    key(fig, note=note if rows else "")
    return fig


def in_numbers(row: Effect, form: str, spans: bool) -> str:
    if not np.isfinite(row.value):
        return f"{NONE}  {row.verdict}"
    span = f" ({signed(row.low, form)} to {signed(row.high, form)})" if spans and np.isfinite(row.low) else ""
    return f"{signed(row.value, form)}{span}  {row.verdict}"


def row_height(labels: Sequence[str], pitch: float, letters: int = 26) -> float:
    """Inches that rows with these labels need."""
    lines = max((drawing.folded(label, letters).count("\n") + 1 for label in labels), default=1)
    return max(len(labels), 2) * max(pitch, 0.1 + 0.16 * lines)


def mean_sd(values: Array, mean: float) -> str:
    """The words beside a row; mean: of the values, as tables have it, to the last bit."""
    n = len(values)
    sd = f" ± {number(float(values.std(ddof=1)), 2)}" if n > 1 else ""
    return f"{number(mean, 2)}{sd} (n = {n})" if n else "no values"


@plain()
def variance_shares(shares: Mapping[str, tuple[float, float, float]], *, title: str) -> Figure:
    """Draw, one bar per setting, how much of a variance comes from the seed, the test set and the interaction of both.

    shares: label -> (seed, test_set, interaction), each in [0, 1] and together 1; NaN leaves the row empty. Raise
    ValueError for other shares.
    """
    for label, of in shares.items():
        fits = len(of) == 3 and (not np.isfinite(of).all() or (min(of) >= 0 and abs(sum(of) - 1) < 0.005))
        drawing.check(fits, f"{label!r}: shares must be three, at least 0, and add up to 1, not {of}")
    values = np.array([*shares.values()], dtype=float).reshape(-1, 3)
    there = np.isfinite(values).all(axis=1)
    values[~there] = 0
    fig = figure(title, row_height(list(shares), 0.42) + 1.3)
    ax, missing = fig.subplots(), ["" if has else "no values" for has in there]
    rows_of(ax, [drawing.folded(label) for label in shares], missing)
    for (_, colour, hatch), part, end in zip(PARTS, values.T, values.cumsum(axis=1).T, strict=True):
        left, edge = 100 * (end - part), FAINT if hatch else PAPER
        drawn = ax.barh(range(len(part)), 100 * part, 0.62, left, color=colour, hatch=hatch, edgecolor=edge)
        texts = ax.bar_label(drawn, [percent(share) if share >= 0.06 else "" for share in part], label_type="center")
        for text in texts:
            text.set_color(PAPER if colour == PARTS[0][1] else INK)
            if hatch and text.get_text():
                text.set_bbox({"facecolor": colour, "edgecolor": "none", "pad": 1.5})
    ax.set(xlim=(0, 100), xlabel="share of the variance, %")
    key(fig, [Patch(facecolor=colour, hatch=hatch, edgecolor=FAINT, label=name) for name, colour, hatch in PARTS])
    return fig
