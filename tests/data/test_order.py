"""The order against what is asked of it: coverage, shares, independence of where one starts."""

import numpy as np
import pytest

from po_jax.data.order import DataOrder


def test_every_epoch_holds_every_row_once_and_in_another_order():
    order = DataOrder([103], [1.0], seed=3)
    epochs = [order.take(103 * epoch, 103)[0] for epoch in range(3)]
    for rows in epochs:
        assert sorted(rows) == list(range(103))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[1], epochs[2])


def test_any_part_is_what_an_uninterrupted_reader_sees():
    rows, flips = DataOrder([7, 5], [1.0, 3.0], seed=11).take(0, 200)
    for start, count in ((0, 1), (11, 2), (12, 50), (199, 1), (3, 187)):
        part = DataOrder([7, 5], [1.0, 3.0], seed=11).take(start, count)
        np.testing.assert_array_equal(part[0], rows[start : start + count])
        np.testing.assert_array_equal(part[1], flips[start : start + count])


def test_seeds_differ():
    first, second = (DataOrder([103], [1.0], seed=seed).take(0, 103) for seed in (0, 1))
    assert not np.array_equal(first[0], second[0])
    assert not np.array_equal(first[1], second[1])


def test_each_task_has_the_share_of_its_rate_and_wears_its_rows_evenly():
    sizes, rates = [40, 100, 60], [3.0, 1.0, 1.0]
    rows, _ = DataOrder(sizes, rates, seed=5).take(0, 10 * 200)
    counts = np.bincount(rows, minlength=200)
    starts = np.cumsum([0, *sizes])
    shares = [counts[a:b].sum() for a, b in zip(starts, starts[1:], strict=False)]
    assert shares == [1200, 400, 400]  # 3/5, 1/5 and 1/5 of 2000
    for a, b in zip(starts, starts[1:], strict=False):
        assert np.ptp(counts[a:b]) <= 1  # its own permutations, one after the other
    first = rows[:200]
    assert sum(first < 40) == 120


def test_flips_are_fair_and_new_in_every_epoch():
    order = DataOrder([10_000], [1.0], seed=0)
    first, second = (order.take(10_000 * epoch, 10_000)[1] for epoch in range(2))
    # Binomial(10000, 1/2) has a standard deviation of 50; a fair coin fails with p < 1e-4.
    assert abs(first.sum() - 5000) < 4 * 50
    assert abs((first == second).sum() - 5000) < 4 * 50


@pytest.mark.parametrize("size", [1, 2])
def test_a_take_may_span_many_epochs(size):
    rows, flips = DataOrder([size], [1.0], seed=2).take(size, 5 * size)
    assert np.bincount(rows).tolist() == [5] * size
    assert len(flips) == 5 * size
