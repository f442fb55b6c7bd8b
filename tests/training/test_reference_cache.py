"""Reference log-probabilities: computed once, found whatever the order, of one reference."""

import logging

import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.training.reference_cache import ReferenceCache

PROMPT = np.asarray([[5, 6, 1, 0], [7, 1, 0, 0], [8, 9, 10, 1]])
COMPLETION = np.asarray([[[11, 1, 0], [12, 13, 1]], [[14, 15, 16], [1, 0, 0]], [[17, 1, 0]] * 2])


class Reference:
    """A made-up log-probability, and a count of how often it was asked."""

    def __init__(self, scale=1.0):
        self.scale = scale
        self.calls = 0

    def __call__(self, prompt, completion):
        def score():
            self.calls += 1
            sums = prompt.sum(axis=1)[:, None] * 0.125 + completion.sum(axis=2) * 0.25
            return jnp.asarray(-self.scale * sums, jnp.float32)

        return score


@pytest.fixture
def reference():
    return Reference()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "reference.npz"


def look(cache, reference, rows, padding=0):
    prompt = np.pad(PROMPT[rows], ((0, 0), (0, padding)))
    completion = np.pad(COMPLETION[rows], ((0, 0), (0, 0), (0, padding)))
    return np.asarray(cache.lookup(prompt, completion, reference(prompt, completion)))


def test_each_completion_is_scored_once_whatever_the_order_and_padding(reference, file):
    cache = ReferenceCache(file, "mu")
    expected = look(cache, reference, [0, 1])
    assert reference.calls == 1
    np.testing.assert_array_equal(look(cache, reference, [1, 0], padding=3), expected[::-1])
    assert reference.calls == 1
    mixed = look(cache, reference, [1, 2])  # one row is new
    assert reference.calls == 2
    np.testing.assert_array_equal(mixed[0], expected[1])
    look(cache, reference, [2, 1, 0])
    assert reference.calls == 2
    assert len(cache) == 5  # the third prompt's completions are equal


def test_known_values_stay_to_the_bit(reference, file):
    cache = ReferenceCache(file, "mu")
    expected = look(cache, reference, [0])
    nearly = Reference(1.0 + 1e-5)  # rounding of another batch
    np.testing.assert_array_equal(look(cache, nearly, [0, 1])[0], expected[0])
    np.testing.assert_array_equal(look(cache, nearly, [0])[0], expected[0])


def test_a_resumed_run_asks_nothing_twice(reference, file):
    cache = ReferenceCache(file, "mu")
    expected = look(cache, reference, [0, 1, 2])
    cache.save()
    again, resumed = Reference(), ReferenceCache(file, "mu")
    assert len(resumed) == 5
    np.testing.assert_array_equal(look(resumed, again, [2, 1]), expected[[2, 1]])
    look(resumed, again, [0])
    assert again.calls == 0


def test_a_file_of_another_reference_is_dropped(reference, file, caplog):
    cache = ReferenceCache(file, "mu")
    look(cache, reference, [0, 1])
    cache.save()
    with caplog.at_level(logging.WARNING):
        resumed = ReferenceCache(file, "another mu")
    assert "another reference" in caplog.text
    assert len(resumed) == 0
    look(resumed, other := Reference(1.5), [0, 1])
    assert other.calls == 1


def test_a_damaged_file_is_computed_anew(reference, file, caplog):
    file.write_bytes(b"PK\x03\x04 cut")
    with caplog.at_level(logging.WARNING):
        cache = ReferenceCache(file, "mu")
    assert len(cache) == 0
    assert "cannot be read" in caplog.text
    look(cache, reference, [0])
    cache.save()
    assert len(ReferenceCache(file, "mu")) == 2
