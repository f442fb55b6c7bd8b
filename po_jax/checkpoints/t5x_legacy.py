"""T5X's own checkpoint format: an index in msgpack beside one zarr directory an array.

`checkpoint` holds {version, optimizer: {target, state: {step, param_states}}}, whose leaves are
arrays or tensorstore specifications with a path relative to the directory. Older checkpoints are
a single such file with every array inside; the oldest Orbax ones name a directory by a
placeholder string.
"""

from collections.abc import Mapping
from typing import Any

from etils import epath
from flax import serialization
import numpy as np

from po_jax.checkpoints import leaves as lazy
from po_jax.checkpoints import zarr
from po_jax.checkpoints.leaves import Leaf, Leaves

INDEX = "checkpoint"
VERSION = 3
PLACEHOLDER = "PLACEHOLDER://"


def is_legacy(path: epath.Path) -> bool:
    """Whether `path` is a T5X legacy checkpoint: a directory with an index, or one file."""
    return (path / INDEX).is_file() if path.is_dir() else path.is_file()


def read(path: epath.Path) -> Leaves:
    """Leaves by T5X's names, "target/..." and "state/...", opened but not read.

    Raises:
      ValueError: if the index is damaged or not T5X's, or an array of it is absent.
    """
    index = path / INDEX if path.is_dir() else path
    try:
        content = serialization.msgpack_restore(index.read_bytes())
    except Exception as error:  # msgpack raises a dozen unrelated types on a damaged file.
        raise ValueError(f"{index}: expected a complete msgpack index, got: {error!r}") from error
    content = content if isinstance(content, dict) else {}
    tree = content.get("optimizer", content.get("_optimizer"))
    if not isinstance(tree, dict) or "target" not in tree:
        raise ValueError(
            f"{index}: expected T5X's index, a tree {{version, optimizer: {{target, state}}}}, "
            f"got the keys {sorted(content)}."
        )
    values = dict(_flat(tree))
    stored = {name: found for name in values if (found := _stored(values[name], name, index))}
    opened = zarr.open_leaves(stored)
    for name in sorted(values.keys() - stored.keys()):
        opened[name] = lazy.from_array(np.asarray(values[name]), f"{index}: {name}")
    return opened


def _flat(tree: Mapping[str, Any], prefix: str = ""):
    for key, value in tree.items():
        if isinstance(value, Mapping) and "driver" not in value:
            yield from _flat(value, f"{prefix}{key}/")
        elif value is not None:
            yield f"{prefix}{key}", value


def _stored(value: Any, name: str, index: epath.Path) -> zarr.Stored | None:
    """Where a value of the index says that its array lies; None for the array itself."""
    if isinstance(value, Mapping):
        # The driver and bucket are those of the machine that wrote it; only the name matters.
        store = value.get("kvstore")
        path = store.get("path") if isinstance(store, Mapping) else None
        if not isinstance(path, str) or not path.strip("/"):
            raise ValueError(
                f"{index}: expected {name} to name its array in kvstore: path, got {value}"
            )
        directory = index.parent / path.rstrip("/").rsplit("/", 1)[-1]
    elif isinstance(value, str) and value.startswith(PLACEHOLDER):
        directory = index.parent / value.removeprefix(PLACEHOLDER)
    else:
        return None
    # Early tensorstores left out chunks of zeros, which fresh optimiser slots are full of.
    sparse = not name.startswith("target/")
    return zarr.Stored(zarr.kvstore(directory), f"{directory}", sparse=sparse)


def write(
    directory: epath.Path, parameters: Leaves, *, slots: Leaves, average: Leaves, step: int
) -> None:
    """Writes T5X's legacy format into an empty directory.

    Args:
      directory: that exists; `new_directory` makes an all-or-nothing one.
      parameters: by their path in the parameter tree.
      slots: Adafactor's, "<path>/v_row" and so on; empty for a model without optimiser.
      average: moving average of the parameters; empty for a run without one.
      step: of training, stored as T5X stores it.
    """
    named = {f"target/{name}": leaf for name, leaf in parameters.items()}
    named |= {f"state/param_states/{name}": leaf for name, leaf in slots.items()}
    named |= {f"flax_mutables/average/{name}": leaf for name, leaf in average.items()}
    # No empty "param_states" without an optimiser: T5X takes an empty tree for an array.
    tree: dict[str, Any] = {"target": {}, "state": {"step": np.int32(step)}}
    for name in lazy.in_reading_order(named):
        leaf = named[name]
        *parents, key = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        # T5X keeps what it does not partition, such as empty slots, inside the index.
        inline = leaf.shape in ((), (1,))
        node[key] = leaf.value() if inline else _write_array(leaf, name, directory)
    content = serialization.msgpack_serialize({"version": VERSION, "optimizer": tree})
    (directory / INDEX).write_bytes(content)


def _write_array(leaf: Leaf, name: str, directory: epath.Path) -> dict[str, Any]:
    folder = name.replace("/", ".")
    metadata = zarr.write_leaf(leaf, directory / folder)
    return {
        "driver": "zarr",
        "dtype": leaf.dtype.name,
        "kvstore": {"driver": "file", "path": f"{folder}/"},
        "metadata": metadata,
    }
