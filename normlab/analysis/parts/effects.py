"""What does each factor do, and which settings differ? The declared questions, and an estimate of every other pair."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from normlab import analysis
from normlab.analysis.cells import Cell, without
from normlab.analysis.declared import factors_apart
from normlab.analysis.declared import named as named_level
from normlab.analysis.inference import Estimate
from normlab.analysis.numbers import number
from normlab.analysis.outcomes import OUTCOMES, Outcome
from normlab.analysis.part import Part, Picture, Table, interval, named, p, slug, span, text, value
from normlab.analysis.questions import Answer, Answers
from normlab.analysis.verdicts import Joint
from normlab.settings import MARGIN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from normlab.analysis.row_figures import Effect

KINDS = {"effect": "effect", "interaction": "interaction", "setting": "against its control"}
GROUPS = {"effect": "averaged over the other factors", "setting": "one setting against its control"}
FEW = 40  # contrasts that one figure holds; of more, settings have a figure for each factor
MOST = 66  # rows that a figure can hold and still be read
ALL_PAIRS = 12  # settings; with more, only pairs that differ in one factor are listed: the rest would drown them
NOTE = (
    "One family of questions; what a verdict means and how it is reached stands under Methods. p is adjusted for all "
    "of them and intervals are not, so an interval may leave out 0 where the verdict is undecided; p of "
    "equivalence: of a difference of the margin or more."
)
INTRO = (
    "What each factor does, averaged over all others, whether that depends on another, and settings against controls."
)


def effects(answers: Answers) -> Part:
    difference = interval(
        f"difference, {answers.about.unit} (95 % interval)", "difference", answers.about.digits, "value"
    )
    ratio = value("ratio of errors", "ratio", 2)
    asked = [
        text("what", "question"), text("kind"), text("verdict", verdict=True), difference, ratio, p("p", "p_adjusted"),
        p("p of equivalence", "p_equivalence_adjusted"),
    ]  # fmt: skip
    other = [
        text("pair"),
        difference,
        span("for these test images", "narrow", answers.about.digits, 1, signs=True),
        ratio,
    ]
    some = f" Of more than {ALL_PAIRS} settings, those that differ in one factor." if _many(answers) else ""
    note = f"First minus second, not adjusted for their number: estimates, not verdicts.{some}"
    tables = [
        Table("effects", questions_frame(answers), asked if answers.several else (), NOTE, first=True),
        Table("pairs", pairs_frame(answers), other if answers.several else (), note),
        Table("pairing", pairing_frame(answers)),
    ]  # of one seed there are neither intervals nor verdicts
    return Part("effects", "Effects", INTRO, tables, lambda: _pictures(answers))


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
        "pairing": "none: the settings do not all have the same seeds",
    }
    if pairing := model.pairing:
        used = "by seed: runs with one seed are alike in all settings"
        how = used if pairing.used else "not used: by seed it would gain nothing"
        lines["pairing"] = f"{how}, r = {number(pairing.r, 2)} ({number(pairing.low, 2)} to {number(pairing.high, 2)})"
    if answers.tune:
        lines[answers.tune] = "every setting has its own, the best on held-out images"
    if answers.most:
        lines["looks"] = f"after every round of seeds, up to {answers.most} per setting; p holds for all looks together"
    needed = answers.seeds_needed
    if math.isinf(needed):
        lines["seeds"] = "no number would do for the margin: the test images are too few to resolve it"
    elif not math.isnan(needed):
        lines["seeds"] = f"{needed:,.0f} per setting would tell settings apart that differ by the margin (80 % power)"
    return lines


def numbers_of(estimate: Estimate, factor: float) -> dict[str, float]:
    """An estimate as columns: difference_value, _low, _high for new seeds and new images, narrow_… for these images."""
    wide, narrow = (estimate.interval(0.95, of_these_images=these) for these in (False, True))
    difference = named("difference", factor, value=estimate.value, **wide._asdict())
    return difference | named("narrow", factor, **narrow._asdict()) | {"se": factor * estimate.se, "df": estimate.df}


def pairing_frame(answers: Answers) -> pd.DataFrame:
    """One row per outcome that the runs have: how much runs with one seed are alike, and whether that was used."""
    rows = []
    for outcome in OUTCOMES:
        model = answers.model(outcome)
        if (pairing := model.pairing) is not None:
            rows.append(
                {"outcome": outcome, "settings": len(model.names), "seeds": int(model.n[0])}
                | {"r_value": pairing.r, "r_low": pairing.low, "r_high": pairing.high, "p": pairing.p}
                | {"used": pairing.used}
            )
    return pd.DataFrame(rows)


def questions_frame(answers: Answers) -> pd.DataFrame:
    """One row per declared question, in the outcome's unit (pp, nats); claims have a part of their own."""
    rows = []
    for each in (each for each in answers.answers if each.kind != "claim"):
        row: dict[str, Any] = {"question": each.label, "kind": KINDS[each.kind]}
        row |= {"factor": each.factor, "level": each.level, "verdict": each.decision.verdict}
        if each.estimate:
            row |= {"ratio": _ratio(each.estimate, each.about)} | numbers_of(each.estimate, each.about.factor)
        for name, at in (("p", 0), ("p_equivalence", 1)):
            row |= {name: each.decision.p[at], f"{name}_adjusted": each.decision.adjusted[at]}
        if isinstance(each.question, Joint):
            row |= {"f": each.question.f, "df": each.question.df[1]}
        rows.append(row)
    return pd.DataFrame(rows)


def pairs_frame(answers: Answers) -> pd.DataFrame:
    """One row per pair of settings, first minus second; of many settings only those that differ in one factor."""
    rows = []
    for a, b in _pairs(answers):
        if estimate := answers.estimate({a.label: 1.0, b.label: -1.0}):
            names = {"pair": f"{a.label} − {b.label}", "a": a.label, "b": b.label}
            numbers = numbers_of(estimate, answers.about.factor)
            rows.append(names | numbers | {"ratio": _ratio(estimate, answers.about)})
    return pd.DataFrame(rows)


def _pairs(answers: Answers) -> list[tuple[Cell, Cell]]:
    pairs = itertools.combinations(answers.cells, 2)
    shown = [(a, b) for a, b in pairs if not _many(answers) or factors_apart(a, b) == 1]
    return [(b, a) if b.norm == "custom" != a.norm else (a, b) for a, b in shown]  # a user's own layer stands first


def _many(answers: Answers) -> bool:
    return len(answers.cells) > ALL_PAIRS


def _ratio(estimate: Estimate, about: Outcome) -> float:
    """The ratio of two settings' errors: of 1 - accuracy, or of what is an error itself."""
    return estimate.ratio(of_errors=about.higher_is_better and about.link == "logit")


def _pictures(answers: Answers) -> Iterator[Picture]:
    asked = [each for each in answers.answers if each.estimate is not None and each.kind != "claim"]
    if not asked or not answers.several:
        return
    caption = (
        "What each declared contrast{of} adds to the {words}, the largest first: every seed, estimates and their 95 % "
        "intervals for {random}, around the band that counts as equivalent."
    )
    words = {"unit": answers.about.unit, "random": answers.random}

    def drawn(of: Sequence[Answer], title: str, of_a_factor: bool) -> "Figure":
        """Effects first, then settings, in each the largest first."""
        rows = [_short(answers, each) if of_a_factor else effect_of(answers, each) for each in of]
        rows.sort(key=lambda row: (row.group != GROUPS["effect"], row.group, -abs(row.value)))
        told = of_a_factor or len({row.group for row in rows[:MOST]}) > 1
        found = [row if told else row._replace(group="") for row in rows[:MOST]]
        return analysis.row_figures.effects(found, answers.margin, title=title, **words)

    by_factor: dict[str, list[Answer]] = {}
    for each in asked:
        apart = len(asked) > FEW and each.kind == "setting"
        by_factor.setdefault(each.factor if apart else "", []).append(each)
    for factor, some in by_factor.items():
        of = f" of {factor}" if factor else ""
        title = f"Effects{of} on {answers.about.words}, {answers.grouped.data_title}"
        yield Picture(
            f"effects-{slug(factor)}" if factor else "effects",
            caption.format(of=of, words=answers.about.words, random=answers.random),
            lambda _, some=some, title=title, factor=factor: drawn(some, title, bool(factor)),  # type: ignore[misc]
        )


def _short(answers: Answers, each: Answer) -> "Effect":
    """A row of a figure of one factor: what two settings have in common, below the levels in which they differ."""
    [of] = (cell for cell in answers.cells if each.contrast.get(cell.label, 0) > 0)
    group = f"{named_level(each.factor, each.level)} − {named_level(each.factor, each.control)}"
    return effect_of(answers, each)._replace(label=without(of, each.factor), group=group)


def effect_of(answers: Answers, each: Answer) -> "Effect":
    """A contrast with an estimate as a row of a figure, in the outcome's unit."""
    factor = each.about.factor
    values = {cell.label: cell.values(answers.primary) for cell in answers.grouped.cells if cell.label in each.contrast}
    shared = set.intersection(*(set(of) for of in values.values()))  # seeds that all settings of the contrast have
    seeds = [factor * sum(c * values[label][seed] for label, c in each.contrast.items()) for seed in sorted(shared)]
    verdict, group = each.decision.verdict, GROUPS.get(each.kind, "")
    return analysis.row_figures.Effect(each.label, *each.numbers, verdict, seeds, group)
