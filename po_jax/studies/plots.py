"""Figures of a study: who beats whom over all seeds, and one figure against another."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from itertools import cycle, product
from typing import Any

import jax
from matplotlib.figure import Figure
import numpy as np

from po_jax.evaluation.plots import FAINT, INK, MARKERS, PALETTE, name_the_sides, plain, plainly
from po_jax.studies.results import Point, Results

LABELS = {
    "win_rate": "win rate over the start",
    "kl": "KL to the start, nats",
    "sqrt_kl": "root of the KL to the start",
    "regulariser": "E[h²] / 2 under the start",
    "length": "tokens a completion",
    "step": "step",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matrix:
    """How often each policy is preferred to each other: the mean over a stage's evaluations.

    Attributes:
      stage: of evaluations of the same policies, such as one for each seed.
      where: options of the evaluations that count.
    """

    stage: str
    where: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __call__(self, results: Results) -> Figure | None:
        """Draws it; None where nothing has been found yet."""
        found = [compared.report for compared in results.of(self.stage, self.where)]
        names = list(dict.fromkeys(name for report in found for name in report["policies"]))
        if len(names) < 2:
            return None
        figure = Figure(figsize=(2.2 + 0.95 * len(names), 1.6 + 0.8 * len(names)))
        figure.set_layout_engine("constrained")
        axes = figure.add_subplot()
        means = np.full((len(names), len(names)), np.nan)
        for i, a in enumerate(names):
            for j, b in enumerate(names):
                rates = [
                    report["win_rate"][a][b]["mean"]
                    for report in found
                    if b in report["win_rate"].get(a, {})
                ]
                if not rates:
                    axes.text(j, i, "–", ha="center", va="center", color=FAINT)
                    continue
                means[i, j] = np.mean(rates)
                spread = f"\n{100 * min(rates):.0f} to {100 * max(rates):.0f}" * (len(rates) > 1)
                axes.text(
                    j,
                    i,
                    f"{100 * means[i, j]:.0f}%{spread}",
                    ha="center",
                    va="center",
                    color="white" if abs(means[i, j] - 0.5) > 0.3 else INK,
                    fontsize=10,
                )
        axes.imshow(means, cmap="RdBu", vmin=0.05, vmax=0.95)
        name_the_sides(axes, names)
        seeds = f"; mean and extremes of {len(found)} evaluations" if len(found) > 1 else ""
        axes.set_xlabel(f"the row is preferred to the column{seeds}", color=FAINT)
        return figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curves:
    """One figure of every point of a stage against another.

    Attributes:
      stage: of evaluations.
      x, y: "win_rate", "kl", "sqrt_kl", "regulariser", "length" or "step"; x may be an axis of
        numbers.
      colour: the axis whose options have each a colour and a place in the legend.
      marker: the axis whose options have each a marker; None for one marker.
      where: options of the points that are drawn.
      peaks: whether to mark the highest point of each curve.
    """

    stage: str
    x: str
    y: str
    colour: str
    marker: str | None = None
    where: Mapping[str, str] = dataclasses.field(default_factory=dict)
    peaks: bool = False

    def __call__(self, results: Results) -> Figure | None:
        """Draws it, a curve through the points that differ in step or x alone; None of nothing."""
        points = results.points(self.stage, self.where)
        if not points:
            return None
        figure = Figure(figsize=(7.2, 4.2), layout="constrained", facecolor="white")
        axes = figure.add_subplot()
        percent = self.y == "win_rate"
        if percent:
            axes.axhline(50, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        looks = _looks(points, self.colour, self.marker)
        shown: dict[str, object] = {}
        for curve in _curves(points, self.x).values():
            colour, marker = looks(curve[0])
            x = np.array([point.value(self.x) for point in curve])
            y = np.array([point.value(self.y) for point in curve]) * (100.0 if percent else 1.0)
            order = np.arange(len(x)) if curve[0].step is not None else np.argsort(x[:, 0])
            x, y = x[order], y[order]
            (line,) = axes.plot(
                *(x[:, 0], y[:, 0], marker), color=colour, linestyle="-", markersize=5
            )
            axes.vlines(x[:, 0], y[:, 1], y[:, 2], color=colour, alpha=0.35, linewidth=1)
            if self.peaks:
                top = int(y[:, 0].argmax())
                axes.plot(x[top, 0], y[top, 0], "*", color=colour, markersize=15, zorder=3)
            label = _label(curve[0], self.colour, self.marker)
            shown.setdefault(label, line)
        figure.legend(list(shown.values()), list(shown), loc="outside right upper", frameon=False)
        if percent:
            axes.yaxis.set_major_formatter("{x:g}%")
        axes.set_ylabel(LABELS.get(self.y, self.y), color=FAINT)
        plainly(axes, LABELS.get(self.x, self.x))
        return figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exact:
    """What the exact lab says of the same question, in a game that can be enumerated.

    Attributes:
      study: computes the numbers, in float64; of `po_jax.game`.
      figure: draws them.
    """

    study: Callable[[], Any]
    figure: Callable[[Any], Figure]

    def __call__(self, results: Results) -> Figure:
        """Draws it; the results of the runs have no part in it."""
        del results
        with jax.enable_x64(True):
            return self.figure(self.study())


def _curves(points: Sequence[Point], x: str) -> dict[object, list[Point]]:
    """The points that belong to one line: of one run, or alike in all options but x."""
    curves: dict[object, list[Point]] = {}
    for point in points:
        kept = tuple(sorted(item for item in point.options.items() if item[0] != x))
        curves.setdefault(kept, []).append(point)
    return curves


def _looks(points: Sequence[Point], colour: str, marker: str | None):
    """Of a point, colour and marker; with no axis of markers the next when colours begin again."""
    colours = dict.fromkeys(point.options.get(colour, "") for point in points)
    markers = dict.fromkeys(point.options.get(marker or "", "") for point in points)
    of_colour = dict(zip(colours, cycle(product(MARKERS, PALETTE)), strict=False))
    of_marker = dict(zip(markers, cycle(MARKERS), strict=False))

    def look(point: Point) -> tuple[str, str]:
        again, tint = of_colour[point.options.get(colour, "")]
        return tint, of_marker[point.options.get(marker, "")] if marker else again

    return look


def _label(point: Point, colour: str, marker: str | None) -> str:
    parts = [point.options.get(axis, "") for axis in (colour, marker) if axis]
    return plain(", ".join(filter(None, parts)) or "best of n")
