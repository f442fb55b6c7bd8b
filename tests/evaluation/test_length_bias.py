"""What a win rate owes to length, on preferences that were made with a known share of it."""

import numpy as np
import pytest
from scipy import optimize

from po_jax.evaluation.intervals import win_rate
from po_jax.evaluation.length_bias import length_controlled, nearly_equal

RNG = np.random.default_rng(7)
DIFFERENCE = RNG.normal(4.0, 9.0, 600)


def odds(difference, a, b):
    return 1.0 / (1.0 + np.exp(-(a + b * np.tanh(difference / difference.std()))))


@pytest.mark.parametrize("hard", [True, False])
def test_it_is_the_fit_of_a_general_optimiser(hard):
    preference = odds(DIFFERENCE, 0.3, 1.4)
    if hard:
        preference = (RNG.uniform(size=600) < preference).astype(float)
    else:
        preference = np.clip(preference + RNG.normal(0.0, 0.1, 600), 0.0, 1.0)

    def loss(fit):
        rate = odds(DIFFERENCE, *fit)
        return -np.sum(preference * np.log(rate) + (1.0 - preference) * np.log1p(-rate))

    best = optimize.minimize(loss, np.zeros(2), tol=1e-12).x
    found = length_controlled(preference, DIFFERENCE)
    assert found.mean == pytest.approx(1.0 / (1.0 + np.exp(-best[0])), abs=1e-5)


def test_what_is_length_alone_is_no_win():
    preference = odds(DIFFERENCE, 0.0, 2.0)  # a longer answer wins, whoever gave it
    assert win_rate(preference).low > 0.55
    assert length_controlled(preference, DIFFERENCE).mean == pytest.approx(0.5, abs=1e-9)


def test_its_interval_covers_the_truth_19_times_in_20():
    rng = np.random.default_rng(11)
    truth, covered, runs = 1.0 / (1.0 + np.exp(-0.4)), 0, 400
    for _ in range(runs):
        difference = rng.normal(2.0, 5.0, 200)
        difference *= 5.0 / difference.std()  # so that the true slope is the same in every run
        label = (rng.uniform(size=200) < odds(difference, 0.4, 1.0)).astype(float)
        found = length_controlled(label, difference)
        covered += found.low <= truth <= found.high
    # Binomial: 400 times 0.95 has a standard deviation of 4.4; p < 1e-4 beyond these.
    assert 362 <= covered <= 397


def test_where_there_is_no_answer():
    labels = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    assert length_controlled(labels, np.full(5, 3.0)) is None
    difference = np.array([-3.0, 1.0, 2.0, -1.0, 4.0])
    assert length_controlled(labels, difference) is None  # the longer answer always won
    assert length_controlled(np.ones(5), difference) is None
    assert length_controlled(np.zeros(5), difference) is None


def test_nearly_equal_lengths():
    length, other = np.array([10, 10, 20, 11, 5, 9]), np.array([9, 12, 22, 11, 5, 10])
    preference = np.array([1.0, 0.0, 1.0, 0.5, 1.0, 0.25])
    assert nearly_equal(preference, length, other) == win_rate(preference[[0, 2, 3, 4, 5]])
    assert nearly_equal(preference[:2], length[:2], other[:2]) is None
