"""A line on stderr that says how far a run is, how fast, and when it will end."""

from collections.abc import Mapping
from io import TextIOBase
import sys
import time

# What matters most comes first; of each group, the first that is known.
_SHOWN = (("win_rate", "margin"), ("kl", "accuracy"), ("loss",), ("tokens_per_second",))


def duration(seconds: int | float) -> str:
    """Seconds as 0:07, 12:07 or 3:12:07."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Rewrites one line on a terminal; elsewhere prints a line now and then.

    Args:
      name: what is running.
      total: step it ends at.
      stream: where to print; None for stderr.
      every: seconds between lines where the stream is no terminal.
    """

    def __init__(
        self,
        name: str,
        total: int,
        stream: TextIOBase | None = None,
        every: float = 10.0,
    ):
        self._name, self._total = name, total
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._pause = 0.2 if self._terminal else every
        self._began = self._printed = time.monotonic()
        self._measured_from: tuple[int, float] | None = None
        self._metrics: Mapping[str, float] = {}
        self._width = 0

    def update(self, step: int, metrics: Mapping[str, float] | None = None) -> None:
        """Notes that `step` steps are done; prints if it is time to, and always at the end."""
        self._metrics = {**self._metrics, **(metrics or {})}
        now = time.monotonic()
        # The first step compiles: rates count from its end.
        self._measured_from = self._measured_from or (step, now)
        if now - self._printed < self._pause and step < self._total:
            return
        self._printed = now
        line = self._line(step, now)
        if self._terminal:
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def note(self, text: str, metrics: Mapping[str, float] | None = None) -> None:
        """Prints a line of its own, with all metrics; the lines to come show them, too."""
        self._metrics = {**self._metrics, **(metrics or {})}
        text = "  ".join([text, *_numbers(metrics or {})])
        if self._terminal and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._width = 0
        self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Ends the line."""
        if self._terminal and self._width:
            self._stream.write("\n")
            self._width = 0

    def _line(self, step: int, now: float) -> str:
        parts = [f"{self._name} {step}/{self._total}"]
        known = ([name for name in group if name in self._metrics] for group in _SHOWN)
        parts += _numbers({names[0]: self._metrics[names[0]] for names in known if names})
        assert self._measured_from is not None  # `update` has set it
        first, began = self._measured_from
        if step > first:
            pace = (now - began) / (step - first)
            parts.append(f"{pace:.2f} s/step" if pace > 1 else f"{1 / pace:.2f} steps/s")
            left = duration(pace * (self._total - step))
            parts.append(f"{duration(now - self._began)} so far, {left} left")
        return "  ".join(parts)


def _numbers(metrics: Mapping[str, float]) -> list[str]:
    return [f"{name} {value:z.4g}" for name, value in metrics.items()]
