"""Whether arrays fit the devices, told before a compiler or an allocator gives up on them."""

import math
import os
from typing import Any

import jax


def require_memory(like: Any, what: str) -> None:
    """Holds the size of arrays against the memory that their devices have in all.

    Args:
      like: a tree of `jax.ShapeDtypeStruct` with shardings.
      what: they are, for messages.

    Raises:
      ValueError: if they cannot fit, even with nothing beside them.
    """
    leaves = jax.tree.leaves(like)
    devices = leaves[0].sharding.addressable_devices
    needed = sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves
    )
    available = min(_memory(device, len(devices)) for device in devices)
    if needed > available:
        largest = max(leaves, key=lambda leaf: math.prod(leaf.shape))
        raise ValueError(
            f"{what}: expected at most {_text(available)} on each of {len(devices)} devices, got "
            f"{_text(needed)}, the largest array of shape {largest.shape}"
        )


def _memory(device: jax.Device, sharing: int) -> int | float:
    """Bytes of a device; a CPU's are the machine's, which its devices share."""
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is not None:
        return limit
    if device.platform != "cpu":
        return math.inf
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / sharing


def _text(size: int | float) -> str:
    return f"{size / 2**30:.1f} GiB"
