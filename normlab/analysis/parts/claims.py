"""What was claimed, and what these runs say to it."""

import math
from typing import Any, Literal

import pandas as pd

from normlab.analysis.cells import holds
from normlab.analysis.declared import pairs_of
from normlab.analysis.numbers import NONE, number, p_word, signed
from normlab.analysis.outcomes import OUTCOMES
from normlab.analysis.part import Column, Part, Row, Table, mean_sd, p, text, value
from normlab.analysis.questions import Answer, Answers
from normlab.settings import Claim

__all__ = ["claims", "claims_frame", "published", "published_frame"]

Ruling = Literal["supported", "refuted", "undecided", "untested"]


def claims(answers: Answers) -> Part:
    frame = claims_frame(answers)
    if not answers.several:  # nothing can be ruled on
        return Part("claims", "Claims", tables=[Table("claims", frame)])
    columns = [
        text("claim"),
        text("by", "source"),
        text("ruling"),
        text("because"),
        text("what was compared", "compared"),
        Column("difference (95 % interval)", _difference, "difference_value"),
        p("p", "p"),
    ]
    note = (
        "Each claim is one question of the study's family; p is adjusted over it. A claim and its mirror image are one "
        "question. Unevenness: the sum over epochs of the falls in test accuracy from one epoch to "
        "the next (in validation accuracy where no test curve was drawn); a curve that only rises has 0."
    )
    return Part(
        "claims",
        "Claims",
        "What was claimed, and what these runs say to it.",
        [Table("claims", frame, columns, note, "ruling")],
    )


def claims_frame(answers: Answers) -> pd.DataFrame:
    """One row per claim and pair of settings that it speaks of; differences in pp (nats for a cross-entropy)."""
    by_claim: dict[int, list[tuple[Answer, bool]]] = {}
    for answer in answers.answers:
        for claim, turned in answer.claims:
            by_claim.setdefault(id(claim), []).append((answer, turned))
    rows = []
    for claim in answers.study.claims if answers.study else []:
        common: dict[str, Any] = {"claim": claim.claim, "source": claim.source, "measure": claim.measure}
        words = OUTCOMES[claim.measure].words
        for answer, turned in by_claim.get(id(claim), []):
            ruling, because, which = _rule(claim, answer, turned)
            of, against = _sides(answer, turned)
            row = common | {"ruling": ruling, "because": because, "compared": f"{words}, {of} − {against}"}
            rows.append(
                row | {"of": of, "against": against} | _numbers(answer, turned) | {"p": answer.decision.adjusted[which]}
            )
        if id(claim) not in by_claim:
            there = pairs_of(claim, answers.found.cells)
            why = "these runs have not measured it, or did not all train" if there else "no runs of these settings"
            nothing = dict.fromkeys(("difference_value", "difference_low", "difference_high", "p"), math.nan)
            rows.append(
                common | {"ruling": "untested", "because": why, "compared": words, "of": "", "against": ""} | nothing
            )
    return pd.DataFrame(rows)


def _rule(claim: Claim, answer: Answer, turned: bool) -> tuple[Ruling, str, int]:
    """The ruling, the test that made it, and which of the question's two p that was."""
    decision, question, unit = answer.decision, answer.question, answer.outcome.unit
    assert answer.estimate is not None
    differs, same = (each <= answer.alpha for each in (*decision.adjusted, math.nan)[:2])
    t = f"t({answer.estimate.df:.0f}) = {number(answer.estimate.t() * (-1 if turned else 1), 1)}"
    if math.isnan(answer.estimate.se):
        return "undecided", "one seed has no interval", 0
    if question.of_range:  # type: ignore[union-attr]  # a claim's question is of a contrast
        ends = sorted((-1 if turned else 1) * answer.outcome.factor * end for end in (question.low, question.high))  # type: ignore[union-attr]
        within = f"{signed(ends[0])} to {signed(ends[1])} {unit}"
        if same:
            return "supported", f"it lies within {within} (two one-sided tests)", 1
        if differs:
            return "refuted", f"it lies outside {within}", 0
        return "undecided", f"the interval reaches into and out of {within}", 1
    if differs:
        seen = "higher" if (answer.estimate.value > 0) != turned else "lower"
        less = ", by less than the margin" if same else ""
        return ("supported" if seen == claim.expect else "refuted"), f"it is {seen}{less}: {t}", 0
    if same:
        half = answer.outcome.factor * question.high  # type: ignore[union-attr]
        return "refuted", f"they are equivalent within {half:g} {unit} (two one-sided tests)", 1
    return "undecided", f"{t}, p = {p_word(decision.p[0])} before adjustment", 0


def _sides(answer: Answer, turned: bool) -> tuple[str, str]:
    first, second = sorted(answer.contrast, key=lambda name: -answer.contrast[name])
    return (second, first) if turned else (first, second)


def _numbers(answer: Answer, turned: bool) -> dict[str, float]:
    assert answer.estimate is not None
    low, high = answer.estimate.interval(0.95)
    numbers = [answer.outcome.factor * each for each in (answer.estimate.value, low, high)]
    if turned:
        numbers = [-numbers[0], -numbers[2], -numbers[1]]
    return dict(zip(("difference_value", "difference_low", "difference_high"), numbers, strict=True))


def _difference(row: Row) -> str:
    unit = OUTCOMES[row["measure"]].unit
    form = ".4f" if unit == "nats" else ".2f"
    if not math.isfinite(row["difference_value"]):
        return NONE
    span = f" ({signed(row['difference_low'], form)} to {signed(row['difference_high'], form)})"
    return f"{signed(row['difference_value'], form)} {unit}" + (span if math.isfinite(row["difference_low"]) else "")


def published(answers: Answers) -> Part:
    frame = published_frame(answers)
    columns = [
        text("source"),
        text("setting"),
        value("its train acc. %", "published_train_acc_running", 2),
        mean_sd("ours", "train_acc_running", factor=1),
        value("its test acc. %", "published_test_acc", 2),
        mean_sd("ours, last epoch", "test_acc", factor=1),
        value("ours, best test epoch", "best_epoch_test_acc_mean", 2),
    ]
    note = (
        "The published numbers come from one network each, at its best test epoch; training accuracy is the running "
        "one. Ours are means ± standard deviations over seeds; the best test epoch is shown for comparison only, it "
        "is chosen by the test set."
    )
    return Part("published", "Published numbers", tables=[Table("published", frame, columns, note)])


def published_frame(answers: Answers) -> pd.DataFrame:
    """Published accuracies beside ours, in per cent: of the last epoch, and of the best test epoch as they were
    printed."""
    rows = []
    for item in answers.study.published if answers.study else []:
        for cell in (cell for cell in answers.found.cells if holds(cell, item.setting)):
            row: dict[str, Any] = {"source": item.source, "setting": cell.label, "n": len(cell.completed)}
            for name in ("train_acc_running", "test_acc"):
                values = 100 * pd.Series(cell.values(name), dtype=float)
                row |= {
                    f"published_{name}": getattr(item, name),
                    f"{name}_mean": values.mean(),
                    f"{name}_sd": values.std(),
                }
            row["best_epoch_test_acc_mean"] = 100 * cell.best_epoch
            rows.append(row)
    return pd.DataFrame(rows)
