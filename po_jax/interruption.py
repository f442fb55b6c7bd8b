"""Asking a run to stop: SIGTERM from a scheduler, or Ctrl-C, heard at the next safe point.

Several processes stop at the same safe point, whoever of them got the signal: as soon as they hear
of it, each says how many safe points it has passed, and all stop at the first that nobody has.
"""

import itertools
import signal
import threading
from types import FrameType
from typing import ClassVar

from po_jax.processes import Interrupted, beat, count, index, talk, watch

__all__ = ["Interrupted", "Interruption", "check", "check_alone"]


class Interruption:
    """While entered, notes a first SIGTERM or SIGINT instead of dying of it; `check` raises it.

    A second one does what it always does. Works in the main thread only, as signals do.
    """

    _current: ClassVar["Interruption | None"] = None
    _numbers: ClassVar = itertools.count()

    def __init__(self):
        self._signal: str | None = None
        self._previous = {}
        self._agreed = _Agreement(next(self._numbers)) if count() > 1 else None

    def __enter__(self) -> "Interruption":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._note)
        Interruption._current = self
        if self._agreed is not None:
            watch(self._agreed.look)
        return self

    def __exit__(self, *_) -> None:
        self._hand_back()
        Interruption._current = None
        if self._agreed is not None:
            self._agreed.leave()

    def _hand_back(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = signal.Signals(number).name
        self._hand_back()
        if self._agreed is not None:
            self._agreed.asked = f"{self._signal} on process {index()}"

    def pass_one(self) -> None:
        """Passes a safe point, or raises."""
        if self._agreed is not None:
            self._agreed.pass_one()
        elif self._signal is not None:
            raise Interrupted(self._signal)

    def pass_alone(self) -> None:
        """Passes a point that the other processes need not have."""
        if self._agreed is None:
            self.pass_one()
        elif self._agreed.heard is not None:
            raise Interrupted(self._agreed.heard)


class _Agreement:
    """On the safe point at which all processes stop.

    Attributes:
      asked: what this process was asked, if it was.
      heard: what any process was asked, once this one knows.
    """

    def __init__(self, number: int):
        self.asked: str | None = None
        self.heard: str | None = None
        self._asked, self._passed = f"stop/{number}/asked", f"stop/{number}/passed"
        self._lock = threading.Lock()
        self._count = 0
        self._said = False
        self._last: int | None = None
        self._known = threading.Event()

    def pass_one(self) -> None:
        with self._lock:
            if not self._said:
                self._count += 1
                return
        self._known.wait()
        self._count += 1
        assert self._last is not None
        if self._count >= self._last:
            raise Interrupted(self.heard)

    def look(self) -> None:
        """Hears what was asked, and agrees; called from the watching thread."""
        if self._known.is_set():
            return
        if self.asked is not None:
            talk.tell(self._asked, self.asked)
        asked = talk.told(self._asked)
        if asked:
            self.heard = self.heard or min(asked.items())[1]
            self._say()
            passed = talk.told(self._passed)
            if len(passed) == count():
                self._last = max(map(int, passed.values())) + 1
                self._known.set()

    def leave(self) -> None:
        """No safe point comes any more: the others need not wait for this process."""
        self._say()

    def _say(self) -> None:
        with self._lock:
            if self._said:
                return
            self._said = True
            passed = self._count
        talk.tell(self._passed, str(passed))


def check() -> None:
    """A safe point: nothing is lost if a run stops here. All processes pass the same ones.

    Raises:
      Interrupted: if a signal came since the `Interruption` that is entered, if one is.
    """
    beat()
    if Interruption._current is not None:
        Interruption._current.pass_one()


def check_alone() -> None:
    """A safe point of this process alone, within `processes.gathered`.

    Raises:
      Interrupted: as `check`.
    """
    beat()
    if Interruption._current is not None:
        Interruption._current.pass_alone()
