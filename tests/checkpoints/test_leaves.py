"""Rearranged leaves against NumPy: every block is what it would be of the array in memory."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.checkpoints import leaves as lazy

RNG = np.random.default_rng(1)


def leaf(*shape):
    value = RNG.normal(size=shape).astype(np.float32)
    return value, lazy.from_array(value, "here")


def assert_blocks(found, expected):
    """Compares the whole, and every combination of two slices an axis."""
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert found.nbytes == expected.nbytes
    np.testing.assert_array_equal(found.value(), expected)
    halves = [(slice(0, (n + 1) // 2), slice(n // 3, n)) for n in expected.shape]
    for block in itertools.product(*halves):
        np.testing.assert_array_equal(found.read(block), expected[block], str(block))


def test_transposed():
    value, source = leaf(3, 5, 7)
    assert_blocks(lazy.transposed(source), value.T)


@pytest.mark.parametrize("axis", [0, 1])
def test_joined_and_split(axis):
    value, source = leaf(3, 5, 7)
    shape = (15, 7) if axis == 0 else (3, 35)
    joined = lazy.joined(source, axis)
    assert_blocks(joined, value.reshape(shape))
    assert_blocks(lazy.split(joined, axis, value.shape[axis + 1]), value)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_stacked_and_unstacked(axis):
    values, sources = zip(*(leaf(3, 5) for _ in range(4)), strict=True)
    stacked = lazy.stacked(sources, axis)
    assert_blocks(stacked, np.stack(values, axis))
    parts = lazy.unstacked(stacked, axis, lazy.LastRead())
    assert len(parts) == 4
    for part, value in zip(parts, values, strict=True):
        assert_blocks(part, value)


def test_parts_of_one_array_read_it_once():
    value, source = leaf(2, 6, 3)
    reads = []

    def read(block):
        reads.append(block)
        return source.read(block)

    counted = lazy.Leaf(source.shape, source.dtype, source.where, read)
    named = {f"layer_{i}": p for i, p in enumerate(lazy.unstacked(counted, 1, lazy.LastRead()))}
    for name in lazy.in_reading_order(named):
        named[name].value()
    assert len(reads) == 1


def test_cast():
    value, source = leaf(3, 5)
    assert lazy.cast(source, "float32") is source
    assert_blocks(lazy.cast(source, "bfloat16"), value.astype(jnp.bfloat16))


def test_overflow_is_reported_and_not_written():
    value = np.asarray([[1.0, -7e4], [np.inf, 2.0]], np.float32)
    narrow = lazy.cast(lazy.from_array(value, "file: mlp/wo/kernel"), "float16")
    with pytest.raises(ValueError, match=r"wo/kernel: .* fit float16 .*65504.* magnitude 70000"):
        narrow.value()
    # What was infinite already did not overflow, and bfloat16 has float32's range.
    assert np.isinf(lazy.cast(lazy.from_array(value[1:], ""), "float16").value()).sum() == 1
    assert np.isfinite(lazy.cast(lazy.from_array(value[:1], ""), "bfloat16").value()).all()
