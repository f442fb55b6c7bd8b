"""Draws the studies and writes down what they show."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import logging
from pathlib import Path
import time
from typing import Any

import jax

Numbers = Mapping[str, Any]
Figure = Any  # matplotlib's, which only `plots` imports

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Exhibit:
    """One claim of a paper: how its numbers are made, drawn and summed up.

    Attributes:
      name: of the figure's file.
      study: computes the numbers; run in float64.
      figure: draws them.
      facts: sums them up, as pairs of a claim and what was measured.
    """

    name: str
    study: Callable[[], Numbers]
    figure: Callable[[Numbers], Figure]
    facts: Callable[[Numbers], Sequence[tuple[str, str]]]


def write(
    folder: str,
    exhibits: Sequence[Exhibit],
    save: Callable[[Callable[[Numbers], Figure], Numbers, Path], None],
) -> None:
    """Writes a figure for each exhibit, and `facts.md`, the table of all facts, into a folder.

    Args:
      folder: where to write; made if there is none.
      exhibits: in the order of the table.
      save: draws numbers by a figure's function into a file.
    """
    directory = Path(folder)
    directory.mkdir(parents=True, exist_ok=True)
    rows = ["| claim | measured |", "| --- | --- |"]
    for exhibit in exhibits:
        began = time.monotonic()
        with jax.enable_x64(True):
            numbers = exhibit.study()
        save(exhibit.figure, numbers, directory / f"{exhibit.name}.png")
        rows += [f"| {claim} | {measured} |" for claim, measured in exhibit.facts(numbers)]
        logger.info("%s: %.1f s", exhibit.name, time.monotonic() - began)
    (directory / "facts.md").write_text("\n".join(rows) + "\n", encoding="utf-8")
