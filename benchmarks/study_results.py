"""From the single measurements of benchmarks/study.py to its table and figures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

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
COLOURS = {
    "R0": "#6B6B6B",
    "T": "#0F7F6F",
    "R1": "#3E81C9",
    "R2": "#01468F",
    "R3": "#7448CA",
    "H": "#BC7100",
    "R4": "#A02700",
}
MARKERS = dict(zip(ARMS, "oXshP^D", strict=True))
EPOCH = 60_000  # images: MNIST
RUN = 12  # epochs of a run, normlab's default
BUSY = 0.5  # load before the start from which it is said
HEADINGS = (
    "norm", "batch", "arm", "networks", "images/s", "range", "model-epochs/h", "cold", "x R0", "x R1", "% FMA",
    "% memory", "start-up s",
)  # fmt: skip


Point = tuple[int, float, float, float]


class Cell(NamedTuple):
    """What is measured: an arm with a norm and a batch size; networks: of each array, 1 where there is none."""

    norm: str
    batch: int
    arm: str
    networks: int


class Measurement(NamedTuple):
    """A row of study.csv."""

    repetition: int
    norm: str
    batch: int
    arm: str
    networks: int
    processes: int
    images_per_s: float
    startup_s: float


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What was measured on. peak: FLOP/s; bandwidth: bytes/s; flops, bytes: an image, by norm."""

    name: str
    cores: int
    peak: float
    bandwidth: float
    flops: Mapping[str, float]
    bytes: Mapping[str, float]
    load: float
    versions: Mapping[str, str]
    command: str
    device: str


class Row(NamedTuple):
    """A cell with its medians.

    `warm` and `cold` are model-epochs per hour (60,000 images of one network each): while it trains, and for runs of 12
    epochs with the start of their processes, where every process trains one run or one array. `by` are the ratios to R0
    and R1 of the same norm and batch; None where that was not measured.
    """

    cell: Cell
    rate: float
    span: tuple[float, float]
    warm: float
    cold: float
    by: tuple[float | None, float | None]
    fma: float
    memory: float
    startup_s: float

    @property
    def warm_span(self) -> tuple[float, float]:
        """`warm` of the slowest and of the fastest repetition."""
        low, high = (3600 * rate / EPOCH for rate in self.span)
        return low, high


def rows(measurements: Sequence[Measurement], machine: Machine) -> list[Row]:
    """A row a cell, in the order of norm, batch, arm, networks."""
    found: dict[Cell, list[Measurement]] = {}
    for m in measurements:
        found.setdefault(Cell(m.norm, m.batch, m.arm, m.networks), []).append(m)
    rates = {cell: median(m.images_per_s for m in of) for cell, of in found.items()}
    table = []
    for cell in sorted(found, key=lambda c: (c.norm, c.batch, [*ARMS].index(c.arm), c.networks)):
        rate = rates[cell]
        startup = median(m.startup_s for m in found[cell])
        each = [m.images_per_s for m in found[cell]]
        base = [rates.get(Cell(cell.norm, cell.batch, arm, 1)) for arm in ("R0", "R1")]
        images = found[cell][0].processes * cell.networks * RUN * EPOCH
        table.append(
            Row(
                cell=cell,
                rate=rate,
                span=(min(each), max(each)),
                warm=3600 * rate / EPOCH,
                cold=3600 * images / EPOCH / (startup + images / rate),
                by=tuple(rate / other if other else None for other in base),  # type: ignore[arg-type]  # two
                fma=rate * machine.flops[cell.norm] / machine.peak,
                memory=rate * machine.bytes[cell.norm] / machine.bandwidth,
                startup_s=startup,
            )
        )
    return table


def text(row: Row) -> tuple[str, ...]:
    """A row as text, a cell for each of `HEADINGS`."""
    cell = row.cell
    return (
        cell.norm,
        str(cell.batch),
        f"{cell.arm} {ARMS[cell.arm]}",
        str(cell.networks) if cell.arm in ("H", "R4") else "",
        f"{row.rate:,.0f}",
        "–".join(f"{end:,.0f}" for end in row.span),
        f"{row.warm:,.0f}",
        f"{row.cold:,.0f}",
        *("" if ratio is None else f"{ratio:.2f}" for ratio in row.by),
        f"{100 * row.fma:.1f}",
        f"{100 * row.memory:.1f}",
        f"{row.startup_s:.1f}",
    )


def notes(machine: Machine) -> list[str]:
    """What was measured, on what and how: without it the figures say nothing."""
    busy = " (not idle when it began: the first figures may be low)" if machine.load > BUSY else ""
    mega = [
        f"{norm} {machine.flops[norm] / 1e6:.2f} MFLOP, {machine.bytes[norm] / 1e6:.2f} MB" for norm in machine.flops
    ]
    return [
        f"Machine: {machine.name}, {machine.device}, {machine.cores} CPU cores, load before {machine.load:.1f}{busy}.",
        f"Versions: {', '.join(f'{name} {number}' for name, number in machine.versions.items())}.",
        f"Command: `{machine.command}`.",
        "Training alone, from step 10 to the last; medians, ranges over the repetitions.",
        f"model-epochs/h: passes of one network over 60,000 images; cold: for runs of {RUN} epochs, with the start of "
        "their processes, each of which trains one run or one array.",
        f"Peak: {machine.peak / 1e9:,.0f} GFLOP/s (a loop of fused multiply-adds), {machine.bandwidth / 1e9:,.0f} GB/s "
        "(copies). An image: " + "; ".join(mega) + " (if nothing stayed in a cache).",
        "Start-up: from the start of the processes to the end of their first step.",
    ]


def markdown(table: Sequence[Row], machine: Machine) -> str:
    """study.md: the table, and a list of what was measured, on what and how."""
    rule = ["---", "---:", "---"] + ["---:"] * (len(HEADINGS) - 3)
    lines = [f"| {' | '.join(line)} |" for line in (HEADINGS, rule, *map(text, table))]
    return "\n".join(["# Training a study", "", *lines, "", *(f"- {note}" for note in notes(machine)), ""])


def in_short(table: Sequence[Row]) -> list[str]:
    """README's table: a row per norm and batch size, a column per arm, with its ratio to the plain script; of several
    sizes of an array, the fastest."""
    arms = [arm for arm in ARMS if any(row.cell.arm == arm for row in table)]
    lines = [f"| norm, batch | {' | '.join(ARMS[arm] for arm in arms)} |", f"|---|{'---:|' * len(arms)}"]
    for norm, batch in dict.fromkeys((row.cell.norm, row.cell.batch) for row in table):
        cells = []
        for arm in arms:
            of = [row for row in table if row.cell[:3] == (norm, batch, arm)]
            if not of:
                cells.append("")
                continue
            row = max(of, key=lambda row: row.rate)
            ratio = f" ({row.by[0]:.1f} x)" if row.by[0] and arm != "R0" else ""
            networks = f", {row.cell.networks} networks" if row.cell.networks > 1 else ""
            cells.append(f"{row.rate:,.0f}{ratio}{networks}")
        lines.append(f"| `{norm}`, {batch} | {' | '.join(cells)} |")
    return lines


def show(table: Sequence[Row], machine: Machine) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=170)  # rich takes 80 columns where there is no terminal
    shown = Table(title="Training a study", title_justify="left", box=None)
    for heading in HEADINGS:
        shown.add_column(heading, justify="left" if heading in ("norm", "arm") else "right")
    for row in table:
        shown.add_row(*text(row))
    console.print(shown, "", *notes(machine), sep="\n", markup=False, highlight=False, soft_wrap=True)


def figures(table: Sequence[Row], machine: Machine) -> Iterator[tuple[str, bytes]]:
    """study-batch and study-array, each as PNG and SVG: file name and content."""
    for name, fig in (("study-batch", by_batch(table, machine)), ("study-array", by_size(table, machine))):
        yield f"{name}.png", png(fig)
        yield f"{name}.svg", svg(fig)


def by_batch(table: Sequence[Row], machine: Machine) -> Figure:
    """Model-epochs per hour against the batch size, one line per arm; of several sizes of an array, the fastest."""
    norm = _most(table, lambda cell: cell.batch)
    most: dict[tuple[str, int, str], Row] = {}
    for row in table:
        key = (row.cell.norm, row.cell.batch, row.cell.arm)
        if key not in most or row.warm > most[key].warm:
            most[key] = row
    lines = {arm: [r for (n, _, a), r in sorted(most.items()) if n == norm and a == arm] for arm in ARMS}
    points = {arm: [(r.cell.batch, r.warm, *r.warm_span) for r in of] for arm, of in lines.items() if of}
    title = f"Epochs of MNIST trained per hour, by batch size ({norm}; {machine.name}, {machine.cores} cores)"
    return _lines(points, title, "images per step of each network")


def by_size(table: Sequence[Row], machine: Machine) -> Figure:
    """Model-epochs per hour of the array against the number of its networks, one line per batch size and arm."""
    norm = max(
        {row.cell.norm for row in table}, key=lambda n: len({r.cell.networks for r in table if r.cell.norm == n})
    )
    points: dict[str, list[Point]] = {}
    for row in table:
        if row.cell.norm == norm and row.cell.arm in ("H", "R4"):
            point = (row.cell.networks, row.warm, *row.warm_span)
            points.setdefault(f"{row.cell.arm} {row.cell.batch}", []).append(point)
    points = {key: of for key, of in points.items() if len(of) > 1} or points
    title = f"Epochs of MNIST trained per hour, by networks in an array ({norm}; {machine.name})"
    return _lines(points, title, "networks in each array")


def _most(table: Sequence[Row], value: Callable[[Cell], int]) -> str:
    """The norm that was measured with most values of something."""
    return max(
        sorted({row.cell.norm for row in table}),
        key=lambda norm: len({value(row.cell) for row in table if row.cell.norm == norm}),
    )


@plain()
def _lines(points: Mapping[str, Sequence[Point]], title: str, label: str) -> Figure:
    """points: (x, median, smallest, largest) by arm and batch size."""
    fig = figure(title, 4.6, 8.8)
    ax = fig.subplots()
    ax.set_title("model-epochs per hour")
    for key, of in points.items():
        arm, _, batch = key.partition(" ")
        name = f"{ARMS[arm]}{f', batch {batch}' if batch else ''}"
        style = {"": "-", "2": ":", "8": "--"}.get(batch, "-")
        x, y, low, high = zip(*of, strict=True)
        ax.plot(x, y, color=COLOURS[arm], marker=MARKERS[arm], ms=6, lw=1.6, ls=style, label=name)
        ax.vlines(x, low, high, color=COLOURS[arm], lw=1.2, alpha=0.6)
    ticks = sorted({x for of in points.values() for x, *_ in of})
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    ax.set_ylim(0)
    ax.set_xlabel(label)
    fig.legend(loc="outside right center")
    return fig
