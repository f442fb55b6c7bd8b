"""The records of JSON Lines files as rows of tasks, with errors that name file and line."""

from collections.abc import Callable
import math
import os
from pathlib import Path
from typing import Any

from po_jax.data import json_lines
from po_jax.data.json_lines import Record

Row = dict[str, Any]  # text features of one example, as the tasks take them


def rows(path: Path, parse: Callable[[Record, str], Row]) -> list[Row]:
    """`parse(record, where)` of every line.

    Raises:
      ValueError: the file is missing or has no records, or a line is not a JSON object.
    """
    parsed = [parse(record, where) for where, record in json_lines.read(path)]
    if not parsed:
        raise ValueError(f"expected one JSON object a line, got an empty file: {path}")
    return parsed


def text(record: Record, key: str, where: str) -> str:
    """The string under `key`, which must hold more than white space.

    Raises:
      ValueError: the key is missing, or its value is empty or not a string.
    """
    if key not in record:
        raise ValueError(f"{where}: expected the key {key!r}, got only {sorted(record)}")
    value = record[key]
    if not isinstance(value, str):
        raise ValueError(f"{where}: expected {key!r} to be a string, got {value!r:.60}")
    if not value.strip():
        raise ValueError(f"{where}: {key!r} is empty")
    return value


def comparison(record: Record, where: str) -> Row:
    """The row of a comparison in TRL's format; the feed exchanges its completions at random.

    Raises:
      ValueError: a text is missing or empty, or the preference is not a number in [0, 1].
    """
    preference = record.get("preference", 1.0)
    if isinstance(preference, bool) or not isinstance(preference, int | float):
        raise ValueError(f"{where}: expected 'preference' to be a number, got {preference!r:.60}")
    if not 0 <= preference <= 1 or math.isnan(preference):
        raise ValueError(f"{where}: expected 'preference' in [0, 1], got {preference}")
    return {
        "inputs": text(record, "prompt", where),
        "completion_1": text(record, "chosen", where),
        "completion_2": text(record, "rejected", where),
        "preference": float(preference),
    }


def folder(variable: str) -> Path:
    """The folder that an environment variable names.

    Raises:
      ValueError: the variable is not set.
    """
    if not os.environ.get(variable):
        raise ValueError(f"expected {variable} to name the data's folder, got no such variable")
    return Path(os.environ[variable])
