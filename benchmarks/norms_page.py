"""docs/norms.md: what each norm is, from its file, and what it costs, from docs/norms.csv.

`python -m benchmarks.norms_page` writes it anew, without measuring.
"""

import csv
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from normlab.nets import Net
from normlab.norms import CATALOGUE
from normlab.norms.make import layer_class
from normlab.settings.page import Entry, entries

BATCH = 128
LAYER = (20, 24, 24)  # channels, height and width of the layer alone: those of the network's second block
WHAT = ("norm", "layer", "y", "statistics over", "parameters of the network")
COST = ("norm", "step, ms", "x none", "range of x none", "layer forward, ms", "layer backward, ms")


class Measurement(NamedTuple):
    """A row of norms.csv: milliseconds of one training step of the network, and of the layer alone."""

    round: int
    norm: str
    step_ms: float
    forward_ms: float
    backward_ms: float


class Cost(NamedTuple):
    """Medians over the rounds; `ratio` is to "none" of the same round, with its quartiles."""

    norm: str
    step_ms: float
    ratio: float
    quartiles: tuple[float, float]
    forward_ms: float
    backward_ms: float


def costs(measured: Sequence[Measurement]) -> list[Cost]:
    """One row per measured norm, in the order of the catalogue."""
    none = {m.round: m.step_ms for m in measured if m.norm == "none"}
    found = []
    for name in CATALOGUE:
        of = [m for m in measured if m.norm == name]
        if not of:
            continue
        ratios = sorted(m.step_ms / none[m.round] for m in of)
        quartiles = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        medians = [median(getattr(m, column) for m in of) for column in ("step_ms", "forward_ms", "backward_ms")]
        found.append(Cost(name, medians[0], median(ratios), quartiles, *medians[1:]))
    return found


def what() -> list[tuple[str, ...]]:
    """A row of `WHAT` for each norm."""
    rows = []
    for name, about in CATALOGUE.items():
        over = f"{about.statistic[0]} over {about.over}" if about.axes else "nothing"
        total = sum(p.numel() for p in Net(name).parameters())
        rows.append((f"`{name}`", about.title, about.formula, over, f"{total:,}"))
    return rows


def section(name: str, taken: Sequence[Entry]) -> str:
    """One norm in full: formula, what its class says, its facts and its options."""
    about = CATALOGUE[name]
    start = "by the convolution" if about.conv else "from {}"
    learned = [f"{n.sign or key} ({n.shape}), {start.format(_start(n.start))}" for key, n in about.learned.items()]
    facts = {
        "statistics": f"{about.counts} {about.statistic[about.counts != '1']} over {about.over}"
        if about.axes
        else "none",
        "learned": "; ".join(learned) or "nothing",
        "keeps": about.state or "nothing",
        "train and eval mode": about.modes or "the same",
        "source": about.source,
    }
    rows = [(f"`{each.name.removeprefix('norm.')}`", f"`{each.default}`", each.values, each.meaning) for each in taken]
    return "\n\n".join(
        [
            f"### {name}",
            f"**{about.title[0].upper()}{about.title[1:]}**: y = {about.formula}",
            inspect.getdoc(layer_class(name)) or "",
            table(("of a layer", "for maps (N, C, H, W)"), [*facts.items()], []),
            table(("option", "default", "values", "meaning"), rows, []) if rows else "It has no options.",
        ]
    )


def _start(start: float | str) -> str:
    return f"option `{start}`" if isinstance(start, str) else f"{start:g}"


def options() -> dict[str, list[Entry]]:
    """The options of each norm, as docs/settings.md has them."""
    found: dict[str, list[Entry]] = {name: [] for name in CATALOGUE}
    taken: list[Entry] = []
    for each in entries():
        if not each.default:  # a heading
            taken = found.get(each.name.partition(":")[0].removeprefix("norm="), [])
        elif each.name.startswith("norm."):
            taken.append(each)
    return found


def cost_rows(measured: Sequence[Measurement]) -> list[tuple[str, ...]]:
    """A row of `COST` for each norm that was measured."""
    return [
        (
            f"`{cost.norm}`",
            f"{cost.step_ms:.1f}",
            f"{cost.ratio:.2f}",
            "–".join(f"{end:.2f}" for end in cost.quartiles),
            f"{cost.forward_ms:.2f}",
            f"{cost.backward_ms:.2f}",
        )
        for cost in costs(measured)
    ]


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str]) -> str:
    """A table in Markdown; columns of numbers are set flush right."""
    rule = ["---:" if heading in numbers else "---" for heading in headings]
    rows = [[cell.replace("|", "&#124;") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, rule, *rows))


def catalogue_part() -> str:
    """The part of norms.md that follows from the norms' files and conf/ alone."""
    of = options()
    return "\n".join(
        [
            "# The norms",
            "",
            "Maps are (N, C, H, W): images, channels, height, width. G: groups of channels (`gn`: two, or by "
            "`norm.channels_per_group`); V: images of a ghost batch (`norm.virtual_batch_size`: 16). μ, σ² and the "
            "mean square are of the numbers that share a statistic; σ² is biased; ε stands inside the root. Learned "
            "numbers are given with their shape.",
            "",
            table(WHAT, [(f"[{row[0]}](#{row[0].strip('`')})", *row[1:]) for row in what()], WHAT[-1:]),
            "",
            "`norm=custom norm.target=module:Class` takes [a layer of your own](your_layer.md). "
            "`weight_standardization=true` goes with every norm: each filter of the 3x3 convolutions is shifted and "
            "scaled to mean 0 and variance 1 (Qiao et al. 2019, arXiv:1903.10520, equation 5). The code is one file "
            "per norm in `normlab/norms/`.",
            "",
            "## One by one",
            "",
            '`make_norm("gn", 20, num_groups=4)` is such a layer in Python, `norm=gn norm.num_groups=4` on the command '
            "line. Input and output are maps of the same shape and type.",
            *(f"\n{section(name, of[name])}" for name in CATALOGUE),
        ]
    )


def cost_part(measured: Sequence[Measurement], batch: int, layer: Sequence[int]) -> str:
    """The part that follows from norms.csv."""
    shape, rounds = "x".join(map(str, layer)), len({m.round for m in measured})
    return "\n".join(
        [
            "## What they cost",
            "",
            f"A training step of the network: forward, backward and update (SGD with Nesterov momentum) of {batch} "
            f"images in float32 on one CPU thread; and one layer alone on {batch} maps of {shape}, forward and "
            f"backward. Medians over {rounds} rounds; in a round every norm has its turn, in an order that "
            "rotates. The ratio is to `none` in the same round, its range from the first to the third quartile.",
            "",
            table(COST, cost_rows(measured), COST[1:]),
        ]
    )


def markdown(measured: Sequence[Measurement], batch: int, layer: Sequence[int], notes: Sequence[str]) -> str:
    """norms.md; `notes`: what was measured on, and how."""
    parts = [catalogue_part(), cost_part(measured, batch, layer), "\n".join(f"- {note}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def show(measured: Sequence[Measurement], notes: Sequence[str]) -> None:
    console = Console()
    shown = Table(title="What the norms cost", title_justify="left", box=None)
    for heading in COST:
        shown.add_column(heading, justify="left" if heading == "norm" else "right")
    for row in cost_rows(measured):
        shown.add_row(row[0].strip("`"), *row[1:])
    console.print(shown, "", *notes, sep="\n", markup=False, highlight=False, soft_wrap=True)


def write(measured: Sequence[Measurement], file: Path) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([Measurement._fields, *measured])


def read(file: Path) -> list[Measurement]:
    with file.open(newline="", encoding="utf-8") as stream:
        rows: list[Mapping[str, str]] = list(csv.DictReader(stream))
    kinds = (int, str, float, float, float)
    return [Measurement(*(kind(row[f]) for kind, f in zip(kinds, Measurement._fields, strict=True))) for row in rows]


def renew(page: Path) -> None:
    """Write norms.md from the norms' files and the norms.csv beside it; its notes stay."""
    notes = [line.removeprefix("- ") for line in page.read_text(encoding="utf-8").splitlines() if line[:2] == "- "]
    page.write_text(markdown(read(page.with_suffix(".csv")), BATCH, LAYER, notes), encoding="utf-8")


if __name__ == "__main__":
    renew(Path("docs/norms.md"))
