"""An object store that needs no network: what gs:// means while a test runs."""

from collections.abc import Iterator
import contextlib
from typing import ClassVar

from etils import epath
from etils.epath import backend
import fsspec
from fsspec.implementations.memory import MemoryFileSystem
import pytest


class Buckets(MemoryFileSystem):
    """All buckets, in memory."""

    protocol = ("gs",)
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]


def _file_system(_, path) -> fsspec.AbstractFileSystem:
    return Buckets() if str(path).startswith("gs://") else fsspec.filesystem("file")


@contextlib.contextmanager
def in_memory() -> Iterator[None]:
    """gs:// is in memory inside, and empty at first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(epath.gpath, "_is_tf_installed", lambda: False)
        patch.setattr(type(backend.fsspec_backend), "fs", _file_system)
        Buckets.store.clear()
        Buckets.pseudo_dirs[:] = [""]
        yield
