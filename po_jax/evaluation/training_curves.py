"""What a run recorded while it trained, for the report of the policy that came of it."""

from collections.abc import Mapping
import logging
import os

from po_jax import files
from po_jax.data import json_lines
from po_jax.reporting.writers import METRICS

logger = logging.getLogger(__name__)

#: name -> steps and values
Curves = Mapping[str, Mapping[str, list[float | int]]]

# What is shown, by the record's split.
SHOWN = {"train": ("loss",), "held_out": ("win_rate", "kl", "length")}
MAX_POINTS = 200  # of a curve: more cannot be seen


def of_run(folder: str | os.PathLike) -> Curves:
    """The curves that a run's folder holds; none where there are no records."""
    place = files.absolute(folder) / METRICS
    if not place.exists():
        return {}
    curves: dict[str, dict[str, list[float | int]]] = {}
    try:
        for _, record in json_lines.read(place):
            for name in SHOWN.get(record.get("split"), ()):
                if name in record:
                    curve = curves.setdefault(
                        f"{record['split']}/{name}", {"step": [], "value": []}
                    )
                    curve["step"].append(int(record["step"]))
                    curve["value"].append(float(record[name]))
    except (ValueError, TypeError, KeyError) as error:  # somebody else's file of this name
        logger.warning("%s: no training curves, %s", place, error)
        return {}
    return {name: _thinned(curve) for name, curve in curves.items()}


def _thinned(curve: Mapping[str, list[float | int]]) -> dict[str, list[float | int]]:
    """Evenly spaced points of a long curve, its last among them."""
    stride = -(-len(curve["step"]) // MAX_POINTS)
    return {name: values[::-1][::stride][::-1] for name, values in curve.items()}
