"""JSON that somebody else wrote: an object, or a sentence about what it is instead."""

import json
from typing import Any

from etils import epath


def read_object(file: epath.Path, what: str = "a JSON object") -> dict[str, Any]:
    """The JSON object in a file.

    Args:
      file: to be read.
      what: it should be, for messages.

    Raises:
      ValueError: if it holds anything else; names the file.
    """
    return parse_object(file.read_bytes(), f"{file}", what)


def parse_object(text: bytes, where: str, what: str) -> dict[str, Any]:
    """The JSON object in a text; see `read_object`."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: expected {what}, got: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{where}: expected {what}, got a {type(content).__name__}")
    return content
