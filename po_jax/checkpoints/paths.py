"""Paths that mean the same from a run's beginning to its end: absolute, without "..", one store."""

import os
import re

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
