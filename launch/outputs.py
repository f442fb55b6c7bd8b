"""Where a command writes: looked at before its work, and written whole or not at all."""

from collections.abc import Iterator
import contextlib
import os
from pathlib import Path
import shutil
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etils import epath


def new_file(path: str | os.PathLike, overwrite: bool = False) -> str:
    """The path of a file that can be made, absolute: a judge may change the working directory.

    Args:
      path: of the file; its folders need not be there.
      overwrite: whether the file may be replaced.

    Raises:
      ValueError: if something is in the way.
    """
    from po_jax import files

    place = files.absolute(path)
    with files.reaching(place):
        if place.is_dir():
            raise ValueError(f"expected the path of a file to write, got the folder {str(path)!r}")
        _refuse_to_replace(place, overwrite)
        _check_folder(place.parent)
    return str(place)


def new_folder(path: str | os.PathLike, result: str, overwrite: bool = False) -> "epath.Path":
    """The place of a folder that can be written, absolute.

    Args:
      path: of the folder.
      result: the file by which it is known that a command has written there.
      overwrite: whether its results may be replaced.

    Raises:
      ValueError: if something is in the way.
    """
    from po_jax import files

    place = files.absolute(path)
    with files.reaching(place):
        _refuse_to_replace(place / result, overwrite)
        _check_folder(place)
    return place


@contextlib.contextmanager
def written_whole(folder: "epath.Path") -> Iterator[Path]:
    """A folder here, to be written in the other's stead; at the end its files move there.

    What fails leaves all as it was.
    """
    from etils import epath

    from po_jax import files

    away = files.in_bucket(folder)
    if away:
        beside = Path(tempfile.mkdtemp())
    else:
        beside = Path(folder.parent) / f".{folder.name}.partial"
        shutil.rmtree(beside, ignore_errors=True)  # of a command that was killed
    try:
        beside.mkdir(parents=True, exist_ok=True)
        yield beside
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(beside.iterdir()):
            if away:
                epath.Path(path).copy(folder / path.name, overwrite=True)
            else:
                path.replace(folder / path.name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _refuse_to_replace(path: "epath.Path", overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise ValueError(
            f"expected nothing at {path}, got an earlier result: give --overwrite to replace it, "
            "or another path"
        )


def _check_folder(folder: "epath.Path") -> None:
    """Refuses a folder that is not there and cannot be made, or cannot be written to."""
    from po_jax import files

    if files.in_bucket(folder):
        return  # Who may write there is known by writing.
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir():
        raise ValueError(f"expected a folder to write to at {folder}, got the file {there}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"expected a folder to write to at {folder}, but {there} is read-only")
