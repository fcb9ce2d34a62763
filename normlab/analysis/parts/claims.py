"""Claims from the literature, tested on these runs."""

import math
from typing import Any, NamedTuple

import pandas as pd

from normlab.analysis.cells import holds
from normlab.analysis.declared import pairs_of
from normlab.analysis.numbers import number, p_word, signed, with_interval
from normlab.analysis.outcomes import OUTCOMES
from normlab.analysis.part import Column, Part, Row, Table, mean_sd, named, p, text, value
from normlab.analysis.questions import Answer, Answers
from normlab.analysis.verdicts import Question
from normlab.settings import Claim

INTRO = "Claims from the literature, tested on these runs."
NOTE = (
    "Each claim is one question of the study's family; p is adjusted over it. A claim and its mirror image are one "
    "question. Unevenness: the sum over epochs of the falls in test accuracy from one epoch to "
    "the next (in validation accuracy where no test curve was drawn); a curve that only rises has 0."
)


def claims(answers: Answers) -> Part:
    columns = [
        text("claim"), text("by", "source"), text("ruling", verdict=True), text("because"),
        text("what was compared", "compared"), Column("difference (95 % interval)", _difference, "difference_value"),
        p("p", "p"),
    ]  # fmt: skip
    table = Table("claims", claims_frame(answers), columns if answers.several else (), NOTE, first=True)
    return Part("claims", "Claims", INTRO, [table])


class Asked(NamedTuple):
    """A claim about one pair of settings.

    answer: None where these runs have none. sign: -1 where the claim speaks of the negative of the answer's contrast.
    """

    claim: Claim
    answer: Answer | None = None
    sign: int = 1


def asked(answers: Answers) -> list[Asked]:
    """The claims of a study in their order, one for each pair of settings that they speak of."""
    found = []
    for claim in answers.asked.claims:
        known = [(answer, turned) for answer in answers.answers for one, turned in answer.claims if one is claim]
        found += [Asked(claim, answer, -1 if turned else 1) for answer, turned in known] or [Asked(claim)]
    return found


def claims_frame(answers: Answers) -> pd.DataFrame:
    """One row per claim and pair of settings that it speaks of; differences in pp (nats for a cross-entropy)."""
    rows = []
    for each in asked(answers):
        claim, answer, sign = each
        row: dict[str, Any] = {"claim": claim.claim, "source": claim.source, "measure": claim.measure}
        words = OUTCOMES[claim.measure].words
        numbers, p_adjusted = [math.nan] * 3, math.nan
        if answer is None:
            there = pairs_of(claim, answers.grouped.cells)
            why = "these runs have not measured it, or did not all train" if there else "no runs of these settings"
            row |= {"ruling": "untested", "because": why, "compared": words, "of": "", "against": ""}
        else:
            ruling, because, which = rule(each)
            of, against = sorted(answer.contrast, key=lambda name: -sign * answer.contrast[name])
            row |= {"ruling": ruling, "because": because, "compared": f"{words}, {of} − {against}"}
            row |= {"of": of, "against": against}
            middle, *ends = (sign * x for x in answer.numbers)
            numbers, p_adjusted = [middle, *sorted(ends)], answer.decision.adjusted[which]
        row |= named("difference", **dict(zip(("value", "low", "high"), numbers, strict=True)))
        rows.append(row | {"p": p_adjusted})
    return pd.DataFrame(rows)


def rule(asked: Asked, rejected: tuple[bool, bool] | None = None) -> tuple[str, str, int]:
    """Return the ruling (supported, refuted, undecided or untested), the test that made it, and which of the two p.

    rejected: its two hypotheses, "it is 0" (in the range) and "it lies outside"; as decided unless given.
    """
    claim, answer, sign = asked
    if answer is None:
        return "untested", "", 0
    decision, question, about = answer.decision, answer.question, answer.about
    assert isinstance(question, Question)  # a claim is about a contrast
    if math.isnan(question.estimate.se):
        return "undecided", "one seed has no interval", 0
    differs, same = rejected or [each <= answer.alpha for each in decision.adjusted]
    t = f"t({question.estimate.df:.0f}) = {number(sign * question.estimate.t(), 1)}"
    if question.of_range:
        low, high = sorted(sign * about.factor * end for end in (question.low, question.high))
        within = f"{signed(low)} to {signed(high)} {about.unit}"
        if same:
            return "supported", f"it lies within {within} (two one-sided tests)", 1
        if differs:
            return "refuted", f"it lies outside {within}", 0
        return "undecided", f"the interval reaches into and out of {within}", 1
    if differs:
        seen = "higher" if sign * question.estimate.value > 0 else "lower"
        less = ", by less than the margin" if same else ""
        return ("supported" if seen == claim.expect else "refuted"), f"it is {seen}{less}: {t}", 0
    if same:
        return "refuted", f"they are equivalent within {answer.high:g} {about.unit} (two one-sided tests)", 1
    return "undecided", f"{t}, p = {p_word(decision.p[0])} before adjustment", 0


def _difference(row: Row) -> str:
    about = OUTCOMES[row["measure"]]
    numbers = (row[f"difference_{key}"] for key in ("value", "low", "high"))
    return with_interval(numbers, about.digits, about.unit)


def published(answers: Answers) -> Part:
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
    return Part("published", "Published numbers", tables=[Table("published", published_frame(answers), columns, note)])


def published_frame(answers: Answers) -> pd.DataFrame:
    """Published accuracies beside ours, in per cent: of the last epoch, and of the best test epoch as they were
    printed."""
    rows = []
    for item in answers.asked.published:
        for cell in (cell for cell in answers.grouped.cells if holds(cell, item.setting)):
            row: dict[str, Any] = {"source": item.source, "setting": cell.label, "n": len(cell.completed)}
            for name in ("train_acc_running", "test_acc"):
                values = pd.Series(cell.values(name), dtype=float)
                row |= {f"published_{name}": getattr(item, name)}
                row |= named(name, 100, mean=values.mean(), sd=values.std())
            rows.append(row | {"best_epoch_test_acc_mean": 100 * cell.best_epoch})
    return pd.DataFrame(rows)
