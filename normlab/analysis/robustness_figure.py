"""The figure of accuracy on corrupted images against how strongly they are corrupted."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from normlab.analysis.colours import QUIET
from normlab.analysis.drawing import Style, figure, key, looks_of, plain, styles
from normlab.settings.corruptions import CORRUPTIONS

__all__ = ["strength_panel", "strengths"]

HEIGHT = 2.8  # inches: of a row of panels
ADAPTED = (0, (2, 1.4))  # the line of a network with the statistics of the corrupted images


@plain()
def strengths(values: pd.DataFrame, norms: Mapping[str, str], *, title: str) -> Figure:
    """Draw a panel per kind of corruption, a line per setting and mode.

    Args:
        values: a row per setting, mode, kind and strength, with amount, acc_mean, acc_low and acc_high in [0, 1].
        norms: label -> norm of all settings of the report.
    """
    style = looks_of(dict.fromkeys(values["setting"]), styles(norms))
    kinds = list(dict.fromkeys(values["kind"]))
    rows = -(-len(kinds) // 2)
    fig = figure(title, HEIGHT * rows + 0.9)
    axes = fig.subplots(rows, min(len(kinds), 2), squeeze=False, sharey=True).ravel()
    for ax, kind in zip(axes, kinds, strict=False):
        strength_panel(ax, values[values["kind"] == kind], kind, style)
    for ax in axes[len(kinds) :]:
        ax.set_visible(False)
    for ax in axes[:: min(len(kinds), 2)]:
        ax.set_ylabel("accuracy, %")
    handles = [Line2D([], [], color=each.colour, label=each.label, **each.mark(5)) for each in style.values()]
    if "adapted" in set(values["mode"]):
        handles.append(Line2D([], [], color=QUIET, linestyle=ADAPTED, label="with the statistics of these images"))
    key(fig, handles, "Mark: mean over seeds; bar: its 95 % interval.")
    return fig


def strength_panel(ax: Axes, values: pd.DataFrame, kind: str, style: Mapping[str, Style]) -> None:
    """Draw the lines of one kind of corruption over its amounts, clean images at the left."""
    for (label, mode), some in values.groupby(["setting", "mode"], sort=False):
        own = style[str(label)]
        x = some["amount"].to_numpy(float)
        mean, low, high = (100 * some[f"acc_{of}"].to_numpy(float) for of in ("mean", "low", "high"))
        ax.vlines(x, low, high, color=own.colour, alpha=0.45, linewidth=1.2)
        line = ADAPTED if mode == "adapted" else "-"
        ax.plot(x, mean, color=own.colour, linestyle=line, linewidth=1.5, **own.mark(4.5))
    about = CORRUPTIONS[kind]  # type: ignore[index]  # a kind that was measured
    ax.set_title(f"images {about.title}")
    ticks = [about.clean, *about.amounts]
    ax.set_xticks(ticks, ["clean", *(f"{amount:g}" for amount in about.amounts)])
    if about.clean > about.amounts[-1]:
        ax.invert_xaxis()
    ax.set_xlabel(about.words)
