"""From the single measurements of benchmarks/study.py (docs/study.csv) to its tables and figures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from benchmarks.tables import BUSY, markdown
from normlab.analysis.drawing import figure, plain, png, svg

ARMS = {
    "R0": "plain Lightning script",
    "T": "normlab by torch",
    "R1": "normlab, one run",
    "R2": "normlab, one run per core",
    "R3": "normlab, CUDA graph",
    "H": "fused the usual way",
    "R4": "normlab array",
}
ARRAYS = ("H", "R4")
COLOURS = dict(zip(ARMS, ["#6B6B6B", "#0F7F6F", "#3E81C9", "#01468F", "#7448CA", "#BC7100", "#A02700"], strict=True))
MARKERS = dict(zip(ARMS, "oXshP^D", strict=True))
EPOCH = 60_000  # images: MNIST
RUN = 12  # epochs of a run, normlab's default
HEADINGS = (
    "norm", "batch", "arm", "networks", "images/s", "range", "model-epochs/h", "cold", "x R0", "x R1", "% FMA",
    "% memory", "start-up s",
)  # fmt: skip


class Cell(NamedTuple):
    """What is measured: an arm with a norm and a batch size; networks: of each array, 1 where there is none."""

    norm: str
    batch: int
    arm: str
    networks: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What was measured on. peak: FLOP/s; bandwidth: bytes/s; flops, bytes: of an image, by norm."""

    name: str
    cores: int
    peak: float
    bandwidth: float
    flops: Mapping[str, float]
    bytes: Mapping[str, float]
    load: float
    versions: str
    command: str
    device: str


def rows(measured: pd.DataFrame, machine: Machine) -> pd.DataFrame:
    """Return one row per cell with its medians, in the order of norm, batch, arm and networks.

    measured: the columns of study.csv. rate, low, high: images per second, the median and the range. warm and cold are
    model-epochs per hour (60,000 images of one network each): while it trains, and for runs of 12 epochs with the start
    of their processes, each of which trains one run or one array. by_R0, by_R1: rate over that of this arm with the
    same norm and batch; NaN where that was not measured. fma, memory: the shares of the machine's peaks.
    """
    ordered = measured.assign(arm=pd.Categorical(measured["arm"], list(ARMS), ordered=True))
    table = ordered.groupby(list(Cell._fields), observed=True).agg(
        rate=("images_per_s", "median"),
        low=("images_per_s", "min"),
        high=("images_per_s", "max"),
        processes=("processes", "first"),
        startup_s=("startup_s", "median"),
    )
    table = table.reset_index().astype({"arm": str})
    for arm in ("R0", "R1"):
        base = table[table["arm"] == arm].set_index(["norm", "batch"])["rate"].rename("base")
        table[f"by_{arm}"] = table["rate"] / table.join(base, on=["norm", "batch"])["base"]
    epochs = table["processes"] * table["networks"] * RUN
    table["warm"] = 3600 * table["rate"] / EPOCH
    table["cold"] = 3600 * epochs / (table["startup_s"] + epochs * EPOCH / table["rate"])
    table["fma"] = table["rate"] * table["norm"].map(machine.flops) / machine.peak
    table["memory"] = table["rate"] * table["norm"].map(machine.bytes) / machine.bandwidth
    return table


def text(row: pd.Series) -> tuple[str, ...]:
    """Return a row as text, one cell for each of `HEADINGS`."""
    return (
        row["norm"],
        str(row["batch"]),
        f"{row['arm']} {ARMS[row['arm']]}",
        str(row["networks"]) if row["arm"] in ARRAYS else "",
        f"{row['rate']:,.0f}",
        f"{row['low']:,.0f}–{row['high']:,.0f}",
        f"{row['warm']:,.0f}",
        f"{row['cold']:,.0f}",
        *("" if pd.isna(ratio) else f"{ratio:.2f}" for ratio in (row["by_R0"], row["by_R1"])),
        f"{100 * row['fma']:.1f}",
        f"{100 * row['memory']:.1f}",
        f"{row['startup_s']:.1f}",
    )


def notes(machine: Machine) -> list[str]:
    """Return what was measured, on what and how: without it the figures say nothing."""
    busy = " (not idle when it began: the first figures may be low)" if machine.load > BUSY else ""
    mega = [
        f"{norm} {machine.flops[norm] / 1e6:.2f} MFLOP, {machine.bytes[norm] / 1e6:.2f} MB" for norm in machine.flops
    ]
    return [
        f"Machine: {machine.name}, {machine.device}, {machine.cores} CPU cores, load before {machine.load:.1f}{busy}.",
        f"Versions: {machine.versions}.",
        f"Command: `{machine.command}`.",
        "Training alone, from step 10 to the last; medians, ranges over the repetitions.",
        f"model-epochs/h: passes of one network over 60,000 images; cold: for runs of {RUN} epochs, with the start of "
        "their processes, each of which trains one run or one array.",
        f"Peak: {machine.peak / 1e9:,.0f} GFLOP/s (a loop of fused multiply-adds), {machine.bandwidth / 1e9:,.0f} GB/s "
        "(copies). An image: " + "; ".join(mega) + " (if nothing stayed in a cache).",
        "Start-up: from the start of the processes to the end of their first step.",
    ]


def page(table: pd.DataFrame, machine: Machine) -> str:
    """Return study.md: the table, and a list of what was measured, on what and how."""
    numbers = {*HEADINGS} - {"norm", "arm"}
    shown = markdown(HEADINGS, [text(row) for _, row in table.iterrows()], numbers)
    return "\n".join(["# Training a study", "", shown, "", *(f"- {note}" for note in notes(machine)), ""])


def in_short(table: pd.DataFrame) -> str:
    """Return the table of docs/speed.md: one row per norm and batch size, one column per arm, with its ratio to the
    plain script; of several sizes of an array, the fastest."""
    arms = [arm for arm in ARMS if arm in set(table["arm"])]

    def cell(row: pd.Series) -> str:
        ratio = f" ({row['by_R0']:.1f} x)" if row["arm"] != "R0" and pd.notna(row["by_R0"]) else ""
        networks = f", {row['networks']} networks" if row["networks"] > 1 else ""
        return f"{row['rate']:,.0f}{ratio}{networks}"

    lines = []
    for (norm, batch), of in fastest(table).groupby(["norm", "batch"]):
        cells = {row["arm"]: cell(row) for _, row in of.iterrows()}
        lines.append([f"`{norm}`, {batch}", *(cells.get(arm, "") for arm in arms)])
    titles = [ARMS[arm] for arm in arms]
    return markdown(["norm, batch", *titles], lines, titles)


def fastest(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per norm, batch size and arm: of several sizes of an array, the fastest."""
    return table.loc[table.groupby(["norm", "batch", "arm"])["rate"].idxmax()]


def figures(table: pd.DataFrame, machine: Machine) -> Iterator[tuple[str, bytes]]:
    """Yield study-batch and study-array, each as PNG and SVG: file name and content."""
    for name, fig in (("study-batch", by_batch(table, machine)), ("study-array", by_size(table, machine))):
        yield f"{name}.png", png(fig)
        yield f"{name}.svg", svg(fig)


def by_batch(table: pd.DataFrame, machine: Machine) -> Figure:
    """Draw model-epochs per hour against the batch size, one line per arm; of several sizes of an array, the
    fastest."""
    norm = table.groupby("norm")["batch"].nunique().idxmax()
    best = fastest(table[table["norm"] == norm])
    lines = {ARMS[arm]: best[best["arm"] == arm].sort_values("batch") for arm in ARMS if arm in set(best["arm"])}
    title = f"Epochs of MNIST trained per hour, by batch size ({norm}; {machine.name}, {machine.cores} cores)"
    return _lines(lines, "batch", title, "images per step of each network")


def by_size(table: pd.DataFrame, machine: Machine) -> Figure:
    """Draw model-epochs per hour of the array against the number of its networks, one line per batch size and arm."""
    norm = table.groupby("norm")["networks"].nunique().idxmax()
    arrays = table[(table["norm"] == norm) & table["arm"].isin(ARRAYS)]
    lines = {f"{ARMS[arm]}, batch {batch}": of for (batch, arm), of in arrays.groupby(["batch", "arm"])}
    lines = {label: of for label, of in lines.items() if len(of) > 1} or lines
    title = f"Epochs of MNIST trained per hour, by networks in an array ({norm}; {machine.name})"
    return _lines(lines, "networks", title, "networks in each array")


@plain()
def _lines(lines: Mapping[str, pd.DataFrame], x: str, title: str, label: str) -> Figure:
    """Draw rows of the table, by their label, against one of its columns."""
    fig = figure(title, 4.6, 8.8)
    ax = fig.subplots()
    ax.set_title("model-epochs per hour")
    for name, of in lines.items():
        arm = of["arm"].iloc[0]
        style = {"2": ":", "8": "--"}.get(name.rpartition(", batch ")[2], "-")
        ax.plot(of[x], of["warm"], color=COLOURS[arm], marker=MARKERS[arm], ms=6, lw=1.6, ls=style, label=name)
        low, high = (3600 * of[end] / EPOCH for end in ("low", "high"))
        ax.vlines(of[x], low, high, color=COLOURS[arm], lw=1.2, alpha=0.6)
    ticks: Sequence[int] = sorted({at for of in lines.values() for at in of[x]})
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    ax.set_ylim(0)
    ax.set_xlabel(label)
    fig.legend(loc="outside right center")
    return fig
