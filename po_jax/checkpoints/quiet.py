"""Orbax tells of a failed save in hundreds of lines; the error that is raised tells it in one."""

from collections.abc import Callable
import dataclasses
import logging
import sys
from typing import Any


def _is_told(record: logging.LogRecord) -> bool:
    """Whether a record is not one that is raised again by whoever waits for the save."""
    return not (record.levelno >= logging.ERROR and "orbax" in record.pathname)


@dataclasses.dataclass(frozen=True)
class _Hook:
    """Passes over writes that end after a failed save has closed its event loop."""

    previous: Callable[[Any], object]

    def __call__(self, unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            self.previous(unraisable)


def keep_quiet() -> None:
    """Leaves out what is raised as well; calling it again changes nothing."""
    logging.getLogger("absl").addFilter(_is_told)
    if not isinstance(sys.unraisablehook, _Hook):
        sys.unraisablehook = _Hook(sys.unraisablehook)
