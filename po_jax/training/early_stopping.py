"""The end of a run whose evaluations have stopped getting better."""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

from po_jax.names import nearest

Followed = Mapping[str, Any]  # as JSON has it: it is kept with every checkpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Ends a run when a metric of its evaluations has not improved for a while.

    Attributes:
      metric: such as "held_out/win_rate".
      patience: evaluations in a row without improvement, at least 1, after which the run ends.
      largest: whether the largest value is the best; otherwise it is the smallest.
      least_gain: what counts as an improvement over the best value so far, 0 or more.

    Raises:
      ValueError: on a value out of its range.
    """

    metric: str
    patience: int = 3
    largest: bool = True
    least_gain: float = 0.0

    def __post_init__(self):
        if self.patience < 1 or not 0.0 <= self.least_gain < math.inf:
            raise ValueError(
                "EarlyStopping: expected patience of 1 or more and least_gain of 0 or more, got "
                f"{self.patience} and {self.least_gain}"
            )

    def follow(self, so_far: Followed | None, step: int, results: Mapping[str, float]) -> Followed:
        """What is known after an evaluation.

        Args:
          so_far: what this returned after the one before; None after the first.
          step: of the evaluation.
          results: its metrics. One without the metric, or with none that is a number, is one
            without improvement.

        Raises:
          ValueError: if the first evaluation does not have the metric.
        """
        value = results.get(self.metric, math.nan)
        if so_far is None:
            if self.metric not in results:
                raise ValueError(
                    f"EarlyStopping.metric: expected one of {sorted(results)}, got "
                    f"{self.metric!r}.{nearest(self.metric, results)}"
                )
            so_far = {"best": None, "at": step, "waited": 0}
        best = so_far["best"]
        gain = math.inf if best is None else (value - best) * (1.0 if self.largest else -1.0)
        if math.isfinite(value) and gain > self.least_gain:
            return {"best": value, "at": step, "waited": 0}
        return {**so_far, "waited": so_far["waited"] + 1}

    def ended(self, so_far: Followed | None) -> bool:
        """Whether the run ends here."""
        return so_far is not None and so_far["waited"] >= self.patience

    def reason(self, so_far: Followed) -> str:
        """Why it ends, for people."""
        best = "was no number" if so_far["best"] is None else f"was best, {so_far['best']:.4g},"
        return f"{self.metric} {best} at step {so_far['at']} and has not improved since"
