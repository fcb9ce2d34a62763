"""What came out of a study, in sentences: an effect each, in points with its interval, the declared questions first."""

import math
from collections import Counter
from collections.abc import Sequence

from normlab.analysis.cells import level, trained
from normlab.analysis.declared import named
from normlab.analysis.numbers import p_word, signed, with_interval
from normlab.analysis.parts.claims import asked, rule
from normlab.analysis.questions import Answer, Answers

MANY = 4  # levels; of more, the ends are told and the rest counted
BETWEEN = {
    "better": "better than",
    "worse": "worse than",
    "equivalent": "equivalent to",
    "less than the margin": "different by less than the margin from",
    "undecided": "undecided against",
}


def findings(answers: Answers) -> list[str]:
    """Return a sentence or two per factor, then what each norm of a user's own came to, then the claims by ruling."""
    told = []
    if answers.several:
        told += [" ".join(_of_factor(answers, factor)) for factor in answers.factors]
        own = [cell.label for cell in answers.cells if cell.norm == "custom" and len(answers.cells) > 1]
        told += [_of_own(answers, label) for label in own]
    if some := [cell.label for cell in answers.grouped.cells if not trained(cell)]:
        which = _and(some) if len(some) <= MANY else f"{len(some)} settings"
        told.append(f"Not every run trained with {which}: no verdict is on them, see the table of settings.")
    if not answers.factors or not answers.several:
        told += _alone(answers)
    rulings = Counter(rule(each)[0] for each in asked(answers)) if answers.several else Counter()
    if rulings:
        each = [
            f"{rulings[word]} {word}" for word in ("supported", "refuted", "undecided", "untested") if rulings[word]
        ]
        told.append(f"Of {rulings.total()} claims about pairs, {', '.join(each)}.")
    return [line for line in told if line]


def _of_factor(answers: Answers, factor: str) -> list[str]:
    control = answers.control(factor)
    which = ("effect", factor, control)
    effects = [each for each in answers.answers if (each.kind, each.factor, each.control) == which]
    if not effects:
        return []
    against = f"Against {named(factor, control)}"
    if any(len(each.contrast) > 2 for each in effects):
        against += f", averaged over {_and([name for name in answers.factors if name != factor])}"
    many = len(effects) > MANY
    shown = [ends(effects, key=lambda each: each.numbers[0]) for ends in (min, max)] if many else effects
    each = [f"{named(factor, one.level)} {_does(one, answers.margin)}" for one in shown]
    told = [f"{against}: {'; '.join(each)}."]
    if many:
        counts = Counter(one.decision.verdict for one in effects)
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        told = [f"{against}: from {' to '.join(each)}; of {len(effects)} levels {verdicts}."]
    for other in answers.answers:
        if other.kind == "interaction" and other.factor.endswith(f" x {factor}"):
            first, p = other.factor.split(" x ")[0], p_word(other.decision.p[0])
            p = p if p.startswith("<") else f"= {p}"
            if other.decision.verdict == "equivalent":
                told.append(f"With every {first} it is the same within ± {answers.margin:g}.")
            elif other.decision.verdict != "undecided":
                less = ", by less than the margin" if other.decision.verdict == "less than the margin" else ""
                told.append(f"That depends on {first}{less} (p {p} before adjustment).")
            elif math.isfinite(other.decision.p[0]):
                told.append(f"Whether that depends on {first} is undecided (p {p} before adjustment).")
    return told


def _does(each: Answer, margin: float) -> str:
    """ "costs 0.35 points (0.28 to 0.42)"."""
    about, verdict, (value, low, high) = each.about, each.decision.verdict, each.numbers
    if verdict in ("better", "worse", "less than the margin"):
        does = "adds" if value > 0 else "costs"
        if not about.higher_is_better:
            does = "raises it by" if value > 0 else "lowers it by"
        size, *ends = (f"{x:.{about.digits}f}" for x in (abs(value), *sorted((abs(low), abs(high)))))
        less = ", less than the margin" if verdict == "less than the margin" else ""
        return f"{does} {size} {about.points} ({' to '.join(ends)}){less}"
    what = f"equivalent within ± {margin:g}" if verdict == "equivalent" else "undecided"
    return f"{with_interval((value, low, high), about.digits, about.points)}, {what}"


def _of_own(answers: Answers, label: str) -> str:
    """The verdicts on a user's own layer, against each control: custom (mine:RMS): worse than bn; …"""
    by: dict[str, list[str]] = {}
    for each in answers.answers:
        if each.contrast.get(label) and each.kind in ("setting", "effect") and len(each.contrast) == 2:
            [other] = [name for name in each.contrast if name != label]
            by.setdefault(each.decision.verdict, []).append(f"{other} ({signed(each.numbers[0])})")
    parts = [f"{words} {', '.join(by[verdict])}" for verdict, words in BETWEEN.items() if verdict in by]
    [cell] = [cell for cell in answers.cells if cell.label == label]
    who = label if "norm.target" in cell.levels else f"{label} ({level(cell, 'norm.target')})"
    return f"{who}: {'; '.join(parts)}." if parts else ""


def _alone(answers: Answers) -> list[str]:
    """The settings' means, where no contrast has a verdict; of many the lowest and the highest."""
    about = answers.about
    means = [(cell.label, cell.mean(answers.primary)) for cell in answers.grouped.cells if cell.values(answers.primary)]
    if not means:
        return []
    seeds = "" if answers.several else " (one seed: no interval and no verdict)"
    many = len(means) > MANY
    shown = [ends(means, key=lambda each: each[1]) for ends in (min, max)] if many else means
    each = [f"{label} {about.factor * mean:.{about.digits}f} {about.own_unit}" for label, mean in shown]
    return [f"{about.words.capitalize()}: {(' to ' if many else ', ').join(each)}{seeds}."]


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
