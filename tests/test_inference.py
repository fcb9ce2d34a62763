"""The model of a study's runs and its family of verdicts: against scipy and statsmodels, and by simulation."""

import gc
import itertools
import math
from functools import partial

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from normlab.analysis.inference import Estimate, Group, Link, Model, mean_interval, moderated
from normlab.analysis.sequential import looks, sequential_p
from normlab.analysis.verdicts import Joint, Question, decide, enough_seeds, holm, seeds_needed, spread, tiers


def groups(*values: object, scores: list[np.ndarray] | None = None) -> dict[str, Group]:
    return {
        chr(ord("a") + i): Group(np.asarray(x, float), tuple(range(len(x))), None if scores is None else scores[i])  # type: ignore[arg-type]
        for i, x in enumerate(values)
    }


def p_of(estimate: Estimate, at: float = 0.0) -> float:
    """Two-sided p of "the true contrast is `at`"."""
    return Question(estimate, at, at, of_range=True).p[0] if at else Question(estimate, math.nan, math.nan).p[0]


# One model


def test_one_mean_and_a_difference_of_equal_variances_have_students_t() -> None:
    a, b = [1.0, 2.0, 3.5, 2.2], [2.1, 3.0, 4.4, 3.3]  # variances about alike
    two = {"a": Group(np.array(a), (0, 1, 2, 3)), "b": Group(np.array(b), (4, 5, 6, 7))}
    estimate, same = Model(two).estimate({"a": 1, "b": -1}), stats.ttest_ind(a, b)
    assert estimate.value == pytest.approx(np.mean(a) - np.mean(b))
    assert p_of(estimate) == pytest.approx(same.pvalue)
    assert estimate.interval(0.95) == pytest.approx(same.confidence_interval(0.95))
    assert mean_interval(a) == pytest.approx((np.mean(a), *stats.ttest_1samp(a, 0).confidence_interval(0.95)))
    alone = Model(groups(a)).estimate({"a": 1}).interval(0.9)
    assert alone == pytest.approx(stats.ttest_1samp(a, 0).confidence_interval(0.9))


def test_main_effects_are_those_of_least_squares(rng: np.random.Generator) -> None:
    """A balanced design with variances that are alike: as an analysis of variance has them."""
    import pandas as pd
    import statsmodels.formula.api as smf

    of = itertools.product(enumerate("xyz"), enumerate("no"), range(6))
    table = pd.DataFrame([{"norm": norm, "l1": l1, "y": rng.normal(i + 2 * j, 1.0)} for (i, norm), (j, l1), _ in of])
    by = {f"{norm}{l1}": of["y"].to_numpy() for (norm, l1), of in table.groupby(["norm", "l1"])}
    model = Model({name: Group(y, tuple(range(6))) for name, y in by.items()})
    ols = smf.ols("y ~ C(norm, Sum) * C(l1, Sum)", table).fit()
    effect = model.estimate({name: (1 if name[1] == "o" else -1) / 3 for name in by})
    assert effect.value == pytest.approx(-2 * ols.params["C(l1, Sum)[S.n]"])
    assert effect.se == pytest.approx(2 * ols.bse["C(l1, Sum)[S.n]"], rel=0.15), "shrunk, where not pooled"
    contrasts = [{"yo": 1, "yn": -1, "xo": -1, "xn": 1}, {"zo": 1, "zn": -1, "xo": -1, "xn": 1}]
    f, (q, _), _ = model.joint(contrasts)
    import statsmodels.api as sm

    assert q == 2
    assert f == pytest.approx(sm.stats.anova_lm(ols, typ=2).loc["C(norm, Sum):C(l1, Sum)", "F"], rel=0.3)


def test_variances_are_shrunk_by_as_much_as_they_are_alike(rng: np.random.Generator) -> None:
    df = np.full(400, 4.0)
    alike = 2.0 * rng.chisquare(4, 400) / 4
    shrunk, degrees = moderated(alike, df)
    assert np.ptp(shrunk) < 0.2 * np.ptp(alike)
    true = 8 * 2.0 / rng.chisquare(8, 4000)  # scaled inverse χ² of 8 degrees: s₀² = 2
    found, degrees = moderated(true * rng.chisquare(4, 4000) / 4, np.full(4000, 4.0))
    assert degrees[0] == pytest.approx((4 + 8) * 4 / 6, rel=0.15)
    bare = true * rng.chisquare(4, 4000) / 4
    assert np.mean((np.log(found) - np.log(true)) ** 2) < 0.8 * np.mean((np.log(bare) - np.log(true)) ** 2)


def test_a_setting_with_one_seed_takes_the_common_variance() -> None:
    model = Model(groups([1.0, 2.0, 3.0], [4.0, 5.5, 6.0], [9.0]))
    estimate = model.estimate({"c": 1, "a": -1})
    assert math.isfinite(estimate.se)
    assert estimate.df <= 4
    alone = Model(groups([9.0], [4.0])).estimate({"a": 1, "b": -1})
    assert math.isnan(p_of(alone))
    assert math.isnan(alone.interval(0.95).low)


def crossed(seeds: int, images: int, settings: int, rng: np.random.Generator) -> dict[str, Group]:
    """Settings whose scores have effects of seed, image (shared in part) and both."""
    common = rng.normal(0, 1, images)
    found = {}
    for at in range(settings):
        own = common + rng.normal(0, 0.5, images)
        scores = rng.normal(0, 0.1, (seeds, 1)) + own + rng.normal(0, 1.0, (seeds, images))
        found[chr(ord("a") + at)] = Group(scores.mean(1), tuple(range(seeds)), scores)
    return found


def test_the_variance_of_a_difference_is_right_for_new_seeds_and_new_images() -> None:
    rng = np.random.default_rng(0)
    differences, variances, inside = [], [], 0
    for _ in range(1500):
        model = Model(crossed(5, 60, 3, rng))
        estimate = model.estimate({"a": 1, "b": -1})
        differences.append(estimate.value)
        variances.append(estimate.se**2)
        low, high = estimate.interval(0.95)
        inside += low <= 0 <= high
    assert np.mean(variances) == pytest.approx(np.var(differences), rel=0.1)
    assert inside / 1500 == pytest.approx(0.95, abs=0.015)


def test_pairing_is_used_where_seeds_matter_and_not_elsewhere() -> None:
    rng = np.random.default_rng(1)
    by_seed = rng.normal(0, 1, 6)
    rows = [by_seed + rng.normal(i, 0.2, 6) for i in range(3)]
    model = Model(groups(*rows))
    assert model.pairing is not None
    assert model.pairing.used
    assert 0.8 < model.pairing.low < model.pairing.r < model.pairing.high
    d = model.estimate({"a": 1, "b": -1})
    assert d.se == pytest.approx(stats.sem(rows[0] - rows[1]), rel=0.5)
    assert d.se < 0.5 * Model(groups(*(rng.permutation(row) for row in rows))).estimate({"a": 1, "b": -1}).se
    independent = [Model(groups(*rng.normal(0, 1, (3, 6)))).pairing for _ in range(400)]
    assert np.mean([pairing.p < 0.05 for pairing in independent if pairing]) == pytest.approx(0.05, abs=0.03)
    assert not any(pairing.used for pairing in independent if pairing), "0.4 of 400 are expected"
    other = Model({"a": Group(rows[0], (0, 1, 2, 3, 4, 5)), "b": Group(rows[1], (1, 2, 3, 4, 5, 6))})
    assert other.pairing is None, "partly matching seeds: all runs count, as independent"
    assert other.estimate({"a": 1, "b": -1}).value == pytest.approx(rows[0].mean() - rows[1].mean())


# Links


@pytest.mark.parametrize("values", [([0.99, 0.7], [0.98, 0.96]), ([0.999, 0.9985, 1.0], [0.5, 0.1, 0.9])])
def test_intervals_of_accuracies_stay_within_their_range(values: tuple[list[float], list[float]]) -> None:
    model = Model(groups(*values), "logit", 1e-4)
    for name in "ab":
        low, high = model.estimate({name: 1}).interval(0.95)
        assert 0 <= low < model.means["ab".index(name)] < high <= 1
    low, high = model.estimate({"a": 1, "b": -1}).interval(0.95)
    assert -1 <= low < high <= 1


@pytest.mark.parametrize("link", ["identity", "log", "logit"])
def test_an_interval_holds_the_values_that_its_test_does_not_reject(link: str, rng: np.random.Generator) -> None:
    values = 1 / (1 + np.exp(-rng.normal(2, 0.3, (3, 5))))
    model = Model(groups(*values), link)  # type: ignore[arg-type]
    for contrast in ({"a": 1.0, "b": -1.0}, {"a": 1.0}, {"a": 0.5, "b": 0.5, "c": -1.0}):
        estimate = model.estimate(contrast)
        low, high = estimate.interval(0.95)
        assert low < estimate.value < high
        assert [p_of(estimate, end) for end in (low, high)] == pytest.approx([0.05, 0.05])
        assert p_of(estimate, estimate.value) == pytest.approx(1)
        assert estimate.moved(0.0) == pytest.approx(estimate.value)
        step = 1e-6
        assert (estimate.moved(step) - estimate.moved(-step)) / (2 * step) == pytest.approx(1, rel=1e-4)
        of_range = partial(Question, estimate, of_range=True)
        assert Question(estimate, low, high).p == pytest.approx((p_of(estimate), 0.025))
        assert of_range(high, high).p[0] == pytest.approx(0.05)
        assert 0.025 < of_range(high, high + estimate.se).p[0] < 0.05
        assert of_range(low, high).p[0] > 0.5


def test_a_ratio_of_errors() -> None:
    errors = [0.02, 0.022, 0.018], [0.01, 0.011, 0.009]
    estimate = Model(groups(*errors), "logit", 1e-4).estimate({"a": 1, "b": -1})
    assert estimate.ratio(of_errors=False) == pytest.approx(2)
    of_accuracies = Model(groups(*([1 - x for x in row] for row in errors)), "logit", 1e-4).estimate({"a": 1, "b": -1})
    assert of_accuracies.ratio(of_errors=True) == pytest.approx(2)


# Families


def test_one_hypothesis_per_group_is_holms_method(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    monkeypatch.setattr(gc, "collect", lambda: 0)  # multipletests calls it, which takes a second among many tests
    for _ in range(50):
        p = rng.uniform(size=rng.integers(1, 9)) ** 3
        expected = multipletests(p, method="holm")[1]
        assert [each for (each,) in holm([(float(x),) for x in p])] == pytest.approx(expected.tolist())
    assert holm([]) == []
    [(nan, one)] = holm([(math.nan, 0.02)])
    assert math.isnan(nan)
    assert one == 0.02
    assert holm([(0.001, 0.004), (0.02, 0.9)]) == [(0.002, 0.008), (0.02, 0.9)], "each group counts once"


def test_every_rejection_is_one_of_closed_testing(rng: np.random.Generator) -> None:
    """Whatever intersection a rejected hypothesis is part of, Bonferroni's test rejects it too."""
    for _ in range(300):
        p = [tuple(rng.uniform(size=2) ** 4) for _ in range(rng.integers(1, 5))]
        adjusted = holm(p)
        for true in itertools.product((None, 0, 1), repeat=len(p)):  # at most one of each group is true
            some = [(group, at) for group, at in enumerate(true) if at is not None]
            if any(adjusted[group][at] <= 0.05 for group, at in some):
                assert min(p[group][at] for group, at in some) <= 0.05 / len(some) + 1e-12


def test_verdicts() -> None:
    near, far = [0.991, 0.992, 0.993, 0.992, 0.992], [0.972, 0.973, 0.974, 0.973, 0.973]
    model = Model(groups(near, near[::-1], far), "logit", 1e-4)

    def verdict(of: str, against: str, low: float, high: float, **more: bool) -> str:
        question = Question(model.estimate({of: 1, against: -1}), low, high, **more)
        [decision] = decide([question])
        return decision.verdict

    assert verdict("a", "c", -0.005, 0.005) == "better"
    assert verdict("c", "a", -0.005, 0.005) == "worse"
    assert verdict("c", "a", -0.005, 0.005, higher_is_better=False) == "better"
    assert verdict("a", "b", -0.005, 0.005) == "equivalent"
    assert verdict("a", "b", -1e-5, 1e-5) == "undecided"
    assert verdict("a", "c", -0.05, 0.05) == "less than the margin"
    assert verdict("a", "c", 0.01, 0.03, of_range=True) == "holds"
    assert verdict("a", "c", 0.03, 0.05, of_range=True) == "fails"
    assert verdict("a", "b", math.nan, math.nan) == "undecided"
    assert decide([Joint(9.0, (2, 20), 0.001)])[0].verdict == "depends"


MARGIN, SD = 0.001, 0.0005  # accuracies of MNIST


def test_an_interaction_is_equivalent_if_every_part_is() -> None:
    model = Model(groups([0.991, 0.992, 0.993], [0.992, 0.991, 0.993], [0.991, 0.993, 0.992]), "logit", 1e-4)
    pairs = [{"a": 1.0, "b": -1.0}, {"a": 1.0, "c": -1.0}]
    parts = tuple(Question(model.estimate(pair), -0.01, 0.01) for pair in pairs)
    joint = Joint(*model.joint(pairs), parts)
    assert joint.p[1] == max(part.p[1] for part in parts)
    assert decide([joint])[0].verdict == "equivalent"
    assert joint.verdict([True, True]) == "less than the margin"


@pytest.mark.parametrize("link", ["identity", "logit"])
def test_the_sd_of_runs_is_in_the_outcomes_unit(link: Link) -> None:
    """Of settings that vary alike; one with a single run says nothing."""
    assert Model(groups([0.48, 0.52], [0.49, 0.53], [0.6]), link).sd() == pytest.approx(0.04 / math.sqrt(2), rel=1e-3)
    assert math.isnan(Model(groups([0.48], [0.53]), link).sd())


def test_what_images_bring_to_a_difference(rng: np.random.Generator) -> None:
    """Of one seed each, the variance of a difference by images is that of the images' own differences."""
    scores = rng.integers(0, 2, size=(3, 1, 50)).astype(float)
    scores[1, 0, :40] = scores[0, 0, :40]  # two settings that are much alike
    pairs = [(a[0], b[0]) for a, b in itertools.combinations(scores, 2)]
    variances, apart = [np.var(a - b, ddof=1) / 50 for a, b in pairs], [abs(a.mean() - b.mean()) for a, b in pairs]
    for several, expected in ((3, sum(variances) / sum(apart)), (2, variances[0] / apart[0])):
        model = Model(groups(*(scores[:several].mean(2)), scores=[*scores[:several]]))
        assert spread(model)[1:] == pytest.approx((expected, 50))
    alike = Model(groups([0.5], [0.5], scores=[scores[0], scores[0]]))
    assert spread(alike)[1:] == (0, 50)
    assert spread(Model(groups([0.5], [0.4])))[1:] == (0, math.inf), "no image has a score"
    assert spread(Model(groups([0.5], scores=[scores[0]])))[1:] == (0, math.inf), "no difference"


@pytest.mark.parametrize(("of_images", "images"), [(0.0, math.inf), (0.2, math.inf), (0.2, 6)])
def test_enough_seeds_are_the_fewest_with_the_power(of_images: float, images: float) -> None:
    """By the noncentral t distribution of scipy.stats; with few images their variance is itself uncertain."""
    sd, margin, settings, level = 1.0, 4.0, 3, 0.01

    def power(n: int) -> float:
        seeds, df_seeds = 2 * sd**2 / n, settings * (n - 1) ** 2 / (n + 1)
        df = (seeds + of_images) ** 2 / (seeds**2 / df_seeds + of_images**2 / (images - 1))
        return float(stats.nct.sf(stats.t.isf(level / 2, df), df, margin / math.sqrt(seeds + of_images)))

    found = int(enough_seeds(sd, margin, settings, level, of_images, images))
    assert power(found) >= 0.8 > power(found - 1)


def test_what_is_said_of_a_study_takes_its_images_along() -> None:
    """Three settings know other images each; every seed of a setting gets one image more or less."""
    scores = [np.abs(np.roll([1.0, 1, 1, 1, 0, 0, 0, 0], 2 * i) - np.eye(4, 8, i)) for i in range(3)]
    model = Model(groups(*(each.mean(1) for each in scores), scores=scores))
    sd, of_images, size = spread(model)
    assert size == 8
    assert of_images > 0
    assert seeds_needed(model, 0.9, 2) == enough_seeds(sd, 0.9, 3, 0.025, 0.9 * of_images, 8)


def test_seeds_needed_give_the_power_that_they_promise() -> None:
    rng = np.random.default_rng(3)
    model = Model(groups(*(0.99 + SD * rng.normal(size=(4, 40)))), "identity", 1e-4)
    n = int(seeds_needed(model, MARGIN, 6))
    found = 0
    for _ in range(400):
        rows = 0.99 + SD * rng.normal(size=(4, n))
        rows[0] += MARGIN
        estimate = Model(groups(*rows), "identity", 1e-4).estimate({"a": 1, "b": -1})
        found += p_of(estimate) < 0.05 / 6
    assert found / 400 == pytest.approx(0.82, abs=0.08)
    assert math.isnan(seeds_needed(Model(groups([1.0], [2.0])), 0.1, 1)), "without a standard deviation"


def test_letters_of_tiers(rng: np.random.Generator) -> None:
    rows = [10 + rng.normal(0, 0.1, 8), 10.02 + rng.normal(0, 0.1, 8), 5 + rng.normal(0, 0.1, 8)]
    assert tiers(Model(groups(*rows)), ["a", "b", "c"]) == ["a", "a", "b"]
    assert tiers(Model(groups([1.0], [2.0])), ["a", "b"]) == ["a", "a"], "nothing is known of their spread"
    rows = [np.array([0.0, 1, 2, 3]) + 2.2 * i for i in range(3)]
    assert tiers(Model(groups(*rows)), ["c", "b", "a"]) == ["a", "ab", "b"]


# Looking again and again


def test_looks_begin_with_three_seeds_and_end_with_the_most_and_one_is_the_ordinary_test() -> None:
    assert looks(10) == [3, 4, 5, 6, 7, 8, 9, 10]
    assert looks(60)[-1] == 60
    assert len(looks(60)) < 25
    assert looks(2) == [2]
    assert sequential_p([0.013], [3], 3) == pytest.approx(0.013, rel=1e-3)


def test_repeated_looks_reject_no_more_often_than_one() -> None:
    """Brownian motion at the looks of a study of 40 seeds; and most of the level is used."""
    rng = np.random.default_rng(5)
    every = looks(40)
    steps = np.sqrt(np.diff(every, prepend=0)) * rng.normal(size=(40_000, len(every)))
    p = stats.norm.sf(np.cumsum(steps, axis=1) / np.sqrt(every))
    assert np.mean(sequential_p(p.T, every, 40) <= 0.05) == pytest.approx(0.05, abs=0.005)
    from normlab.analysis.sequential import LEVELS, POWER, _boundaries

    table = _boundaries(tuple(n / 40 for n in every), POWER)
    for level in (0.001, 0.01, 0.05):
        nominal = [np.exp(np.interp(np.log(level), np.log(LEVELS), np.log(of))) for of in table]
        assert np.mean((p <= nominal).any(axis=1)) == pytest.approx(level, rel=0.15, abs=2e-4)
