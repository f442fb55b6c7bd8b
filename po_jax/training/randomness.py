"""Random keys: one root key a run, told apart by step and by purpose, so that resuming is exact."""

import zlib

import jax
from jaxtyping import Array, Int, PRNGKeyArray


def purpose_key(root: PRNGKeyArray, step: int | Int[Array, ""], purpose: str) -> PRNGKeyArray:
    """The key of one purpose ("dropout", "sample", ...) at one step."""
    return jax.random.fold_in(jax.random.fold_in(root, step), zlib.crc32(purpose.encode()))
