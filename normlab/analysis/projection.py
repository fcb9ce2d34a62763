"""The declared questions with another margin, level or number of seeds: in Python, and as numbers for page.js.

Margin and level: what the verdicts would have been had they been declared so. Seeds: a projection, of a study with so
many seeds per setting in which every mean, standard deviation and image effect came out as in this one. Standard errors
and degrees of freedom follow from the number; what new seeds would find does not.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from normlab.analysis.inference import Floats, Model, caution
from normlab.analysis.outcomes import OUTCOMES
from normlab.analysis.parts.claims import claims_frame
from normlab.analysis.parts.rates import at_own_best
from normlab.analysis.questions import Answer, Answers
from normlab.analysis.verdicts import Decision, Joint, Question, spread

__all__ = ["Projected", "as_json", "numbers"]

FIRST, SECOND = (0.0, 0.8), (1e-9, 0.9)  # adjusted p, rejected and not: four numbers, by which a row names its own
COMBINATIONS = ((False, False), (True, False), (False, True), (True, True))  # what is rejected: differs, same


class _Planned(Model):
    """A model with so many seeds in every group: means, variances and what the images bring stay as they are."""

    def __init__(self, model: Model, seeds: int) -> None:
        self.of, self.pairing, self.images = model, model.pairing, model.images
        self.groups, self.link, self.resolution, self.names = model.groups, model.link, model.resolution, model.names
        self.means, self.x, self.slope = model.means, model.x, model.slope
        self.n = np.full(len(self.names), float(seeds))
        self.degrees = self.n - 1

    @cached_property
    def variances(self) -> tuple[Floats, Floats]:
        return _with(self.of.variances, self.of.degrees, self.degrees)

    @cached_property
    def variances_of_contrasts(self) -> tuple[Floats, Floats]:
        share = _share(self.of)
        return _with(self.of.variances_of_contrasts, self.of.degrees * share, self.degrees * share)


def _share(model: Model) -> float:
    """What pairing leaves of the degrees of freedom."""
    return (len(model.names) - 1) / len(model.names) if model.pairing and model.pairing.used else 1.0


def _prior(df: Floats, degrees: Floats) -> Floats:
    """The degrees of freedom that a moderated variance has beyond its own; infinite where it is the pooled one."""
    df = df / caution(degrees)
    return np.where(df >= degrees.sum() * (1 - 1e-12), np.inf, df - degrees)


def _with(variances: tuple[Floats, Floats], old: Floats, new: Floats) -> tuple[Floats, Floats]:
    known, df = variances
    usable = new[np.isfinite(known)]
    return known, np.minimum(_prior(df, old) + new, float(usable.sum())) * caution(usable)


class Projected(Answers):
    """The same questions with another margin or level, and so many seeds per setting; None: those that were run."""

    def __init__(self, answers: Answers, margin: float, alpha: float, seeds: int | None = None) -> None:
        super().__init__(answers.found, answers.study, margin, alpha)
        self.of, self.seeds = answers, seeds

    def model(self, outcome: str) -> Model:
        model = self.of.model(outcome)
        return model if self.seeds is None else _Planned(model, self.seeds)


class _Forced(Answers):
    """The same questions with the same hypotheses rejected in all of them."""

    def __init__(self, answers: Answers, differs: bool, same: bool) -> None:
        super().__init__(answers.found, answers.study, answers.margin, answers.alpha)
        adjusted = FIRST[not differs], SECOND[not same]
        self.forced = [
            replace(each, decision=Decision(each.decision.p, adjusted, each.question.verdict((differs, same))))
            for each in answers.answers
        ]

    @property
    def answers(self) -> list[Answer]:
        return self.forced


def numbers(answers: Answers) -> dict[str, Any]:
    """Return what page.js decides the declared questions from, and which row of which table each of them is.

    Keys: margin, alpha, seeds as declared and run; families, each with its models and questions; rows, by table: the
    family, and per row the question and what rejecting neither, the first, the second or both of its hypotheses comes
    to (`words`), by which of them (`by`).
    """
    best = at_own_best(answers)
    families = [answers, *([best] if best is not None else [])]
    model = answers.model(answers.primary)
    rows = (
        {"effects": {"of": []}}
        if not answers.several
        else {"effects": _rows(0, answers), "claims": _claims(answers)} | ({"best": _rows(1, best)} if best else {})
    )
    sd, of_images, size = spread(model)
    return {
        "margin": answers.margin,
        "alpha": answers.alpha,
        "factor": answers.about.factor,
        "seeds": [int(model.n.min()), int(model.n.max())] if len(model.n) else [0, 0],
        "needed": {"sd": _or_none(sd), "settings": len(model.names), "images": of_images, "size": _or_none(size)},
        "families": [_family(each) for each in families],
        "rows": {name: some for name, some in rows.items() if some["of"]},
    }


def _rows(family: int, answers: Answers) -> dict[str, Any]:
    """The rows of a table of questions: all but the claims, in their order."""
    of = [at for at, each in enumerate(_apart(answers)) if each[0].kind != "claim"]
    return {"family": family, "of": of}


def _claims(answers: Answers) -> dict[str, Any]:
    """The rows of the table of claims; null for a claim that was not tested."""
    frames = [claims_frame(_Forced(answers, *each)) for each in COMBINATIONS]
    if frames[0].empty:
        return {"of": []}
    asked = {
        (claim.claim, claim.source, claim.measure, *sorted(each.contrast)): at
        for at, (each, claims) in enumerate(_apart(answers))
        for claim, _ in each.claims
        if claim in claims
    }
    of = [
        asked.get((claim, source, measure, *sorted((a, b))))
        for claim, source, measure, a, b in frames[0][["claim", "source", "measure", "of", "against"]].to_numpy()
    ]
    words = list(map(list, zip(*(frame["ruling"] for frame in frames), strict=True)))
    by = list(map(list, zip(*([int(p in SECOND) for p in frame["p"]] for frame in frames), strict=True)))
    return {"family": 0, "of": of, "words": words, "by": by}


def _apart(answers: Answers) -> list[tuple[Answer, Sequence[Any]]]:
    """The questions with their claims, those apart that are one at this margin only: one asks about a range of the
    study's margin, the other about a range of its own that is as wide."""
    found: list[tuple[Answer, Sequence[Any]]] = []
    for each in answers.answers:
        by_margin: dict[Any, list[Any]] = {}
        for claim, _ in each.claims:
            by_margin.setdefault((claim.by, claim.margin) if _of_range(each) else None, []).append(claim)
        found += [(each, claims) for claims in by_margin.values()] or [(each, [])]
    return found


def _of_range(each: Answer) -> bool:
    return not isinstance(each.question, Joint) and each.question.of_range


def _family(answers: Answers) -> dict[str, Any]:
    names = {id(outcome): name for name, outcome in OUTCOMES.items()}
    models = {name: answers.model(name) for name in {names[id(each.outcome)]: None for each in answers.answers}}
    return {
        "models": {name: _of_model(model) for name, model in models.items()},
        "questions": [
            {"model": names[id(each.outcome)]} | _of_question(answers, each, claims, models[names[id(each.outcome)]])
            for each, claims in _apart(answers)
        ],
    }


def _of_model(model: Model) -> dict[str, Any]:
    variance, df = model.variances_of_contrasts
    share = _share(model)
    covariance, size = model.images if model.images is not None else (np.zeros((len(model.names),) * 2), 0.0)
    return {
        "link": model.link,
        "n": _list(model.n),
        "mean": _list(model.means),
        "x": _list(model.x),
        "slope": _list(model.slope),
        "variance": _list(variance),
        "prior": _list(_prior(df, model.degrees * share)),
        "share": share,
        "size": size,
        "images": _list(np.diag(covariance)),
    }


def _of_question(answers: Answers, each: Answer, claims: Sequence[Any], model: Model) -> dict[str, Any]:
    if isinstance(each.question, Joint):
        one, two = each.factor.split(" x ")
        contrasts = answers.double_differences(one, two)
        c = np.array([[contrast.get(name, 0.0) for name in model.names] for contrast in contrasts])
        images = c @ model.images_not_below_0 @ c.T if model.images is not None else np.zeros((len(c), len(c)))
        parts = zip(each.question.parts, contrasts, strict=True)
        return {
            "contrasts": [_sparse(row) for row in c],
            "images": [_list(row) for row in images],
            "parts": [_of_contrast(part, contrast, model, each.outcome.factor, False) for part, contrast in parts],
            "words": [each.question.verdict(rejected) for rejected in COMBINATIONS],
        }
    own = any(claim.by is not None or claim.margin is not None for claim in claims)
    words = [each.question.verdict(rejected) for rejected in COMBINATIONS]
    return _of_contrast(each.question, each.contrast, model, each.outcome.factor, own) | {"words": words}


def _of_contrast(
    question: Question, contrast: Mapping[str, float], model: Model, factor: float, own: bool
) -> dict[str, Any]:
    """own: whether the range is the claim's own, and stays where the margin moves."""
    c = np.array([contrast.get(name, 0.0) for name in model.names])
    return {
        "contrast": _sparse(c),
        "images": max(0.0, float(c @ model.images[0] @ c)) if model.images is not None else 0.0,
        "within": [question.low, question.high] if own else None if math.isnan(question.low) else "margin",
        "factor": factor,
        "range": question.of_range,
    }


def _sparse(c: Floats) -> list[list[float]]:
    """The places of a contrast's settings, and their factors."""
    at = np.flatnonzero(c)
    return [at.tolist(), c[at].tolist()]


def _list(values: Iterable[float]) -> list[float | None]:
    return [_or_none(value) for value in values]


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def as_json(values: object) -> str:
    """JSON that may stand in a page: nothing in it can end the element that holds it."""
    return json.dumps(values, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
