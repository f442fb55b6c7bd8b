"""What a run tells about itself while it trains, without making the device wait."""

from collections import deque
from collections.abc import Mapping, Sequence
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from po_jax.metrics import Mean, Metric, Metrics, Sum
from po_jax.reporting.clock import StageClock
from po_jax.reporting.progress import Progress
from po_jax.reporting.writers import Writer

_IN_FLIGHT = 2  # steps queued on the device before the host waits for the oldest


class NonFiniteLoss(RuntimeError):
    """A loss or gradient was infinite or nan; the message names the step."""


class Reporter:
    """Collects metrics of steps as they end; records their means now and then, and at the end.

    A metric that nothing was counted for is absent from the record. As a context it ends with
    `flush`; where a loss that is not finite ends it, it records the steps that had ended well.
    Whatever else ends it, the run is resumed, and the window with it (`progress`).

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
        self._window: dict[str, Metric] = {}  # sums over its steps
        self._ended = 0  # the newest step of the window
        self._recorded: tuple[int, dict[str, float]] = (0, {})  # the newest record

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        try:
            if error is None:
                self.flush()
            elif issubclass(error, NonFiniteLoss):
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

    def progress(self) -> dict[str, Any]:
        """What `resume` needs to go on from the step that was settled last, as JSON has it."""
        window = {
            name: [type(metric).__name__, *map(float, jax.tree.leaves(metric))]
            for name, metric in self._window.items()
        }
        step, values = self._recorded
        return {"window": window, "record": values if step == self._ended else {}}

    def resume(self, step: int, progress: Mapping[str, Any], rewrite: bool) -> None:
        """Goes on from a step, with the `progress` that was saved there, if any.

        Args:
          step: the step.
          progress: of the reporter that ended there.
          rewrite: whether the writers have dropped that step's record, so that it is due again.
        """
        self._ended = step
        self._window = {
            name: _KINDS[kind](*map(np.float32, sums))
            for name, (kind, *sums) in progress.get("window", {}).items()
        }
        if rewrite and progress.get("record"):
            self._write(progress["record"])

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
        for name, metric in metrics.items():
            known = self._window.get(name)
            # One after the other, so that a window which was saved goes on bit for bit.
            self._window[name] = metric if known is None else jax.tree.map(np.add, known, metric)
        self._ended = step
        self._progress.update(step, self._record() if step % self._period == 0 else {})

    def _record(self) -> dict[str, float]:
        """Records the window and begins a new one; returns what was recorded, if anything."""
        if not self._window:
            return {}
        values = _observed({name: _value(metric) for name, metric in self._window.items()})
        values |= self._clock.take(per="updating")
        self._window = {}
        self._write(values)
        return values

    def _write(self, values: dict[str, float]) -> None:
        self._recorded = (self._ended, values)
        for writer in self._writers:
            writer.scalars(self._ended, "train", values)


_KINDS = {kind.__name__: kind for kind in (Mean, Sum)}


def _value(metric: Metric) -> float:
    return float(jax.tree.map(jnp.asarray, metric).compute())


def _observed(values: Mapping[str, float]) -> dict[str, float]:
    """Without means of nothing, which are nan."""
    return {name: float(value) for name, value in values.items() if not math.isnan(value)}
