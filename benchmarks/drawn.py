"""Studies that are drawn at random and answered by `normlab.analysis` itself: what benchmarks/verdicts.py measures."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from normlab.analysis import rounds
from normlab.analysis.cells import group_runs
from normlab.analysis.declared import Declared
from normlab.analysis.inference import Group, Link, Model
from normlab.analysis.questions import Answer, Answers
from normlab.analysis.table import runs
from normlab.analysis.verdicts import ALPHA, Joint
from normlab.settings import Study

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MARGIN, SD, BASE = 0.001, 0.0005, 0.994  # of accuracy on MNIST; SD as in lightning_logs/replication
REAL = Path(__file__).resolve().parents[1] / "lightning_logs" / "replication"
CELLS = ("bn", "bn l1=0.001", "ln", "ln l1=0.001", "gn", "gn l1=0.001")
TRUTHS = {  # of the six settings in that order, in margins
    "all equal": (0, 0, 0, 0, 0, 0),
    "all at the margin": (0, -1, 1, 0, -1, -2),
    "mixed": (0, -3, 0, -3, 1, -3),
    "nothing or twice the margin": (0, -2, 0, -2, 2, 0),
}


@functools.cache
def real(claims: bool) -> Answers:
    """The committed runs of `replication` and the questions of their study, with its claims or without."""
    study = Study.named("replication")
    study = study if claims else study.model_copy(update={"claims": []})
    answers = Answers(group_runs(runs(REAL), study.factors), study, study.margin)
    assert tuple(cell.label for cell in answers.cells) == CELLS
    return answers


@functools.cache
def residuals() -> Floats:
    """Of the 30 real test accuracies around their settings' means, to a variance of 1."""
    rows = [group.values - group.values.mean() for group in real(False).model("test_acc").groups.values()]
    return np.concatenate([row / np.sqrt(np.mean(np.square(rows))) for row in rows])


KINDS: Mapping[str, Callable[[np.random.Generator, tuple[int, ...]], Floats]] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "t, 3 degrees": lambda rng, size: rng.standard_t(3, size=size) / math.sqrt(3),
    "skewed": lambda rng, size: 1 - rng.exponential(size=size),
    "rounded to 0.01 points": lambda rng, size: rng.normal(size=size),
    "unequal variances": lambda rng, size: rng.normal(size=size) * np.geomspace(0.5, 2, size[1])[:, None],
    "resampled": lambda rng, size: rng.choice(residuals(), size=size),
}


def accuracies(rng: np.random.Generator, kind: str, truth: Sequence[float], studies: int, seeds: int) -> Floats:
    """(studies, settings, seeds)."""
    noise = SD * KINDS[kind](rng, (studies, len(truth), seeds))
    values = np.clip(BASE + MARGIN * np.array(truth)[:, None] + noise, 0, 1)
    return values.round(4) if kind == "rounded to 0.01 points" else values


@dataclass(frozen=True)
class Draws:
    """Draws of an outcome in R studies: float (R, settings, seeds), and how it is modelled.

    covariance: of the settings' means by images, (settings, settings); None: for these images.
    """

    outcome: str
    values: Floats
    link: Link = "logit"
    resolution: float = 1e-4
    covariance: Floats | None = None

    def model(self, study: int, seeds: Mapping[str, int]) -> Model:
        """Return the package's model of one of the studies, of so many seeds by setting."""
        groups = {
            label: Group(values[: seeds[label]], tuple(range(seeds[label])))
            for label, values in zip(CELLS, self.values[study], strict=True)
        }
        model = Model(groups, self.link, self.resolution)
        if self.covariance is not None:
            model.images = self.covariance, 10_000.0
        return model


class Drawn(Answers):
    """The answers of a study whose settings and questions are those of the real one."""

    def __init__(self, like: Answers, draws: Sequence[Draws], study: int, seeds: Mapping[str, int]) -> None:
        super().__init__(like.grouped, like.study, like.margin)
        self.declared = like.declared
        self._models = {each.outcome: each.model(study, seeds) for each in draws}


class Followed(rounds.Rounds):
    """A study that ends by itself. interactions, drop: what `until=decided` might have been, see `DESIGNS`."""

    def __init__(
        self, like: Answers, draws: Sequence[Draws], study: int, *, interactions: bool = False, drop: bool = True
    ) -> None:
        most = draws[0].values.shape[-1]
        super().__init__(like.study, like.margin, range(most))
        self.like, self.draws, self.number, self.interactions, self.drop = like, draws, study, interactions, drop
        ended = tuple(SimpleNamespace(record=SimpleNamespace(seed=seed)) for seed in range(most))
        cells = tuple(replace(cell, ended=ended) for cell in like.grouped.cells)  # type: ignore[arg-type]  # a seed is all
        self.grouped = replace(like.grouped, cells=cells)

    def _at(self, _: Any, taken: dict[str, int]) -> Drawn:
        return Drawn(self.like, self.draws, self.number, taken)

    def _decided(self, answers: Sequence[Answer], history: Any) -> list[Answer]:
        def asks(each: Answer) -> bool:
            """Whether a question that is open asks for seeds of all settings."""
            joint = isinstance(each.question, Joint)
            return self.interactions if joint else not self.drop

        every = dict.fromkeys(CELLS, 0.0)
        decided = super()._decided(answers, history)
        return [replace(each, contrasts=(every,)) if asks(each) else each for each in decided]


def rejected(answers: Sequence[Answer]) -> Bools:
    """Return which hypotheses of each question are rejected: (questions, 2)."""
    return np.array([each.decision.adjusted for each in answers]) <= ALPHA


def false(declared: Declared, answer: Answer, truth: Mapping[str, Floats]) -> bool:
    """Return whether a verdict is false where the settings' true means by outcome are these."""
    factor, [[differs, same]] = answer.about.factor, rejected([answer])
    low, high = declared.low / factor, declared.high / factor
    means = dict(zip(CELLS, truth[declared.outcome], strict=True))
    true = np.array([sum(c * means[label] for label, c in each.items()) for each in declared.contrasts]).round(9)
    if declared.of_range:
        inside = low <= true[0] <= high
        return bool(not inside if same else differs and inside)
    if same and (abs(true) >= high - 1e-9).any():
        return True
    wrong_side = answer.estimate is not None and (answer.estimate.value > 0) != (true[0] > 0)
    return bool(differs and (wrong_side or not true.any()))


def answered(draws: Sequence[Draws], *, claims: bool) -> list[list[Answer]]:
    """Return the answers of each study by all its seeds."""
    seeds = dict.fromkeys(CELLS, draws[0].values.shape[-1])
    return [Drawn(real(claims), draws, study, seeds).answers for study in range(len(draws[0].values))]


def any_false(studies: Sequence[Sequence[Answer]], truth: Mapping[str, Floats], *, claims: bool) -> Bools:
    """Return which studies have a false verdict."""
    declared = real(claims).declared
    pairs = [zip(declared, answers, strict=True) for answers in studies]
    return np.array([any(false(one, answer, truth) for one, answer in study) for study in pairs])


def like_replication(
    rng: np.random.Generator, truth: str, studies: int, seeds: int
) -> tuple[list[Draws], dict[str, Floats]]:
    """Draws like the committed runs in every outcome of the family, and the true means.

    truth: "as observed" has their means, standard deviations and image effects. Otherwise accuracies have those means,
    one standard deviation, and image effects that differ between settings by half the variance, as effects do.
    """
    answers, draws, means = real(True), list[Draws](), dict[str, Floats]()
    for name in dict.fromkeys([answers.primary, *(each.outcome for each in answers.declared)]):
        model = answers.model(name)
        sd = np.array([group.values.std(ddof=1) for group in model.groups.values()])
        mean, covariance = model.means, model.images[0] if model.images else None
        if name == answers.primary and truth != "as observed":
            mean, sd = BASE + MARGIN * np.array(TRUTHS[truth]), np.full_like(sd, np.sqrt(np.mean(sd**2)))
            common = np.full((len(sd), len(sd)), 1 / len(sd))
            half = common + math.sqrt(0.5) * (np.eye(len(sd)) - common)
            covariance = half @ covariance @ half
        values = mean[:, None] + sd[:, None] * rng.normal(size=(studies, len(sd), seeds))
        if covariance is not None:
            variances, vectors = np.linalg.eigh(covariance)
            nearest = (vectors * np.maximum(variances, 0)) @ vectors.T
            values = values + rng.multivariate_normal(np.zeros(len(sd)), nearest, size=studies)[..., None]
        logit = model.link == "logit"
        draws.append(Draws(name, np.clip(values, 0, 1) if logit else values, model.link, model.resolution, covariance))
        means[name] = mean
    return draws, means
