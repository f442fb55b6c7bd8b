"""Random keys: one root key a run, told apart by step and by purpose, so that resuming is exact."""

import zlib

import jax
from jaxtyping import Array, Int, PRNGKeyArray


def root_key(seed: int) -> PRNGKeyArray:
    """The key of all that is random in a run.

    Raises:
      ValueError: if the seed is not in [0, 2^32): JAX would take it for another in silence. T5X's
        None, which means any, is none either: a resumed run would draw other samples.
    """
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"expected a random seed in [0, 2^32), got {seed}")
    return jax.random.key(seed)


def purpose_key(root: PRNGKeyArray, step: int | Int[Array, ""], purpose: str) -> PRNGKeyArray:
    """The key of one purpose ("dropout", "sample", ...) at one step."""
    return jax.random.fold_in(jax.random.fold_in(root, step), zlib.crc32(purpose.encode()))
