"""Comparisons that are easy to tell: the author's first line, and a line of words at random.

A model that reads two lines together learns nothing from lines that are about equally good before
it has learnt to compare at all. From these it learns that within some hundred steps.
"""

from collections.abc import Sequence
import random

from po_jax.data.records import Row
from tasks.docstring_pairs import Pair


def comparisons(pairs: Sequence[Pair]) -> list[Row]:
    """A row for each pair, the same at every call; half of the spoilt lines are one word."""
    words = [word for pair in pairs for word in pair.summary.split()]
    rows = []
    for pair in pairs:
        draw = random.Random(f"{pair.module} {pair.name}")
        length = len(pair.summary.split())
        drawn = draw.choices(words, k=length)
        spoilt = drawn if draw.random() < 0.5 else [drawn[0]] * draw.randint(1, 2 * length)
        rows.append(
            {
                "inputs": pair.document,
                "completion_1": pair.summary,
                "completion_2": " ".join(spoilt),
                "preference": 1.0,
            }
        )
    return rows
