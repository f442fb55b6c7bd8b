"""Parameters that differ anywhere have another fingerprint, and nothing else has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.checkpoints.fingerprint import fingerprint
from po_jax.partitioning import make_partitioner

DTYPES = ["float32", "bfloat16", "float16", "int32", "uint8"]


def tree(dtype="float32"):
    values = np.arange(1, 1 + 8 * 4 * 16)
    return {
        "decoder": {"kernel": jnp.asarray(values.reshape(8, 4, 16) % 127, dtype)},
        "scale": jnp.asarray(values[:8] % 127, dtype),
    }


NAMES = {"decoder": {"kernel": ("embed", None, "mlp")}, "scale": ("embed",)}


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_parameters_have_one_fingerprint_on_any_mesh(dtype):
    expected = fingerprint(tree(dtype))
    for partitions, parameter_dims, devices in ((1, 1, 1), (8, 1, 8), (2, 2, 8), (4, 2, 8)):
        partitioner = make_partitioner(
            partitions, parameter_dims=parameter_dims, devices=jax.devices()[:devices]
        )
        shardings = partitioner.shardings(tree(dtype), NAMES)
        placed = jax.device_put(tree(dtype), shardings)
        if (partitions, parameter_dims) == (2, 2):
            assert placed["decoder"]["kernel"].addressable_shards[0].data.shape == (2, 4, 8)
        assert fingerprint(placed) == expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_of_every_value_counts(dtype):
    """The lowest and the highest bit of a value, anywhere."""
    expected = fingerprint(tree(dtype))
    whole = np.asarray(tree(dtype)["decoder"]["kernel"])
    width = 8 * whole.dtype.itemsize
    seen = {expected}
    for place in ((0, 0, 0), (7, 3, 15), (3, 2, 1)):
        for bit in (0, width // 2, width - 1):
            bits = whole.copy().view(f"uint{width}")
            bits[place] ^= bits.dtype.type(1 << bit)
            changed = {**tree(dtype), "decoder": {"kernel": jnp.asarray(bits.view(whole.dtype))}}
            seen.add(fingerprint(changed))
    assert len(seen) == 1 + 3 * 3


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_values_that_change_places_count(axis):
    kernel = np.array(tree()["decoder"]["kernel"])
    places = [(1, 1, 1), tuple(1 + (i == axis) for i in range(3))]
    kernel[places[0]], kernel[places[1]] = kernel[places[1]], kernel[places[0]]
    changed = {**tree(), "decoder": {"kernel": jnp.asarray(kernel)}}
    assert fingerprint(changed) != fingerprint(tree())


def test_slices_that_change_places_count():
    kernel = tree()["decoder"]["kernel"]
    found = {fingerprint(tree())}
    for axis in range(3):
        found.add(fingerprint({**tree(), "decoder": {"kernel": jnp.flip(kernel, axis)}}))
        found.add(fingerprint({**tree(), "decoder": {"kernel": jnp.roll(kernel, 1, axis)}}))
    assert len(found) == 7


def test_names_shapes_and_dtypes_count():
    zeros = jnp.zeros((4, 6))
    variants = [
        {"a": zeros, "b": zeros},
        {"a": zeros, "c": zeros},
        {"a": {"b": zeros}, "b": zeros},
        {"a": zeros},
        {"a": zeros, "b": zeros.reshape(6, 4)},
        {"a": zeros, "b": zeros.astype(jnp.bfloat16)},
        {"a": zeros, "b": zeros.astype(jnp.float16)},
        {"a": zeros, "b": zeros.astype(jnp.int32)},
        {"a": zeros, "b": -zeros},
    ]
    assert len({fingerprint(variant) for variant in variants}) == len(variants)


def test_leaves_that_change_places_count():
    first, second = jnp.arange(6.0), jnp.arange(6.0) + 1
    assert fingerprint({"a": first, "b": second}) != fingerprint({"a": second, "b": first})


def test_arrays_of_the_host_have_the_fingerprint_of_those_on_the_devices():
    assert fingerprint(jax.device_get(tree())) == fingerprint(tree())
