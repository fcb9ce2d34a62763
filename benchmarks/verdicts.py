"""How often a study says something false, what it finds, what `until=decided` saves: `python -m benchmarks.verdicts`.

Draws thousands of studies (benchmarks/drawn.py). Writes docs/verdicts.csv, case by case (those that it has are not
simulated again), and prints the tables of docs/inference.md.
"""

import argparse
import functools
import itertools
import math
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
from scipy import special

from benchmarks import drawn
from benchmarks.tables import markdown
from normlab.analysis import rounds
from normlab.analysis.sequential import POWER, looks, sequential_p
from normlab.analysis.verdicts import ALPHA
from normlab.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
FALSE, DECIDED = "any false verdict", "decided, without interactions"  # measures
EFFECTS = (0, 0.5, 1, 1.5, 2, 3)  # margins
SEEDS = (3, 5, 10)
MOST = (10, 14, 20)


def row(measure: str, values: drawn.Floats | drawn.Bools) -> dict[str, Any]:
    """Return a mean over studies with its 95 % interval: of shares by Clopper & Pearson (1934)."""
    mean, n = float(values.mean()), values.size
    if values.dtype == bool:
        hits = int(values.sum())
        low = special.betaincinv(hits, n - hits + 1, 0.025) if hits else 0.0
        high = special.betaincinv(hits + 1, n - hits, 0.975) if hits < n else 1.0
    else:
        low, high = (mean + side * 1.96 * values.std() / math.sqrt(n) for side in (-1, 1))
    return {"measure": measure, "value": mean, "low": low, "high": high}


def errors(rng: np.random.Generator, studies: int, kind: str, truth: str, seeds: int) -> Iterator[dict[str, Any]]:
    """How often a study of six settings has a false verdict, of any kind."""
    found = drawn.answered(
        [drawn.Draws("test_acc", drawn.accuracies(rng, kind, drawn.TRUTHS[truth], studies, seeds))], claims=False
    )
    yield row(
        FALSE,
        drawn.any_false(found, {"test_acc": drawn.BASE + drawn.MARGIN * np.array(drawn.TRUTHS[truth])}, claims=False),
    )


def power(rng: np.random.Generator, studies: int, effect: float, seeds: int) -> Iterator[dict[str, Any]]:
    """What is found of an effect of so many margins that `ln` has with L1 and without, in the whole family."""
    values = drawn.accuracies(rng, "normal", (0, 0, effect, effect, 0, 0), studies, seeds)
    found = drawn.answered([drawn.Draws("test_acc", values)], claims=False)
    for label in ("ln − bn", "ln − bn, mean of 2 settings"):
        answers = [each for study in found for each in study if each.label == label]
        differs, same = drawn.rejected(answers).T
        above = np.array([each.estimate is not None and each.estimate.value > 0 for each in answers])
        yield row(f"{label}: better", differs & above)
        yield row(f"{label}: equivalent", same & ~differs)


DESIGNS: Mapping[str, Mapping[str, Any]] = {
    "as it is": {},
    "interactions ask for seeds": {"interactions": True},
    "settings are not dropped": {"drop": False},
    "spends evenly (ρ = 1)": {"rho": 1.0},
    "spends late (ρ = 3)": {"rho": 3.0},
}


def study(rng: np.random.Generator, studies: int, truth: str, design: str, most: int) -> Iterator[dict[str, Any]]:
    """A study like `replication` with at most so many seeds per setting; design: "fixed" has all of them."""
    draws, means = drawn.like_replication(rng, truth, studies, most)
    if design == "fixed":
        seeds, found = np.full(studies, float(most)), drawn.answered(draws, claims=True)
    else:
        options = dict(DESIGNS[design])
        rho = options.pop("rho", POWER)
        with patch.object(rounds, "sequential_p", functools.partial(sequential_p, power=rho)):
            followed = [drawn.Followed(drawn.real(True), draws, study, **options) for study in range(studies)]
            ends = [each.progress(each.grouped) for each in followed]
        seeds = np.array([np.mean(list(end.seeds.values())) for end in ends])
        found = [list(end.answers) for end in ends]
    yield row(FALSE, drawn.any_false(found, means, claims=True))
    yield row("seeds per setting", seeds)
    decided = np.array([drawn.rejected(answers).any(-1) for answers in found])
    yield row("questions decided", decided.mean(1))
    yield row(DECIDED, decided[:, [each.kind != "interaction" for each in drawn.real(True).declared]].mean(1))


LEVEL = ALPHA / 15


def fixed_power(n: int, effect: float) -> float:
    """Of a t test of two settings with n seeds each, whose difference is so many standard deviations."""
    df = 2 * (n - 1)
    return float(1 - special.nctdtr(df, effect * math.sqrt(n / 2), special.stdtrit(df, 1 - LEVEL / 2)))


@functools.cache
def followed_pair(most: int, effect: float, studies: int, seed: int) -> tuple[drawn.Floats, drawn.Bools]:
    """Seeds per setting that two settings take until they are told apart, and whether they are, with the right sign."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(effect, 1, (studies, most)), rng.normal(0, 1, (studies, most))
    seeds, found = np.full(studies, float(most)), np.zeros(studies, dtype=bool)
    for n in looks(most):
        se = np.sqrt((a[:, :n].var(1, ddof=1) + b[:, :n].var(1, ddof=1)) / n)
        p = special.stdtr(2 * (n - 1), -(a[:, :n].mean(1) - b[:, :n].mean(1)) / se)
        now = ~found & (sequential_p(p[None], [n], most) <= LEVEL / 2)
        seeds[now], found[now] = n, True
    return seeds, found


def pair(rng: np.random.Generator, studies: int, effect: float) -> Iterator[dict[str, Any]]:
    """Two settings whose runs scatter by a margin, at the level that a family of 15 leaves them: the fixed design that
    finds a difference of one margin with a power of 0.8, and a sequential one that does as well; what each takes where
    the difference is `effect` margins."""
    n = next(n for n in itertools.count(3) if fixed_power(n, 1.0) >= 0.8)
    most = next(most for most in itertools.count(n) if followed_pair(most, 1.0, 20_000, seed=1)[1].mean() >= 0.8)
    seeds, found = followed_pair(most, effect, studies, seed=int(rng.integers(2**31)))
    yield {"measure": "seeds of the fixed design", "value": n, "low": n, "high": n}
    yield {"measure": "most seeds", "value": most, "low": most, "high": most}
    yield row("share of its seeds", seeds / n)
    yield row("found", found)
    yield {"measure": "found by the fixed design", "value": fixed_power(n, effect)}


STUDIES = ("as observed", "nothing or twice the margin")
# table: what makes it, studies, cases
TABLES: Mapping[str, tuple[Callable[..., Iterator[dict[str, Any]]], int, list[tuple[Any, ...]]]] = {
    "errors": (errors, 5_000, list(itertools.product(drawn.KINDS, list(drawn.TRUTHS)[:3], SEEDS))),
    "power": (power, 4_000, list(itertools.product(EFFECTS, SEEDS))),
    "pair": (pair, 20_000, [(0,), (1,), (2,)]),
    "fixed": (study, 3_000, [(truth, "fixed", n) for truth in STUDIES for n in (*range(6, 16), 18, 20, 25, 30)]),
    "until=decided": (study, 6_000, [(truth, "as it is", 20) for truth in STUDIES]),
    "until=decided, errors": (study, 1_000, [(truth, "as it is", 20) for truth in list(drawn.TRUTHS)[:3]]),
    "designs": (study, 200, [*itertools.product(STUDIES[1:], DESIGNS, MOST), (STUDIES[1], "as it is", 30)]),
}


def _words(case: tuple[Any, ...]) -> str:
    return ", ".join(map(str, case))


# What is simulated, in this order: table and case.
CASES = {(table, _words(case)): case for table, (_, _, cases) in TABLES.items() for case in cases}


def simulate(key: tuple[str, str]) -> pd.DataFrame:
    """Return the rows of one case of a table, from a random stream of its own."""
    function, studies, _ = TABLES[key[0]]
    rng = np.random.default_rng(list("".join(key).encode()))
    rows = pd.DataFrame(function(rng, studies, *CASES[key]))
    return rows.assign(table=key[0], case=key[1], studies=studies)


def csv_of(rows: pd.DataFrame) -> bytes:
    """Return docs/verdicts.csv."""
    order = {key: at for at, key in enumerate(CASES)}
    place = [order[key] for key in zip(rows["table"], rows["case"], strict=True)]
    ordered = rows.assign(place=place).sort_values("place", kind="stable")
    columns = ["table", "case", "studies", "measure", "value", "low", "high"]
    return ordered[columns].to_csv(index=False, float_format="%.5g", lineterminator="\n").encode()


def tables(rows: pd.DataFrame) -> str:
    """Return the tables of docs/inference.md."""
    values = rows.set_index(["table", "case", "measure"])["value"]

    def number(table: str, case: Sequence[Any], measure: str) -> float:
        return float(values[table, _words(tuple(case)), measure])

    def percent(value: float, digits: int = 0) -> str:
        return f"{100 * value:.{digits}f} %"

    def until(table: str, truth: str, design: str, most: int) -> list[str]:
        """What a study took and decided, and the seeds of a fixed design that decides as much."""
        case = (truth, design, most)
        seeds, decided, false = (number(table, case, each) for each in ("seeds per setting", DECIDED, FALSE))
        same = []
        if truth in STUDIES:
            sizes = [case[2] for case in TABLES["fixed"][2] if case[0] == truth]
            by_fixed = [number("fixed", (truth, "fixed", n), DECIDED) for n in sizes]
            same = [float(np.interp(decided, by_fixed, sizes))]
        beside = [f"{same[0]:.1f}", percent(seeds / same[0])] if same else ["", ""]
        return [f"{seeds:.1f}", percent(decided, 1), *beside, percent(false, 1)]

    parts = [
        markdown(
            ["data", "truth", *(f"{n} seeds" for n in SEEDS)],
            [
                [kind, truth, *(percent(number("errors", (kind, truth, n), FALSE), 1) for n in SEEDS)]
                for kind, truth in itertools.product(drawn.KINDS, list(drawn.TRUTHS)[:3])
            ],
        )
    ]
    lines = []
    for effect in EFFECTS:
        cells = []
        for label, n in itertools.product(("ln − bn", "ln − bn, mean of 2 settings"), SEEDS):
            better, same = (number("power", (effect, n), f"{label}: {what}") for what in ("better", "equivalent"))
            cells.append(f"{percent(better)}, {percent(same)}")
        lines.append([f"{effect:g}", *cells])
    heads = [f"{what}, {n} seeds" for what in ("pair", "mean of 2") for n in SEEDS]
    parts.append(markdown(["effect, margins", *heads], lines))
    forms = {
        "seeds of the fixed design": "{:.0f}",
        "most seeds": "{:.0f}",
        "share of its seeds": "{:.1%}",
        "found": "{:.1%}",
        "found by the fixed design": "{:.1%}",
    }
    lines = [
        [str(case[0]), *(form.format(number("pair", case, what)).replace("%", " %") for what, form in forms.items())]
        for case in TABLES["pair"][2]
    ]
    parts.append(markdown(["difference, margins", *forms], lines))
    heads = ["seeds taken", "questions decided", "seeds of a fixed design that decides as many", "share", FALSE]
    parts.append(
        markdown(
            ["truth", *heads],
            [
                [case[0], *until(table, *case)]
                for table in ("until=decided", "until=decided, errors")
                for case in TABLES[table][2]
            ],
        )
    )
    lines = [
        [design, str(most), *until("designs", truth, design, most)] for truth, design, most in TABLES["designs"][2]
    ]
    parts.append(markdown(["design", "most seeds", *heads], lines))
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", nargs="*", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "verdicts.csv")
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    known = [pd.read_csv(args.out)] if args.out.is_file() else []
    there = {key for rows in known for key in zip(rows["table"], rows["case"], strict=True)}
    jobs = [key for key in CASES if key[0] in args.tables and key not in there]
    with multiprocessing.Pool(args.processes) as pool:
        for done, rows in enumerate(pool.imap(simulate, jobs), start=1):
            known.append(rows)
            write_atomically(args.out, csv_of(pd.concat(known)))
            numbers = "; ".join(f"{each.measure} {each.value:.4g}" for each in rows.itertuples())
            print(f"{done} of {len(jobs)}: {': '.join(jobs[done - 1])}: {numbers}", flush=True)
    if set(args.tables) == set(TABLES):
        print(tables(pd.concat(known)))


if __name__ == "__main__":
    main()
