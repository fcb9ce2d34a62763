"""From single measurements to the table: medians, ranges, ratios."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

ARMS = {"R0": "plain Lightning script", "R1": "one normlab run", "R2": "two normlab runs, one thread each"}
TARGETS = {"R1": 2.0, "R2": 3.2}  # times R0, on two cores that do nothing else
HEADINGS = ("norm", "arm", "images/s", "range", "x R0", "range", "target", "% of peak", "start-up s")


class Measurement(NamedTuple):
    """A row of throughput.csv; repetition 0 is the trial that chooses R0's number of workers."""

    repetition: int
    norm: str
    arm: str
    workers: int
    images_per_s: float
    startup_s: float


class Row(NamedTuple):
    """One arm with one norm.

    Rate and start-up are medians; `ratio` is the median rate over R0's. The spans are least and most, of the rates and
    of the ratios within a repetition. `share` is of the peak with all threads, whatever the arm uses.
    """

    norm: str
    arm: str
    rate: float
    span: tuple[float, float]
    ratio: float
    ratio_span: tuple[float, float]
    share: float
    startup_s: float


def summarise(measurements: Sequence[Measurement], flops: Mapping[str, float], peak: float) -> list[Row]:
    """A row for each norm and arm, without the trials. flops: FLOP an image, by norm. peak: FLOP/s."""
    found: dict[tuple[str, str], dict[int, Measurement]] = {}
    for m in measurements:
        if m.repetition:
            found.setdefault((m.norm, m.arm), {})[m.repetition] = m
    rows = []
    for norm, arm in sorted(found, key=lambda cell: [*flops].index(cell[0]) * len(ARMS) + [*ARMS].index(cell[1])):
        plain = {repetition: m.images_per_s for repetition, m in found[norm, "R0"].items()}
        rates = {repetition: m.images_per_s for repetition, m in found[norm, arm].items()}
        ratios = [rates[repetition] / plain[repetition] for repetition in rates]
        rate, startup = median(rates.values()), median(m.startup_s for m in found[norm, arm].values())
        span, ratio_span = (min(rates.values()), max(rates.values())), (min(ratios), max(ratios))
        ratio, share = rate / median(plain.values()), rate * flops[norm] / peak
        rows.append(Row(norm, arm, rate, span, ratio, ratio_span, share, startup))
    return rows


def cells(row: Row, *, judged: bool) -> tuple[str, ...]:
    """A row as text, a cell for each of `HEADINGS`. `judged`: whether it says that a target is met or missed."""
    target = TARGETS.get(row.arm)
    verdict = f": {'met' if target and row.ratio >= target else 'missed'}" if judged else ""
    return (
        row.norm,
        f"{row.arm} {ARMS[row.arm]}",
        f"{row.rate:,.0f}",
        "–".join(f"{end:,.0f}" for end in row.span),
        f"{row.ratio:.2f}",
        "–".join(f"{end:.2f}" for end in row.ratio_span),
        f"≥ {target:g}{verdict}" if target else "",
        f"{100 * row.share:.1f}",
        f"{row.startup_s:.1f}",
    )


def markdown(table: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """throughput.md: the table's lines, cell by cell, and a list of what was measured, on what and how."""
    rule = ["---"] * 2 + ["---:"] * (len(HEADINGS) - 2)
    lines = [f"| {' | '.join(line)} |" for line in (HEADINGS, rule, *table)]
    return "\n".join(["# Training throughput", "", *lines, "", *(f"- {note}" for note in notes), ""])
