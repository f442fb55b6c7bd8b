"""Files, here or in a bucket: paths that keep their meaning, outputs that are there whole or not.

A path means the same from a run's beginning to its end: absolute, without "..", of a known store.
"""

from collections.abc import Iterator
import contextlib
import errno
import os
import re
import time

from etils import epath

BUCKET = "gs://"


def absolute(path: epath.PathLike) -> epath.Path:
    """A local path or gs://, which a change of the working directory does not touch.

    Raises:
      ValueError: if it is no path, or of a store that cannot be read.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise ValueError(f"expected a path, got {path!r}")
    text = os.fspath(path)
    if text.startswith(BUCKET):
        return epath.Path(text)
    if re.match(r"[a-z][a-z0-9+.-]*:/", text, re.IGNORECASE):
        raise ValueError(
            f"{text}: expected a local path or {BUCKET}, got another store: nothing is downloaded"
        )
    text = os.path.expanduser(text)
    # Where ".." follows a link, only the file system knows what it means.
    return epath.Path((os.path.realpath if ".." in text.split("/") else os.path.abspath)(text))


def in_bucket(path: epath.PathLike) -> bool:
    """Whether a path is of an object store, which has neither folders nor permissions."""
    return os.fspath(path).startswith(BUCKET)


@contextlib.contextmanager
def reaching(path: epath.PathLike) -> Iterator[None]:
    """Gives what the library of an object store raises the form that errors have here.

    Raises:
      ValueError: if the bucket is out of reach, or what the block raises.
    """
    try:
        yield
    except (ValueError, OSError):
        raise
    except ImportError as error:
        if not in_bucket(path):
            raise
        raise ValueError(f"{path}: expected the extra po_jax[gcs], got: {error}") from error
    except Exception as error:
        if not in_bucket(path):
            raise
        first = str(error).strip().splitlines()[0]
        raise ValueError(f"{path}: expected a bucket in reach, got: {first}") from error


def remove_remains(folder: epath.Path) -> None:
    """Removes the folder that a failed or killed writer left, as far as that can be done.

    Another thread of the writer may still put files into it, so it is tried a few times. Nothing is
    raised: what made the writer fail is the error to tell.
    """
    for wait in (0.1, 0.2, 0.4, 0.8, 0.0):
        try:
            folder.rmtree(missing_ok=True)
            return
        except Exception:  # of the operating system, or of what reaches a bucket
            time.sleep(wait)


@contextlib.contextmanager
def written_whole(path: epath.PathLike) -> Iterator[epath.Path]:
    """The place beside a file, to be written in its stead; it takes the file's name at the end.

    Whatever fails leaves the file as it was. Its folder is made if absent.

    Raises:
      OSError: what writing raised; where a disk is full, it names the file.
    """
    path = absolute(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent / f".{path.name}.partial"
    try:
        yield beside
        beside.replace(path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            error.filename = str(path)  # A full disk does not say of which file.
        raise
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
