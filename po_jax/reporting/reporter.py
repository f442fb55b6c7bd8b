"""What a run tells about itself while it trains, without making the device wait."""

from collections import deque
from collections.abc import Mapping, Sequence
import math

import jax
import jax.numpy as jnp
import numpy as np

from po_jax.metrics import Metric, Metrics
from po_jax.reporting.clock import StageClock
from po_jax.reporting.progress import Progress
from po_jax.reporting.writers import Writer

_IN_FLIGHT = 2  # steps queued on the device before the host waits for the oldest


class NonFiniteLoss(RuntimeError):
    """A loss or gradient was infinite or nan; the message names the step."""


class Reporter:
    """Collects metrics of steps as they end; records their means now and then, and at the end.

    A metric that nothing was counted for is absent from the record. As a context it ends with
    `flush`; where an error ends it, it records the steps that had been seen to end well.

    Args:
      writers: of the records.
      progress: of the console.
      clock: of the stages.
      period: steps between records.
    """

    def __init__(
        self, writers: Sequence[Writer], progress: Progress, clock: StageClock, period: int
    ):
        self._writers = writers
        self._progress = progress
        self._clock = clock
        self._period = period
        self._in_flight: deque[tuple[int, Metrics]] = deque()
        self._window: list[Metrics] = []
        self._ended = 0  # the newest step of the window

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        try:
            if error is None:
                self.flush()
            else:
                self._record()
        finally:
            self._progress.close()

    def step(self, step: int, metrics: Metrics) -> None:
        """Notes the metrics of a step that was queued, its number counted from 1.

        Raises:
          NonFiniteLoss: if the loss or gradient of an earlier step was not finite.
        """
        self._in_flight.append((step, metrics))
        if len(self._in_flight) > _IN_FLIGHT:
            self._take_oldest()

    def settle(self) -> None:
        """Waits for all steps; after it, the state is known to be finite.

        Raises:
          NonFiniteLoss: if the loss or gradient of one was not finite.
        """
        while self._in_flight:
            self._take_oldest()

    def flush(self) -> None:
        """Waits for all steps and records those since the last record, be they less than a period.

        Raises:
          NonFiniteLoss: if the loss or gradient of one was not finite.
        """
        self.settle()
        self._clock.wait()
        if values := self._record():
            self._progress.update(self._ended, values)

    def skip_times(self) -> None:
        """Forgets the times so far: the first step compiles."""
        self.settle()
        self._clock.wait()
        self._clock.take(per="updating")

    def evaluation(self, step: int, name: str, values: Mapping[str, float], text: str) -> None:
        """Records an evaluation and shows its numbers."""
        values = _observed(values)
        for writer in self._writers:
            writer.scalars(step, name, values)
            if text:
                writer.text(step, name, text)
        self._progress.note(f"step {step}, {name}:", values)

    def note(self, text: str) -> None:
        """Shows a line on the console."""
        self._progress.note(text)

    def _take_oldest(self) -> None:
        step, metrics = self._in_flight.popleft()
        metrics = jax.device_get(metrics)
        if metrics["non_finite"].total > 0:
            loss, norm = (_value(metrics[name]) for name in ("loss", "gradient_norm"))
            raise NonFiniteLoss(f"step {step}: the loss is {loss} and the gradient's norm {norm}")
        self._window.append(metrics)
        self._ended = step
        self._progress.update(step, self._record() if step % self._period == 0 else {})

    def _record(self) -> dict[str, float]:
        """Records the window and begins a new one; returns what was recorded, if anything."""
        if not self._window:
            return {}
        total = jax.tree.map(lambda *parts: np.sum(parts, axis=0), *self._window)
        values = _observed({name: _value(metric) for name, metric in total.items()})
        values |= self._clock.take(per="updating")
        for writer in self._writers:
            writer.scalars(self._ended, "train", values)
        self._window.clear()
        return values


def _value(metric: Metric) -> float:
    return float(jax.tree.map(jnp.asarray, metric).compute())


def _observed(values: Mapping[str, float]) -> dict[str, float]:
    """Without means of nothing, which are nan."""
    return {name: float(value) for name, value in values.items() if not math.isnan(value)}
