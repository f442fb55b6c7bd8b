"""The reports of a study's cells, as points that figures and tables are made of."""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

from po_jax.evaluation.report import Report

Options = Mapping[str, str]  # axis -> option
FIGURES = ("win_rate", "kl", "regulariser", "length")


@dataclasses.dataclass(frozen=True)
class Compared:
    """One evaluation of a study.

    Attributes:
      options: of the evaluation, by axis.
      policies: the options of each policy that it compared, by the policy's name.
      report: what it found.
    """

    options: Options
    policies: Mapping[str, Options]
    report: Report


@dataclasses.dataclass(frozen=True)
class Point:
    """A policy, or a checkpoint on its way, against the start.

    Attributes:
      options: of the evaluation and of the policy.
      policy: its name.
      step: of a checkpoint along a run; None of a policy that was compared once.
      figures: "win_rate", "kl", "length" and, where it was measured, "regulariser": each with its
        mean and its interval, low and high.
    """

    options: Options
    policy: str
    step: int | None
    figures: Mapping[str, Mapping[str, Any]]

    def value(self, name: str) -> tuple[float, float, float]:
        """Mean, low and high of a figure; of the step or of an axis of numbers, three times it.

        "sqrt_kl" is the root of the KL, where over-optimisation is drawn.

        Raises:
          ValueError: if there is no such figure, and no such axis of numbers.
        """
        if name == "step" and self.step is not None:
            return (float(self.step),) * 3
        if name == "sqrt_kl":
            mean, low, high = (math.sqrt(max(0.0, x)) for x in self.value("kl"))
            return mean, low, high
        if name in self.figures:
            figure = self.figures[name]
            return figure["mean"], figure["low"], figure["high"]
        try:
            return (float(self.options[name]),) * 3
        except (KeyError, ValueError):
            known = ["step", "sqrt_kl", *self.figures, *self.options]
            raise ValueError(
                f"expected a figure or an axis of numbers, {known}, got {name!r}"
            ) from None


@dataclasses.dataclass(frozen=True)
class Results:
    """What a study has found so far.

    Attributes:
      evaluations: by stage.
    """

    evaluations: Mapping[str, Sequence[Compared]]

    def of(self, stage: str, where: Options | None = None) -> list[Compared]:
        """The evaluations of a stage, or those with some options."""
        return [
            compared
            for compared in self.evaluations.get(stage, ())
            if all(compared.options.get(axis) == x for axis, x in (where or {}).items())
        ]

    def points(self, stage: str, where: Options | None = None) -> list[Point]:
        """Every policy of a stage but the start, and every checkpoint along a run, in order."""
        found = []
        for compared in self.of(stage):
            for policy, options in compared.policies.items():
                options = {**compared.options, **options}
                if all(options.get(axis) == x for axis, x in (where or {}).items()):
                    found += _points(compared.report, policy, options)
        return found


def _points(report: Report, policy: str, options: Options) -> list[Point]:
    along = report["along"].get(policy)
    if along is not None:
        return [
            Point(options, policy, stop["step"], {x: stop[x] for x in FIGURES if x in stop})
            for stop in along
        ]
    reference = report["reference"]
    if policy == reference or policy not in report["win_rate"]:
        return []
    figures = {"win_rate": report["win_rate"][policy][reference]}
    for name in FIGURES[1:]:
        if policy in report[name]:
            figures[name] = report[name][policy]
    return [Point(options, policy, None, figures)]
