"""Differences and verdicts: closed forms, published examples, properties, and error rates by simulation."""

import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from normlab.analysis.stats import (
    Comparison,
    Difference,
    Floats,
    _flip_p,
    _interval,
    _one_sample,
    _tost_p,
    _two_samples,
    _two_sided_p,
    compare,
    holm,
    paired,
    probability_of_improvement,
    seeds_needed,
    sign_flip,
    summarise,
    tost,
    welch,
)

# Student (1908), after Cushny and Peebles: hours of sleep that two drugs gave ten patients.
SLEEP_1 = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
SLEEP_2 = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
# Darwin (1876), as in Fisher (1935): cross- less self-fertilised maize, eighths of an inch.
MAIZE = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48])
SE_5 = math.sqrt(0.05 * 0.95)  # of a rate of 5 %, times √repetitions

numbers = st.floats(-100, 100)
samples = arrays(float, st.integers(2, 9), elements=numbers)
spread_out = samples.filter(lambda x: x.std() > 1e-3)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def by_seed(*values: float, first: int = 0) -> dict[int, float]:
    return dict(enumerate(values, first))


def one(a: dict[int, float], b: dict[int, float], margin: float = 0.05, **options: object) -> Comparison:
    (found,) = compare([(a, b)], margin=margin, rng=rng(), **options)
    return found


# summarise


def test_summary_by_hand() -> None:
    """1, 2, 3, 4, 100: mean 22; the interquartile mean leaves out the 1 and the 100."""
    found = summarise([100, 2, 1, 4, 3])
    sd = math.sqrt((21**2 + 20**2 + 19**2 + 18**2 + 78**2) / 4)
    half = 2.7764451051977987 * sd / math.sqrt(5)  # the 97.5 % point of t with 4 degrees of freedom, from tables
    assert (found.n, found.mean, found.iqm) == (5, 22, 3)
    assert (found.sd, found.low, found.high) == pytest.approx((sd, 22 - half, 22 + half))


@pytest.mark.parametrize(("n", "cut"), [(1, 0), (3, 0), (4, 1), (7, 1), (8, 2), (10, 2)])
def test_interquartile_mean_cuts_a_quarter_of_each_end(n: int, cut: int) -> None:
    values = rng().normal(size=n) ** 3
    assert summarise(values).iqm == pytest.approx(np.sort(values)[cut : n - cut].mean())


def test_summary_of_one_seed() -> None:
    found = summarise([99.4])
    assert (found.n, found.mean, found.iqm) == (1, 99.4, 99.4)
    assert np.isnan([found.sd, found.low, found.high]).all()


@given(values=spread_out, confidence=st.floats(0.5, 0.999))
@settings(deadline=None, max_examples=50)
def test_summary_and_paired_are_scipys_one_sample_test(values: Floats, confidence: float) -> None:
    reference = stats.ttest_1samp(values, 0)
    low, high = reference.confidence_interval(confidence)
    summary, difference = summarise(values, confidence), paired(values, confidence)
    for found in (summary, difference):
        assert (found.mean, found.sd) == pytest.approx((values.mean(), values.std(ddof=1)), rel=1e-9, abs=1e-9)
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9, abs=1e-9)
    assert difference.p == pytest.approx(reference.pvalue)
    assert (difference.se, difference.df) == (pytest.approx(stats.sem(values)), values.size - 1)


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], [1.0, math.nan], [math.inf], 3.0])
def test_what_is_not_a_sample_is_refused(values: object) -> None:
    calls = (
        summarise,
        paired,
        lambda x: sign_flip(x, rng()),
        lambda x: welch([1.0, 2.0], x),
        lambda x: welch(x, [1.0, 2.0]),
        lambda x: probability_of_improvement(x, [1.0]),
    )
    for call in calls:
        with pytest.raises(ValueError, match="finite numbers in one dimension"):
            call(values)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_confidence_is_a_probability(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1"):
        summarise([1.0, 2.0], confidence)


# paired, welch


def test_students_sleep_data() -> None:
    """As R prints them (t.test on its data set `sleep`), paired and by Welch."""
    found = paired(SLEEP_1 - SLEEP_2)
    assert (found.method, found.n, found.df) == ("paired", 10, 9)
    assert found.mean / found.se == pytest.approx(-4.0621, abs=5e-5)
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    assert (found.mean, found.low, found.high) == pytest.approx((-1.58, -2.4598858, -0.7001142), abs=5e-8)
    assert found.sd == found.sds[0] == pytest.approx(np.std(SLEEP_1 - SLEEP_2, ddof=1))

    found = welch(SLEEP_1, SLEEP_2)
    assert (found.method, found.n) == ("welch", (10, 10))
    assert found.mean / found.se == pytest.approx(-1.8608, abs=5e-5)
    assert found.df == pytest.approx(17.776, abs=5e-4)
    assert found.p == pytest.approx(0.07939, abs=5e-6)
    assert (found.low, found.high) == pytest.approx((-3.3654832, 0.2054832), abs=5e-8)
    assert found.sds == pytest.approx((SLEEP_1.std(ddof=1), SLEEP_2.std(ddof=1)))
    assert found.sd == pytest.approx(math.sqrt(SLEEP_1.var(ddof=1) + SLEEP_2.var(ddof=1)))


@given(a=spread_out, b=samples, confidence=st.floats(0.5, 0.999))
@settings(deadline=None, max_examples=50)
def test_welch_is_scipys(a: Floats, b: Floats, confidence: float) -> None:
    """Unequal sizes and spreads; b may have next to none."""
    b = b.round(3)
    with warnings.catch_warnings(action="ignore"):  # of a b whose values are all the same
        reference = stats.ttest_ind(a, b, equal_var=False)
        low, high = reference.confidence_interval(confidence)
    found = welch(a, b, confidence)
    assert (found.p, found.df) == pytest.approx((reference.pvalue, reference.df))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9, abs=1e-6)


@given(a=samples, b=samples)
@settings(deadline=None, max_examples=50)
def test_order_of_a_pair_changes_only_signs(a: Floats, b: Floats) -> None:
    n = min(a.size, b.size)
    for there, back in ((welch(a, b), welch(b, a)), (paired(a[:n] - b[:n]), paired(b[:n] - a[:n]))):
        assert (there.mean, there.low, there.high) == (-back.mean, -back.high, -back.low)
        assert there.p == back.p
        assert tost(there, 1) == tost(back, 1)


def test_a_single_seed_gives_the_mean_and_no_more() -> None:
    for found, mean in ((paired([0.3]), 0.3), (welch([1.0], [3.0, 4.0]), -2.5), (welch([3.0, 4.0], [1.0]), 2.5)):
        assert found.mean == mean
        assert np.isnan([found.sd, *found.sds, found.se, found.df, found.low, found.high, found.p]).all()
        assert math.isnan(tost(found, 0.05))
        assert seeds_needed(found, 0.05, 0.05) is None


def test_no_spread_and_no_difference() -> None:
    for found in (paired(np.zeros(5)), paired([1e-17, 0, -1e-17, 0, 0]), welch([99.4, 99.4], [99.4, 99.4, 99.4])):
        assert (found.mean, found.se, found.low, found.high, found.p) == (0, 0, 0, 0, 1)


def test_no_spread_and_a_difference() -> None:
    """Seeds 0 … 4 all 0.06 pp apart: t would be infinite and p 0; the sign flips' 2 / 2^5 is what can be said."""
    d = np.array([99.45 - 99.39, 9.45 - 9.39, 50.06 - 50.0, 0.07 - 0.01, 20.07 - 20.01])
    assert d.std(ddof=1) > 0  # about 1e-15, by rounding alone
    found = paired(d)
    assert found.p == 2 / 2**5 == sign_flip(d, rng()).p
    assert (found.sd, found.se, found.df) == (0, 0, 4)
    assert found.low == found.mean == found.high == pytest.approx(0.06)


def test_no_spread_on_either_side_of_welch() -> None:
    """Of the C(5, 2) = 10 ways to deal five values out, one puts both of A's where they are."""
    found = welch([99.4, 99.4], [99.1, 99.1, 99.1])
    assert found.p == 2 / 10
    assert found.low == found.mean == found.high == pytest.approx(0.3)
    assert math.isnan(found.df)
    one_sided = welch([1.0, 1.0], [1.0, 2.0, 3.0])
    assert (one_sided.df, one_sided.se) == (2, pytest.approx(1 / math.sqrt(3)))


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_small_spread_is_still_spread(size: float) -> None:
    """Only what is below 1e-9·max(1, |values|) is taken for rounding."""
    values = np.array([1.0, 2.0, 4.0]) * size
    assert paired(values).p == pytest.approx(stats.ttest_1samp([1, 2, 4], 0).pvalue)


# sign_flip


def flips_one_by_one(d: Floats) -> float:
    """By definition, and over fractions of 1/1024, which do not round."""
    sums = [sum(s * x for s, x in zip(signs, d, strict=True)) for signs in itertools.product((-1, 1), repeat=len(d))]
    return float(np.mean([abs(total) >= abs(sum(d)) for total in sums]))


@given(d=st.lists(st.integers(-1024, 1024), min_size=1, max_size=8))
@settings(deadline=None, max_examples=60)
def test_sign_flips_one_by_one(d: list[int]) -> None:
    exact = np.array(d) / 1024
    found = sign_flip(exact, rng())
    assert found.p == flips_one_by_one(exact)
    assert (found.exact, found.flips) == (True, 2 ** len(d))
    assert found.p >= 2 / 2 ** len(d)
    assert sign_flip(exact * 0.1, rng()).p == found.p  # now they do round, and ties must stay ties


def test_maize() -> None:
    """Fisher's count is 863 of 32,768 on one side; t gives p = 0.0497."""
    found = sign_flip(MAIZE / 8, rng())
    assert found.p == 2 * 863 / 32768
    assert (found.exact, found.flips) == (True, 32768)
    assert paired(MAIZE / 8).p == pytest.approx(0.0497, abs=5e-5)


def test_sign_flip_is_scipys_permutation_test() -> None:
    d = rng(3).normal(0.4, 1, 9)
    reference = stats.permutation_test(
        (d,), lambda x, axis: x.mean(axis), permutation_type="samples", vectorized=True, n_resamples=2**9
    )
    assert sign_flip(d, rng()).p == pytest.approx(reference.pvalue, abs=1e-12)


def test_ties_that_only_rounding_parts() -> None:
    """0.1 + 0.2 - 0.3 is 5.6e-17 and -0.3 + 0.2 + 0.1 is 2.8e-17; both are 0, and no flip is nearer."""
    assert 0.1 + 0.2 - 0.3 != 0
    assert sign_flip([0.1, 0.2, -0.3], rng()).p == 1
    assert sign_flip([0.0, 0.0, 0.0], rng()).p == 1


def test_random_flips_when_there_are_too_many() -> None:
    found = sign_flip(MAIZE / 8, rng(), limit=2**14)
    assert (found.exact, found.flips) == (False, 65535)
    exact = 1726 / 32768
    assert found.p == pytest.approx(exact, abs=4 * math.sqrt(exact / 65535))
    assert found.p != exact
    assert found == sign_flip(MAIZE / 8, rng(), limit=2**14)
    assert found != sign_flip(MAIZE / 8, rng(1), limit=2**14)
    assert sign_flip(np.ones(40), rng(), draws=99).p == 1 / 100  # no draw is as extreme: never 0
    assert sign_flip(np.ones(16), rng()).exact
    assert not sign_flip(np.ones(17), rng()).exact
    with pytest.raises(ValueError, match="draws must be at least 1, not 0"):
        sign_flip(np.ones(17), rng(), draws=0)


# holm


def test_holm_by_hand() -> None:
    """Sorted 0.005·4, 0.01·3, 0.03·2, 0.04·1: the last, 0.04, may not fall below the 0.06 before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == pytest.approx([1, 1])
    assert holm([0.02]) == pytest.approx([0.02])
    assert holm([]).shape == (0,)


def test_holm_passes_over_nan() -> None:
    found = holm([math.nan, 0.01, math.nan, 0.04, 0.03])
    np.testing.assert_allclose(found, [math.nan, 0.03, math.nan, 0.06, 0.06])
    np.testing.assert_array_equal(holm([math.nan, math.nan]), [math.nan, math.nan])


@given(p=arrays(float, st.integers(1, 8), elements=st.floats(0, 1)), alpha=st.floats(0.001, 0.5))
@settings(deadline=None, max_examples=100)
def test_holm_rejects_as_its_step_down_does(p: Floats, alpha: float) -> None:
    """Smallest first, against α/m, α/(m-1), …, until one stands."""
    rejected = np.zeros(p.size, dtype=bool)
    for step, i in enumerate(np.argsort(p)):
        if p[i] * (p.size - step) >= alpha:
            break
        rejected[i] = True
    found = holm(p)
    assert ((found < alpha) == rejected).all()
    assert (found >= p).all()
    assert (found <= np.minimum(1, p.size * p)).all()  # never more cautious than Bonferroni
    np.testing.assert_array_equal(holm(p[::-1]), found[::-1])


@pytest.mark.parametrize("p", [[0.1, -0.01], [1.01], [math.nan, 2.0]])
def test_holm_wants_probabilities(p: list[float]) -> None:
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\]"):
        holm(p)


# tost


@given(d=spread_out, margin=st.floats(0.01, 100))
@settings(deadline=None, max_examples=60)
def test_tost_is_two_one_sided_tests(d: Floats, margin: float) -> None:
    lower = stats.ttest_1samp(d, -margin, alternative="greater").pvalue
    upper = stats.ttest_1samp(d, margin, alternative="less").pvalue
    assert tost(paired(d), margin) == pytest.approx(max(lower, upper))


@given(a=spread_out, b=spread_out, margin=st.floats(0.01, 100))
@settings(deadline=None, max_examples=60)
def test_tost_rejects_where_the_90_per_cent_interval_lies_inside(a: Floats, b: Floats, margin: float) -> None:
    for found in (paired(a, 0.9), welch(a, b, 0.9)):
        p = tost(found, margin)
        if abs(p - 0.05) > 1e-9:
            assert (p < 0.05) == (-margin < found.low and found.high < margin)


def test_tost_in_closed_form() -> None:
    """With df = 1, t is Cauchy's: P(T > x) = 1/2 - atan(x)/π. d = 0, 2: mean 1, se 1, margin 3, x = 2."""
    assert tost(paired([0.0, 2.0]), 3) == pytest.approx(0.5 - math.atan(2) / math.pi)
    assert tost(paired([0.0, 2.0]), 1) == pytest.approx(0.5)


def test_tost_without_spread() -> None:
    assert tost(paired(np.zeros(5)), 0.05) == 1 / 2**5
    assert tost(paired(np.full(5, -0.04)), 0.05) == 1 / 2**5
    assert tost(paired(np.full(5, 0.06)), 0.05) == 1
    assert tost(welch([1.0, 1.0], [1.0, 1.0, 1.0]), 0.05) == 1 / 10
    assert 99.50 - 99.45 < 0.05  # by rounding alone: on the margin, which is not within it
    assert tost(paired([99.50 - 99.45] * 5), 0.05) == 1


@pytest.mark.parametrize("margin", [0.0, -0.05, math.nan, math.inf])
def test_margin_is_positive(margin: float) -> None:
    difference = paired([0.1, 0.2])
    for call in (
        lambda: tost(difference, margin),
        lambda: seeds_needed(difference, margin, 0.05),
        lambda: one(by_seed(1, 2), by_seed(1, 2), margin),
    ):
        with pytest.raises(ValueError, match="margin must be positive"):
            call()


# probability_of_improvement


def test_probability_of_improvement_by_hand() -> None:
    """3 > 1, 3 > 2, 3 = 3, 2 > 1, 2 = 2, 2 < 3: 3 wins and 2 ties of 6."""
    assert probability_of_improvement([3, 2], [1, 2, 3]) == pytest.approx(4 / 6)
    assert probability_of_improvement([1.0], [0.0]) == 1
    assert probability_of_improvement([0.0], [1.0]) == 0
    assert probability_of_improvement([5.0, 5.0], [5.0]) == 0.5


@given(a=arrays(int, st.integers(1, 9), elements=st.integers(0, 5)), b=arrays(int, 4, elements=st.integers(0, 5)))
@settings(deadline=None, max_examples=50)
def test_probability_of_improvement_is_mann_and_whitneys_u(a: Floats, b: Floats) -> None:
    found = probability_of_improvement(a, b)
    with warnings.catch_warnings(action="ignore"):  # of values that are all the same: its p, not its U, is undefined
        assert found == pytest.approx(stats.mannwhitneyu(a, b, method="asymptotic").statistic / (a.size * b.size))
    assert found + probability_of_improvement(b, a) == pytest.approx(1)


# seeds_needed


def seen(mean: float, *sds: float) -> Difference:
    """A difference as if it had been measured; seeds_needed looks at mean, sds and whether se is 0."""
    method, n = ("paired", 5) if len(sds) == 1 else ("welch", (5, 5))
    return Difference(mean, sds, math.hypot(*sds) / math.sqrt(5), 4, -9, 9, 0.5, method, n)


@pytest.mark.parametrize(
    ("difference", "n"),
    [
        (seen(0.5, 1.0), 34),
        (seen(-0.5, 1.0), 34),
        (seen(0.8, 1.0), 15),
        (seen(0.5, 1.0, 1.0), 64),
        (seen(0.8, 1.0, 1.0), 26),
        (seen(0.2, 1.0, 1.0), 394),
    ],
)
def test_sample_sizes_as_g_power_gives_them(difference: Difference, n: int) -> None:
    """α = 0.05, two-sided, power 0.8 (Cohen 1988 and G*Power); the margin is too narrow to matter."""
    assert seeds_needed(difference, 1e-6, 0.05) == n


@given(
    mean=st.floats(-1, 1),
    sds=st.lists(st.floats(0.05, 1), min_size=1, max_size=2),
    margin=st.floats(0.02, 2),
    alpha=st.sampled_from([0.05, 0.05 / 15]),
)
@settings(deadline=None, max_examples=100)
def test_seeds_needed_is_the_smallest_with_the_power(
    mean: float, sds: list[float], margin: float, alpha: float
) -> None:
    """The stated formulas with scipy's noncentral t, at n and at n - 1."""

    def power(n: int) -> float:
        v = np.square(sds)
        se, df = math.sqrt(sum(v) / n), (n - 1) * sum(v) ** 2 / sum(v**2)
        detects = stats.nct.sf(stats.t.isf(alpha / 2, df), df, abs(mean) / se)
        t = stats.t.isf(alpha, df)
        sides = [stats.nct.sf(t, df, (margin + mean) / se), stats.nct.sf(t, df, (margin - mean) / se)]
        return max(detects, sum(sides) - 1 if abs(mean) < margin else 0)

    n = seeds_needed(seen(mean, *sds), margin, alpha, limit=3000)
    if n is None:
        assert power(3000) < 0.8 + 1e-9
    else:
        assert power(n) >= 0.8 - 1e-9
        assert n == 2 or power(n - 1) < 0.8 + 1e-9


def test_equivalence_may_need_fewer_seeds() -> None:
    wide, narrow = (seeds_needed(seen(0.1, 1.0), margin, 0.05) for margin in (1.0, 1e-6))
    assert narrow == 787  # what d = 0.1 needs
    assert wide == 11


def test_limit_of_seeds_needed() -> None:
    assert seeds_needed(seen(0.0, 1.0), 1e-3, 0.05) is None
    assert seeds_needed(seen(0.5, 1.0), 1e-6, 0.05, limit=33) is None
    assert seeds_needed(seen(0.5, 1.0), 1e-6, 0.05, limit=34) == 34
    assert seeds_needed(seen(1e9, 1e-6), 1e-6, 0.05) == 2


def test_seeds_needed_without_spread() -> None:
    """2 / 2^n < 0.05 from 6 on, 1 / 2^n from 5 on; 1 / C(2n, n) from 3 on, twice that from 4 on."""
    assert seeds_needed(paired([0.06, 0.06]), 0.05, 0.05) == 6
    assert seeds_needed(paired([0.04, 0.04]), 0.05, 0.05) == 5
    assert seeds_needed(paired([0.0, 0.0]), 0.05, 0.05) == 5
    assert seeds_needed(welch([1.0, 1.0], [1.0, 1.0]), 0.05, 0.05) == 4  # 1 / C(6, 3) is 0.05, not below it
    assert seeds_needed(welch([2.0, 2.0], [1.0, 1.0]), 0.05, 0.05) == 4
    assert seeds_needed(paired([0.06, 0.06]), 0.05, 0.05, limit=5) is None


@pytest.mark.parametrize(("alpha", "power"), [(0, 0.8), (1, 0.8), (0.05, 0), (0.05, 1)])
def test_alpha_and_power_are_probabilities(alpha: float, power: float) -> None:
    with pytest.raises(ValueError, match="alpha and power must lie between 0 and 1"):
        seeds_needed(seen(0.5, 1.0), 0.05, alpha, power)


# compare


def test_seeds_pair_where_two_are_shared() -> None:
    """Seeds 1, 2 and 3 are shared: 0 and 9 are left out, and order of entry does not matter."""
    a, b = {3: 5.0, 0: 100.0, 1: 2.0, 2: 4.0}, {2: 1.0, 1: 1.0, 3: 3.0, 9: -100.0}
    found = one(a, b)
    assert found.difference == paired([1.0, 3.0, 2.0])
    assert found.sign_flip == sign_flip([1.0, 3.0, 2.0], rng())
    assert found.improvement == probability_of_improvement([2.0, 4.0, 5.0], [1.0, 1.0, 3.0])


@pytest.mark.parametrize("first", [4, 5])
def test_seeds_that_do_not_pair(first: int) -> None:
    """One shared seed is as good as none."""
    a, b = by_seed(1, 2, 4, 8, 16), by_seed(1, 3, 9, first=first)
    found = one(a, b)
    assert found.difference == welch([1, 2, 4, 8, 16], [1, 3, 9])
    assert found.sign_flip is None
    assert found.improvement == probability_of_improvement([1, 2, 4, 8, 16], [1, 3, 9])


@pytest.mark.parametrize(("a", "b"), [({0: 1.0}, {0: 2.0}), ({0: 1.0}, {1: 2.0, 2: 3.0}), ({5: 1.0}, {6: 1.0})])
def test_a_single_seed_decides_nothing(a: dict[int, float], b: dict[int, float]) -> None:
    found = one(a, b, margin=100)
    assert (found.verdict, found.seeds_needed, found.sign_flip) == ("undecided", None, None)
    assert np.isnan([found.p_holm, found.p_equivalence, found.p_equivalence_holm, found.difference.p]).all()


NOISE_5 = np.array([-0.02, -0.01, 0.0, 0.01, 0.02])


@pytest.mark.parametrize(
    ("shift", "margin", "verdict", "lower"),
    [
        (0.5, 0.05, "better", "worse"),
        (-0.5, 0.05, "worse", "better"),
        (0.0, 0.05, "equivalent", "equivalent"),
        (0.03, 0.1, "equivalent", "equivalent"),  # not zero (p = 0.013), and inside the margin: of no practical matter
        (0.01, 0.015, "undecided", "undecided"),
    ],
)
def test_verdicts(shift: float, margin: float, verdict: str, lower: str) -> None:
    a, b = by_seed(*(99.4 + shift + NOISE_5)), by_seed(*np.full(5, 99.4))
    found = one(a, b, margin)
    assert (found.verdict, one(a, b, margin, higher_is_better=False).verdict) == (verdict, lower)
    assert (found.seeds_needed is not None) == (verdict == "undecided")
    if shift == 0.03:
        assert found.p_holm < 0.05


@pytest.mark.parametrize(("margin", "verdict"), [(0.01, "better"), (0.1, "equivalent")])
def test_alpha_is_where_a_verdict_turns(margin: float, verdict: str) -> None:
    """In a family of two, each adjusted p is twice its own: with alpha just above, the verdict stands; below, not."""
    pair = by_seed(*(99.43 + NOISE_5)), by_seed(*np.full(5, 99.4))
    other = by_seed(*(99.5 + 50 * NOISE_5)), by_seed(*np.full(5, 99.4))

    def at(alpha: float) -> Comparison:
        return compare([pair, other], margin=margin, alpha=alpha, rng=rng())[0]

    found = at(0.05)
    p = found.p_holm if verdict == "better" else found.p_equivalence_holm
    assert p == pytest.approx(2 * (found.difference.p if verdict == "better" else found.p_equivalence))
    assert at(p * 1.001).verdict == verdict
    assert at(p * 0.999).verdict == "undecided"


def test_improvement_follows_what_is_better() -> None:
    a, b = by_seed(3, 2), by_seed(1, 2)
    assert one(a, b).improvement == 0.875
    assert one(a, b, higher_is_better=False).improvement == 0.125


def test_a_family_is_adjusted_as_one() -> None:
    """The same pair alone is decided; among fifteen it is not, and its seeds needed are those at α / 15."""
    draw = rng(1)
    family = [(by_seed(*draw.normal(99.4, 0.05, 5)), by_seed(*draw.normal(99.4, 0.05, 5))) for _ in range(14)]
    a, b = by_seed(*(99.5 + 2 * NOISE_5)), by_seed(*np.full(5, 99.45))
    alone, *_, among = one(a, b), *compare([*family, (a, b)], margin=0.05, rng=rng())
    found = compare([*family, (a, b)], margin=0.05, rng=rng())

    assert alone.verdict == "better"
    assert among.verdict == "undecided"
    assert among.difference == alone.difference
    assert among.seeds_needed == seeds_needed(among.difference, 0.05, 0.05 / 15)
    assert among.seeds_needed > 5
    np.testing.assert_array_equal([c.p_holm for c in found], holm([c.difference.p for c in found]))
    np.testing.assert_array_equal([c.p_equivalence for c in found], [tost(c.difference, 0.05) for c in found])
    np.testing.assert_array_equal([c.p_equivalence_holm for c in found], holm([c.p_equivalence for c in found]))


def test_alpha_sets_the_intervals_too() -> None:
    a, b = by_seed(1, 2, 4, 8), by_seed(1, 3, 9, 27)
    assert one(a, b, alpha=0.1).difference == paired([0, -1, -5, -19], 0.9)
    with pytest.raises(ValueError, match="alpha must lie between 0 and 1"):
        one(a, b, alpha=5)


def test_one_undefined_pair_spoils_no_other() -> None:
    pair = by_seed(1, 2, 4, 8), by_seed(1, 3, 9, 27)
    found = compare([({0: 1.0}, {0: 1.0}), pair], margin=0.05, rng=rng())
    assert found[1].p_holm == one(*pair).p_holm
    assert compare([], margin=0.05, rng=rng()) == []


def test_sides_that_cannot_be_compared() -> None:
    for side in ({}, {0: math.nan, 1: 1.0}):
        with pytest.raises(ValueError, match="values must be one or more finite numbers"):
            one(side, by_seed(1, 2))


# Error rates, by simulation with the formulas that are shipped


@pytest.mark.parametrize("n", [5, 10])
def test_coverage_of_the_t_interval(n: int) -> None:
    """summarise and paired: a 95 % interval covers the true mean in 95 % of 40,000 studies, Monte Carlo sd 0.11 pp."""
    x = rng(n).normal(0.06, 0.05, (40_000, n))
    low, high = _interval(*_one_sample(x), 0.95)
    covers = (low <= 0.06) & (high >= 0.06)
    assert covers.mean() == pytest.approx(0.95, abs=0.004)
    for row in (0, 1, 2):
        for found in (summarise(x[row]), paired(x[row])):
            assert (found.low, found.high) == pytest.approx((low[row], high[row]))


@pytest.mark.parametrize("sds", [(1.0, 1.0), (1.0, 3.0)], ids=["equal", "unequal"])
@pytest.mark.parametrize("n", [5, 10])
def test_coverage_of_welchs_interval(n: int, sds: tuple[float, float]) -> None:
    """Welch's df is an approximation: 94 to 96 % is what it promises."""
    draw = rng(n)
    a, b = draw.normal(0.06, sds[0], (40_000, n)), draw.normal(0, sds[1], (40_000, n))
    low, high = _interval(*_two_samples(a, b), 0.95)
    assert 0.94 < ((low <= 0.06) & (high >= 0.06)).mean() < 0.96
    found = welch(a[0], b[0])
    assert (found.low, found.high) == pytest.approx((low[0], high[0]))


@pytest.mark.parametrize("means", [(0, 0, 0, 0, 0, 0), (0, 0, 0, 5, 5, 5), (0, 0, 1, 2, 3, 4)], ids=str)
def test_family_wise_error_of_holm(means: tuple[int, ...]) -> None:
    """15 pairs of 6 settings over 5 shared seeds: how often any true null is rejected, in 20,000 studies, at 5 %."""
    studies = 20_000
    draw = rng(6)
    values = np.array(means)[:, None] + draw.normal(size=(studies, 6, 5)) + draw.normal(size=(studies, 1, 5))
    first, second = np.triu_indices(6, 1)
    p = _two_sided_p(*_one_sample(values[:, first] - values[:, second]))
    null = np.array(means)[first] == np.array(means)[second]
    limit = 0.05 + 3 * SE_5 / math.sqrt(studies)
    assert (holm(p) < 0.05)[:, null].any(axis=1).mean() <= limit
    if null.sum() > 1:
        assert (p < 0.05)[:, null].any(axis=1).mean() > 1.5 * limit  # what Holm's adjustment is for


@pytest.mark.parametrize("mean", [-0.05, 0.05])
@pytest.mark.parametrize("sd", [0.02, 0.05, 0.2])
def test_false_equivalence_of_tost(mean: float, sd: float) -> None:
    """True difference on the margin, 5 pairs, 40,000 studies: at most 5 % are called equivalent; 5 % at small sd."""
    studies = 40_000
    d = rng(7).normal(mean, sd, (studies, 5))
    p = _tost_p(*_one_sample(d), 0.05)
    rate, slack = (p < 0.05).mean(), 3 * SE_5 / math.sqrt(studies)
    assert rate <= 0.05 + slack
    if sd == 0.02:
        assert rate >= 0.05 - slack
    assert p[0] == pytest.approx(tost(paired(d[0]), 0.05))


@pytest.mark.parametrize("kind", ["normal", "laplace"])
def test_size_of_the_sign_flip_test(kind: str) -> None:
    """8 symmetric differences: p takes the values 2k/256, so the chance of p ≤ 0.05 is exactly 12/256 = 4.7 %."""
    studies = 20_000
    d = getattr(rng(8), kind)(0, 1, (studies, 8))
    p = _flip_p(d)
    assert (p <= 0.05).mean() == pytest.approx(12 / 256, abs=3 * SE_5 / math.sqrt(studies))
    assert p[:3] == pytest.approx([sign_flip(row, rng()).p for row in d[:3]])
    assert _flip_p(d[:, :5] + 100).max() == _flip_p(d[:, :5]).min() == 2 / 2**5  # no p is smaller, none needs be larger


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 15])
@pytest.mark.parametrize("sds", [(1.0,), (1.0, 1.0), (0.5, 1.5)], ids=["paired", "welch", "welch unequal"])
def test_power_to_detect_at_the_seeds_needed(sds: tuple[float, ...], alpha: float) -> None:
    """20,000 studies of that size find the difference in about 80 % (Monte Carlo sd 0.3 pp); n is whole: a bit more."""
    n = seeds_needed(seen(0.5, *sds), 1e-6, alpha)
    draw = rng(9)
    x = [draw.normal(mean, sd, (20_000, n)) for mean, sd in zip((0.5, 0.0), sds, strict=False)]
    p = _two_sided_p(*(_one_sample(*x) if len(x) == 1 else _two_samples(*x)))
    assert 0.78 < (p < alpha).mean() < 0.83


@pytest.mark.parametrize("mean", [0.0, 0.1])
@pytest.mark.parametrize("sds", [(1.0,), (0.5, 1.5)], ids=["paired", "welch"])
def test_power_to_show_equivalence_at_the_seeds_needed(sds: tuple[float, ...], mean: float) -> None:
    n = seeds_needed(seen(mean, *sds), 0.4, 0.05)
    draw = rng(10)
    x = [draw.normal(true, sd, (20_000, n)) for true, sd in zip((mean, 0.0), sds, strict=False)]
    p = _tost_p(*(_one_sample(*x) if len(x) == 1 else _two_samples(*x)), 0.4)
    assert 0.78 < (p < 0.05).mean() < 0.83
