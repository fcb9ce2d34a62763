"""Figures of lines: learning curves, and a result along a factor that is a number. Norms stand side by side."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from normlab.analysis.colours import PAPER, QUIET, norm_colour
from normlab.analysis.drawing import (
    WIDTH,
    Array,
    Style,
    bars,
    check,
    empty,
    facets,
    figure,
    finite,
    key,
    level,
    looks_of,
    plain,
    room_for,
    short,
    styles,
    whole_epochs,
    zero_place,
)
from normlab.norms import CATALOGUE

__all__ = ["Along", "along", "curve_panel", "curves", "seeds_and_mean"]

ROOM, ERROR_ONLY = 4, 8  # settings that one panel holds, else each norm has its own; norms that have two panels each
BESIDE = "#C4C4C4"  # the other norms, in a panel of one
SPLITS = {"test": "test", "val": "validation", "train": "training"}  # in order of preference


def by_norm(labels: Sequence[str], looks: Mapping[str, Style], room: int) -> dict[str, list[str]]:
    """The settings that stand in one panel: up to ``room``, or those of one norm."""
    norms: dict[str, list[str]] = {}
    for label in labels:
        norms.setdefault(looks[label].norm, []).append(label)
    return norms if len(labels) > room and len(norms) > 1 else {"": list(labels)}


def name_norm(ax: Axes, norm: str, across: int) -> None:
    """The heading of a norm's panel, of so many side by side."""
    words = CATALOGUE[norm].title.partition(",")[0].replace("normalization", "norm") if norm in CATALOGUE else ""
    fits = words and len(norm) + len(words) + 2 < 90 / across
    ax.set_title(f"{norm}: {words}" if fits else norm, color=norm_colour(norm), weight="bold")


def seeds_and_mean(ax: Axes, x: Array, values: Array, style: Style, place: int = 0, *, floor: float = -np.inf) -> None:
    """Draw every row of ``values``, float (S, X), as a thin line and their mean as a thick one with some markers.

    Values that are not finite are left out, the mean is over the others. floor: what is drawn is at least that. place:
    of this line among others, whose markers then stand beside each other.
    """
    shown = np.where(np.isfinite(values), values, np.nan)
    there = np.isfinite(shown).any(axis=0)
    x, shown = np.asarray(x)[there], shown[:, there]
    if not x.size:
        return
    mean = np.nanmean(shown, axis=0)
    mean, shown = np.maximum(mean, floor), np.maximum(shown, floor)
    if len(shown) > 1:
        gap = np.full((len(shown), 1), np.nan)  # one path for all seeds
        ax.plot(np.tile(np.r_[x, np.nan], len(shown)), np.hstack([shown, gap]).ravel(), color=style.colour,
                linewidth=0.6, alpha=0.45, label="_")  # fmt: skip
    every = max(1, -(-len(x) // 6))
    ax.plot(x, mean, **style.line_of(), markevery=(min(place % every, len(x) - 1), every), label=style.label)


def curve_panel(
    ax: Axes,
    series: Mapping[str, Array],
    looks: Mapping[str, Style],
    *,
    floor: float = 0.0,
    beside: Mapping[str, Array] | None = None,
) -> None:
    """Draw learning curves, label -> float (S, E), over epochs counted from 1; ``beside``: others whose means are drawn
    in grey."""
    for values in (beside or {}).values():
        there = np.isfinite(values).any(axis=0)
        mean = np.nanmean(np.where(np.isfinite(values), values, np.nan)[:, there], axis=0)
        ax.plot(1 + np.flatnonzero(there), np.maximum(mean, floor), color=BESIDE, linewidth=1, zorder=1.5, label="_")
    for place, (label, values) in enumerate(series.items()):
        seeds_and_mean(ax, 1 + np.arange(values.shape[1]), values, looks[label], place, floor=floor)
    whole_epochs(ax, max((values.shape[1] for values in series.values()), default=1))


def shown_series(settings: Mapping[str, Mapping[str, Array]], kind: str) -> tuple[str, dict[str, Array]]:
    """What is drawn of a "acc" or "ce": its words with their unit, and label -> float (S, E), errors in per cent or
    nats. Of test and validation what more settings have; training only for want of both."""
    found = {}
    for split in SPLITS:
        name = "train_acc_running" if (split, kind) == ("train", "acc") else f"{split}_{kind}"
        found[split] = {label: some[name] for label, some in settings.items() if finite(some.get(name, [])).size}
    split = max(("test", "val"), key=lambda split: len(found[split]))
    split = split if found[split] else "train"
    words = f"{SPLITS[split]} {'error, %' if kind == 'acc' else 'cross-entropy, nats'}"
    return words, {label: 100 * (1 - a) if kind == "acc" else a for label, a in found[split].items()}


@plain()
def curves(settings: Mapping[str, Mapping[str, Array]], norms: Mapping[str, str], *, title: str) -> Figure:
    """Draw cross-entropy in nats and error in per cent over epochs, both logarithmic: every seed, and their mean.

    settings: label -> series, each float (S, E), one row per seed, NaN where there is no value: ``test_acc`` and so on,
    in [0, 1]. norms: label -> norm, of all settings of the report. Of more than 4 settings, each norm
    has panels of its own, in which the others are grey. Raise ValueError if a series is not (S, E) or a label has no
    norm.
    """
    for label, run in settings.items():
        for name, values in run.items():
            check(np.ndim(values) == 2, f"{label!r}: {name} must be (S, E), not {np.shape(values)}")
    looks = looks_of(settings, styles(norms))
    drawn = {kind: shown_series(settings, kind) for kind in ("ce", "acc")}
    labels = [label for label in settings if any(label in series for _, series in drawn.values())]
    groups = by_norm(labels, looks, ROOM)
    many = len(groups) > 1
    if len(groups) > ERROR_ONLY:
        del drawn["ce"]
    words = [words for words, _ in drawn.values()]
    high = 0.7 + 1.8 * len(drawn) * -(-len(groups) // 4) if many else 3.4
    fig = figure(title, high + 0.7 + 0.2 * (len(labels) > len(groups)) * len(labels) / 3)
    if many:
        table, across = facets(fig, len(groups), words, "epoch")
    else:
        table, across = [[ax] for ax in fig.subplots(1, 2)], 1
        for (ax,), label in zip(table, words, strict=True):
            ax.set(xlabel="epoch", ylabel=label)
    for row, (_, series) in zip(table, drawn.values(), strict=True):
        floor = zero_place(np.concatenate([np.ravel(a) for a in series.values()] or [np.zeros(0)]))
        for ax, (norm, own) in zip(row, groups.items(), strict=True):
            mine = {label: series[label] for label in own if label in series}
            others = {label: values for label, values in series.items() if label not in own}
            curve_panel(ax, mine, looks, floor=floor, beside=others)
            if many and row is table[0]:
                name_norm(ax, norm, across)
            if not series:
                empty(ax)
        if series:
            level(row, "log", floor)
    counts = sorted({len(values) for _, series in drawn.values() for values in series.values()})
    note = "One seed per setting." if counts == [1] else ""
    if counts and counts[-1] > 1:
        note = (
            f"Thick: mean over {' to '.join(map(str, dict.fromkeys([counts[0], counts[-1]])))} seeds. Thin: one seed."
        )
    note += " Grey: means of the other norms." if many else ""
    named = [] if many and len(labels) == len(groups) else labels
    key(fig, [looks[label].handle for label in named], f"{note} Logarithmic axes.".strip(), across if many else 0)
    return fig


class Along(NamedTuple):
    """A line along a factor: float (K,) each, and every seed, x and value, float (2, M)."""

    x: Array
    mean: Array
    low: Array
    high: Array
    seeds: Array

    @classmethod
    def of(cls, points: Sequence[Sequence[float]], seeds: Sequence[tuple[float, float]]) -> "Along":
        """From (x, mean, low, high) of each point, and (x, value) of each seed."""
        x, mean, low, high = np.array(points, dtype=float).T
        return cls(x, mean, low, high, np.array(seeds, dtype=float).T)


@plain()
def along(
    lines: Mapping[str, Along],
    looks: Mapping[str, Style],
    *,
    x_label: str,
    y_label: str,
    title: str,
    log_x: bool | None = None,
    accuracy: bool = True,
) -> Figure:
    """Draw a result along a number (batch size, λ, learning rate): every seed, their mean and its 95 % interval.

    log_x: None takes the logarithm of x where its values are not negative and span a decade; 0 then stands at
    the left, beyond a break. accuracy: values are accuracies in per cent, drawn as errors on a logarithmic axis where
    they come near 100 and differ by more than a factor of 3; else a logarithm shows positive values that span more than
    a factor of 4. Of several norms, each has a panel of its own, in which the others are grey. A mean that
    is not finite is left out. Raise ValueError if shapes differ, a label has no style, or log_x is asked for negative
    values.
    """
    looks = looks_of(lines, looks)
    for label, line in lines.items():
        fits = len({np.shape(a) for a in line[:4]}) == 1 and np.ndim(line.x) == 1 and np.shape(line.seeds)[:1] == (2,)
        check(fits, f"{label!r}: x, mean, low and high must be (K,), and seeds (2, M)")
    lines = {label: Along(*(np.asarray(a, float) for a in line)) for label, line in lines.items()}
    lines = {label: kept(line) for label, line in lines.items() if np.isfinite(line.mean).any()}
    points = finite(np.concatenate([np.r_[line.mean, line.seeds[1]] for line in lines.values()] or [np.zeros(0)]))
    floor = 0.0
    errors = accuracy and points.size > 0 and points.max() > 95 and 100 - points.min() > 3 * (100 - points.max())
    if errors:
        floor = zero_place(100 - points)
        lines = {label: in_errors(line, floor) for label, line in lines.items()}
        points = np.maximum(100 - points, floor)
        y_label, title = y_label.replace("accuracy", "error"), title.replace("accuracy", "error")
    log = errors or (not accuracy and points.size > 0 and 0 < 4 * points.min() < points.max())
    groups = by_norm(list(lines), looks, 1) if lines else {"": []}
    many = len(groups) > 1
    fig = figure(title, 2.6 * -(-len(groups) // 4) + 1.1 + 0.2 * len(lines) / 4 + (0.6 if not many else 0))
    (axes,), across = facets(fig, len(groups), [y_label], x_label)
    tested = np.unique(finite(np.concatenate([line.x for line in lines.values()] or [np.zeros(0)])))
    ends = np.concatenate([np.r_[line.low, line.high] for line in lines.values()] or [np.zeros(0)])
    for ax, (norm, own) in zip(axes, groups.items(), strict=True):
        room_for(ax, "y", points, ends, "log" if log else "linear")
        factor_axis(ax, tested, log_x, 0.8 * 72 * WIDTH / across)
        for label, line in lines.items():
            if label not in own:
                ax.plot(line.x, line.mean, color=BESIDE, linewidth=1, zorder=1.5)
        for label in own:
            line_panel(ax, lines[label], looks[label])
        if many:
            name_norm(ax, norm, across)
        if not own:
            empty(ax)
    if points.size:
        level(axes, "log" if log else "linear", floor)
    note = "Mark: mean; bar: its 95 % interval" if finite(ends).size else "Mark: mean"
    note += "; dot: one seed." + " Grey: the other norms." * many + " Logarithmic error axis." * bool(errors)
    named = [] if many and len(lines) == len(groups) else list(lines)
    key(fig, [looks[label].handle for label in named], note)
    return fig


def line_panel(ax: Axes, line: Along, style: Style) -> None:
    """Draw one line of `along` once the limits of ``ax`` are set."""
    ax.plot(*line.seeds, "o", ms=4.5, mew=0.6, mec=PAPER, color=style.colour, alpha=0.8, zorder=2.2, label="_")
    bars(ax, line.x, line.low, line.high, style.colour, upright=True)
    ax.plot(line.x, line.mean, **style.line_of(6), zorder=2.4, label=style.label)


def kept(line: Along) -> Along:
    there = np.isfinite(line.mean)
    x, mean, low, high = (a[there] for a in line[:4])
    return Along(x, mean, low, high, line.seeds[:, np.isfinite(line.seeds).all(axis=0)])


def in_errors(line: Along, floor: float) -> Along:
    """Of accuracies in per cent."""
    x, mean, low, high, seeds = line
    mean, low, high, y = (np.maximum(100 - a, floor) for a in (mean, high, low, seeds[1]))
    return Along(x, mean, low, high, np.stack([seeds[0], y]))


def factor_axis(ax: Axes, tested: Array, log_x: bool | None, points: float) -> None:
    """Scale and ticks of an x axis that is ``points`` wide: the tested values where they are few."""
    check(not log_x or not (tested < 0).any(), "log_x: there are negative values")
    if not tested.size:
        return
    positive = tested[tested > 0]
    if log_x is None:
        log_x = bool(positive.size and tested[0] >= 0 and positive[-1] > 9.9 * positive[0])
    log_x = bool(log_x and positive.size)
    if log_x and tested[0] == 0:
        ax.set_xscale("symlog", linthresh=positive[0], linscale=0.6)
        broken = ax.text(positive[0] / 2, 0, "//", color=QUIET, ha="center", va="center")
        broken.set(transform=ax.get_xaxis_transform(), bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.5})
    elif log_x:
        ax.set_xscale("log")
    axis = ax.xaxis.get_transform()
    edges = np.asarray(axis.transform(tested[[0, -1]]))
    pad = 0.06 * np.ptp(edges) or 0.5
    ax.set_xlim(*axis.inverted().transform(edges + np.array([-pad, pad])).tolist())
    ax.xaxis.set_minor_locator(NullLocator())
    if len(tested) > 12 and not log_x:
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        return
    at = (np.asarray(axis.transform(tested)) - edges[0] + pad) / (np.ptp(edges) + 2 * pad) * points
    names = [short(tick) for tick in tested]
    half = [2.9 * len(name) + 3 for name in names]
    named: list[int] = []
    for i in [0, len(tested) - 1, *range(1, len(tested) - 1)]:  # the ends first
        if all(abs(at[i] - at[j]) >= half[i] + half[j] for j in named):
            named.append(i)
    ax.set_xticks(tested.tolist(), [name if i in named else "" for i, name in enumerate(names)])
