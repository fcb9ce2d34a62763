"""Numbers in words and cells of tables, for terminal and page alike. Accuracies come in [0, 1] and leave in per
cent."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from normlab.analysis.cells import Cell
from normlab.analysis.claims import Judged, unit
from normlab.analysis.numbers import NONE, number, p_word, percent, signed
from normlab.analysis.stats import Comparison
from normlab.analysis.tables import MANY

__all__ = [
    "Table",
    "claims_words",
    "decomposition_words",
    "effects_words",
    "errors_words",
    "mean_sd",
    "overlap_words",
    "pairs_words",
    "path_words",
    "published_words",
    "rates_words",
    "settings_words",
]


class Table:
    """A table as it is read: headings, rows of text, which columns are numbers, a note on how to read it."""

    def __init__(
        self, headings: Sequence[str], rows: Sequence[Sequence[str]], *, text: int = 1, note: str = ""
    ) -> None:
        self.headings, self.rows, self.text, self.note = list(headings), [list(row) for row in rows], text, note


def settings_words(table: pd.DataFrame, seconds: Mapping[Any, float]) -> Table:
    """The summary: one row per setting."""
    headings = [
        "setting",
        "n",
        "test acc. %",
        "95 % interval",
        "train acc. %",
        "running train acc. %",
        "test ce",
        "train ce",
        "s a run",
    ]
    rows = []
    for row in table.to_dict("records"):
        rows.append(
            [
                str(row["setting"]),
                _n(row),
                mean_sd(row, "test_acc"),
                _span(row, "test_acc"),
                mean_sd(row, "train_acc"),
                mean_sd(row, "train_acc_running"),
                mean_sd(row, "test_ce", 1, 4),
                mean_sd(row, "train_ce", 1, 4),
                f"{seconds[row['setting']]:,.0f}" if row["setting"] in seconds else NONE,
            ]
        )
    if not table["train_acc_running_mean"].notna().any():
        headings, rows = _without(5, headings, rows)
    note = (
        "Mean ± standard deviation over n seeds; the interval is for the mean (t). Train accuracy is measured after "
        "training, in eval mode without augmentation; the running one while training, as it is usually published. ce: "
        "cross-entropy."
    )
    return Table(headings, rows, note=note)


def _n(row: Mapping[Any, Any]) -> str:
    lost = [f"{row[status]} {status}" for status in ("diverged", "failed", "unavailable", "interrupted") if row[status]]
    return f"{row['n']}" + (f" ({', '.join(lost)})" if lost else "")


def pairs_words(pairs: Sequence[tuple[Cell, Cell, Comparison]], margin: float, *, neighbours: bool = False) -> Table:
    """The verdicts: one row per pair. neighbours: whether only settings that differ in one factor were paired."""
    rows = []
    for a, b, c in pairs:
        d = c.difference
        needed = verdict_words(c)
        flips = number(c.sign_flip.p, 3) + ("" if c.sign_flip.exact else " (sampled)") if c.sign_flip else NONE
        span = f"{signed(d.low)} to {signed(d.high)}" if math.isfinite(d.low) else NONE
        rows.append(
            [
                f"{a.label} against {b.label}",
                needed,
                signed(d.mean),
                span,
                p_word(c.p_holm),
                p_word(c.p_equivalence_holm),
                flips,
                f"{100 * c.improvement:.0f} %",
            ]
        )
    headings = [
        "pair",
        "verdict on the first",
        "difference, pp",
        "95 % interval",
        "p",
        "p of equivalence",
        "p, sign flips",
    ]
    methods = {c.difference.method for *_, c in pairs}
    how = " and ".join(
        {"paired": "paired by seed", "welch": "Welch's t for seeds that do not pair"}[m] for m in sorted(methods)
    )
    some = f" Of more than {MANY} settings, only those that differ in one factor are compared." * neighbours
    note = (
        f"Test accuracy, {how}. p and p of equivalence (TOST, margin {margin:g} pp) are adjusted over the "
        f"{len(pairs)} pairs (Holm); the intervals are not. “Equivalent”: TOST puts the difference inside the margin. "
        "Seeds needed: for a decision at 80 % power, if what was seen is the truth; a rough figure. p of the sign "
        "flips assumes no normal distribution, is not adjusted, and with n seeds cannot fall below 2/2ⁿ. Better in: "
        "share of all pairs of runs in which the first is ahead, ties counted half." + some
    )
    return Table([*headings, "better in"], rows, text=2, note=note)


def verdict_words(c: Comparison) -> str:
    """The verdict, and where it is open how many seeds would close it."""
    if c.verdict != "undecided":
        return c.verdict
    return f"undecided (about {c.seeds_needed:,} seeds)" if c.seeds_needed else "undecided"


def claims_words(tested: Sequence[Judged]) -> Table:
    """The claims: a row for each pair of settings that one speaks of."""
    rows = []
    for t in tested:
        what, d = unit(t.claim.measure), t.difference
        form = ".4f" if what == "nats" else ".2f"
        span = NONE
        if d:
            span = f"{signed(d.mean, form)} {what}"
            if math.isfinite(d.low):
                span += f" ({signed(d.low, form)} to {signed(d.high, form)})"
        pair = (
            f"{MEASURE[t.claim.measure]}, {t.of} against {t.against}"
            if t.of and t.against
            else MEASURE[t.claim.measure]
        )
        rows.append([t.claim.claim, t.claim.source, t.ruling, t.why, pair, span, p_word(t.p)])
    note = (
        "Differences: first minus second, with the 95 % interval, paired by seed where seeds match. Directions are "
        "tested by t with Holm's adjustment over the claims; “about” and “similar” by TOST, not adjusted. "
        "Unevenness: the sum over epochs of the falls in test accuracy from one epoch to the next (in validation "
        "accuracy where no test curve was drawn); a curve that only rises has 0."
    )
    headings = ["claim", "by", "ruling", "because", "what was compared", "difference", "p"]
    return Table(headings, rows, text=5, note=note)


MEASURE = {
    "test_acc": "test accuracy",
    "train_acc": "training accuracy",
    "train_acc_running": "running training accuracy",
    "val_acc": "validation accuracy",
    "test_ce": "test cross-entropy",
    "train_ce": "training cross-entropy",
    "val_ce": "validation cross-entropy",
    "unevenness": "unevenness",
}


def published_words(table: pd.DataFrame) -> Table:
    """Published accuracies beside ours."""
    rows = []
    for row in table.to_dict("records"):
        best = row["best_epoch_test_acc_mean"]
        rows.append(
            [
                str(row["source"]),
                str(row["setting"]),
                number(row["published_train_acc_running"], 2),
                mean_sd(row, "train_acc_running", 1),
                number(row["published_test_acc"], 2),
                mean_sd(row, "test_acc", 1),
                number(best, 2),
            ]
        )
    headings = [
        "source",
        "setting",
        "its train acc. %",
        "ours",
        "its test acc. %",
        "ours, last epoch",
        "ours, best test epoch",
    ]
    note = (
        "The published numbers come from one network each, at its best test epoch; training accuracy is the running "
        "one. Ours are means ± standard deviations over seeds; the best test epoch is shown for comparison only, it "
        "is chosen by the test set."
    )
    return Table(headings, rows, text=2, note=note)


def errors_words(table: pd.DataFrame) -> Table:
    """Errors a setting, and what an accuracy's variance is made of."""
    rows = [
        [str(row["setting"]), f"{row['errors_mean']:.1f}", f"{row['persistent']}", f"{row['always']}"]
        + [percent(row[key]) for key in ("share_seed", "share_test_set", "share_interaction")]
        + [number(row["sd_pp"], 3)]
        for row in table.to_dict("records")
    ]
    headings = [
        "setting",
        "errors a run",
        "wrong in most seeds",
        "wrong in all",
        "seed",
        "test set",
        "both together",
        "sd, pp",
    ]
    images = f"{int(table['images'].iloc[0]):,}" if len(table) else "0"
    note = (
        f"Of {images} test images. The last four columns: where the variance of one run's accuracy would come from, "
        "on a fresh seed and a fresh test set of this size, and its standard deviation (two-way random effects, "
        "seeds by images)."
    )
    return Table(headings, rows, note=note)


def rates_words(table: pd.DataFrame) -> Table:
    """Learning rates: one row per setting, what each rate came to."""
    rows = []
    for setting, of in table.groupby("setting", sort=False):
        stable = of[of["stable"]]
        best = of[of["best"]]
        lost = of["diverged"].sum() + of["chance"].sum()
        first = best.iloc[0] if len(best) else None
        rows.append(
            [
                str(setting),
                f"{first['lr']:g}" if first is not None else NONE,
                number(100 * first["val_acc_mean"], 2) if first is not None else NONE,
                number(100 * first["test_acc_mean"], 2) if first is not None else NONE,
                f"{stable['lr'].max():g}" if len(stable) else NONE,
                f"{int(lost)} of {int(of['runs'].sum())}",
                ", ".join(f"{row['lr']:g}" for _, row in of[~of["stable"]].iterrows()) or NONE,
            ]
        )
    headings = ["setting", "best lr", "its validation acc. %", "its test acc. %", "largest stable lr"]
    note = (
        "Best: by validation accuracy, of the rates at which every run trained. Stable: no run diverged or stayed at "
        "chance; lost: the runs that did."
    )
    return Table([*headings, "runs lost", "at lr"], rows, note=note)


def effects_words(table: pd.DataFrame, margin: float) -> Table:
    """What each factor does: one row per factor, level and norm."""
    rows = [
        [
            f"{row['factor']}={row['level']} against {row['against']}",
            str(row["norm"]),
            str(row["verdict"]),
            f"{row['n']}",
            f"{row['pairs']}",
            signed(row["effect_pp"]),
            f"{signed(row['effect_low'])} to {signed(row['effect_high'])}",
            p_word(row["p_holm"]),
            p_word(row["p_equivalence_holm"]),
        ]
        for row in table.to_dict("records")
    ]
    note = (
        "A seed's effect is the mean over pairs of settings that are alike but for this factor; intervals are t "
        f"intervals over seeds. Equivalent: within {margin:g} pp. p is corrected for all rows of this table (Holm)."
    )
    headings = ["factor", "with", "verdict", "seeds", "pairs", "effect, pp", "95 % interval", "p", "p of equivalence"]
    return Table(headings, rows, text=3, note=note)


def path_words(table: pd.DataFrame) -> Table:
    """What L1 removes along a path of λ: one row per setting."""
    refit = "refit_test_acc_mean" in table
    rows = []
    for row in table.to_dict("records"):
        cells = [str(row["setting"]), f"{row['n']}", number(100 * row["test_acc_mean"], 2)]
        cells += [number(100 * row[name], 1) for name in ("zeros", "small", "zero_filters", "zero_scales")]
        cells += [number(row["weight_norm"], 2), number(row["step_ratio"], 2)]
        if refit:
            there = isinstance(row["refit_gain_pp"], float) and math.isfinite(row["refit_gain_pp"])
            cells += [_interval(row, "refit_gain") if there else NONE]
        rows.append([*cells, number(row["agreement"], 2), number(row["chance"], 2)])
    headings = [
        "setting",
        "n",
        "test acc. %",
        "zero weights, %",
        "near zero, %",
        "zero filters, %",
        "zero scales γ, %",
        "‖w‖₂",
    ]
    headings += ["effective lr, x", *["gained by the refit, pp"] * refit, "agreement", "by chance"]
    note = (
        "Zeros are exact; near zero: at most 1 % of the largest weight of its filter. Effective lr: lr / ‖w‖², by that "
        "of the setting without L1: a norm makes the scale of the filters before it meaningless, and L1 then changes "
        "how far a step turns them. Agreement: Jaccard index of the weights that are left, over pairs of seeds; by "
        "chance: of random ones of the same number."
    )
    return Table(headings, rows, note=note)


def decomposition_words(table: pd.DataFrame) -> Table:
    """Where an accuracy at a batch size is lost: one row per setting."""
    parts = ("test_running_acc", "test_precise_acc", "test_batch_acc", "train_batch_acc")
    rows = [
        [str(row["setting"]), f"{row['n']}", *(number(100 * row[f"{part}_mean"], 2) for part in parts)]
        + [_interval(row, name) for name in ("lost", "recovered", "trained")]
        for row in table.to_dict("records")
    ]
    headings = ["setting", "n", "running averages, test acc. %", "precise statistics", "each batch's own"]
    headings += ["the same, training images", "lost in all, pp", "by the running averages, pp", "in training, pp"]
    note = (
        "Of trained networks. Lost in all: against the batch size that is best with precise statistics; by the running "
        "averages: what precise statistics, recomputed over training images, bring back; in training: what is lost "
        "with precise statistics too. Mean differences and 95 % t intervals, paired by seed."
    )
    return Table(headings, rows, note=note)


def _interval(row: Mapping[Any, Any], name: str) -> str:
    mean, low, high = (row[f"{name}_{key}"] for key in ("pp", "low", "high"))
    span = f" ({signed(low)} to {signed(high)})" if math.isfinite(low) else ""
    return f"{signed(mean)}{span}"


def overlap_words(table: pd.DataFrame) -> Table:
    """Whether two settings err on the same images."""
    rows = [
        [
            f"{row['a']} and {row['b']}",
            f"{row['only_a']}",
            f"{row['only_b']}",
            f"{row['both']}",
            number(row["jaccard"], 2),
            p_word(row["p_mcnemar"]),
        ]
        for row in table.to_dict("records")
    ]
    note = (
        "Errors of the majority vote of each setting's seeds. Jaccard index: errors of both over errors of either. "
        "McNemar's exact p, not adjusted: whether the two votes err equally often."
    )
    return Table(["pair", "first alone", "second alone", "both", "Jaccard", "p (McNemar)"], rows, note=note)


def mean_sd(row: Mapping[Any, Any], metric: str, factor: float = 100, digits: int = 2) -> str:
    """99.42 ± 0.06, of a metric in a row of the summary."""
    mean, sd = row[f"{metric}_mean"], row[f"{metric}_sd"]
    if not isinstance(mean, float) or not math.isfinite(mean):
        return NONE
    spread = f" ± {factor * sd:.{digits}f}" if isinstance(sd, float) and math.isfinite(sd) else ""
    return f"{factor * mean:.{digits}f}{spread}"


def _span(row: Mapping[Any, Any], metric: str) -> str:
    low, high = row[f"{metric}_low"], row[f"{metric}_high"]
    if not isinstance(low, float) or not isinstance(high, float) or not math.isfinite(low):
        return NONE
    return f"{100 * low:.2f} to {100 * high:.2f}"


def _without(i: int, headings: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    return headings[:i] + headings[i + 1 :], [row[:i] + row[i + 1 :] for row in rows]
