"""What to read off each study: a few claims and the numbers measured, one function a study."""

from collections.abc import Mapping

import numpy as np

Numbers = Mapping[str, np.ndarray]
Facts = list[tuple[str, str]]


def identities(numbers: Numbers) -> Facts:
    """The largest errors of the gradient identities."""
    far = numbers["distance"] > 1.0
    return [
        (
            "online IPO's gradient is −(4/τ) ∇ value: largest relative error",
            f"{numbers['online_ipo'].max():.0e}",
        ),
        ("∇ ½E[h²] = 2∇KL, pairs from sg π: the same", f"{numbers['online_square'].max():.0e}"),
        (
            "∇ ½E[h²] = 2∇KL, pairs from μ: least relative error beyond distance 1",
            f"{numbers['offline_square'][far].min():.2f}",
        ),
    ]


def stationary_points(numbers: Numbers) -> Facts:
    """How near both algorithms came to the point that was solved for."""
    solved = [
        numbers["policy"][np.abs(numbers["beta"] - b).argmin()] for b in numbers["walked_beta"]
    ]
    facts = []
    for key, name in (("ipo_md", "IPO-MD"), ("nash_md_pg", "Nash-MD-PG")):
        distance = 0.5 * np.abs(numbers[key] - np.stack(solved)).sum(axis=-1).max()
        facts.append(
            (f"{name} ends at the solved point: largest total variation", f"{distance:.0e}")
        )
    facts.append(("exploitability of that point at β = 1", f"{numbers['exploitability'][-1]:.4f}"))
    return facts


def trajectories(numbers: Mapping[str, Numbers]) -> Facts:
    """The exploitability that each algorithm ends with."""
    return [
        (f"exploitability where {name} ends", f"{study['exploitability'][-1]:.1e}")
        for name, study in numbers.items()
        if "exploitability" in study
    ]


def alignment(numbers: Numbers) -> Facts:
    """The least cosine for each beta, before rounding is all that is left of the gradients."""
    facts = []
    for beta, cosine, left in zip(
        numbers["beta"], numbers["cosine"], numbers["distance"], strict=True
    ):
        least = cosine[left > 1e-6].min()
        facts.append((f"least cosine of the two gradients, β = {beta:g}", f"{least:.4f}"))
    return facts


def variances(numbers: Mapping[str, Numbers]) -> Facts:
    """The ratio of the variances where the paths begin and end."""
    facts = []
    for start, study in numbers.items():
        ratio = study["contrastive"] / study["single"]
        claim = f"variance, contrastive over one-sided, {start}: first, last"
        facts.append((claim, f"{ratio[0]:.2f}, {ratio[-1]:.2f}"))
    return facts


def token_mixtures(numbers: Numbers) -> Facts:
    """The largest distances."""
    return [
        (
            "total variation of token and sequence mixture, largest",
            f"{numbers['mixture'].max():.4f}",
        ),
        ("the same of IPO-MD's stationary points, largest", f"{numbers['stationary'].max():.4f}"),
    ]


def functions(numbers: Mapping[str, Numbers]) -> Facts:
    """The strength of each function's regularisation."""
    return [
        (f"size of f″(0) / f′(0), {name.replace('_', ' ')}", f"{study['strength']:g}")
        for name, study in numbers.items()
    ]


def certain_preference(numbers: Mapping[str, Numbers]) -> Facts:
    """The margin at the end."""
    return [
        (f"τh under a certain preference at the end, {name.replace('_', ' ')}", f"{margin:.2f}")
        for name, margin in ((name, study["margin"][-1]) for name, study in numbers.items())
    ]


def unseen_completion(numbers: Mapping[str, Numbers]) -> Facts:
    """The probability that remains."""
    return [
        (f"probability of the unseen completion, {name}", f"{study['probability'][-1]:.1e}")
        for name, study in numbers.items()
    ]


def gaussian_regularisers(numbers: Mapping[str, Numbers]) -> Facts:
    """How far the KL rises on each path, and where it ends."""
    return [
        (
            f"KL descending the squared margin, {name}: first, highest, last",
            ", ".join(f"{x:.2f}" for x in (study["kl"][0], study["kl"].max(), study["kl"][-1])),
        )
        for name, study in numbers.items()
        if name != "plane"
    ]
