"""Arrays of a checkpoint that are not read yet.

A `Leaf` knows its shape and dtype and reads any block of itself on demand. Readers make leaves from
files, the functions below rearrange them without touching data, and loaders or writers pull blocks
through the whole chain. So a conversion never holds more than one leaf in host memory, and a
sharded load reads, where the format permits, no more than the shards need.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Block = tuple[slice, ...]  # One slice an axis, step 1, bounds within the shape.


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array of a checkpoint.

    Attributes:
      shape: of the whole array.
      dtype: of what `read` returns.
      where: file or directory, and the array's name inside it; for messages and reading order.
      read: returns a block of the array; may raise ValueError on damaged files.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    where: str
    read: Callable[[Block], np.ndarray]

    def value(self) -> np.ndarray:
        """The whole array."""
        return self.read(tuple(slice(0, n) for n in self.shape))

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


Leaves = Mapping[str, Leaf]  # By their path in the tree, joined with "/".


def from_array(value: np.ndarray | np.generic | jax.Array, where: str) -> Leaf:
    """A leaf over an array in memory."""
    return Leaf(value.shape, np.dtype(value.dtype), where, lambda block: np.asarray(value[block]))


def transposed(leaf: Leaf) -> Leaf:
    """The leaf with its axes in reverse order."""
    return Leaf(leaf.shape[::-1], leaf.dtype, leaf.where, lambda block: leaf.read(block[::-1]).T)


def joined(leaf: Leaf, axis: int) -> Leaf:
    """The leaf with `axis` and the next one made one; any block reads all of it."""
    size = leaf.shape[axis] * leaf.shape[axis + 1]
    shape = (*leaf.shape[:axis], size, *leaf.shape[axis + 2 :])
    return dataclasses.replace(
        leaf, shape=shape, read=lambda block: leaf.value().reshape(shape)[block]
    )


def split(leaf: Leaf, axis: int, width: int) -> Leaf:
    """The leaf with `axis` made two, the second of `width`: undoes `joined`."""

    def read(block: Block) -> np.ndarray:
        outer, inner = block[axis : axis + 2]
        whole = slice(outer.start * width, outer.stop * width)
        value = leaf.read((*block[:axis], whole, *block[axis + 2 :]))
        shape = (*value.shape[:axis], outer.stop - outer.start, width, *value.shape[axis + 1 :])
        return value.reshape(shape)[(slice(None),) * (axis + 1) + (inner,)]

    shape = (*leaf.shape[:axis], leaf.shape[axis] // width, width, *leaf.shape[axis + 1 :])
    return Leaf(shape, leaf.dtype, leaf.where, read)


def cast(leaf: Leaf, dtype: Any) -> Leaf:
    """The leaf in another dtype.

    Raises (when read):
      ValueError: if a finite value overflows in `dtype`.
    """
    dtype = jnp.dtype(dtype)
    if dtype == leaf.dtype:
        return leaf

    def read(block: Block) -> np.ndarray:
        value = leaf.read(block)
        with np.errstate(over="ignore"):
            result = value.astype(dtype)
        if jnp.issubdtype(dtype, jnp.floating):
            lost = np.isfinite(value) & ~np.isfinite(result)
            if lost.any():
                worst = np.abs(value[lost].astype(np.float64)).max()
                raise ValueError(
                    f"{leaf.where}: expected values that fit {dtype.name} (largest "
                    f"{float(jnp.finfo(dtype).max):.5g}), got one of magnitude {worst:.5g}."
                )
        return result

    return dataclasses.replace(leaf, dtype=dtype, read=read)


def finite(leaf: Leaf) -> Leaf:
    """The leaf, which must hold numbers.

    Raises (when read):
      ValueError: if a value is infinite or no number.
    """

    def read(block: Block) -> np.ndarray:
        value = leaf.read(block)
        if jnp.issubdtype(value.dtype, jnp.floating) and not np.isfinite(value).all():
            bad = value[~np.isfinite(value)]
            raise ValueError(
                f"{leaf.where}: expected finite numbers, got {bad[0]} and {bad.size - 1} more"
            )
        return value

    return dataclasses.replace(leaf, read=read)


def stacked(leaves: Sequence[Leaf], axis: int) -> Leaf:
    """The leaves, all of one shape, along a new axis."""
    first = leaves[0]

    def read(block: Block) -> np.ndarray:
        rest = block[:axis] + block[axis + 1 :]
        return np.stack([leaf.read(rest) for leaf in leaves[block[axis]]], axis)

    shape = (*first.shape[:axis], len(leaves), *first.shape[axis:])
    return Leaf(shape, first.dtype, first.where, read)


def unstacked(leaf: Leaf, axis: int, cache: "LastRead") -> list[Leaf]:
    """The leaves that `stacked` would join; they share one read of the whole where they can."""

    def part(i: int) -> Leaf:
        def read(block: Block) -> np.ndarray:
            return cache.value(leaf).take(i, axis)[block]

        shape = leaf.shape[:axis] + leaf.shape[axis + 1 :]
        return Leaf(shape, leaf.dtype, leaf.where, read)

    return [part(i) for i in range(leaf.shape[axis])]


class LastRead:
    """Remembers the last leaf read in full, for leaves that are cut from one array in turn."""

    def __init__(self):
        self._leaf = None
        self._value = None

    def value(self, leaf: Leaf) -> np.ndarray:
        """The whole leaf, read anew only if another one was asked for in between."""
        if leaf is not self._leaf:
            self._leaf = self._value = None  # Frees the old one before the new one is read.
            self._value = leaf.value()
            self._leaf = leaf
        return self._value


def in_reading_order(leaves: Leaves) -> list[str]:
    """Names, the largest leaves first; parts of one array, which are of one size, together.

    What reading a large leaf takes for a moment is thus taken before the rest fills the memory.
    """
    return sorted(leaves, key=lambda name: (-leaves[name].nbytes, leaves[name].where, name))
