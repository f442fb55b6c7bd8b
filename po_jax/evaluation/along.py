"""Checkpoints of one run along its training, as policies of their own."""

from collections.abc import Mapping, Sequence
import dataclasses
import re

from po_jax import files

PATTERN = "*"


@dataclasses.dataclass(frozen=True)
class Stop:
    """A checkpoint on the way of a run.

    Attributes:
      step: updates so far.
      policy: its name among the policies.
    """

    step: int
    policy: str


def along_training(
    policies: Mapping[str, str],
) -> tuple[dict[str, str], dict[str, tuple[Stop, ...]]]:
    """Finds the checkpoints that a pattern names.

    Args:
      policies: name -> checkpoint, or a pattern with a star in its last part, such as
        runs/ipo_md/checkpoint_*; what the star stands for is the step.

    Returns:
      Name -> checkpoint, where a checkpoint of a pattern is called NAME@STEP; and by the name of
      the pattern its checkpoints, ascending.

    Raises:
      ValueError: if a pattern fits nothing, or what the star stands for is no step.
    """
    found: dict[str, str] = {}
    runs: dict[str, tuple[Stop, ...]] = {}
    for name, path in policies.items():
        if PATTERN not in str(path):
            found[name] = path
            continue
        steps = _steps(name, path)
        runs[name] = tuple(Stop(step, f"{name}@{step}") for step in sorted(steps))
        for stop in runs[name]:
            found[stop.policy] = steps[stop.step]
    return found, runs


def on_the_way(runs: Mapping[str, Sequence[Stop]]) -> set[str]:
    """The checkpoints before the last of each run: they meet nobody but the reference."""
    return {stop.policy for stops in runs.values() for stop in stops[:-1]}


def _steps(name: str, pattern: str) -> dict[int, str]:
    """The checkpoints of a pattern by their steps."""
    place = files.absolute(pattern)
    before, star, after = place.name.partition(PATTERN)
    if not star or PATTERN in after or PATTERN in str(place.parent):
        raise ValueError(
            f"policy {name!r}: expected one star, in the last part of the path, got {pattern}"
        )
    fits = re.compile(f"{re.escape(before)}([0-9]+){re.escape(after)}")
    with files.reaching(place):
        there = list(place.parent.iterdir()) if place.parent.is_dir() else []
    steps = {int(match[1]): str(path) for path in there if (match := fits.fullmatch(path.name))}
    if not steps:
        raise ValueError(f"policy {name!r}: expected checkpoints at {pattern}, got none")
    return steps
