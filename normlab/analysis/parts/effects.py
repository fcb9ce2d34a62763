"""What does each factor do, and which settings differ? The declared questions, and an estimate of every other pair."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from normlab.analysis.cells import Cell
from normlab.analysis.declared import MARGIN, factors_apart
from normlab.analysis.inference import Estimate
from normlab.analysis.numbers import NONE, number, signed
from normlab.analysis.part import Column, Part, Picture, Row, Table, interval, p, text
from normlab.analysis.questions import Answer, Answers
from normlab.analysis.verdicts import Joint

if TYPE_CHECKING:  # matplotlib takes half a second, which a report without figures saves
    from normlab.analysis.row_figures import Effect

__all__ = ["effect_of", "effects", "family_words", "methods", "numbers_of", "pairs_frame", "questions_frame"]

KINDS = {"effect": "effect", "interaction": "interaction", "setting": "against its control", "claim": "claim"}
GROUPS = {"effect": "averaged over the other factors", "setting": "one setting against its control"}
MOST = 66  # rows that a figure can hold and still be read
ALL_PAIRS = 12  # settings; with more, only pairs that differ in one factor are listed: the rest would drown them


def effects(answers: Answers) -> Part:
    frame, pairs = questions_frame(answers), pairs_frame(answers)
    if not answers.several:  # neither intervals nor verdicts
        return Part("effects", "Effects", tables=[Table("effects", frame), Table("pairs", pairs)])
    unit = answers.about.unit
    columns = [
        text("what", "question"),
        text("kind"),
        text("verdict"),
        interval(f"difference, {unit} (95 % interval)", "difference", unit="value"),
        Column("ratio of errors", _ratio, "ratio"),
        p("p", "p_adjusted"),
        p("p of equivalence", "p_equivalence_adjusted"),
    ]
    other = [
        text("pair"),
        interval(f"difference, {unit} (95 % interval)", "difference", unit="value"),
        Column("for these test images", _narrow, "narrow_low"),
        Column("ratio of errors", _ratio, "ratio"),
    ]
    some = f" Of more than {ALL_PAIRS} settings, those that differ in one factor." if _many(answers) else ""
    note = "First minus second, not adjusted for their number: estimates, not verdicts." + some
    tables = [Table("effects", frame, columns, NOTE, "verdict"), Table("pairs", pairs, other, note)]
    return Part("effects", "Effects", EFFECTS, tables, lambda _: _draw(answers))


NOTE = (
    "One family of questions; what a verdict means and how it is reached stands under Methods. p is adjusted; p of "
    "equivalence: of a difference of the margin or more."
)
EFFECTS = (
    "What each factor does, averaged over all others, whether that depends on another, and settings against controls."
)


def methods(answers: Answers) -> dict[str, str]:
    """What the verdicts rest on, by heading."""
    model, size, unit = answers.model(answers.primary), len(answers.answers), answers.about.unit
    random = "seeds and test images, crossed" if model.images is not None else "seeds, on these test images"
    why = "the study's" if answers.study and answers.margin == answers.study.margin else "as given"
    if answers.margin == MARGIN and why == "as given":
        why = "the usual one: what 10,000 test images can resolve"
    lines = {
        "outcome": f"{answers.about.words}; its intervals keep within its range ({model.link} scale)",
        "random": random,
        "family": f"{size} questions; p is adjusted for all of them (Holm, Shaffer): the chance of any false verdict "
        f"is at most {100 * answers.alpha:g} %. Pairs of settings get an estimate and no verdict.",
        "margin": f"± {answers.margin:g} {unit}, {why}. Equivalent: within it, by two one-sided tests.",
        "variances": "of single runs, shrunk towards a common one as far as the settings' are alike (Smyth 2004)",
    }
    pairing = model.pairing
    if pairing is None:
        lines["pairing"] = "none: the settings do not all have the same seeds"
    else:
        gain = f"r = {number(pairing.r, 2)} ({number(pairing.low, 2)} to {number(pairing.high, 2)})"
        lines["pairing"] = (
            f"by seed: runs with one seed are alike in all settings, {gain}"
            if pairing.used
            else f"not used: by seed it would gain nothing, {gain}"
        )
    needed = answers.seeds_needed
    if math.isinf(needed):
        lines["seeds"] = "no number would do for the margin: the test images are too few to resolve it"
    elif not math.isnan(needed):
        lines["seeds"] = f"{needed:,.0f} per setting would tell settings apart that differ by the margin (80 % power)"
    return lines


def family_words(answers: Answers) -> str:
    """The same as a note."""
    return " ".join(f"{heading.capitalize()}: {line.rstrip('.')}." for heading, line in methods(answers).items())


def numbers_of(estimate: Estimate, factor: float) -> dict[str, Any]:
    """An estimate as columns: difference_value, _low, _high for new seeds and new images, narrow_… for these images."""
    wide, narrow = estimate.interval(0.95), estimate.interval(0.95, of_these_images=True)
    return {
        "difference_value": factor * estimate.value,
        "difference_low": factor * wide.low,
        "difference_high": factor * wide.high,
        "narrow_low": factor * narrow.low,
        "narrow_high": factor * narrow.high,
        "se": factor * estimate.se,
        "df": estimate.df,
    }


def questions_frame(answers: Answers) -> pd.DataFrame:
    """One row per declared question, in the outcome's unit (pp, nats); claims have a part of their own."""
    rows = []
    for each in answers.answers:
        if each.kind == "claim":
            continue
        row: dict[str, Any] = {
            "question": each.label,
            "kind": KINDS[each.kind],
            "factor": each.factor,
            "level": each.level,
        }
        row |= {"verdict": each.decision.verdict, "ratio": _ratio_of(each)}
        nothing = dict.fromkeys(
            ("difference_value", "difference_low", "difference_high", "narrow_low", "narrow_high", "se", "df"), math.nan
        )
        row |= numbers_of(each.estimate, each.outcome.factor) if each.estimate else nothing
        own, adjusted = (*each.decision.p, math.nan)[:2], (*each.decision.adjusted, math.nan)[:2]
        row |= {"p": own[0], "p_adjusted": adjusted[0], "p_equivalence": own[1], "p_equivalence_adjusted": adjusted[1]}
        if isinstance(each.question, Joint):
            row |= {"f": each.question.f, "df": each.question.df[1]}
        rows.append(row)
    return pd.DataFrame(rows)


def pairs_frame(answers: Answers) -> pd.DataFrame:
    """One row per pair of settings, first minus second; of many settings only those that differ in one factor."""
    rows = []
    for a, b in _pairs(answers):
        estimate = answers.estimate({a.label: 1.0, b.label: -1.0})
        if estimate is not None:
            row: dict[str, Any] = {"pair": f"{a.label} − {b.label}", "a": a.label, "b": b.label}
            rows.append(row | numbers_of(estimate, answers.about.factor) | {"ratio": _errors(answers, estimate)})
    return pd.DataFrame(rows)


def _pairs(answers: Answers) -> list[tuple[Cell, Cell]]:
    cells = answers.cells
    pairs = [(a, b) for a, b in itertools.combinations(cells, 2) if not _many(answers) or factors_apart(a, b) == 1]
    return [(b, a) if b.norm == "custom" != a.norm else (a, b) for a, b in pairs]  # a user's own layer stands first


def _many(answers: Answers) -> bool:
    return len(answers.cells) > ALL_PAIRS


def _errors(answers: Answers, estimate: Estimate) -> float:
    """The ratio of the two settings' errors: of 1 - accuracy, or of what is an error itself."""
    return estimate.ratio(of_errors=answers.about.higher_is_better and answers.about.link == "logit")


def _ratio_of(each: Answer) -> float:
    if each.estimate is None:
        return math.nan
    return each.estimate.ratio(of_errors=each.outcome.higher_is_better and each.outcome.link == "logit")


def _ratio(row: Row) -> str:
    return number(row["ratio"], 2)


def _draw(answers: Answers) -> Iterator[Picture]:
    from normlab.analysis.row_figures import effects as draw_effects

    rows = effect_rows(answers)
    if rows:
        caption = (
            f"What each declared contrast adds to the {answers.about.words}, the largest first: every seed, estimates "
            f"and their 95 % intervals for {random_words(answers)}, around the band that counts as equivalent."
        )
        title = f"Effects on {answers.about.words}, {answers.found.data_title}"
        unit = answers.about.unit
        drawn = draw_effects(rows, answers.margin, title=title, unit=unit, random=random_words(answers))
        yield Picture("effects", caption, drawn)


def effect_rows(answers: Answers) -> list["Effect"]:
    """The declared contrasts as a figure shows them: effects first, then settings, in each the largest first."""
    rows = [effect_of(answers, each) for each in answers.answers if each.estimate is not None and each.kind != "claim"]
    rows = sorted(rows, key=lambda row: (row.group != GROUPS["effect"], -abs(row.value)))[:MOST]
    return rows if len({row.group for row in rows}) > 1 else [row._replace(group="") for row in rows]


def effect_of(answers: Answers, each: Answer) -> "Effect":
    """A contrast with an estimate as a row of a figure, in the outcome's unit."""
    from normlab.analysis.row_figures import Effect

    assert each.estimate is not None
    factor = each.outcome.factor
    value, low, high = (factor * x for x in (each.estimate.value, *each.estimate.interval(0.95)))
    seeds = [factor * x for x in seeds_of(answers, each.contrast)]
    return Effect(each.label, value, low, high, each.decision.verdict, seeds, GROUPS.get(each.kind, ""))


def seeds_of(answers: Answers, contrast: Mapping[str, float]) -> list[float]:
    """A contrast of every seed that all of its settings have."""
    values = {cell.label: cell.values(answers.primary) for cell in answers.found.cells if cell.label in contrast}
    shared = set.intersection(*(set(of) for of in values.values())) if values else set()
    return [sum(c * values[label][seed] for label, c in contrast.items()) for seed in sorted(shared)]


def random_words(answers: Answers) -> str:
    """What an interval is for."""
    images = answers.model(answers.primary).images is not None
    return "new seeds and new test images" if images else "new seeds, on these test images"


def _narrow(row: Row) -> str:
    low, high = row["narrow_low"], row["narrow_high"]
    return f"{signed(low)} to {signed(high)}" if math.isfinite(low) else NONE
