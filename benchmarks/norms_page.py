"""docs/norms.md: what each norm of the registry is, from the registry, and what it costs, from docs/norms.csv."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from normlab.nets import ABOUT, Net, make_norm

LETTERS = {"weight": "γ", "bias": "β", "alpha": "α", "tau": "τ"}
SIZES = {5: "C", 7: "H", 11: "W", 1: "1"}  # of a layer that is built to see which sizes its parameters have
WHAT = ("norm", "layer", "y", "statistics over", "how many", "learned", "parameters of the network")
STATE = ("norm", "keeps", "train and eval mode", "source")
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


def names() -> list[str]:
    return list(ABOUT)


def costs(measured: Sequence[Measurement]) -> list[Cost]:
    """A row a norm, in the order of the registry; of those that were measured."""
    none = {m.round: m.step_ms for m in measured if m.norm == "none"}
    found = []
    for name in names():
        of = [m for m in measured if m.norm == name]
        if not of:
            continue
        ratios = sorted(m.step_ms / none[m.round] for m in of)
        quartiles = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        medians = [median(getattr(m, column) for m in of) for column in ("step_ms", "forward_ms", "backward_ms")]
        found.append(Cost(name, medians[0], median(ratios), quartiles, *medians[1:]))
    return found


def learned(name: str) -> str:
    """The parameters of a layer by letter, with their number: "γ (C), β (C)"."""
    layer = make_norm(name, 5, size=(7, 11), **({"num_groups": 1} if name == "gn" else {}))
    counts = {key: " · ".join(SIZES[length] for length in p.shape) for key, p in layer.named_parameters()}
    return ", ".join(f"{LETTERS[key]} ({count})" for key, count in counts.items())


def what() -> list[tuple[str, ...]]:
    """A row of `WHAT` for each norm of the registry."""
    rows = []
    for name, about in ABOUT.items():
        kind = "" if not about.over else "μ and σ²" if about.centred else "mean square"
        over = f"{kind} over {', '.join(about.over)}" if about.over else "nothing"
        total = sum(p.numel() for p in Net(name).parameters())
        rows.append((f"`{name}`", about.title, about.formula, over, about.count, learned(name), f"{total:,}"))
    return rows


def state() -> list[tuple[str, ...]]:
    """A row of `STATE` for each norm of the registry."""
    return [
        (f"`{name}`", about.state or "nothing", about.modes or "the same", about.source)
        for name, about in ABOUT.items()
    ]


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
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, rule, *rows))


def registry_part() -> str:
    """The part of norms.md that follows from the registry alone."""
    return "\n".join(
        [
            "# The norms of the registry",
            "",
            "Maps are (N, C, H, W): images, channels, height, width. G: groups of channels (`gn`: two, or by "
            "`norm.channels_per_group`); V: images of a ghost batch (`norm.virtual_batch_size`: 16). μ, σ² and the "
            "mean square are of the numbers that share a statistic; σ² is biased; ε stands inside the root. Learned "
            "numbers stand with how many there are of them in a layer.",
            "",
            table(WHAT, what(), ["parameters of the network"]),
            "",
            table(STATE, state(), []),
            "",
            "`norm=custom norm.target=module:Class` takes a layer of one's own. `weight_standardization=true` goes "
            "with every norm: each filter of the 3x3 convolutions is shifted and scaled to mean 0 and variance 1 (Qiao "
            "et al. 2019, arXiv:1903.10520, equation 5). Code: `normlab/nets/norms.py`, `normlab/nets/about.py`.",
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
    parts = [registry_part(), cost_part(measured, batch, layer), "\n".join(f"- {note}" for note in notes)]
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
