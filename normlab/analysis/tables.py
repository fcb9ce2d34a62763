"""The tables of a report: rows as plain values, in files' units (accuracies in [0, 1], differences in pp)."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd

from normlab.analysis.cells import Cell, Sorted, holds
from normlab.analysis.claims import Judged
from normlab.analysis.forensics import jaccard, majority, mcnemar, persistent, variance_shares
from normlab.analysis.stats import Comparison, Difference, compare, summarise
from normlab.settings import Study

__all__ = [
    "claims_table",
    "compared",
    "comparisons_table",
    "errors_table",
    "factors_apart",
    "family",
    "overlap_table",
    "published_table",
    "summary",
    "times",
]

METRICS = ("test_acc", "train_acc", "train_acc_running", "val_acc", "test_ce", "train_ce")


class Leveled(Protocol):
    """A setting, run or planned."""

    @property
    def levels(self) -> Mapping[str, Any]: ...


L = TypeVar("L", bound=Leveled)

MANY = 12  # settings; with more, only those that differ in one factor are compared: the rest would drown them
SEED = 0  # of the sign flips drawn at random where a pair has more than 16 seeds: the same report twice


def summary(found: Sorted) -> pd.DataFrame:
    """One row per setting: its factors, runs completed and lost, and of each metric mean, sd, 95 % t interval,
    interquartile mean of the test accuracy; empty where nothing was measured."""
    rows = []
    for cell in found.cells:
        row: dict[str, Any] = {"setting": cell.label, **cell.levels, "n": len(cell.completed)}
        row |= {status: sum(run.record.status == status for run in cell.ended) for status in LOST}
        for metric in METRICS:
            values = list(cell.values(metric).values())
            s = summarise(values) if values else None
            row |= {f"{metric}_mean": s.mean if s else math.nan, f"{metric}_sd": s.sd if s else math.nan}
            row |= {f"{metric}_low": s.low if s else math.nan, f"{metric}_high": s.high if s else math.nan}
            if metric == "test_acc":
                row["test_acc_iqm"] = s.iqm if s else math.nan
        row["best_epoch_test_acc_mean"] = cell.best_epoch
        row["zeros_mean"] = cell.mean("zeros")
        row["parameters"] = next((run.record.parameters for run in cell.completed), None)
        rows.append(row)
    return pd.DataFrame(rows)


LOST = ("diverged", "failed", "unavailable", "interrupted")


def times(found: Sorted) -> pd.DataFrame:
    """A row a run: what it took and where. Apart from the other tables, which are the same whenever a study is run."""
    rows = []
    for cell in found.cells:
        for run in cell.ended:
            record = run.record
            row = {"setting": cell.label, "seed": record.seed, "status": record.status}
            row |= {key: record.time.get(key) for key in ("fit_s", "images_per_s", "epochs")}
            row |= {"device": record.device.get("name"), "threads": record.device.get("threads")}
            if "array" in record.device:  # so many runs trained as one computation; the times are each one's share
                row["array"] = record.device["array"]
            rows.append(row | {"torch": record.versions.get("torch"), "lightning": record.versions.get("lightning")})
    return pd.DataFrame(rows)


def compared(found: Sorted, margin: float) -> list[tuple[Cell, Cell, Comparison]]:
    """Test accuracy, per cent, of each pair of settings as one family; of more than 12 settings only the pairs that
    differ in one factor. A user's own layer stands first in its pairs: the verdicts are on it."""
    pairs = family([cell for cell in found.cells if cell.values("test_acc")])
    pairs = [(b, a) if b.norm == "custom" != a.norm else (a, b) for a, b in pairs]
    sides = [tuple({s: 100 * x for s, x in cell.values("test_acc").items()} for cell in pair) for pair in pairs]
    results = compare([(a, b) for a, b in sides], margin=margin, rng=np.random.default_rng(SEED)) if pairs else []
    return [(a, b, result) for (a, b), result in zip(pairs, results, strict=True)]


def family(cells: Sequence[L]) -> list[tuple[L, L]]:
    """The pairs that are compared: all, or of more than 12 settings those that differ in one factor."""
    return [(a, b) for a, b in itertools.combinations(cells, 2) if len(cells) <= MANY or factors_apart(a, b) == 1]


def factors_apart(a: Leveled, b: Leveled) -> int:
    """In how many factors two settings differ; a norm and its options are one."""
    return len(
        {
            key.partition(".")[0] if key.startswith("norm.") else key
            for key in a.levels
            if a.levels[key] != b.levels[key]
        }
    )


def comparisons_table(pairs: Sequence[tuple[Cell, Cell, Comparison]], margin: float) -> pd.DataFrame:
    """A row a pair: difference A - B in pp with its interval, every p, the verdict on A."""
    columns = ["a", "b", "method", "n", "difference_pp", "sd_pp", "low_pp", "high_pp", "p_t", "p_t_holm", "p_sign_flip"]
    columns += [
        "sign_flip_exact",
        "p_equivalence",
        "p_equivalence_holm",
        "margin_pp",
        "improvement",
        "verdict",
        "seeds_needed",
    ]
    rows = []
    for a, b, c in pairs:
        d, flips = c.difference, c.sign_flip
        rows.append(
            [
                a.label,
                b.label,
                d.method,
                seeds(d),
                d.mean,
                d.sd,
                d.low,
                d.high,
                d.p,
                c.p_holm,
                flips.p if flips else math.nan,
                flips.exact if flips else None,
                c.p_equivalence,
                c.p_equivalence_holm,
                margin,
                c.improvement,
                c.verdict,
                c.seeds_needed,
            ]
        )
    return pd.DataFrame(rows, columns=columns).astype({"seeds_needed": "Int64"})


def seeds(d: Difference) -> str:
    """How many seeds a difference rests on: "5", or "5 and 3" where they do not pair."""
    return str(d.n) if isinstance(d.n, int) else " and ".join(map(str, d.n))


def claims_table(tested: Sequence[Judged]) -> pd.DataFrame:
    """A row for each claim and pair of settings that it speaks of."""
    columns = [
        "claim",
        "source",
        "measure",
        "of",
        "against",
        "n",
        "difference",
        "low",
        "high",
        "p",
        "ruling",
        "because",
    ]
    rows = []
    for t in tested:
        d = t.difference
        numbers = [seeds(d), d.mean, d.low, d.high] if d else ["", math.nan, math.nan, math.nan]
        rows.append([t.claim.claim, t.claim.source, t.claim.measure, t.of, t.against, *numbers, t.p, t.ruling, t.why])
    return pd.DataFrame(rows, columns=columns)


def published_table(study: Study, found: Sorted) -> pd.DataFrame:
    """Published accuracies beside ours, in per cent: of the last epoch, and of the best test epoch as they were
    printed."""
    rows = []
    for item in study.published:
        for cell in (cell for cell in found.cells if holds(cell, item.setting)):
            row: dict[str, Any] = {"source": item.source, "setting": cell.label, "n": len(cell.completed)}
            for metric in ("train_acc_running", "test_acc"):
                s = summarise(values) if (values := list(cell.values(metric).values())) else None
                row |= {f"published_{metric}": getattr(item, metric)}
                row |= {
                    f"{metric}_mean": 100 * s.mean if s else math.nan,
                    f"{metric}_sd": 100 * s.sd if s else math.nan,
                }
            row["best_epoch_test_acc_mean"] = 100 * cell.best_epoch
            rows.append(row)
    return pd.DataFrame(rows)


def wrong(cell: Cell) -> np.ndarray | None:
    """bool (S, N): which test images each seed's network got wrong; None where predictions are missing."""
    return cell.predicted[0] != cell.predicted[1] if cell.predicted else None


def errors_table(found: Sorted) -> pd.DataFrame:
    """One row per setting: errors per run, images wrong in most and all seeds, and where the variance of accuracy comes
    from (seed, test set, both together) with the standard deviation of one run's accuracy on a fresh test set, in
    pp."""
    rows = []
    for cell in found.cells:
        if (bad := wrong(cell)) is None:
            continue
        shares = variance_shares(~bad)
        rows.append(
            {
                "setting": cell.label,
                "n": len(bad),
                "images": bad.shape[1],
                "errors_mean": float(bad.sum(1).mean()),
                "persistent": len(persistent(bad)),
                "always": int(bad.all(0).sum()),
                **dict(zip(("share_seed", "share_test_set", "share_interaction"), shares.shares, strict=True)),
                "sd_pp": 100 * shares.sd,
            }
        )
    return pd.DataFrame(rows)


def overlap_table(found: Sorted) -> pd.DataFrame:
    """A row a pair of settings, on the vote of the majority of seeds: errors of each alone and of both, Jaccard index
    of the errors, McNemar's exact p."""
    votes: Mapping[str, np.ndarray] = {}
    for cell in found.cells:
        if cell.predicted:
            pred, true = cell.predicted
            votes = {**votes, cell.label: majority(pred) != true}
    rows = []
    for a, b in itertools.combinations(votes, 2):
        if votes[a].shape == votes[b].shape:
            test = mcnemar(votes[a], votes[b])
            both = int((votes[a] & votes[b]).sum())
            row = {"a": a, "b": b, "only_a": test.only_a, "only_b": test.only_b, "both": both}
            rows.append(row | {"jaccard": jaccard(votes[a], votes[b]), "p_mcnemar": test.p})
    return pd.DataFrame(rows)
