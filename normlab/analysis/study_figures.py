"""Figures of a study: many settings, many seeds, arrays in and a matplotlib ``Figure`` out, as in ``figures``.

``norms`` maps the label of a setting to its norm. Give every figure of a report the same mapping, with all settings of
the report in one order: then a setting has one colour, marker and line throughout, also where it is not drawn.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from normlab.analysis.colours import FAINT, INK, MUTED, PAPER, QUIET
from normlab.analysis.drawing import (
    CE_TICKS,
    DPI,
    MARGIN,
    SMALL,
    TEXT,
    Array,
    apart,
    check,
    end_label,
    figure,
    frame,
    label_height,
    readable,
    settle,
    shape_of,
    sheet,
    tiles,
    widest,
    wrap,
)
from normlab.analysis.panels import (
    SAMPLE,
    SUFFIX,
    VERDICTS,
    Style,
    band_panel,
    difference_rows,
    difference_view,
    empty,
    finite,
    first_word,
    folded,
    interval_bar,
    interval_rows,
    looks,
    mean_of,
    mean_sd,
    samples,
    scaled,
    signed,
    size_of,
    styles,
    view,
)

__all__ = [
    "Style",
    "bands",
    "differences",
    "factor_curve",
    "intervals",
    "overlap",
    "persistent_gallery",
    "styles",
    "variance_shares",
]

SOURCES = ["x", "+", "1", "2", "3", "4", "|"]  # published values: thin, unlike every marker of a norm
SHARED = ["#FFFFFF", "#E3ECF5", "#BFD3E6", "#93B5D6", "#6E9BC8"]  # quiet: ink is readable on all of it
PARTS = [("seed", "#1F4E82", ""), ("test set", "#9DB9D6", ""), ("interaction of both", "#F4F4F4", "////")]
OWN = ("text", "bar", "patch", "hatch")  # keys of a key that are not matplotlib's
LABEL, PANEL = 250, 460  # pixels: the widest line of a label, the panel beside it


def bands(settings: Mapping[str, Mapping[str, Array | None]], norms: Mapping[str, str], *, title: str) -> Figure:
    """Draw cross-entropy in nats and accuracy in per cent over epochs, counted from 1: a line a setting, all seeds.

    settings: label -> series, each float (S, E), a row a seed; shorter rows are padded with NaN. ``test_acc`` and
    ``test_ce`` are drawn, or ``val_acc`` and ``val_ce`` if more settings have these, and only for want of both
    ``train_acc_running`` and ``train_ce``. Accuracies in [0, 1]. The line is the mean over the seeds that have a value,
    the band ± one standard deviation where there are two. First epochs that would squeeze the rest leave the picture,
    and a note says so. Raises ValueError if a series is not (S, E) or a label has no norm.
    """
    look = looks(settings, norms)
    for label, run in settings.items():
        for name, values in run.items():
            fits = values is None or np.ndim(values) == 2
            check(fits, f"{label!r}: {name} must be (S, E), not {np.shape(np.asarray(values))}")
    names = {label: folded(label, 200) for label in settings}
    tall = max(300, sum(label_height(name) + 1 for name in names.values()))
    width = 1160 + 2 * max(0, widest(names.values(), TEXT) - 130)
    fig = figure(width, tall + 230, title)
    labels: dict[Axes, list[Annotation]] = {}
    notes: dict[str, list[str]] = {}
    for ax, kind in zip(fig.subplots(1, 2), ("ce", "acc"), strict=True):
        labels[ax], said = band_panel(ax, kind, settings, names, look)
        for before, after in said:
            notes.setdefault(before, []).append(after)
    counts = {len(values) for run in settings.values() for values in run.values() if values is not None and len(values)}
    first = ["one seed a setting"] if counts else []
    if max(counts, default=0) > 1:
        seeds = f"{min(counts)} to {max(counts)} seeds" if len(counts) > 1 else f"{max(counts)} seeds"
        first = [f"line: mean over {seeds}, band: mean ± standard deviation"]
    _note(fig, [*first, *(f"{before}: {', '.join(dict.fromkeys(after))}" for before, after in notes.items())])
    settle(fig, labels)
    for ax, some in labels.items():
        samples(ax, some, look)
    return fig


def intervals(
    values: Mapping[str, Array],
    estimates: Mapping[str, tuple[float, float, float]],
    norms: Mapping[str, str],
    *,
    title: str,
    unit_label: str,
    reference: Mapping[str, Sequence[tuple[str, float]]] | None = None,
    accuracy: bool = True,
    form: str = ".2f",
) -> Figure:
    """Draw a row a setting: every seed, their mean with its interval, and mean ± standard deviation in numbers.

    values: label -> float (S,), in the unit of ``unit_label``; NaN is a missing seed. estimates: label -> (mean, low,
    high), the 95 % interval of the mean; with NaN bounds, or no entry, the mean stands alone. reference: label ->
    (source, value), published values of one seed each. ``accuracy``: the unit is per cent, and settings far from each
    other are spaced by the logarithm of the error; otherwise by that of the value. Raises ValueError if values are not
    (S,), if a label of ``estimates`` or ``reference`` has no values, or one of ``values`` no norm.
    """
    look = looks(values, norms)
    reference = reference or {}
    for name, others in {"estimates": estimates, "reference": reference}.items():
        check(set(others) <= set(values), f"{name} without values: {', '.join(sorted(set(others) - set(values)))}")
    seeds: dict[str, Array] = {}
    for label, given in values.items():
        check(np.ndim(given) == 1, f"{label!r}: values must be (S,), not {np.shape(given)}")
        seeds[label] = finite(given)
    numbers = [mean_sd(found, form) for found in seeds.values()]
    sources = list(dict.fromkeys(source for some in reference.values() for source, _ in some))
    marks = {source: SOURCES[i % len(SOURCES)] for i, source in enumerate(sources)}
    means = {label: estimates.get(label, (mean_of(found), np.nan, np.nan)) for label, found in seeds.items()}
    published = [value for some in reference.values() for _, value in some]
    points = finite(np.concatenate([*seeds.values(), [mean for mean, _, _ in means.values()], published]))
    ends = finite([end for _, *bounds in means.values() for end in bounds])
    low, high, kind = view(points, ends, accuracy)

    keys = [{"marker": "o", "ms": 4.5, "alpha": 0.6, "mew": 0, "text": "one seed"}]
    keys.append({"marker": "o", "ms": 8, "bar": True, "text": "mean, with the marker of its norm, and 95 % interval"})
    keys += [
        {"marker": marks[name], "ms": size_of(marks[name]), "color": INK, "text": f"published, one seed: {name}"}
        for name in sources
    ]
    note = "numbers: mean ± standard deviation over n seeds"
    fig, ax = _rows(values, title, unit_label + SUFFIX[kind], numbers, 42, keys if points.size else [], note)
    scaled(ax, "x", low, high, kind)
    interval_rows(ax, seeds, means, look)
    for y, label in enumerate(seeds):
        for source, value in reference.get(label, []):
            ax.plot([value], [y - 0.28], marks[source], ms=size_of(marks[source]), color=INK, mew=1.1)
    if not points.size:
        empty(ax)
    return fig


def differences(
    rows: Sequence[tuple[str, float, float, float, str]], margin: float, *, title: str, form: str = ".2f"
) -> Figure:
    """Draw differences in percentage points, a row each, with their 95 % intervals around a band of equivalence.

    rows: (label, mean, low, high, verdict); bounds may be NaN. A verdict starts with better, worse, equivalent or
    undecided; more words may follow. ``margin``: what lies within ± margin counts as equivalent. Where some differences
    are far larger, the axis is linear to ± 2 margins and logarithmic beyond. Raises ValueError for another verdict or
    a margin that is not positive.
    """
    check(0 < margin < np.inf, f"margin must be positive, not {margin}")
    for label, *_, verdict in rows:
        check(
            first_word(verdict) in VERDICTS, f"{label!r}: a verdict starts with {', '.join(VERDICTS)}, not {verdict!r}"
        )
    low, high, bent = difference_view(rows, margin)
    heading = "difference, percentage points"
    heading += f" – linear to ± {2 * margin:g}, logarithmic beyond" if bent else ""

    numbers = [
        f"{signed(mean, form)}\t{verdict}" if np.isfinite(mean) else f"–\t{verdict}" for _, mean, *_, verdict in rows
    ]
    note = f"bar: 95 % interval; grey: within ± {margin:g}, taken as equivalent"
    names = [label if widest([label], TEXT) < 300 else label.replace(" − ", " −\n") for label, *_ in rows]
    fig, ax = _rows(names, title, heading, numbers, 24, [], note, 300)
    difference_rows(ax, rows, margin, low, high, bent)
    for text in ax.texts[: 2 * len(rows)]:  # two columns
        text.set_color(VERDICTS[first_word(rows[round(text.get_position()[1])][-1])][0])
    ax.tick_params(labeltop=len(rows) > 20)
    return fig


def factor_curve(
    series: Mapping[str, tuple[Array, Array, Array, Array]],
    norms: Mapping[str, str],
    *,
    factor: str,
    y_label: str,
    title: str,
    log_x: bool | None = None,
    accuracy: bool = True,
) -> Figure:
    """Draw a result against a numeric factor (batch_size, l1, lr): a line a setting, with interval bars.

    series: label -> (x, mean, low, high), each float (K,); a mean that is not finite is left out, bounds that are not
    are not drawn. ``log_x``: None takes the logarithm of x where its values are not negative and span more than a
    decade; 0 then stands at the left, beyond a break of the axis. ``accuracy``: as in ``intervals``. Raises ValueError
    if the four differ in shape, a label has no norm, or log_x is asked for negative values.
    """
    look = looks(series, norms)
    found: dict[str, Array] = {}
    for label, four in series.items():
        shapes = [np.shape(part) for part in four]
        check(
            len(set(shapes)) == 1 and len(shapes[0]) == 1, f"{label!r}: x, mean, low, high must be (K,), not {shapes}"
        )
        table = np.array(four, dtype=float)
        table = table[:, np.isfinite(table[:2]).all(axis=0)]
        found[label] = table[:, np.argsort(table[0], kind="stable")]
    tables = [table for table in found.values() if table.size]
    tested = np.unique(np.concatenate([table[0] for table in tables])) if tables else np.array([])
    check(not log_x or not (tested < 0).any(), f"log_x: {factor} has negative values")
    positive = tested[tested > 0]
    if log_x is None:
        log_x = bool(positive.size and tested[0] >= 0 and positive[-1] > 10 * positive[0])
    log_x = bool(log_x and positive.size)

    names = {label: folded(label, LABEL) for label in series}
    tall = max(290, sum(label_height(name) + 1 for name in names.values()))
    fig = figure(700 + widest(names.values(), TEXT), tall + 150, title)
    ax = fig.add_subplot()
    points, ends = (np.concatenate([finite(t[rows]) for t in tables] or [np.array([])]) for rows in (1, slice(2, 4)))
    low, high, kind = view(points, ends, accuracy)
    frame(ax, y_label + SUFFIX[kind])
    scaled(ax, "y", low, high, kind)
    _factor_axis(ax, tested, log_x)
    labels = []
    spread = min(5.0, 24 / max(len(tables) - 1, 1))  # pixels between the settings at one x
    drawn = [label for label, table in found.items() if table.size]
    for i, label in enumerate(drawn):
        style, (x, mean, least, most) = look[label], found[label]
        beside = ScaledTranslation((i - (len(drawn) - 1) / 2) * spread / DPI, 0, fig.dpi_scale_trans)
        for at, bottom, top in zip(x, least, most, strict=True):
            interval_bar(ax, bottom, top, at, style.colour, upright=True, shift=beside)
        line = {"color": style.colour, "linestyle": style.line, "linewidth": 1.6}
        ax.plot(x, mean, **line, **style.mark(6.5), transform=ax.transData + beside)
        end = float(x[-1]), float(mean[-1])
        labels.append(end_label(ax, names[label], end, style.colour, len(drawn), SAMPLE + 6))
        labels[-1].set_gid(label)
    ax.set_xlabel(factor, size=TEXT, color=QUIET)
    blank = [label for label in series if label not in drawn]
    bars = ["bar: 95 % interval"] if finite(ends).size else []
    _note(fig, [*bars, *[f"no values: {', '.join(blank)}"] * bool(blank)])
    settle(fig, {ax: labels})
    samples(ax, labels, look)
    return fig


def persistent_gallery(
    images: Array,
    true: Array,
    pred: Array,
    count: Array,
    seeds: int,
    *,
    classes: Sequence[str],
    title: str,
    columns: int = 10,
    unit: str = "seeds",
) -> Figure:
    """Draw the images that one setting misclassifies, those that most of its seeds misclassify first.

    images: uint8 (M, H, W), 0 is drawn white and 255 black; true, pred: int (M,), indices into ``classes``, pred the
    most frequent wrong prediction; count: int (M,), how many of ``seeds`` misclassify the image, at least 1. Equal
    counts keep their order. M may be 0. unit: what is counted, such as "runs" for those of several settings. Raises
    ValueError if a shape, a type or a value does not fit.
    """
    m = len(images)
    check(images.ndim == 3 and images.dtype == np.uint8, f"images must be uint8 (M, H, W), not {shape_of(images)}")
    for name, array, least, most in [
        ("true", true, 0, len(classes) - 1),
        ("pred", pred, 0, len(classes) - 1),
        ("count", count, 1, seeds),
    ]:
        check(array.shape == (m,) and array.dtype.kind in "iu", f"{name} must be int ({m},), not {shape_of(array)}")
        check(not m or least <= array.min() <= array.max() <= most, f"{name} must lie in {least} to {most}")
    check(columns > 0, f"columns must be at least 1, not {columns}")
    order = np.argsort(-count.astype(int), kind="stable")
    names = [(classes[true[i]], classes[pred[i]]) for i in order]
    below = [f"{count[i]} of {seeds} {unit}" for i in order]
    note = f"true → most frequent wrong prediction, and how many {unit} misclassify the image" if m else ""
    return tiles(images[order], names, below, title=title, note=note, columns=columns)


def overlap(matrix: Array, labels: Sequence[str], *, title: str) -> Figure:
    """Draw which share of their errors two settings have in common, the darker the more; the diagonal is grey.

    matrix: float (K, K), in [0, 1], the Jaccard index: errors of both over errors of either. NaN, for settings without
    errors, stays empty. Raises ValueError if the shape is not (K, K) for the K ``labels`` or a value is not in [0, 1].
    """
    k = len(labels)
    check(np.shape(matrix) == (k, k) and k > 0, f"matrix must be ({k}, {k}), a row a label, not {np.shape(matrix)}")
    shares = np.array(matrix, dtype=float)
    check(not ((shares < 0) | (shares > 1)).any(), "matrix must lie in [0, 1]")
    names, cell = [folded(label, LABEL) for label in labels], 46
    plain = widest(names, TEXT) < cell - 8 and all("\n" not in name for name in names)
    left = MARGIN + widest(names, TEXT) + (14 if plain else 40)  # long names: numbers stand for them
    note = "errors of both settings over errors of either (Jaccard index)"
    width = max(left + cell * k + MARGIN, widest([note], SMALL) + 2 * MARGIN + 8, 440)
    fig, _, top = sheet(width, cell * k + 26, title, note)
    ax = _panel(fig, left, top + 26, cell * k, cell * k)
    cmap = LinearSegmentedColormap.from_list("shared", SHARED).with_extremes(bad=PAPER)
    off = np.where(np.eye(k, dtype=bool), np.nan, shares)
    ax.imshow(np.ma.masked_invalid(off), cmap, vmin=0, vmax=np.nanmax(off, initial=0.5), aspect="auto")
    for i in range(k):
        ax.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 1, color=MUTED, linewidth=0))
    for i, j in zip(*np.nonzero(np.isfinite(off)), strict=True):
        ax.text(j, i, f"{off[i, j]:.2f}", size=TEXT, color=INK, ha="center", va="center")
    for edge in np.arange(k + 1) - 0.5:
        ax.plot([edge, edge], [-0.5, k - 0.5], color=PAPER, linewidth=1.5)
        ax.plot([-0.5, k - 0.5], [edge, edge], color=PAPER, linewidth=1.5)
    ax.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5))
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labelsize=TEXT, labelcolor=INK, labeltop=True, labelbottom=False)
    ax.set_yticks(range(k), names)
    ax.set_xticks(range(k), names if plain else [f"{i + 1}" for i in range(k)])
    if not plain:
        ax.tick_params(axis="y", pad=26)
        for i in range(k):
            ax.text(-0.62, i, f"{i + 1}", size=TEXT, color=INK, ha="right", va="center")
    return fig


def variance_shares(shares: Mapping[str, tuple[float, float, float]], *, title: str) -> Figure:
    """Draw, a bar a setting, how much of a variance comes from the seed, the test set and the interaction of both.

    shares: label -> (seed, test_set, interaction), each in [0, 1] and together 1; any NaN leaves the row empty. Parts
    too narrow for their number have it at the right. Raises ValueError if shares are negative or do not add up to 1.
    """
    beside = []
    for label, parts in shares.items():
        check(len(parts) == 3, f"{label!r}: shares must be (seed, test_set, interaction), not {len(parts)}")
        bad = np.isfinite(parts).all() and (min(parts) < 0 or abs(sum(parts) - 1) > 0.005)
        check(not bad, f"{label!r}: shares must be at least 0 and add up to 1, not {parts}")
        narrow = [(part, share) for (part, *_), share in zip(PARTS, parts, strict=True) if share < 0.09]
        said = ", ".join(f"{part.split()[0]} {_percent(share)}" for part, share in narrow)
        beside.append(said.replace("test", "test set") if np.isfinite(parts).all() else "no values")
    keys = [{"patch": colour, "hatch": hatch, "text": part} for part, colour, hatch in PARTS]
    fig, ax = _rows(shares, title, "share of the variance, %", beside, 38, keys if shares else [], "")
    ax.set_xlim(0, 100)
    ax.xaxis.set_major_locator(FixedLocator([0, 25, 50, 75, 100]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    for y, parts in enumerate(shares.values()):
        left = 0.0
        for (_, colour, hatch), share in zip(PARTS, parts if np.isfinite(parts).all() else (), strict=False):
            bar = Rectangle((left, y - 0.3), 100 * share, 0.6, facecolor=colour, hatch=hatch, linewidth=0.8)
            bar.set(edgecolor=FAINT if hatch else PAPER)
            ax.add_patch(bar)
            if share >= 0.09:
                text = ax.text(left + 50 * share, y, _percent(share), size=TEXT, ha="center", va="center")
                text.set(color=readable(bar.get_facecolor()))
                if hatch:
                    text.set_bbox({"facecolor": colour, "edgecolor": "none", "pad": 1.5})
            left += 100 * share
    return fig


def _factor_axis(ax: Axes, tested: Array, log_x: bool) -> None:
    """Scale and ticks of the x axis of ``factor_curve``: the tested values where they are few, 0 beyond a break."""
    if not tested.size:
        empty(ax)
        return
    first = float(tested[tested > 0][0]) if log_x else 0.0
    step = 0.0
    if log_x:
        inner = np.log10(tested[tested > 0])
        step = float(np.clip(np.ptp(inner) / max(len(inner) - 1, 1), 0.3, 1.0))

        def forward(x: Array) -> Array:
            x = np.asarray(x, dtype=float)
            return np.where(x < first, np.log10(first) - step * (1 - x / first), np.log10(np.maximum(x, first)))

        def inverse(height: Array) -> Array:
            below = (np.asarray(height, dtype=float) - np.log10(first)) / step
            return np.where(below < 0, first * (1 + below), 10.0 ** np.maximum(height, np.log10(first)))

        ax.set_xscale("function", functions=(forward, inverse))
    axis = ax.xaxis.get_transform()
    edges = axis.transform(tested[[0, -1]])
    pad = 0.06 * (edges[1] - edges[0]) or 0.5
    ax.set_xlim(*axis.inverted().transform(edges + np.array([-pad, pad])).tolist())
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ticks = tested.tolist()
    if len(ticks) > 10 and log_x:
        ticks = apart([0.0, *CE_TICKS, *(m * 10.0**e for m in (1, 3) for e in range(4, 9))], ax.xaxis, 0.1)
    if len(ticks) > 10:
        ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    else:
        room = (widest([f"{tick:g}" for tick in ticks], SMALL) + 8) / 520  # a panel is at least 520 pixels wide
        named = apart([ticks[0], ticks[-1], *ticks[1:-1]], ax.xaxis, room)
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_major_formatter(FixedFormatter([f"{tick:g}" if tick in named else "" for tick in ticks]))
    ax.tick_params(axis="x", length=4, color=QUIET)
    if log_x and tested[0] == 0:
        at = float(axis.inverted().transform(axis.transform(first) - step / 2))
        foot = ax.get_xaxis_transform()
        mark = ax.text(at, 0, "//", size=TEXT, color=QUIET, ha="center", va="center", transform=foot)
        mark.set_bbox({"facecolor": PAPER, "edgecolor": "none", "pad": 0.5})


def _rows(
    labels: Iterable[str],
    title: str,
    heading: str,
    numbers: Sequence[str],
    pitch: float,
    keys: Sequence[Mapping[str, Any]],
    note: str,
    room: float = LABEL,
) -> tuple[Figure, Axes]:
    """A figure of rows, counted from 0 at the top, with labels at the left, numbers at the right and a key below.

    numbers: a tab splits one into two columns. room: width of the widest label in pixels before it is broken.
    """
    names = [folded(label, room) for label in labels]
    pitch = max(pitch, 8 + 17 * max((name.count("\n") + 1 for name in names), default=1))
    left = MARGIN + widest(names, TEXT) + 20
    column = widest([number.partition("\t")[0] for number in numbers], TEXT)
    second = [number.partition("\t")[2] for number in numbers]
    right = 16 + column + (12 + widest(second, TEXT) if any(second) else 0) + 6 + MARGIN
    width = max(left + PANEL + right, 680)
    heading, note = (wrap(text, size, width - x) for text, size, x in [(heading, TEXT, left + 30), (note, SMALL, 60)])
    above = 18 * (heading.count("\n") + 1) + (18 if len(names) > 20 else 4)  # 20: ticks at the top, too
    high = pitch * (len(names) or 2)
    lines = note.count("\n") + 1 if note else 0
    keys = [{**key, "text": wrap(key["text"], SMALL, width - 100)} for key in keys]
    below = 40 + 15 * lines + sum(16 * key["text"].count("\n") + 19 for key in keys)
    fig, page, top = sheet(width, above + high + below - 12, title)
    ax = _panel(fig, left, top + above, width - left - right, high)
    frame(ax, "", "x")
    page.text(left, top, heading, size=TEXT, color=INK, va="top")
    y = top + above + high + 40
    page.text(MARGIN, y, note, size=SMALL, color=QUIET, va="top")
    y += 15 * lines + 9
    for key in keys:
        look = {"color": QUIET, "ms": 6, **{name: value for name, value in key.items() if name not in OWN}}
        if "patch" in key:
            swatch = Rectangle((MARGIN, y - 6), 22, 12, facecolor=key["patch"], edgecolor=FAINT, hatch=key["hatch"])
            page.add_patch(swatch)
        else:
            page.plot([MARGIN, MARGIN + 22], [y, y], color=QUIET, linewidth=1.6 if key.get("bar") else 0)
            page.plot([MARGIN + 11], [y], linestyle="", **look)
        page.text(MARGIN + 32, y - 6, key["text"], size=SMALL, color=QUIET, va="top")
        y += 16 * key["text"].count("\n") + 19
    ax.set_ylim((len(names) or 2) - 0.5, -0.5)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(axis="y", labelsize=TEXT, labelcolor=INK, pad=8)
    for edge in np.arange(1, len(names)) - 0.5:
        ax.axhline(edge, color=FAINT, linewidth=0.6, zorder=0.5)
    for row, number in enumerate(numbers):
        for i, text in enumerate(number.split("\t")):
            two = "\t" in number
            x = 16 + (column if two else 0) + 12 * i
            place = ax.get_yaxis_transform() + ScaledTranslation(x / DPI, 0, fig.dpi_scale_trans)
            side = "right" if two and not i else "left"
            ax.text(1, row, text, size=TEXT, color=INK, ha=side, va="center", transform=place)
    return fig, ax


def _panel(fig: Figure, x: float, y: float, wide: float, high: float) -> Axes:
    """Axes at so many pixels from the upper left corner of a figure."""
    width, height = fig.bbox.width, fig.bbox.height
    return fig.add_axes((x / width, 1 - (y + high) / height, wide / width, high / height))


def _note(fig: Figure, notes: Sequence[str]) -> None:
    width = fig.get_figwidth() * DPI
    lines = [wrap(note, SMALL, width - 2 * MARGIN) for note in dict.fromkeys(notes)]
    fig.supxlabel("\n".join(lines), x=MARGIN / width, ha="left", size=SMALL, color=QUIET)


def _percent(share: float) -> str:
    return "< 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"
