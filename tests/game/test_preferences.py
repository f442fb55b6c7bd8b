import numpy as np
import pytest

from po_jax.game import preferences


@pytest.mark.parametrize(
    "matrix",
    [
        preferences.bradley_terry([0.5, -2.0, 1.0]),
        preferences.additive([0.1, 0.4, -0.1]),
        preferences.cyclic(7, 0.6),
        preferences.random(3, 5),
    ],
)
def test_a_preference_and_its_transpose_sum_to_one(matrix):
    np.testing.assert_allclose(matrix + matrix.T, 1.0, rtol=0, atol=1e-15)
    assert 0.0 <= matrix.min() and matrix.max() <= 1.0


def test_rock_paper_scissors_has_its_table():
    # Paper (1) beats rock (0), scissors (2) beat paper, rock beats scissors.
    expected = [[0.5, 0.1, 0.9], [0.9, 0.5, 0.1], [0.1, 0.9, 0.5]]
    np.testing.assert_allclose(preferences.cyclic(3, 0.8), expected, rtol=0, atol=1e-15)


def test_every_action_of_a_larger_cycle_beats_as_many_as_it_loses_to():
    matrix = preferences.cyclic(7, 1.0)
    assert ((matrix == 1.0).sum(axis=1) == 3).all() and ((matrix == 0.0).sum(axis=1) == 3).all()


def test_bradley_terry_is_the_sigmoid_of_the_difference():
    matrix = preferences.bradley_terry([0.0, 1.0], scale=0.5)
    np.testing.assert_allclose(matrix[1, 0], 1 / (1 + np.exp(-2.0)), rtol=1e-15)


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="odd number"):
        preferences.cyclic(4)
    with pytest.raises(ValueError, match=r"strength in \[0, 1\], got 1.5"):
        preferences.cyclic(3, 1.5)
    with pytest.raises(ValueError, match="within 1/2"):
        preferences.additive([0.0, 0.6])
