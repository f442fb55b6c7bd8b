"""Draws the studies and writes down what they show."""

from collections.abc import Callable, Mapping, Sequence
import logging
from pathlib import Path
import time
from typing import Any

import jax

from po_jax.game import facts

Study = Callable[[], Mapping[str, Any]]
Draw = Callable[[str, Mapping[str, Any], Path], None]


def write(folder: str, studies: Sequence[Study], draw: Draw) -> None:
    """Runs studies, in float64: a figure each, and the table `facts.md`, in the folder.

    Args:
      folder: where to write; made if there is none.
      studies: functions that return numbers; the one of the same name in `facts` sums them up.
      draw: writes the figure of a study, given its name, its numbers and a file.
    """
    directory = Path(folder)
    directory.mkdir(parents=True, exist_ok=True)
    rows = ["| claim | measured |", "| --- | --- |"]
    for study in studies:
        began = time.monotonic()
        name = study.__name__
        with jax.enable_x64(True):
            numbers = study()
        draw(name, numbers, directory / f"{name}.png")
        rows += [f"| {claim} | {number} |" for claim, number in getattr(facts, name)(numbers)]
        logging.getLogger(__name__).info("%s: %.1f s", name, time.monotonic() - began)
    (directory / "facts.md").write_text("\n".join(rows) + "\n", encoding="utf-8")
