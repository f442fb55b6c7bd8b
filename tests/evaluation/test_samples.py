"""Facts about samples, against enumeration."""

import numpy as np
import pytest

from po_jax.evaluation.samples import Samples, sequence_kl


def test_kl_of_draws_from_a_known_policy():
    policy, reference = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.4, 0.3, 0.2, 0.1])
    drawn = np.random.default_rng(3).choice(4, 5000, p=policy)
    samples = Samples(
        drawn[:, None],
        np.ones((5000, 1), bool),
        ("",) * 5000,
        np.log(policy[drawn]),
        np.log(reference[drawn]),
    )
    kl = sequence_kl(samples)
    exact = np.sum(policy * np.log(policy / reference))
    spread = np.sqrt(np.sum(policy * np.log(policy / reference) ** 2) - exact**2)
    assert kl.standard_error == pytest.approx(spread / np.sqrt(5000), rel=0.05)
    # A z-score of 3.9 has p = 1e-4.
    assert abs(kl.mean - exact) < 3.9 * kl.standard_error


def test_lengths_and_endings():
    completion = np.array([[5, 7, 1, 0, 0], [5, 7, 9, 9, 5], [1, 0, 0, 0, 0]])
    samples = Samples(completion, completion > 0, ("five seven", "five seven nine", ""))
    np.testing.assert_array_equal(samples.lengths(), [3, 5, 1])
    np.testing.assert_array_equal(samples.ended(), [True, False, True])
    np.testing.assert_array_equal(samples.ended(eos_id=9), [False, True, False])
    assert sequence_kl(samples) is None
