"""Figures of a study: many settings, many seeds, arrays in and a matplotlib ``Figure`` out, as in ``figures``.

``norms`` maps the label of a setting to its norm. Give every figure of a report the same mapping, with all settings of
the report in one order: then a setting has one colour, marker and line throughout, also where it is not drawn.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from normlab.analysis.colours import INK
from normlab.analysis.drawing import (
    TEXT,
    Array,
    check,
    figure,
    label_height,
    settle,
    widest,
)
from normlab.analysis.numbers import signed
from normlab.analysis.panels import (
    SUFFIX,
    VERDICTS,
    band_panel,
    difference_rows,
    difference_view,
    empty,
    finite,
    first_word,
    folded,
    interval_rows,
    looks,
    mean_of,
    mean_sd,
    samples,
    scaled,
    size_of,
    view,
)
from normlab.analysis.sheets import put_note, sheet_of_rows

__all__ = ["bands", "differences", "intervals"]

SOURCES = ["x", "+", "1", "2", "3", "4", "|"]  # published values: thin, unlike every marker of a norm


def bands(settings: Mapping[str, Mapping[str, Array | None]], norms: Mapping[str, str], *, title: str) -> Figure:
    """Draw cross-entropy in nats and accuracy in per cent over epochs, counted from 1: a line a setting, all seeds.

    settings: label -> series, each float (S, E), one row per seed; shorter rows are padded with NaN. ``test_acc`` and
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
    put_note(fig, [*first, *(f"{before}: {', '.join(dict.fromkeys(after))}" for before, after in notes.items())])
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
    """Draw one row per setting: every seed, their mean with its interval, and mean ± standard deviation in numbers.

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
    fig, ax = sheet_of_rows(values, title, unit_label + SUFFIX[kind], numbers, 42, keys if points.size else [], note)
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

    rows: (label, mean, low, high, verdict); bounds may be NaN. A verdict starts with better, worse, equivalent, less
    (than the margin) or undecided; more words may follow. ``margin``: what lies within ± margin counts as equivalent.
    Where some differences are far larger, the axis is linear to ± 2 margins and logarithmic beyond. Raises ValueError
    for another verdict or a margin that is not positive.
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
    fig, ax = sheet_of_rows(names, title, heading, numbers, 24, [], note, 300)
    difference_rows(ax, rows, margin, low, high, bent)
    for text in ax.texts[: 2 * len(rows)]:  # two columns
        text.set_color(VERDICTS[first_word(rows[round(text.get_position()[1])][-1])][0])
    ax.tick_params(labeltop=len(rows) > 20)
    return fig
