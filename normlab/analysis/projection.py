"""The declared questions as numbers for page.js, which decides them again with other margins, levels or seeds.

Margin and level: what the verdicts would have been had they been declared so. Seeds: a projection, of a study with so
many seeds per setting in which every mean, standard deviation and image effect came out as in this one. Standard errors
and degrees of freedom follow from the number; what new seeds would find does not.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from normlab.analysis.inference import Floats, Model, caution
from normlab.analysis.parts.claims import asked, rule
from normlab.analysis.parts.rates import at_own_best
from normlab.analysis.questions import Answer, Answers
from normlab.analysis.verdicts import Joint, Question, spread

COMBINATIONS = ((False, False), (True, False), (False, True), (True, True))  # what is rejected: differs, same
KEPT = ".12g"  # digits of variances, products of matrices: those after them depend on the processor


def prior(df: Floats, degrees: Floats) -> Floats:
    """The degrees of freedom that a moderated variance has beyond its own; infinite where it is the pooled one."""
    df = df / caution(degrees)
    return np.where(df >= degrees.sum() * (1 - 1e-12), np.inf, df - degrees)


def numbers(answers: Answers) -> dict[str, Any]:
    """Return what page.js decides the declared questions from, and which row of which table each of them is.

    Keys: margin, alpha, seeds as declared and run; families, each with its models and questions; rows, by table: the
    family, and per row the question and what rejecting neither, the first, the second or both of its hypotheses comes
    to (`words`), by which of them (`by`); no rows for a study that ends by itself, whose p are of all its looks.
    """
    best = at_own_best(answers)
    families = [answers, *([best] if best else [])]
    model = answers.model(answers.primary)
    rows = {}
    for family, (name, each) in enumerate(zip(("effects", "best"), families, strict=False)):  # all but the claims
        of = [at for at, (question, _) in enumerate(_apart(each)) if question.kind != "claim"]
        rows[name] = {"family": family, "of": of}
    rows["claims"] = _claims(answers)
    sd, of_images, size = spread(model)
    needed = {"sd": _or_none(sd), "settings": len(model.names), "images": _rounded(of_images), "size": _or_none(size)}
    return {
        "margin": answers.margin,
        "alpha": answers.alpha,
        "factor": answers.about.factor,
        "seeds": [int(model.n.min()), int(model.n.max())] if len(model.n) else [0, 0],
        "needed": needed,
        "families": [_family(each) for each in families],
        "rows": {name: some for name, some in rows.items() if some["of"] and answers.several and not answers.most},
    }


def _claims(answers: Answers) -> dict[str, Any]:
    """The rows of the table of claims; null for a claim that was not tested."""
    questions = {(id(each), id(claim)): at for at, (each, claims) in enumerate(_apart(answers)) for claim in claims}
    rows = asked(answers)
    rulings = [[rule(each, rejected) for rejected in COMBINATIONS] for each in rows]
    return {
        "family": 0,
        "of": [questions.get((id(each.answer), id(each.claim))) for each in rows],
        "words": [[ruling for ruling, _, _ in some] for some in rulings],
        "by": [[which for _, _, which in some] for some in rulings],
    }


def _apart(answers: Answers) -> list[tuple[Answer, Sequence[Any]]]:
    """The questions with their claims, those apart that are one at this margin only: one asks about a range of the
    study's margin, the other about a range of its own that is as wide."""
    found: list[tuple[Answer, Sequence[Any]]] = []
    for each in answers.answers:
        by_margin: dict[Any, list[Any]] = {}
        for claim, _ in each.claims:
            by_margin.setdefault((claim.by, claim.margin) if each.of_range else None, []).append(claim)
        found += [(each, claims) for claims in by_margin.values()] or [(each, [])]
    return found


def _family(answers: Answers) -> dict[str, Any]:
    models = {name: answers.model(name) for name in dict.fromkeys(each.outcome for each in answers.answers)}
    return {
        "models": {name: _of_model(model) for name, model in models.items()},
        "questions": [
            {"model": each.outcome} | _of_question(each, claims, models[each.outcome])
            for each, claims in _apart(answers)
        ],
    }


def _of_model(model: Model) -> dict[str, Any]:
    variance, df = model.variances_of_contrasts
    covariance, size = model.images if model.images is not None else (np.zeros((len(model.names),) * 2), 0.0)
    vectors: dict[str, Iterable[float]] = {
        "n": model.n,
        "mean": model.means,
        "x": model.x,
        "slope": model.slope,
        "variance": [_rounded(each) for each in variance],
        "prior": prior(df, model.degrees * model.share),
        "images": [_rounded(each) for each in np.diag(covariance)],
    }
    return {"link": model.link, "share": model.share, "size": size} | {name: _list(of) for name, of in vectors.items()}


def _of_question(each: Answer, claims: Sequence[Any], model: Model) -> dict[str, Any]:
    words = {"words": [each.question.verdict(rejected) for rejected in COMBINATIONS]}
    factor = each.about.factor
    if isinstance(each.question, Joint):
        c = np.array([[contrast.get(name, 0.0) for name in model.names] for contrast in each.contrasts])
        images = c @ model.images_not_below_0 @ c.T if model.images is not None else np.zeros((len(c), len(c)))
        parts = zip(each.question.parts, each.contrasts, strict=True)
        return words | {
            "contrasts": [_sparse(row) for row in c],
            "images": [_list(map(_rounded, row)) for row in images],
            "parts": [_of_contrast(part, contrast, model, factor, False) for part, contrast in parts],
        }
    own = any(claim.by is not None or claim.margin is not None for claim in claims)
    return words | _of_contrast(each.question, each.contrast, model, factor, own)


def _of_contrast(
    question: Question, contrast: Mapping[str, float], model: Model, factor: float, own: bool
) -> dict[str, Any]:
    """own: whether the range is the claim's own, and stays where the margin moves."""
    c = np.array([contrast.get(name, 0.0) for name in model.names])
    return {
        "contrast": _sparse(c),
        "images": max(0.0, _rounded(c @ model.images[0] @ c)) if model.images is not None else 0.0,
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


def _rounded(value: float) -> float:
    return float(f"{value:{KEPT}}")


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
