"""JSON Lines in and out: the one reader, the one writer.

A line ends at "\\n" alone, as the format has it: the other line separators of Unicode may stand in
a text. A byte order mark at the beginning is taken off.
"""

from collections.abc import Iterable, Iterator, Mapping
import contextlib
import errno
import json
from typing import Any

from etils import epath

Record = dict[str, Any]


def read(path: epath.PathLike) -> Iterator[tuple[str, Record]]:
    """Each object of a file, and where it stands, for messages; empty lines are passed over.

    Raises:
      ValueError: there is no such file, or a line is no JSON object; names file and line.
    """
    for where, line in lines(path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: expected JSON, got {line[:60]!r} ({error})") from error
        if not isinstance(record, dict):
            raise ValueError(f"{where}: expected a JSON object, got {line[:60]!r}")
        yield where, record


def lines(path: epath.PathLike) -> Iterator[tuple[str, str]]:
    """Each line of a text file that is not empty, and where it stands.

    Raises:
      ValueError: there is no such file, or a line is not UTF-8.
    """
    path = epath.Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no file"
        raise ValueError(f"expected a text file, got {found} at {path}")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{where}: expected UTF-8, got {line[:60]!r} ({error})") from error
            if text.strip():
                yield where, text.removesuffix("\n").removesuffix("\r")


def write(path: epath.PathLike, records: Iterable[Mapping[str, Any]]) -> int:
    """Writes the records, a line each, whole or not at all; returns their number.

    The folder is made if absent.
    """
    path = epath.Path(
        path
    ).absolute()  # Whoever makes the records may change the working directory.
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".{path.name}.partial"
    count = 0
    try:
        with partial.open("w") as file:
            for record in records:
                file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
                count += 1
        partial.replace(path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            error.filename = str(path)  # A full disk does not say of which file.
        raise
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return count
