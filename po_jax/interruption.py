"""Asking a run to stop: SIGTERM from a scheduler, or Ctrl-C, heard at the next safe point."""

import signal
from types import FrameType
from typing import ClassVar


class Interrupted(BaseException):
    """Somebody asked to stop; the message is the signal. No failure, so no `Exception`."""


class Interruption:
    """While entered, notes a first SIGTERM or SIGINT instead of dying of it; `check` raises it.

    A second one does what it always does. Works in the main thread only, as signals do.
    """

    _current: ClassVar["Interruption | None"] = None

    def __init__(self):
        self._signal: str | None = None
        self._previous = {}

    def __enter__(self) -> "Interruption":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._note)
        Interruption._current = self
        return self

    def __exit__(self, *_) -> None:
        self._hand_back()
        Interruption._current = None

    def _hand_back(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = signal.Signals(number).name
        self._hand_back()


def check() -> None:
    """A safe point: nothing is lost if a run stops here.

    Raises:
      Interrupted: if a signal came since the `Interruption` that is entered, if one is.
    """
    current = Interruption._current
    if current is not None and current._signal is not None:
        raise Interrupted(current._signal)
