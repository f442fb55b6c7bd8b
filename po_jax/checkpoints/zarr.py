"""Leaves stored as zarr arrays through tensorstore: what T5X and Orbax write."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from etils import epath
import numpy as np
import tensorstore

from po_jax.checkpoints.leaves import Block, Leaf

CHUNK_BYTES = 64 * 2**20  # T5X's bound on the size of a chunk.


def kvstore(path: epath.Path) -> dict[str, Any]:
    """Tensorstore's name for a local or gs:// directory."""
    text = str(path)
    if text.startswith("gs://"):
        bucket, _, rest = text.removeprefix("gs://").partition("/")
        return {"driver": "gcs", "bucket": bucket, "path": rest.rstrip("/") + "/"}
    return {"driver": "file", "path": text.rstrip("/") + "/"}


@dataclasses.dataclass(frozen=True)
class Stored:
    """Where an array is stored, and how.

    Attributes:
      store: tensorstore's specification of the key-value store that holds this one array.
      where: directory and name of the array, for messages.
      driver: `zarr` or `zarr3`.
      sparse: read absent chunks as zeros; otherwise a lost file is an error, not a bad model.
    """

    store: dict[str, Any]
    where: str
    driver: str = "zarr"
    sparse: bool = False


def open_leaves(arrays: Mapping[str, Stored]) -> dict[str, Leaf]:
    """Opens arrays all at once: on gs:// that takes hardly longer than one of them.

    Raises:
      ValueError: if an array is absent; or, when read, a chunk of it is absent or damaged.
    """
    futures = {
        name: tensorstore.open(
            {
                "driver": array.driver,
                "kvstore": array.store,
                "fill_missing_data_reads": array.sparse,
            },
            open=True,
            read=True,
        )
        for name, array in arrays.items()
    }
    return {name: _leaf(future, arrays[name].where) for name, future in futures.items()}


def _leaf(future: tensorstore.Future, where: str) -> Leaf:
    array = _result(future, where)

    def read(block: Block) -> np.ndarray:
        return _result(array[block].read(), where)

    return Leaf(tuple(array.shape), np.dtype(array.dtype.numpy_dtype), where, read)


def _result(future: tensorstore.Future, where: str) -> Any:
    try:
        return future.result()
    except ValueError as error:
        raise ValueError(f"{where}: expected a readable array, got: {error}") from error


def reason(error: Exception) -> str:
    """The innermost of the reasons that tensorstore gives, in a line."""
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return first.rpartition('": ')[2]


def write_leaf(leaf: Leaf, directory: epath.Path) -> dict[str, Any]:
    """Writes a leaf of rank 1 or more as a zarr array; returns its metadata.

    Raises:
      OSError: if it cannot be written, for example on a full disk.
    """
    metadata = {
        "shape": list(leaf.shape),
        "chunks": list(_chunk_shape(leaf)),
        "compressor": {"id": "gzip", "level": 1},
    }
    spec = {
        "driver": "zarr",
        "dtype": leaf.dtype.name,
        "kvstore": kvstore(directory),
        "metadata": metadata,
    }
    value = leaf.value()
    try:
        array = tensorstore.open(spec, create=True, open=False).result()
        array.write(value).result()
    except ValueError as error:
        raise OSError(f"could not write {directory}: {reason(error)}") from error
    return metadata


def _chunk_shape(leaf: Leaf) -> tuple[int, ...]:
    """Halves the leading axis until a chunk is small enough; rows stay whole."""
    shape, nbytes = list(leaf.shape), leaf.nbytes
    while nbytes > CHUNK_BYTES and shape[0] > 1:
        shape[0] = -(-shape[0] // 2)
        nbytes = -(-nbytes // 2)
    return tuple(shape)
