"""What tells one set of parameters from another, down to the last bit."""

import hashlib

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32
import numpy as np

from po_jax.partitioning import collect
from po_jax.types import Params

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}  # by bytes of an element


def fingerprint(params: Params) -> str:
    """A hash of names, shapes, dtypes and values; it does not depend on how they are sharded.

    The values are read on the devices: sums of their bits, weighed by their places, in integers,
    which add up to the same in any order.
    """
    sums = collect(_sums(params))
    digest = hashlib.blake2b(digest_size=16)
    for (path, leaf), total in zip(
        jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(sums), strict=True
    ):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        digest.update(f"{name} {leaf.shape} {leaf.dtype} ".encode() + np.asarray(total).tobytes())
    return digest.hexdigest()


@jax.jit
def _sums(params: Params):
    return jax.tree.map(_sum, params)


def _sum(x: Array) -> UInt32[Array, "2"]:
    bits = jax.lax.bitcast_convert_type(x, _UNSIGNED[x.dtype.itemsize]).astype(jnp.uint32)
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis in range(x.ndim):
        step = jnp.uint32(2 * (2654435761 * (axis + 1) % 2**31))
        place = place + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * step
    mixed = (bits ^ (bits >> 15)) * jnp.uint32(2246822519)
    odd = jnp.uint32(1)  # an odd weight loses no bit
    return jnp.stack(
        [jnp.sum(bits * (place + odd)), jnp.sum((mixed ^ (mixed >> 13)) * (place + odd))]
    )
