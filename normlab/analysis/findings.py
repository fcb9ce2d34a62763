"""What came out of a study, in sentences: an effect each, in points with its interval, the declared questions first."""

import math
from collections import Counter
from collections.abc import Sequence

from normlab.analysis.cells import trained
from normlab.analysis.declared import named
from normlab.analysis.numbers import p_word, signed
from normlab.analysis.questions import Answer, Answers

__all__ = ["findings"]

MANY = 4  # levels; of more, the ends are told and the rest counted


def findings(answers: Answers, rulings: Sequence[str] = ()) -> list[str]:
    """Return a sentence or two per factor, then what each norm of a user's own came to, then the claims by ruling."""
    told = []
    if answers.several:
        for factor in answers.factors:
            told.append(" ".join(_of_factor(answers, factor)))
        own = [cell.label for cell in answers.cells if cell.norm == "custom" and len(answers.cells) > 1]
        told += [_of_own(answers, label) for label in own]
    told += _not_trained(answers)
    if not answers.factors or not answers.several:
        told += _alone(answers)
    if rulings and answers.several:
        counts = Counter(rulings)
        parts = [f"{counts[each]} {each}" for each in ("supported", "refuted", "undecided", "untested") if counts[each]]
        told.append(f"Of {len(rulings)} claims about pairs, {', '.join(parts)}.")
    return [line for line in told if line]


def _of_factor(answers: Answers, factor: str) -> list[str]:
    control = answers.control(factor)
    effects = [
        each for each in answers.answers if (each.kind, each.factor, each.control) == ("effect", factor, control)
    ]
    if not effects:
        return []
    against = f"Against {named(factor, control)}"
    others = [name for name in answers.factors if name != factor]
    if max(len([c for c in each.contrast.values() if c > 0]) for each in effects) > 1:
        against += f", averaged over {_and(others)}"
    if len(effects) <= MANY:
        told = [
            f"{against}: {'; '.join(f'{named(factor, each.level)} {_does(each, answers.margin)}' for each in effects)}."
        ]
    else:
        ranked = sorted(effects, key=_value)
        low, high = (f"{named(factor, each.level)} {_does(each, answers.margin)}" for each in (ranked[0], ranked[-1]))
        counts = Counter(each.decision.verdict for each in effects)
        each = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        told = [f"{against}: from {low} to {high}; of {len(effects)} levels {each}."]
    for other in answers.answers:
        if other.kind == "interaction" and other.factor.endswith(f" x {factor}"):
            first, p = other.factor.split(" x ")[0], p_word(other.decision.p[0])
            p = p if p.startswith("<") else f"= {p}"
            if other.decision.verdict == "equivalent":
                told.append(f"With every {first} it is the same within ± {answers.margin:g}.")
            elif other.decision.verdict != "undecided":
                less = ", by less than the margin" if other.decision.verdict == "less than the margin" else ""
                told.append(f"That depends on {first}{less} (p {p}).")
            elif math.isfinite(other.decision.p[0]):
                told.append(f"Whether that depends on {first} is undecided (p {p}).")
    return told


def _does(each: Answer, margin: float) -> str:
    """ "costs 0.35 points (0.28 to 0.42)"."""
    assert each.estimate is not None
    factor, unit = each.outcome.factor, {"pp": "points"}.get(each.outcome.unit, each.outcome.unit)
    low, high = (factor * end for end in each.estimate.interval(0.95))
    value, verdict = factor * each.estimate.value, each.decision.verdict
    digits = 2 if each.outcome.unit == "pp" else 4
    if verdict in ("better", "worse", "less than the margin"):
        does = "adds" if value > 0 else "costs"
        if not each.outcome.higher_is_better:
            does = "raises it by" if value > 0 else "lowers it by"
        ends = sorted((abs(low), abs(high)))
        less = ", less than the margin" if verdict == "less than the margin" else ""
        return f"{does} {abs(value):.{digits}f} {unit} ({ends[0]:.{digits}f} to {ends[1]:.{digits}f}){less}"
    form = f".{digits}f"
    span = f" ({signed(low, form)} to {signed(high, form)})" if math.isfinite(low) else ""
    what = f"equivalent within ± {margin:g}" if verdict == "equivalent" else "undecided"
    return f"{signed(value, form)} {unit}{span}, {what}"


def _value(each: Answer) -> float:
    assert each.estimate is not None
    return each.estimate.value


def _of_own(answers: Answers, label: str) -> str:
    """The verdicts on a user's own layer, against each control: custom (mine:RMS): worse than bn; …"""
    by: dict[str, list[str]] = {}
    for each in answers.answers:
        if each.contrast.get(label) and each.kind in ("setting", "effect") and len(each.contrast) == 2:
            [other] = [name for name in each.contrast if name != label]
            by.setdefault(each.decision.verdict, []).append(f"{other} ({signed(answers.about.factor * _value(each))})")
    between = {
        "better": "better than", "worse": "worse than", "equivalent": "equivalent to",
        "less than the margin": "different by less than the margin from", "undecided": "undecided against",
    }  # fmt: skip
    parts = [f"{words} {', '.join(by[verdict])}" for verdict, words in between.items() if verdict in by]
    [cell] = [cell for cell in answers.cells if cell.label == label]
    who = label if "norm.target" in cell.levels else f"{label} ({cell.ended[0].config.get('norm.target')})"
    return f"{who}: {'; '.join(parts)}." if parts else ""


def _not_trained(answers: Answers) -> list[str]:
    some = [cell.label for cell in answers.found.cells if not trained(cell)]
    if not some:
        return []
    which = _and(some) if len(some) <= MANY else f"{len(some)} settings"
    return [f"Not every run trained with {which}: no verdict is on them, see the table of settings."]


def _alone(answers: Answers) -> list[str]:
    """The settings' means, where no contrast has a verdict; of many the lowest and the highest."""
    means = [(cell.label, cell.mean(answers.primary)) for cell in answers.found.cells if cell.values(answers.primary)]
    if not means:
        return []
    seeds = "" if answers.several else " (one seed: no interval and no verdict)"
    if len(means) > MANY:
        means = [ends(means, key=lambda each: each[1]) for ends in (min, max)]
    unit = "%" if answers.about.unit == "pp" else answers.about.unit
    digits = 2 if unit == "%" else 4
    each = [f"{label} {answers.about.factor * mean:.{digits}f} {unit}" for label, mean in means]
    between = " to " if len(answers.found.cells) > MANY else ", "
    return [f"{answers.about.words.capitalize()}: {between.join(each)}{seeds}."]


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
