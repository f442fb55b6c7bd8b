"""Figures of a report: who beats whom, at what price in KL, and how the training went."""

from collections.abc import Sequence
import io
from itertools import cycle, product
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
import numpy as np

from po_jax.evaluation.report import Report

INK, FAINT, GRID = "#1f2933", "#7b8794", "#e4e7eb"
BLUE, RED = "#2166ac", "#b2182b"
PALETTE = ("#2166ac", "#d95f02", "#1b9e77", "#7b3294", "#b8860b", "#e7298a", "#4d4d4d")
MARKERS = ("o", "s", "^", "D")  # another one each time that the colours begin again


def win_rate_matrix(report: Report) -> Figure:
    """How often the row's policy is preferred to the column's, in percent with 95% intervals."""
    names, rates = report["policies"], report["win_rate"]
    mean = np.full((len(names), len(names)), np.nan)
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            if a != b:
                mean[i, j] = rates[a][b]["mean"]
    span = max(0.15, float(np.nanmax(np.abs(mean - 0.5))))
    side = 1.4 + 0.85 * len(names)
    figure, axes = _figure(side + 0.6, side)
    # A wider colour scale than the data: the ends of the map are too dark to write on.
    axes.imshow(mean, cmap="RdBu", vmin=0.5 - 1.3 * span, vmax=0.5 + 1.3 * span)
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            if a == b:
                axes.text(j, i, "–", ha="center", va="center", color=FAINT)
                continue
            rate = rates[a][b]
            colour = "white" if abs(rate["mean"] - 0.5) > 0.7 * span else INK
            axes.text(
                j,
                i - 0.1,
                f"{100 * rate['mean']:.0f}%",
                ha="center",
                va="center",
                color=colour,
                fontsize=15,
                fontweight="bold",
            )
            axes.text(
                j,
                i + 0.22,
                f"{100 * rate['low']:.0f} to {100 * rate['high']:.0f}",
                ha="center",
                va="center",
                color=colour,
                fontsize=9,
            )
    name_the_sides(axes, names)
    axes.tick_params(labelsize=11)
    axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=3)
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel("the row is preferred to the column", color=FAINT, labelpad=10)
    return figure


def win_rates_over_reference(report: Report) -> Figure:
    """Each policy's win rate over the reference, from one half outwards, with 95% intervals."""
    reference = report["reference"]
    names = _challengers(report)
    rates = [report["win_rate"][name][reference] for name in names]
    figure, axes = _figure(5.8, 1.1 + 0.5 * len(names))
    for row, rate in enumerate(rates):
        mean, low, high = (100 * rate[key] for key in ("mean", "low", "high"))
        axes.barh(
            row, mean - 50, left=50, height=0.55, color=BLUE if mean >= 50 else RED, alpha=0.8
        )
        axes.plot([low, high], [row, row], color=INK, linewidth=1.6, solid_capstyle="butt")
        axes.plot([low, high], [row, row], "|", color=INK, markersize=9)
        axes.text(
            1.02,
            row,
            f"{mean:.1f}%",
            va="center",
            color=INK,
            fontweight="bold",
            transform=axes.get_yaxis_transform(),
        )
    axes.axvline(50, color=INK, linewidth=1)
    edges = [100 * rate[key] for rate in rates for key in ("low", "high")]
    axes.set_xlim(min(45, *edges) - 2, max(60, *edges) + 2)
    axes.set_yticks(range(len(names)), map(plain, names))
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter("{x:g}%")
    axes.tick_params(length=0, labelsize=11)
    axes.grid(axis="x", color=GRID)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(f"preferred to {plain(reference)}, with 95% interval", color=FAINT)
    return figure


def win_rate_against_kl(report: Report) -> Figure:
    """What each policy gained over the reference, against how far it went from it."""
    reference = report["reference"]
    names = [name for name in _challengers(report) if name in report["kl"]]
    figure, axes = _figure(5.8, max(3.7, 0.9 + 0.27 * len(names)))
    axes.axhline(50, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    points = axes.plot(0, 50, "o", color=FAINT, markersize=8)
    for name, (marker, colour) in zip(names, cycle(product(MARKERS, PALETTE)), strict=False):
        rate, kl = report["win_rate"][name][reference], report["kl"][name]
        x, y = kl["mean"], 100 * rate["mean"]
        axes.plot([kl["low"], kl["high"]], [y, y], color=colour, alpha=0.5)
        axes.plot([x, x], [100 * rate["low"], 100 * rate["high"]], color=colour, alpha=0.5)
        points += axes.plot(x, y, marker, color=colour, markersize=9)
    # Inside, a few names find room; many would lie on the points.
    few = len(names) < 4
    (axes if few else figure).legend(
        points,
        [plain(name) for name in (reference, *names)],
        loc="upper left" if few else "outside right upper",
        frameon=False,
        labelcolor="linecolor",
        handletextpad=0.2,
    )
    axes.margins(x=0.1, y=0.1)
    axes.yaxis.set_major_formatter("{x:g}%")
    plainly(axes, f"KL to {plain(reference)}, nats a completion")
    axes.set_ylabel(f"preferred to {plain(reference)}", color=FAINT)
    return figure


def along_training(report: Report) -> Figure:
    """Win rate over the reference and KL to it, of checkpoints along the training of each run."""
    figure = Figure(figsize=(9.0, 3.4), layout="constrained", facecolor="white")
    above, beside = figure.subplots(1, 2)
    above.axhline(50, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    for (name, stops), colour in zip(report["along"].items(), cycle(PALETTE), strict=False):
        steps = [stop["step"] for stop in stops]
        for axes, key, scale in ((above, "win_rate", 100.0), (beside, "kl", 1.0)):
            mean, low, high = (
                [scale * stop[key][part] for stop in stops] for part in ("mean", "low", "high")
            )
            axes.plot(steps, mean, "o-", color=colour, markersize=4, label=plain(name))
            axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    reference = plain(report["reference"])
    above.yaxis.set_major_formatter("{x:g}%")
    above.set_ylabel(f"preferred to {reference}", color=FAINT)
    beside.set_ylabel(f"KL to {reference}, nats", color=FAINT)
    for axes in (above, beside):
        plainly(axes, "step")
    above.legend(frameon=False)
    return figure


def training_curves(report: Report) -> Figure:
    """What the runs recorded while they trained: one panel for each quantity."""
    names = list(dict.fromkeys(name for run in report["training"].values() for name in run))
    figure = Figure(figsize=(9.0, 2.6 * -(-len(names) // 2)), layout="constrained")
    panels = iter(figure.subplots(-(-len(names) // 2), 2, squeeze=False).flat)
    for name, axes in zip(names, panels, strict=False):
        for (run, curves), colour in zip(report["training"].items(), cycle(PALETTE), strict=False):
            if name in curves:
                curve = curves[name]
                axes.plot(curve["step"], curve["value"], color=colour, label=plain(run))
        axes.set_title(name.replace("_", " ").replace("/", ": "), color=FAINT, fontsize=10)
        plainly(axes, "step")
    for axes in panels:  # one is left of an odd number
        axes.set_axis_off()
    handles = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False
    )
    return figure


def figures(report: Report) -> dict[str, Figure]:
    """Every figure by its file name, without suffix."""
    found = {}
    if all(len(rates) == len(report["policies"]) - 1 for rates in report["win_rate"].values()):
        found["win_rate_matrix"] = win_rate_matrix(report)
    found["win_rates_over_reference"] = win_rates_over_reference(report)
    if report["kl"]:
        found["win_rate_against_kl"] = win_rate_against_kl(report)
    if report["along"]:
        found["along_training"] = along_training(report)
    if report["training"]:
        found["training_curves"] = training_curves(report)
    return found


def write_png(figure: Figure, path: Path) -> None:
    """Writes a figure for slides and papers."""
    figure.savefig(path, format="png", dpi=200)


def svg(figure: Figure) -> str:
    """A figure as SVG text that needs no font and no file; the same figure is the same text."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "po_jax"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _figure(width: float, height: float):
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    return figure, figure.add_subplot()


def name_the_sides(axes, names: Sequence[str]) -> None:
    """The names of a matrix's columns, above it, and of its rows."""
    labels = list(map(plain, names))
    axes.set_xticks(range(len(names)), labels, rotation=30, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), labels)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def plainly(axes, x: str) -> None:
    """The looks of all panels that are lines over something."""
    axes.tick_params(length=0)
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(x, color=FAINT)


def plain(name: str) -> str:
    """A name to be shown as it is: matplotlib reads what stands between dollars as mathematics."""
    return name.replace("$", r"\$")


def _challengers(report: Report) -> list[str]:
    return [name for name in report["policies"] if name != report["reference"]]
