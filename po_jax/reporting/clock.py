"""How long the device worked on each stage of a step, measured without making it wait.

Work is queued on the device and runs while the host goes on. A watching thread notes when each
stage's results are there: a stage lasted from the later of its queueing and the end of the stage
before it; where the queueing came later, the device had nothing to do in between.
"""

from collections import defaultdict
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread
import time
from typing import Any

import jax


class StageClock:
    """Seconds of each stage, and of the device's idleness.

    Args:
      now: tells the time in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic):
        self._now = now
        self._queue: SimpleQueue[tuple[str | None, float, Any, bool]] = SimpleQueue()
        self._lock = Lock()
        self._seconds: dict[str, float] = defaultdict(float)
        self._times: dict[str, int] = defaultdict(int)
        self._free_since = now()
        Thread(target=self._watch, daemon=True, name="stage-clock").start()

    def queued(self, stage: str, began: float, results: Any, on_host: bool = False) -> None:
        """Notes work queued at `began`, by the clock's `now`, over when `results` are there.

        The results must not be donated to a later computation. Work of the host leaves the device
        idle as far as the device's own work does not overlap it.
        """
        self._queue.put((stage, began, results, on_host))

    def wait(self) -> None:
        """Returns when all work noted so far is over."""
        done: SimpleQueue[None] = SimpleQueue()
        self._queue.put((None, 0.0, done, False))
        done.get()

    def take(self, per: str) -> dict[str, float]:
        """Mean "seconds_<stage>" and "seconds_idle" for each time that stage `per` ended.

        Counts what ended since the last call, and nothing before stage `per` ended once.
        """
        with self._lock:
            times = self._times[per]
            if not times:
                return {}
            taken = {f"seconds_{stage}": total / times for stage, total in self._seconds.items()}
            self._seconds.clear()
            self._times.clear()
            return taken

    def _watch(self) -> None:
        while True:
            stage, began, results, on_host = self._queue.get()
            if stage is None:
                results.put(None)
                continue
            try:
                jax.block_until_ready(results)
            except Exception:  # the main thread meets the same error, with a better traceback
                pass
            ended = self._now()
            with self._lock:
                began = max(began, self._free_since)
                self._seconds[stage] += ended - began
                self._seconds["idle"] += (ended if on_host else began) - self._free_since
                self._times[stage] += 1
                self._free_since = ended
