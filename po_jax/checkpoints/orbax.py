"""Orbax checkpoints: T5X's newer format, and po_jax's own.

`_METADATA` lists the tree; the arrays lie in one OCDBT database or, in older checkpoints, in one
zarr directory each. They are opened through tensorstore, so that single blocks can be read without
building the tree that wrote them.
"""

from typing import Any

from etils import epath

from po_jax.checkpoints import json_files, zarr
from po_jax.checkpoints.about import About
from po_jax.checkpoints.leaves import Leaves

METADATA = "_METADATA"
ABOUT = "_CHECKPOINT_METADATA"  # beside the item that holds the arrays


def find(path: epath.Path) -> epath.Path | None:
    """The directory of the array tree: `path`, or the one item inside it that has arrays."""
    if not path.is_dir():
        return None
    if (path / METADATA).exists():
        return path
    items = sorted(item for item in path.iterdir() if (item / METADATA).exists())
    states = [item for item in items if item.name == "state"] or items
    return states[0] if len(states) == 1 else None


def read(directory: epath.Path) -> Leaves:
    """Leaves by their path in the tree, opened but not read.

    Args:
      directory: as returned by `find`.

    Raises:
      ValueError: if the metadata or an array is damaged or absent.
    """
    file = directory / METADATA
    metadata = json_files.read_object(file, "Orbax's tree metadata")
    try:
        names = [
            "/".join(str(key["key"]) for key in entry["key_metadata"])
            for entry in metadata["tree_metadata"].values()
            if not entry["value_metadata"].get("skip_deserialize")
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: expected Orbax's tree metadata, got: {error!r}") from error
    driver = "zarr3" if metadata.get("use_zarr3") else "zarr"
    # Writers of the time may have left out chunks that hold nothing but zeros.
    sparse = not metadata.get("store_array_data_equal_to_fill_value", False)
    ocdbt = metadata.get("use_ocdbt", False)
    return zarr.open_leaves(
        {
            name: zarr.Stored(
                _kvstore(directory, name.replace("/", "."), ocdbt=ocdbt),
                f"{directory}: {name}",
                driver,
                sparse,
            )
            for name in names
        }
    )


def about(directory: epath.Path) -> About:
    """What was saved beside the arrays of `directory`; nothing where nothing was."""
    for folder in (directory.parent, directory):
        if (folder / ABOUT).exists():
            content = json_files.read_object(folder / ABOUT).get("custom_metadata")
            return About.from_json(content if isinstance(content, dict) else {})
    return About()


def _kvstore(directory: epath.Path, name: str, *, ocdbt: bool) -> dict[str, Any]:
    if ocdbt:
        return {"driver": "ocdbt", "base": zarr.kvstore(directory), "path": f"{name}/"}
    return zarr.kvstore(directory / name)
