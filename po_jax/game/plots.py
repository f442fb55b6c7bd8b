"""The figures of the exact lab, one function a study: numbers in, a matplotlib figure out."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np

Numbers = Mapping[str, np.ndarray]

# Okabe and Ito's palette: told apart by colour-blind readers, and in grey.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#777777"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)
ACTIONS = ("rock", "paper", "scissors")
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.dpi": 110,
}


def _axes(columns: int, width: float = 4.2, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(columns * width, height), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, columns)))


def identities(numbers: Numbers) -> Figure:
    """Errors of the gradient identities against the distance from the reference."""
    figure, (axis,) = _axes(1, width=5.6)
    for key, colour, label in (
        ("offline_square", RED, "∇ ½E[h²] = 2∇KL, pairs from μ"),
        ("online_square", BLUE, "∇ ½E[h²] = 2∇KL, pairs from sg π"),
        ("online_ipo", GREEN, "∇ online IPO = −(4/τ) ∇ value"),
    ):
        axis.loglog(numbers["distance"], np.maximum(numbers[key], 1e-17), color=colour, label=label)
    axis.set(
        xlabel="distance of the logits from those of μ",
        ylabel="relative error",
        title="Two identities hold online, one fails offline",
        ylim=(1e-17, 1e3),
    )
    axis.legend(loc="center right")
    return figure


def stationary_points(numbers: Numbers) -> Figure:
    """Where IPO-MD and Nash-MD-PG stop against beta, and what that costs."""
    figure, (policy, cost) = _axes(2)
    for i, (action, colour) in enumerate(zip(ACTIONS, COLOURS, strict=False)):
        policy.plot(numbers["beta"], numbers["policy"][:, i], color=colour, label=action)
        walked = numbers["walked_beta"]
        policy.plot(walked, numbers["ipo_md"][:, i], "o", mfc="none", ms=9, color=colour)
        policy.plot(walked, numbers["nash_md_pg"][:, i], "x", ms=6, color=colour)
    policy.plot([], [], "o", mfc="none", ms=9, color=GREY, label="IPO-MD ended here")
    policy.plot([], [], "x", ms=6, color=GREY, label="Nash-MD-PG ended here")
    policy.set(xlabel="β", ylabel="probability", ylim=(0, 1), title="The shared stationary point")
    policy.legend()
    cost.plot(numbers["beta"], numbers["exploitability"], color=RED, label="exploitability")
    cost.plot(numbers["beta"], numbers["kl"], color=BLUE, label="KL(π‖μ), nats")
    cost.set(xlabel="β", ylim=(0, None), title="It is Nash only at β = 0")
    cost.legend()
    return figure


def trajectories(numbers: Mapping[str, Numbers]) -> Figure:
    """Paths of the algorithms in the simplex, their exploitability and their KL."""
    figure, (simplex, gap, divergence) = _axes(3, height=3.9)
    _draw_simplex(simplex)
    # Wide lines below thin ones: paths that coincide both stay visible.
    widths = np.linspace(3.0, 1.0, len(numbers))
    for (name, study), colour, width in zip(numbers.items(), COLOURS, widths, strict=False):
        x, y = _in_simplex(study["policy"])
        simplex.plot(x, y, color=colour, linewidth=width, label=name)
        time = 0.02 * np.arange(len(x))
        gap.semilogy(time, np.maximum(study["exploitability"], 1e-12), color=colour, lw=width)
        divergence.plot(time, study["kl"], color=colour, linewidth=width)
    simplex.plot(
        *_in_simplex(numbers["equilibrium"]["policy"]), "k*", ms=9, label="regularised Nash"
    )
    simplex.set_title("Paths to equilibrium, or not", pad=16)
    gap.set(xlabel="time", title="Exploitability", ylim=(1e-12, 1))
    divergence.set(xlabel="time", title="KL(π‖μ), nats", ylim=(0, None))
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def alignment(numbers: Numbers) -> Figure:
    """Cosine of the two gradients along IPO-MD's path, against the distance left to go."""
    figure, (cosine,) = _axes(1, width=5.2)
    for beta, values, left, colour in zip(
        numbers["beta"], numbers["cosine"], numbers["distance"], COLOURS, strict=False
    ):
        cosine.semilogx(left, values, color=colour, label=f"β = {beta:g}")
    cosine.invert_xaxis()
    cosine.set(
        xlabel="total variation left to the stationary point",
        ylabel="cosine",
        title="Gradients of IPO-MD and Nash-MD-PG",
        xlim=(1, 1e-6),
    )
    cosine.legend()
    return figure


def variances(numbers: Mapping[str, Numbers]) -> Figure:
    """Variance of the two estimators along online IPO's path."""
    figure, axes = _axes(len(numbers))
    for axis, (start, study) in zip(axes, numbers.items(), strict=True):
        axis.semilogy(study["time"], study["contrastive"], color=BLUE, label="contrastive (IPO)")
        axis.semilogy(study["time"], study["single"], color=RED, label="one-sided (self-play PG)")
        axis.set(xlabel="time", ylabel="trace of the covariance", title=start.capitalize())
        axis.legend()
    return figure


def token_mixtures(numbers: Numbers) -> Figure:
    """Distance of the sampler's mixture from the theory's, and of the points they lead to."""
    figure, (axis,) = _axes(1, width=5.2)
    axis.plot(numbers["beta"], numbers["mixture"], color=BLUE, label="the mixtures of two T5s")
    axis.plot(
        numbers["solved_beta"],
        numbers["stationary"],
        "o--",
        color=RED,
        label="IPO-MD's stationary points",
    )
    axis.set(
        xlabel="β",
        ylabel="total variation",
        ylim=(0, None),
        title="Mixing by token against mixing by sequence",
    )
    axis.legend()
    return figure


def functions(numbers: Mapping[str, Numbers]) -> Figure:
    """The functions f, their slopes, and the strength of their regularisation."""
    figure, (value, slope, strength) = _axes(3, width=3.7)
    for (name, study), colour in zip(numbers.items(), COLOURS, strict=True):
        # Scaled to f'(0) = -1: the losses then follow a small preference equally.
        scale = -1.0 / study["slope"][len(study["z"]) // 2]
        dashes = "--" if name == "truncated_quadratic" else "-"  # it lies on the squared one
        value.plot(study["z"], scale * study["value"], dashes, color=colour)
        slope.plot(study["z"], -scale * study["slope"], dashes, color=colour)
    value.set(xlabel="z = τh", ylim=(0, 6), title="f(z) / |f′(0)|")
    slope.set(xlabel="z = τh", ylim=(-2, 6), title="−f′(z) / |f′(0)|")
    names = list(numbers)
    strength.barh(
        [_words(name) for name in names],
        [float(numbers[name]["strength"]) for name in names],
        color=COLOURS,
        height=0.6,
    )
    strength.invert_yaxis()
    strength.set(xlabel="pull to μ for each unit of preference", title="|f″(0) / f′(0)|")
    return figure


def certain_preference(numbers: Mapping[str, Numbers]) -> Figure:
    """The margin under a certain preference: three functions stop, three never do."""
    figure, (axis,) = _axes(1, width=5.2)
    for (name, study), colour in zip(numbers.items(), COLOURS, strict=True):
        stops = study["margin"][-1] < 1.5
        axis.semilogx(
            study["time"],
            study["margin"],
            color=colour,
            linestyle="-" if stops else "--",
            label=_words(name),
        )
    axis.axhline(1.0, color=GREY, linewidth=0.8)
    axis.set(xlabel="time", ylabel="τh", title="The margin when one completion always wins")
    axis.legend()
    return figure


def unseen_completion(numbers: Mapping[str, Numbers]) -> Figure:
    """The probability of a bad completion that the data never shows."""
    figure, (axis,) = _axes(1, width=5.2)
    (solution,) = numbers["RLHF solution"]["probability"]
    for name, study in numbers.items():
        if name == "RLHF solution":
            continue
        place, loss = name.split()
        axis.loglog(
            study["time"],
            study["probability"],
            color=RED if place == "offline" else BLUE,
            linestyle="-" if loss == "DPO" else "--",
            label=name,
        )
    axis.axhline(solution, color=GREY, linewidth=0.8, label="RLHF solution")
    axis.set(xlabel="time", ylabel="probability", title="A bad completion that no data shows")
    axis.legend(loc="lower left")
    return figure


def gaussian_regularisers(numbers: Mapping[str, Numbers]) -> Figure:
    """Paths of the online and the offline regulariser, and the KL along them."""
    figure, (plane, divergence) = _axes(2, width=4.6, height=3.8)
    axis, field = numbers["plane"]["axis"], numbers["plane"]["kl"]
    filled = plane.contourf(
        axis, axis, field.T, np.geomspace(0.02, 30, 18), cmap="Greys", norm="log"
    )
    figure.colorbar(filled, ax=plane, label="KL(π‖μ), nats", ticks=[0.1, 1, 10], format="%g")
    for name, study in numbers.items():
        if name == "plane":
            continue
        online = name.startswith("online")
        colour, style = (BLUE, "-") if online else (RED, "--")
        first = divergence.get_legend_handles_labels()[1]
        label = "descends ½E[h²], pairs from π: 2KL" if online else "descends ½E[h²], pairs from μ"
        label = None if label in first else label
        plane.plot(*study["path"].T, style, color=colour)
        plane.plot(*study["path"][0], "o", color="black", ms=4)
        plane.plot(*study["path"][-1], "*", color=colour, ms=11)
        time = 0.02 * np.arange(len(study["kl"]))
        divergence.semilogy(time, np.maximum(study["kl"], 1e-6), style, color=colour, label=label)
    plane.set(xlabel="first mean", ylabel="second mean", title="Two means, from dot to star")
    divergence.set(xlabel="time", ylim=(1e-4, 20), title="KL(π‖μ) on the way, nats")
    divergence.legend()
    return figure


def _words(name: str) -> str:
    return name.replace("_", " ")


def _in_simplex(policy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return policy[:, 1] + 0.5 * policy[:, 2], np.sqrt(3.0) / 2.0 * policy[:, 2]


def _draw_simplex(axis: Axes) -> None:
    corners = np.concatenate([np.eye(3), np.eye(3)[:1]])
    axis.plot(*_in_simplex(corners), color="black", linewidth=0.8)
    for action, policy, place in zip(ACTIONS, np.eye(3), ("ul", "ur", "bc"), strict=True):
        x, y = _in_simplex(policy[None])
        axis.text(
            x[0],
            y[0] + (0.03 if place == "bc" else -0.03),
            action,
            ha={"ul": "left", "ur": "right", "bc": "center"}[place],
            va="bottom" if place == "bc" else "top",
        )
    axis.set_aspect("equal")
    axis.axis("off")


def save(figure: Callable[[Mapping[str, Any]], Figure], numbers: Mapping[str, Any], path: Path):
    """Draws numbers by one of the functions above and writes them as PNG."""
    with matplotlib.rc_context(STYLE):
        figure(numbers).savefig(path)
