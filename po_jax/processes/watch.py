"""The end of all: who fails, falls silent or is done says so, and nobody waits for the dead.

A process that dies without a word is noticed by JAX's own heartbeats, which end the others.
"""

from collections.abc import Callable
import contextlib
import faulthandler
import os
import sys
import threading
import time

import jax

from po_jax.processes import talk

_LOOK_EVERY = 0.5  # seconds
_GRACE = 20.0  # seconds in which all may end by themselves, where all met the same error
_SILENT = "no step for "

_look: Callable[[], None] | None = None
_silence_allowed = 30.0 * 60.0
_over = threading.Event()
_thread = threading.Thread(target=lambda: _watch(), name="watch", daemon=True)


def watch(look: Callable[[], None] | None = None, minutes: float | None = None) -> None:
    """Watches the other processes, and this one's silence, from a thread, until the end.

    Args:
      look: called there every half second, in place of the one before; None leaves that.
      minutes: without a beat (a step, a batch, an answer) after which all processes show the
        stacks of their threads and end; 0 for any time. None leaves it as it is, 30 at first.
    """
    global _look, _silence_allowed
    if talk.count() == 1:
        return
    if minutes is not None:
        _silence_allowed = 60.0 * minutes or float("inf")
    _look = look or _look
    if not _thread.ident:
        talk.beat()
        _thread.start()


def fail(message: str) -> None:
    """Tells the other processes that this one failed: they end, if they do not fail alike."""
    if talk.count() > 1:
        with contextlib.suppress(RuntimeError):  # The service is gone, and so are they.
            talk.tell("failed", message.strip().partition("\n")[0])


def leave(status: int) -> None:
    """The end of one of several processes: returns once all are done; ends it if it failed."""
    if talk.count() == 1:
        return
    if status == 0:
        talk.exchange("done", "")
        _over.set()
        _thread.join()
        jax.distributed.shutdown()
        return
    with contextlib.suppress(RuntimeError):
        if talk.index() not in talk.told("failed"):
            fail(f"exit status {status}")
    _end(status)


def _end(status: int) -> None:
    """Ends the process. JAX's own end waits for everybody, and the main thread may hang."""
    with contextlib.suppress(RuntimeError):
        talk.tell("left", "")
        if talk.index() == 0:  # The service lies here: it ends last.
            began = time.monotonic()
            while len(talk.told("left")) < talk.count() and time.monotonic() - began < _GRACE + 5.0:
                time.sleep(0.2)
            time.sleep(0.5)  # from a last word to the end
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _watch() -> None:
    while not _over.wait(_LOOK_EVERY):
        try:
            if _look is not None:
                _look()
            others = {who: why for who, why in talk.told("failed").items() if who != talk.index()}
        except RuntimeError:
            return  # The service is gone: JAX ends this process.
        if others:
            _follow(*min(others.items()))
        elif talk.silence() > _silence_allowed:
            _show_stacks()
            fail(f"{_SILENT}{_silence_allowed / 60.0:g} minutes")
            _end_with(f"process {talk.index()}: {_SILENT}{_silence_allowed / 60.0:g} minutes")


def _follow(process: int, why: str) -> None:
    """Ends this process, too, if it does not end by itself."""
    if why.startswith(_SILENT):
        _show_stacks()
    else:
        time.sleep(_GRACE)
    fail(f"process {process}: {why}")
    _end_with(f"process {process}: {why}")


def _show_stacks() -> None:
    print(f"process {talk.index()} of {talk.count()}, its threads:", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(sys.stderr, all_threads=True)


def _end_with(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)
    _end(1)
