"""A judge's answers on disk: a run that starts again asks nothing twice."""

from collections.abc import Sequence
import json
import os
from pathlib import Path
import sqlite3
import threading

_TABLE = """create table if not exists answers
(judge text, question text, answer real not null, primary key (judge, question))"""


class AnswerCache:
    """Numbers by the name of the judge and the texts of the question; an SQLite file.

    Several threads and processes may use one file.

    Args:
      path: of the file; made if absent, its folder too.
      judge: its name, which must tell apart whatever answers differently.

    Raises:
      ValueError: if there is something else at the path.
      OSError: if the file cannot be read or written, then or later.
    """

    def __init__(self, path: str | os.PathLike, judge: str):
        self._path = Path(path).absolute()  # a judge may change the working directory
        self._judge = judge
        self._lock = threading.Lock()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(
                self._path, timeout=30.0, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise OSError(f"the judge's cache {self._path}: {error}") from error
        try:
            self._run(_TABLE)
        except OSError as error:
            if isinstance(error.__cause__, sqlite3.OperationalError):
                raise
            raise ValueError(
                f"expected a judge's cache (SQLite), got another file at {self._path}"
            ) from error

    def get(self, question: Sequence[str]) -> float | None:
        """The answer, if it is known."""
        rows = self._run(
            "select answer from answers where judge = ? and question = ?",
            *(self._judge, json.dumps(question)),
        )
        return rows[0][0] if rows else None

    def put(self, question: Sequence[str], answer: float) -> None:
        """Keeps an answer; it outlives a kill of the process."""
        self._run(
            "insert or replace into answers values (?, ?, ?)",
            *(self._judge, json.dumps(question), answer),
        )

    def _run(self, statement: str, *values: str | float) -> list[tuple]:
        with self._lock:
            try:
                return self._database.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise OSError(f"the judge's cache {self._path}: {error}") from error
