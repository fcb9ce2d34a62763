"""Figures of lines: learning curves, and results along a number. Norms stand side by side."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from normlab.analysis import drawing
from normlab.analysis.colours import PAPER, QUIET, norm_colour
from normlab.analysis.drawing import Array, Style, figure, key, key_height, plain, styles
from normlab.norms import CATALOGUE
from normlab.settings.corruptions import CORRUPTIONS

if TYPE_CHECKING:
    import pandas as pd  # half a second that a training run, which draws too, saves

ROOM, ERROR_ONLY = 4, 8  # settings that one panel holds, else each norm has its own; norms that have two panels each
BESIDE = "#C4C4C4"  # the other norms, in a panel of one
ADAPTED = (0, (2, 1.4))  # the line of networks that normalize by the statistics of corrupted images
SPLITS = {"test": "test", "val": "validation", "train": "training"}  # in order of preference


def by_norm(labels: Sequence[str], looks: Mapping[str, Style], room: int) -> dict[str, list[str]]:
    """The settings that stand in one panel: up to ``room``, or those of one norm."""
    norms: dict[str, list[str]] = {}
    for label in labels:
        norms.setdefault(looks[label].norm, []).append(label)
    return norms if len(labels) > room and len(norms) > 1 else {"": list(labels)}


def panels_key(labels: Sequence[str], looks: Mapping[str, Style]) -> list[Style]:
    """What the key of panels by norm has to name: nothing where every norm has one setting; else what its settings
    have in common, once and in grey, where fill and line are enough to tell; else every setting."""
    every = [looks[label] for label in labels]
    if len({own.norm for own in every}) == len(every):
        return []
    rests = (own.label.removeprefix(own.norm).strip() for own in every)
    looking = zip(every, rests, strict=True)
    grey = [*dict.fromkeys(replace(own, label=rest, norm="", colour=QUIET, marker="o") for own, rest in looking)]
    told = len({own.label for own in grey if own.label}) == len({(own.fill, own.line) for own in grey}) == len(grey)
    return grey if told else every


def name_norm(ax: Axes, norm: str, across: int) -> None:
    """The heading of a norm's panel, of so many side by side."""
    words = CATALOGUE[norm].short if norm in CATALOGUE else ""
    fits = words and len(norm) + len(words) + 2 < 90 / across
    ax.set_title(f"{norm}: {words}" if fits else norm, color=norm_colour(norm), weight="bold")


def seeds_and_mean(ax: Axes, x: Array, values: Array, style: Style, place: int = 0, *, floor: float = -np.inf) -> None:
    """Draw every row of ``values``, float (S, X), as a thin line and their mean as a thick one with some markers.

    Values that are not finite are left out, the mean is over the others. floor: what is drawn is at least that. place:
    of this line among others, whose markers then stand beside each other.
    """
    there, mean = mean_curve(x, values)
    if not there.size:
        return
    if len(values) > 1:
        shown = np.maximum(np.where(np.isfinite(values), values, np.nan), floor)
        gap = np.full((len(shown), 1), np.nan)  # one path for all seeds
        ax.plot(np.tile(np.r_[x, np.nan], len(shown)), np.hstack([shown, gap]).ravel(), color=style.colour,
                linewidth=0.6, alpha=0.45, label="_")  # fmt: skip
    every = max(1, -(-len(there) // 6))
    start = min(place % every, len(there) - 1)
    ax.plot(there, np.maximum(mean, floor), **style.line_of(), markevery=(start, every), label=style.label)


def mean_curve(x: npt.ArrayLike, values: Array) -> tuple[Array, Array]:
    """Return those of x, (X,), at which some row of ``values``, float (S, X), is finite, and the means of what is.
    Raise ValueError for other shapes."""
    shapes = f"{np.shape(x)} and {np.shape(values)}"
    drawing.check(np.shape(values)[1:] == np.shape(x), f"x must be (X,) and values (S, X), not {shapes}")
    there = np.isfinite(values).any(axis=0)
    return np.asarray(x)[there], np.nanmean(np.where(np.isfinite(values), values, np.nan)[:, there], axis=0)


def seeds_words(series: Iterable[Array]) -> str:
    """How many seeds lines have, float (S, X) each, and how they are drawn."""
    counts = sorted({len(values) for values in series})
    if not counts or counts[-1] == 1:
        return "One seed per setting." if counts else ""
    return f"Thick: mean over {' to '.join(map(str, dict.fromkeys([counts[0], counts[-1]])))} seeds. Thin: one seed."


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
        epochs, mean = mean_curve(1 + np.arange(values.shape[1]), values)
        ax.plot(epochs, np.maximum(mean, floor), color=BESIDE, linewidth=1, zorder=1.5, label="_")
    for place, (label, values) in enumerate(series.items()):
        seeds_and_mean(ax, 1 + np.arange(values.shape[1]), values, looks[label], place, floor=floor)
    last = max((values.shape[1] for values in series.values()), default=1)
    pad = max(0.03 * (last - 1), 0.1)
    ax.set_xlim(1 - pad, last + pad)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))


def shown_series(settings: Mapping[str, Mapping[str, Array]], kind: str) -> tuple[str, dict[str, Array]]:
    """What is drawn of a "acc" or "ce": its words with their unit, and label -> float (S, E), errors in per cent or
    nats. Of test and validation what more settings have; training only for want of both."""
    found = {}
    for split in SPLITS:
        name = "train_acc_running" if (split, kind) == ("train", "acc") else f"{split}_{kind}"
        found[split] = {
            label: some[name] for label, some in settings.items() if drawing.finite(some.get(name, [])).size
        }
    split = max(("test", "val"), key=lambda split: len(found[split]))
    split = split if found[split] else "train"
    words = f"{SPLITS[split]} {'error, %' if kind == 'acc' else 'cross-entropy, nats'}"
    return words, {label: 100 * (1 - a) if kind == "acc" else a for label, a in found[split].items()}


@plain()
def curves(settings: Mapping[str, Mapping[str, Array]], norms: Mapping[str, str], *, title: str) -> Figure:
    """Draw cross-entropy in nats and error in per cent over epochs, both logarithmic: every seed, and their mean.

    settings: label -> series, each float (S, E), one row per seed, NaN where there is no value: ``test_acc`` and so on,
    in [0, 1]. norms: label -> norm, of all settings of the report. Of more than 4 settings, each norm
    has panels of its own, in which the others are grey. Raise ValueError if a series is not (S, E).
    """
    for label, run in settings.items():
        for name, values in run.items():
            drawing.check(np.ndim(values) == 2, f"{label!r}: {name} must be (S, E), not {np.shape(values)}")
    looks = styles(norms)
    drawn = {kind: shown_series(settings, kind) for kind in ("ce", "acc")}
    labels = [label for label in settings if any(label in series for _, series in drawn.values())]
    groups = by_norm(labels, looks, ROOM)
    many = len(groups) > 1
    if len(groups) > ERROR_ONLY:
        del drawn["ce"]
    words = [words for words, _ in drawn.values()]
    high = 0.7 + 1.8 * len(drawn) * -(-len(groups) // 4) if many else 3.4
    named = panels_key(labels, looks) if many else [looks[label] for label in labels]
    columns = 4 if many and len(named) == len(labels) else 0  # a norm's settings below its panel
    fig = figure(title, high + 0.7 + key_height([style.label for style in named], columns))
    if many:
        table, across = drawing.facets(fig, len(groups), words, "epoch")
    else:
        table, across = [[ax] for ax in fig.subplots(1, 2)], 1
        for (ax,), label in zip(table, words, strict=True):
            ax.set(xlabel="epoch", ylabel=label)
    for row, (_, series) in zip(table, drawn.values(), strict=True):
        floor = drawing.zero_place(*series.values())
        for ax, (norm, own) in zip(row, groups.items(), strict=True):
            mine = {label: series[label] for label in own if label in series}
            others = {label: values for label, values in series.items() if label not in own}
            curve_panel(ax, mine, looks, floor=floor, beside=others)
            if many and row is table[0]:
                name_norm(ax, norm, across)
            if not series:
                drawing.empty(ax)
        if series:
            drawing.level(row, log=True, zero=floor)
    note = seeds_words(values for _, series in drawn.values() for values in series.values())
    note += " Grey: means of the other norms." if many else ""
    key(fig, [style.handle for style in named], f"{note} Logarithmic axes.".strip(), min(columns, across))
    return fig


class Along(NamedTuple):
    """A line along a factor: float (K,) each, and every seed, x and value, float (2, M)."""

    x: Array
    mean: Array
    low: Array
    high: Array
    seeds: Array

    @classmethod
    def of(cls, points: Sequence[Sequence[float]] | Array, seeds: Sequence[tuple[float, float]]) -> "Along":
        """From (x, mean, low, high) of each point and (x, value) of each seed, without those that are not finite."""
        table, values = np.array(points, float).reshape(-1, 4), np.array(seeds, float).reshape(-1, 2)
        x, mean, low, high = table[np.isfinite(table[:, 1])].T
        return cls(x, mean, low, high, values[np.isfinite(values).all(axis=1)].T)


@plain()
def along(
    lines: Mapping[str, Along],
    looks: Mapping[str, Style],
    *,
    x_label: str,
    y_label: str,
    title: str,
    chosen: bool = True,
    accuracy: bool = True,
    lost: bool = False,
) -> Figure:
    """Draw a result along a number (batch size, λ, learning rate): every seed, their mean and its 95 % interval.

    chosen: whether the values of x were, and not measured: they then stand at the axis, which is logarithmic where they
    are not negative and span a decade; 0 is at its left, beyond a break. accuracy: values are accuracies in per cent,
    drawn as errors on a logarithmic axis where they come near 100 and differ by more than a factor of 3; else a
    logarithm shows positive values that span more than a factor of 4. lost: whether some marks are medians, of settings
    with a run that was lost. Of several norms, each has a panel of its own, in
    which the others are grey.
    """
    lines = {label: line for label, line in lines.items() if line.mean.size}
    points = drawing.finite(*(np.r_[line.mean, line.seeds[1]] for line in lines.values()))
    floor = 0.0
    errors = accuracy and drawing.as_errors(points, 3)
    if errors:
        floor = drawing.zero_place(100 - points)
        lines = {label: in_errors(line, floor) for label, line in lines.items()}
        points = np.maximum(100 - points, floor)
        y_label, title = y_label.replace("accuracy", "error"), title.replace("accuracy", "error")
    log = bool(errors or (not accuracy and points.size and 0 < 4 * points.min() < points.max()))
    groups = by_norm(list(lines), looks, 1) if lines else {"": []}
    many = len(groups) > 1
    named = panels_key(list(lines), looks) if many else [looks[label] for label in lines]
    height = 2.6 * -(-len(groups) // 4) + 1.1 + (0.6 if not many else 0)
    fig = figure(title, height + key_height([style.label for style in named]))
    (axes,), across = drawing.facets(fig, len(groups), [y_label], x_label)
    tested = np.unique(drawing.finite(*(line.x for line in lines.values())))
    ends = drawing.finite(*(np.r_[line.low, line.high] for line in lines.values()))
    for ax, (norm, own) in zip(axes, groups.items(), strict=True):
        drawing.room_for(ax, "y", points, ends, log=log)
        factor_axis(ax, tested, chosen, 0.8 * 72 * drawing.WIDTH / across)
        for label, line in lines.items():
            if label not in own:
                ax.plot(line.x, line.mean, color=BESIDE, linewidth=1, zorder=1.5)
        for label in own:
            line_panel(ax, lines[label], looks[label])
        if many:
            name_norm(ax, norm, across)
        if not own:
            drawing.empty(ax)
    if points.size:
        drawing.level(axes, log=log, zero=floor)
    note = "Mark: mean" + ", or median where a run was lost" * lost + "; bar: its 95 % interval" * bool(ends.size)
    note += "; dot: one seed." + " Grey: the other norms." * many + " Logarithmic error axis." * bool(errors)
    key(fig, [style.handle for style in named], note)
    return fig


def line_panel(ax: Axes, line: Along, style: Style) -> None:
    """Draw one line of `along` once the limits of ``ax`` are set."""
    if line.seeds.size:
        ax.plot(*line.seeds, "o", ms=4.5, mew=0.6, mec=PAPER, color=style.colour, alpha=0.8, zorder=2.2, label="_")
    drawing.bars(ax, line.x, line.low, line.high, style.colour, upright=True)
    ax.plot(line.x, line.mean, **style.line_of(6), zorder=2.4, label=style.label)


def in_errors(line: Along, floor: float) -> Along:
    """Of accuracies in per cent."""
    x, mean, low, high, seeds = line
    mean, low, high, y = (np.maximum(100 - a, floor) for a in (mean, high, low, seeds[1]))
    return Along(x, mean, low, high, np.stack([seeds[0], y]))


def factor_axis(ax: Axes, tested: Array, chosen: bool, points: float) -> None:
    """Scale and ticks of an x axis that is ``points`` wide: the tested values where they are few and chosen."""
    if not tested.size:
        return
    positive = tested[tested > 0]
    log_x = bool(chosen and positive.size and tested[0] >= 0 and positive[-1] > 9.9 * positive[0])
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
    if not chosen or (len(tested) > 12 and not log_x):
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        return
    at = (np.asarray(axis.transform(tested)) - edges[0] + pad) / (np.ptp(edges) + 2 * pad) * points
    names = [drawing.short(tick) for tick in tested]
    half = [2.9 * len(name) + 3 for name in names]
    named: list[int] = []
    for i in [0, len(tested) - 1, *range(1, len(tested) - 1)]:  # the ends first
        if all(abs(at[i] - at[j]) >= half[i] + half[j] for j in named):
            named.append(i)
    ax.set_xticks(tested.tolist(), [name if i in named else "" for i, name in enumerate(names)])


@plain()
def strengths(values: "pd.DataFrame", norms: Mapping[str, str], *, title: str) -> Figure:
    """Draw accuracy against how strongly images are corrupted: a panel per kind, a line per setting and mode.

    values: one row per setting, mode, kind and strength, with amount, acc_mean, acc_low and acc_high in [0, 1]. norms:
    label -> norm, of all settings of the report.
    """
    looks, labels = styles(norms), list(dict.fromkeys(values["setting"]))
    kinds = list(dict.fromkeys(values["kind"]))
    across = min(len(kinds), 2)
    fig = figure(title, 2.8 * -(-len(kinds) // 2) + 0.9)
    axes = fig.subplots(-(-len(kinds) // 2), across, squeeze=False, sharey=True).ravel()
    shown = 100 * values[["acc_mean", "acc_low", "acc_high"]].to_numpy(float)
    drawing.room_for(axes[0], "y", shown[:, 0], shown[:, 1:])
    for ax, kind in zip(axes, kinds, strict=False):
        about = CORRUPTIONS[kind]
        for (label, mode), rows in values[values["kind"] == kind].groupby(["setting", "mode"], sort=False):
            points = rows[["amount", "acc_mean", "acc_low", "acc_high"]].to_numpy(float) * [1, 100, 100, 100]
            line = ADAPTED if mode == "adapted" else "-"
            line_panel(ax, Along.of(points, ()), replace(looks[str(label)], line=line))
        ax.set(title=f"images {about.title}", xlabel=about.words)
        ax.set_xticks([about.clean, *about.amounts], ["clean", *map(drawing.short, about.amounts)])
        if about.clean > about.amounts[-1]:
            ax.invert_xaxis()
    for ax in axes[::across]:
        ax.set_ylabel("accuracy, %")
    for ax in axes[len(kinds) :]:
        ax.set_axis_off()
    handles = [replace(looks[label], line="-").handle for label in labels]
    if "adapted" in set(values["mode"]):
        handles.append(Line2D([], [], color=QUIET, linestyle=ADAPTED, label="with the statistics of these images"))
    key(fig, handles, "Mark: mean over seeds; bar: its 95 % interval.")
    return fig
