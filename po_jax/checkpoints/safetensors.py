"""The safetensors format, read and written one array at a time.

A file is the length of a JSON header (8 bytes, little endian), the header with dtype, shape and
byte range of each array, and the arrays. Reading by byte range needs no memory map, so gs:// paths
work as local ones do; writing one array after the other needs no more memory than the largest.
"""

from collections.abc import Mapping
import json
import math
import operator
import struct
from typing import Any

from etils import epath
import ml_dtypes
import numpy as np

from po_jax.checkpoints import json_files
from po_jax.checkpoints.leaves import Block, Leaf, Leaves, in_reading_order

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
SHARD_BYTES = 5 * 10**9  # The size at which `transformers` splits as well.

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def read(directory: epath.Path) -> Leaves:
    """The leaves of a directory with one safetensors file, or several and their index.

    Raises:
      ValueError: if a file is absent, truncated, or lacks an array that the index promises.
    """
    index = directory / INDEX
    if not index.exists():
        if not (directory / SINGLE).exists():
            raise ValueError(f"{directory}: expected {SINGLE} or {INDEX}, got neither.")
        return read_file(directory / SINGLE)
    files = json_files.read_object(index, "a JSON weight_map").get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise ValueError(
            f"{index}: expected a JSON weight_map, the file of each array, got {files!r:.60}"
        )
    shards = {name: read_file(directory / name) for name in sorted(set(files.values()))}
    for name, file in files.items():
        if name not in shards[file]:
            raise ValueError(
                f"{directory / file}: expected the array {name!r} that {INDEX} places there, got "
                f"a file of {len(shards[file])} arrays without it."
            )
    return {name: shards[file][name] for name, file in files.items()}


def read_file(file: epath.Path) -> Leaves:
    """The leaves of one safetensors file; see `read`."""
    if not file.exists():
        raise ValueError(f"{file}: expected a safetensors file, got none: a shard is missing.")
    size = file.stat().length
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= size - 8:
            raise ValueError(
                f"{file}: expected a safetensors header of 2 to {size - 8} bytes, got {length}: "
                "the file is truncated or of another format."
            )
        header = _header(stream.read(length), file)
    data = 8 + length
    expected = data + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if size != expected:
        raise ValueError(
            f"{file}: expected {expected} bytes by its header, got {size}: the file is truncated "
            "or damaged."
        )
    return {name: _leaf(name, entry, file, data) for name, entry in header.items()}


def _header(text: bytes, file: epath.Path) -> Mapping[str, Any]:
    """The entries of the arrays, which follow each other without gaps or overlaps."""
    header = json_files.parse_object(text, f"{file}", "a JSON header")
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    try:
        ranges = sorted(tuple(map(operator.index, e["data_offsets"])) for e in entries.values())
        for entry in entries.values():
            math.prod(map(operator.index, entry["shape"]))
        ends = [0, *(end for _, end in ranges)]
        whole = [begin for begin, _ in ranges] == ends[:-1] and ends == sorted(ends)
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise ValueError(
            f"{file}: expected a header with the dtype, shape and data_offsets of each array, one "
            "array behind the other, got others"
        )
    return entries


def _leaf(name: str, entry: Mapping[str, Any], file: epath.Path, data: int) -> Leaf:
    where = f"{file}: {name}"
    if entry.get("dtype") not in _DTYPES:
        raise ValueError(
            f"{where}: expected a dtype of {sorted(_DTYPES)}, got {entry.get('dtype')!r}."
        )
    dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(
            f"{where}: expected {math.prod(shape) * dtype.itemsize} bytes for shape {shape} "
            f"{dtype.name}, got {end - begin}."
        )

    def read_block(block: Block) -> np.ndarray:
        # Whole rows of the leading axis are contiguous; the other axes are cut in memory.
        first, last = (block[0].start, block[0].stop) if shape else (0, 1)
        row = math.prod(shape[1:])
        with file.open("rb") as stream:
            stream.seek(data + begin + first * row * dtype.itemsize)
            content = stream.read((last - first) * row * dtype.itemsize)
        rows = np.frombuffer(content, dtype).reshape((last - first, *shape[1:]) if shape else ())
        return rows[(slice(None), *block[1:])] if shape else rows

    return Leaf(shape, dtype, where, read_block)


def write(directory: epath.Path, leaves: Leaves, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Writes leaves into an existing directory, as one file or as shards with an index.

    Raises:
      ValueError: if a leaf has a dtype that the format lacks, or cannot be read.
    """
    shards: list[dict[str, Leaf]] = [{}]
    for name in in_reading_order(leaves):
        used = sum(leaf.nbytes for leaf in shards[-1].values())
        if shards[-1] and used + leaves[name].nbytes > shard_bytes:
            shards.append({})
        shards[-1][name] = leaves[name]
    if len(shards) == 1:
        write_file(directory / SINGLE, shards[0])
        return
    weight_map = {}
    for i, shard in enumerate(shards, 1):
        file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        write_file(directory / file, shard)
        weight_map |= {name: file for name in shard}
    total = sum(leaf.nbytes for leaf in leaves.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def write_file(file: epath.Path, leaves: Leaves) -> None:
    """Writes leaves, in the order given, into one safetensors file."""
    # `transformers` refuses a file whose metadata does not name a framework.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, leaf in leaves.items():
        if leaf.dtype not in _NAMES:
            raise ValueError(f"{leaf.where}: expected one of {sorted(_DTYPES)}, got {leaf.dtype}.")
        begin, end = end, end + leaf.nbytes
        header[name] = {
            "dtype": _NAMES[leaf.dtype],
            "shape": list(leaf.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # The arrays start aligned.
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)))
        stream.write(text)
        for leaf in leaves.values():
            stream.write(np.ascontiguousarray(leaf.value()).reshape(-1).view(np.uint8).data)
