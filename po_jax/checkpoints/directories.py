"""Directories that exist whole or not at all."""

from collections.abc import Iterator
import contextlib
import os

from etils import epath


@contextlib.contextmanager
def new_directory(path: epath.PathLike) -> Iterator[epath.Path]:
    """A temporary sibling of `path` that takes its name when the block ends without an error.

    Raises:
      FileExistsError: if `path` exists: nothing is overwritten.
    """
    path = epath.Path(path)
    _require_free(path)
    temporary = path.parent / f".{path.name}.tmp-{os.getpid()}"
    temporary.mkdir(parents=True)
    try:
        yield temporary
        _require_free(path)  # Another writer may have been quicker.
        temporary.rename(path)
    except BaseException:
        temporary.rmtree(missing_ok=True)
        raise


def _require_free(path: epath.Path) -> None:
    if path.exists():
        raise FileExistsError(f"{path}: expected a path that does not exist, got an existing one.")
