"""JSON Lines in and out: the one reader, the one writer.

A line ends at "\\n" alone, as the format has it: the other line separators of Unicode may stand in
a text. A byte order mark at the beginning is taken off. What could be read in two ways, or could
not be written again, is refused: a key given twice, half of a surrogate pair.
"""

from collections.abc import Iterable, Iterator, Mapping
import json
from typing import Any

from etils import epath

from po_jax import files

Record = dict[str, Any]

_GZIP = b"\x1f\x8b"


def read(path: epath.PathLike) -> Iterator[tuple[str, Record]]:
    """Each object of a file, and where it stands, for messages; empty lines are passed over.

    Raises:
      ValueError: there is no such file, or a line is no JSON object; names file and line.
    """
    for where, line in lines(path):
        try:
            record = json.loads(line, object_pairs_hook=_object)
            if "\\u" in line:  # an escape may stand for what is no character
                json.dumps(record, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: expected JSON, got {line[:60]!r} ({error})") from error
        if not isinstance(record, dict):
            raise ValueError(f"{where}: expected a JSON object, got {line[:60]!r}")
        yield where, record


def _object(pairs: list[tuple[str, Any]]) -> Record:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:60]!r} stands twice in an object")
    return record


def lines(path: epath.PathLike) -> Iterator[tuple[str, str]]:
    """Each line of a text file that is not empty, and where it stands.

    Raises:
      ValueError: there is no such file, or a line is not text in UTF-8.
    """
    path = epath.Path(path)
    if path.is_dir() or not path.exists():  # A pipe is no file, and can be read.
        found = "a folder" if path.is_dir() else "no file"
        raise ValueError(f"expected a text file, got {found} at {path}")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                packed = "gzip; unpack it" if line.startswith(_GZIP) else error
                raise ValueError(
                    f"{where}: expected UTF-8, got {line[:60]!r} ({packed})"
                ) from error
            if "\0" in text:  # UTF-16 without its mark passes for UTF-8 otherwise.
                raise ValueError(f"{where}: expected text in UTF-8, got NUL in {line[:60]!r}")
            if text.strip():
                yield where, text.removesuffix("\n").removesuffix("\r")


def write(path: epath.PathLike, records: Iterable[Mapping[str, Any]]) -> int:
    """Writes the records, a line each, whole or not at all; returns their number.

    The folder is made if absent.

    Raises:
      ValueError: a record holds what JSON or UTF-8 cannot; names file and line.
      OSError: the file cannot be written.
    """
    path = files.absolute(path)  # Whoever makes the records may change the working directory.
    count = 0
    with files.written_whole(path) as beside, beside.open("wb") as file:
        for record in records:
            count += 1
            file.write(_line(record, f"{path}, line {count}"))
    return count


def _line(record: Mapping[str, Any], where: str) -> bytes:
    try:
        return (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except ValueError as error:
        raise ValueError(f"{where}: expected what JSON can hold, got {error}") from error
