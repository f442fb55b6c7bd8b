"""Records in TRL's formats as rows of tasks, with errors that say where they stand."""

from collections.abc import Callable
import math
import reprlib
from typing import Any

from etils import epath

from po_jax import files
from po_jax.data import conversations, json_lines
from po_jax.data.json_lines import Record

Row = dict[str, Any]  # text features of one example, as the tasks take them


def rows(path: epath.PathLike, parse: Callable[[Record, str], Row]) -> list[Row]:
    """`parse(record, where)` of every line.

    Raises:
      ValueError: the file is missing, out of reach or empty, or a line is not a JSON object.
    """
    path = epath.Path(path)
    with files.reaching(path):
        if path.parent.is_dir() and not path.exists():
            found = sorted(file.name for file in path.parent.glob(f"*{path.suffix}"))
            raise ValueError(f"expected a file of the split, got no file at {path}, only {found}")
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
        raise ValueError(f"{where}: expected the key {key!r}, got only {sorted(record)!s:.200}")
    value = record[key]
    if not isinstance(value, str):
        raise ValueError(f"{where}: expected {key!r} to be a string, got {reprlib.repr(value):.60}")
    if not value.strip():
        raise ValueError(f"{where}: {key!r} is empty")
    return value


def optional_text(record: Record, key: str, where: str) -> str | None:
    """The string under `key`; None where there is none, or white space alone.

    Raises:
      ValueError: its value is not a string.
    """
    return None if _is_blank(record.get(key)) else text(record, key, where)


def comparison(record: Record, where: str) -> Row:
    """The row of a comparison in TRL's format; the feed exchanges its completions at random.

    The better one serves as the answer where prompts are what is wanted.

    Raises:
      ValueError: a text is missing or empty, the preference is not a number in [0, 1], or what says
        whether a completion ended is neither true nor false.
    """
    preference = record.get("preference", 1.0)
    if isinstance(preference, bool) or not isinstance(preference, int | float):
        raise ValueError(
            f"{where}: expected 'preference' to be a number, got {reprlib.repr(preference):.60}"
        )
    if not 0 <= preference <= 1 or math.isnan(preference):
        raise ValueError(
            f"{where}: expected 'preference' in [0, 1], got {reprlib.repr(preference):.60}"
        )
    prompt, (chosen, rejected) = conversations.prompt_and(record, ("chosen", "rejected"), where)
    return {
        "inputs": prompt,
        "answers": [chosen if preference >= 0.5 else rejected],
        "completion_1": chosen,
        "completion_2": rejected,
        "preference": float(preference),
        "completion_1_ended": _ended(record, "chosen", where),
        "completion_2_ended": _ended(record, "rejected", where),
    }


def demonstration(record: Record, where: str) -> Row:
    """The row of a prompt and the completion to imitate.

    Raises:
      ValueError: a text is missing or empty; names `where`.
    """
    record = conversations.unfolded(record, where)
    if record.get("label") is False:
        raise ValueError(f"{where}: expected a completion to imitate, got one with 'label' false")
    key = "summary" if "summary" in record and "completion" not in record else "completion"
    inputs, (target,) = conversations.prompt_and(record, [key], where)
    return {
        "inputs": inputs,
        "targets": target,
        "answers": [target],
        "targets_ended": _ended(record, key, where),
    }


def prompt(record: Record, where: str) -> Row:
    """The row of a prompt alone; what is there to imitate, or is preferred, serves as the answer.

    Raises:
      ValueError: a text is empty or none; names `where`.
    """
    record = conversations.unfolded(record, where)
    given = [key for key in ("completion", "summary") if not _is_blank(record.get(key))]
    given = [] if record.get("label") is False else given  # of TRL's unpaired format
    if not given and "chosen" in record and "rejected" in record:
        row = comparison(record, where)
        return {key: row[key] for key in ("inputs", "answers")}
    inputs, answers = conversations.prompt_and(record, given, where)
    return {"inputs": inputs, "answers": answers}


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _ended(record: Record, key: str, where: str) -> bool:
    """Whether a completion came to its end: `KEY_ended`, true where it is not given.

    Raises:
      ValueError: it is neither true nor false.
    """
    value = record.get(f"{key}_ended", True)
    if not isinstance(value, bool):
        found = reprlib.repr(value)[:60]
        raise ValueError(f"{where}: expected '{key}_ended' to be true or false, got {found}")
    return value
