"""Directories that exist whole or not at all."""

from collections.abc import Iterator
import contextlib
import errno
import os
import platform

from etils import epath

from po_jax import files


@contextlib.contextmanager
def new_directory(path: epath.PathLike) -> Iterator[epath.Path]:
    """A temporary sibling of `path` that takes its name when the block ends without an error.

    What killed processes of this machine have left of the same directory is removed.

    Raises:
      FileExistsError: if `path` exists: nothing is overwritten.
    """
    path = files.absolute(path)
    _require_free(path)
    absent = [parent for parent in path.parents if not parent.exists()]
    begin = f".{path.name}.tmp-{platform.node()}-"
    if not absent:
        _remove_abandoned(path.parent, begin)
    temporary = path.parent / f"{begin}{os.getpid()}"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _require_free(path)  # Another writer may have been quicker.
        temporary.rename(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            error.filename = error.filename or f"{path}"  # A full disk does not say of which file.
        files.remove_remains(temporary)
        for parent in absent:
            with contextlib.suppress(Exception):  # of the operating system, or of a bucket
                parent.rmdir()
        raise


def _remove_abandoned(folder: epath.Path, begin: str) -> None:
    for child in folder.iterdir():
        process = child.name.removeprefix(begin)
        if child.name.startswith(begin) and process.isdecimal() and not _lives(int(process)):
            files.remove_remains(child)


def _lives(process: int) -> bool:
    if process == os.getpid():
        return False  # It had this id before.
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # Somebody else's.
    return True


def _require_free(path: epath.Path) -> None:
    if path.exists():
        raise FileExistsError(f"{path}: expected a path that does not exist, got an existing one.")
