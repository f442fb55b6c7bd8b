"""Asking a run to stop: SIGTERM from a scheduler, or Ctrl-C."""

import signal
from types import FrameType


class Interruption:
    """While entered, notes a first SIGTERM or SIGINT instead of dying of it.

    A second one does what it always does. Works in the main thread only, as signals do.
    """

    def __init__(self):
        self.signal: str | None = None
        self._previous = {}

    def __enter__(self) -> "Interruption":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        self.__exit__()
