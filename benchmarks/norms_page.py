"""docs/norms.md: what each norm is, from its file, and what it costs, from docs/norms.csv.

`python -m benchmarks.norms_page` writes it anew, without measuring.
"""

import inspect
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.tables import markdown
from normlab.nets import Net
from normlab.norms import CATALOGUE
from normlab.norms.make import layer_class
from normlab.settings.page import Entry, entries

BATCH = 128
LAYER = (20, 24, 24)  # channels, height and width of the layer alone: those of the network's second block
WHAT = ("norm", "layer", "y", "statistics over", "parameters of the network")
COST = ("norm", "step, ms", "x none", "range of x none", "layer forward, ms", "layer backward, ms")


def costs(measured: pd.DataFrame) -> pd.DataFrame:
    """Return medians over the rounds, one row per norm that was measured, in the order of the catalogue.

    measured: the columns of norms.csv: milliseconds of one training step of the network, and of the layer alone.
    ratio: of the step to that of "none" in the same round; low, high: its quartiles.
    """
    steps = measured.pivot(index="round", columns="norm", values="step_ms")
    ratios = steps.div(steps["none"], axis=0)
    table = measured.groupby("norm")[["step_ms", "forward_ms", "backward_ms"]].median()
    table["ratio"] = ratios.median()
    table["low"] = ratios.quantile(0.25, interpolation="lower")
    table["high"] = ratios.quantile(0.75, interpolation="higher")
    return table.loc[[name for name in CATALOGUE if name in table.index]]


def section(name: str, taken: Sequence[Entry]) -> str:
    """Return one norm in full: formula, what its class says, its facts and its options."""
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
            markdown(("of a layer", "for maps (N, C, H, W)"), [*facts.items()]),
            markdown(("option", "default", "values", "meaning"), rows) if rows else "It has no options.",
        ]
    )


def _start(start: float | str) -> str:
    return f"option `{start}`" if isinstance(start, str) else f"{start:g}"


def options() -> dict[str, list[Entry]]:
    """Return the options of each norm, as docs/settings.md has them."""
    found: dict[str, list[Entry]] = {name: [] for name in CATALOGUE}
    taken: list[Entry] = []
    for each in entries():
        if not each.default:  # a heading
            taken = found.get(each.name.partition(":")[0].removeprefix("norm="), [])
        elif each.name.startswith("norm."):
            taken.append(each)
    return found


def catalogue_part() -> str:
    """Return the part of norms.md that follows from the norms' files and conf/ alone."""
    of, rows = options(), []
    for name, about in CATALOGUE.items():
        over = f"{about.statistic[0]} over {about.over}" if about.axes else "nothing"
        total = sum(p.numel() for p in Net(name).parameters())
        rows.append((f"[`{name}`](#{name})", about.title, about.formula, over, f"{total:,}"))
    return "\n".join(
        [
            "# The norms",
            "",
            "Maps are (N, C, H, W): images, channels, height, width. G: groups of channels (`gn`: two, or by "
            "`norm.channels_per_group`); V: images of a ghost batch (`norm.virtual_batch_size`: 16). μ, σ² and the "
            "mean square are of the numbers that share a statistic; σ² is biased; ε stands inside the root. Learned "
            "numbers are given with their shape.",
            "",
            markdown(WHAT, rows, WHAT[-1:]),
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


def cost_part(measured: pd.DataFrame, batch: int) -> str:
    """Return the part that follows from norms.csv."""
    rows = [
        [f"`{of.Index}`", f"{of.step_ms:.1f}", f"{of.ratio:.2f}", f"{of.low:.2f}–{of.high:.2f}", f"{of.forward_ms:.2f}",
         f"{of.backward_ms:.2f}"]
        for of in costs(measured).itertuples()
    ]  # fmt: skip
    return "\n".join(
        [
            "## What they cost",
            "",
            "A training step of the network by torch (`kernels=torch`), without the kernels that train it by default "
            f"on a CPU: forward, backward and update (SGD with Nesterov momentum) of {batch} images in float32 on one "
            f"CPU thread; and one layer alone on {batch} maps of {'x'.join(map(str, LAYER))}, "
            f"forward and backward. Medians over {measured['round'].nunique()} rounds; in a round every norm has its "
            "turn, in an order that rotates. The ratio is to `none` in the same round, its range from the first to the "
            "third quartile.",
            "",
            markdown(COST, rows, COST[1:]),
        ]
    )


def page(measured: pd.DataFrame, batch: int, notes: Sequence[str]) -> str:
    """Return norms.md; `notes`: what was measured on, and how."""
    text = "\n".join(f"- {note}" for note in notes)
    return "\n\n".join([catalogue_part(), cost_part(measured, batch), text]) + "\n"


def renew(file: Path) -> None:
    """Write norms.md from the norms' files and the norms.csv beside it; its notes stay."""
    notes = [line.removeprefix("- ") for line in file.read_text(encoding="utf-8").splitlines() if line[:2] == "- "]
    file.write_text(page(pd.read_csv(file.with_suffix(".csv")), BATCH, notes), encoding="utf-8")


if __name__ == "__main__":
    renew(Path("docs/norms.md"))
