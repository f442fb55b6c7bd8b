"""What a run tells about itself while it trains, without making the device wait."""

from collections import deque
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from po_jax.metrics import Metric, Metrics
from po_jax.reporting.clock import StageClock
from po_jax.reporting.progress import Progress
from po_jax.reporting.tensorboard import SummaryWriter

_IN_FLIGHT = 2  # steps queued on the device before the host waits for the oldest


class NonFiniteLoss(RuntimeError):
    """A loss or gradient was infinite or nan; the message names the step."""


class Reporter:
    """Collects metrics of steps as they end; records their means now and then.

    Args:
      writer: of the records.
      progress: of the console.
      clock: of the stages.
      period: steps between records.
    """

    def __init__(self, writer: SummaryWriter, progress: Progress, clock: StageClock, period: int):
        self._writer = writer
        self._progress = progress
        self._clock = clock
        self._period = period
        self._in_flight: deque[tuple[int, Metrics]] = deque()
        self._window: list[Metrics] = []

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_) -> None:
        self._progress.close()
        self._writer.close()

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

    def skip_times(self) -> None:
        """Forgets the times so far: the first step compiles."""
        self.settle()
        self._clock.wait()
        self._clock.take(per="updating")

    def evaluation(self, step: int, name: str, values: Mapping[str, float], text: str) -> None:
        """Records an evaluation and shows its numbers."""
        self._writer.scalars(step, values, split=name)
        if text:
            self._writer.text(step, name, text)
        numbers = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
        self._progress.note(f"step {step}, {name}: {numbers}")

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
        values = {}
        if step % self._period == 0:
            total = jax.tree.map(lambda *parts: np.sum(parts, axis=0), *self._window)
            values = {name: _value(metric) for name, metric in total.items()}
            values |= self._clock.take(per="updating")
            self._writer.scalars(step, values)
            self._window.clear()
        self._progress.update(step, values)


def _value(metric: Metric) -> float:
    return float(jax.tree.map(jnp.asarray, metric).compute())
