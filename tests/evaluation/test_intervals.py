"""Intervals against scipy, closed forms, and their coverage by simulation."""

import numpy as np
import pytest
from scipy import stats

from po_jax.evaluation.intervals import Z, mean_interval, win_rate

TRIALS = 4000
# With 4000 trials the coverage of a true 95% interval is within 0.95 +- 0.0134 except with
# p = 1e-4. Score intervals are approximate at finite n, so half a point is allowed on top.
TOLERANCE = 0.0134 + 0.005


@pytest.mark.parametrize(("wins", "n"), [(0, 7), (3, 7), (7, 7), (129, 200), (1, 1000)])
def test_hard_labels_give_wilsons_interval(wins, n):
    rate = win_rate(np.array([1.0] * wins + [0.0] * (n - wins)))
    expected = stats.binomtest(wins, n).proportion_ci(method="wilson")
    assert rate.mean == pytest.approx(wins / n)
    assert (rate.low, rate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert (rate.n, rate.ties) == (n, 0.0)


def hard(rng, shape):
    return (rng.random(shape) < 0.63).astype(float), 0.63


def with_ties(rng, shape):
    # Won 0.45, lost 0.25, tied 0.30.
    return rng.choice([1.0, 0.0, 0.5], shape, p=[0.45, 0.25, 0.30]), 0.60


def soft(rng, shape):
    return rng.beta(3.0, 2.0, shape), 0.6


def nearly_always_won(rng, shape):
    return rng.choice([1.0, 0.5, 0.0], shape, p=[0.90, 0.05, 0.05]), 0.925


@pytest.mark.parametrize("judge", [hard, with_ties, soft, nearly_always_won])
@pytest.mark.parametrize("n", [60, 240])
def test_win_rate_interval_covers_the_truth(judge, n):
    preferences, truth = judge(np.random.default_rng(5), (TRIALS, n))
    rates = [win_rate(preference) for preference in preferences]
    coverage = np.mean([rate.low <= truth <= rate.high for rate in rates])
    assert abs(coverage - 0.95) < TOLERANCE
    for rate in rates:
        assert 0.0 <= rate.low <= rate.mean + 1e-12
        assert rate.mean - 1e-12 <= rate.high <= 1.0


def test_ties_narrow_the_interval():
    tied = win_rate(np.array([1.0, 0.0, 0.5, 0.5, 0.5, 0.5]))
    untied = win_rate(np.array([1.0, 0.0, 1.0, 0.0, 1.0, 0.0]))
    assert tied.mean == untied.mean == 0.5
    assert tied.high - tied.low < untied.high - untied.low
    assert tied.ties == pytest.approx(4 / 6)


def test_the_two_sides_of_a_match_mirror_each_other():
    preference = np.random.default_rng(0).beta(2.0, 3.0, 31)
    mine, yours = win_rate(preference), win_rate(1.0 - preference)
    assert (mine.low, mine.high) == pytest.approx((1.0 - yours.high, 1.0 - yours.low))


def test_mean_interval_is_the_normal_one():
    values = np.array([2.0, 3.0, 5.0, 7.0])
    found = mean_interval(values)
    assert found.mean == 4.25
    assert found.standard_error == pytest.approx(stats.sem(values))
    assert found.high - found.mean == pytest.approx(Z * stats.sem(values))
    assert found.mean - found.low == pytest.approx(Z * stats.sem(values))


def test_mean_interval_covers_the_truth():
    values = np.random.default_rng(7).exponential(2.0, (TRIALS, 240))
    found = [mean_interval(row) for row in values]
    assert abs(np.mean([x.low <= 2.0 <= x.high for x in found]) - 0.95) < TOLERANCE


def test_bad_values_are_named():
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 0.5 to 1.25"):
        win_rate(np.array([0.5, 1.25]))
    with pytest.raises(ValueError, match="at least 2 prompts, got 1"):
        mean_interval(np.array([1.0]))
    with pytest.raises(ValueError, match="got nan at prompt 2"):
        mean_interval(np.array([1.0, 2.0, np.nan]))
