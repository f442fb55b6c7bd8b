"""How many positions the rows of a batch keep: the fewest of a few numbers that hold them all.

Padding that no row needs changes no result and costs what tokens cost. For each number of positions
programs are compiled anew, so these are few, and each is said when it first comes. A batch's are
told by its rows, which all processes have alike.
"""

from collections import defaultdict
from collections.abc import Sequence
import dataclasses
import functools
import logging
import math
from typing import Any

import jax
import numpy as np

logger = logging.getLogger(__name__)

EIGHTHS = tuple(eighth / 8 for eighth in range(1, 9))
STEP = 16  # Fewer positions are not worth a program.


@dataclasses.dataclass(frozen=True)
class Lengths:
    """The numbers of positions that rows are cut to.

    Attributes:
      shares: of the limit that rows were filled up to, ascending in (0, 1], the last of them 1;
        each is rounded up to a multiple of 16 positions.

    Raises:
      ValueError: if the shares are no such list.
    """

    shares: Sequence[float] = EIGHTHS

    def __post_init__(self):
        given = self.shares
        listed = isinstance(given, Sequence) and all(isinstance(x, int | float) for x in given)
        shares = tuple(given) if listed else ()
        if not shares or sorted({0.0, *shares, 1.0}) != [0.0, *shares]:
            raise ValueError(
                f"Lengths: expected ascending shares in (0, 1] that end with 1, got {given!r}"
            )
        object.__setattr__(self, "shares", shares)  # Gin hands over lists.

    def up_to(self, limit: int) -> list[int]:
        """The numbers for rows that were filled up to a limit, ascending."""
        steps = (math.ceil(share * limit / STEP) for share in self.shares)
        return sorted({min(step * STEP, limit) for step in steps})

    def fitting(self, longest: dict[int, int]) -> dict[int, int]:
        """The number for each limit, told by the longest row that was filled up to it."""
        choices = {limit: self.up_to(limit) for limit in sorted(longest)}
        fitting = {
            limit: next(length for length in lengths if length >= longest[limit])
            for limit, lengths in choices.items()
        }
        if any(len(lengths) > 1 for lengths in choices.values()):
            _tell(tuple(fitting.items()), math.prod(map(len, choices.values())))
        return fitting

    def cut(self, batch: Any) -> Any:
        """A tree of host arrays without the positions that are padding in every row.

        Integers and booleans with an axis of positions, their last of two or more, are tokens and
        what belongs to them; 0 is padding. Those filled up to one limit stay equally long.
        """
        longest: dict[int, int] = defaultdict(int)
        for rows in filter(_has_positions, jax.tree.leaves(batch)):
            limit = rows.shape[-1]
            used = np.flatnonzero(rows.reshape(-1, limit).any(axis=0))
            longest[limit] = max(longest[limit], *(used[-1:] + 1).tolist(), 0)
        fitting = self.fitting(longest)
        return jax.tree.map(
            lambda rows: rows[..., : fitting[rows.shape[-1]]] if _has_positions(rows) else rows,
            batch,
        )


def _has_positions(rows: Any) -> bool:
    return isinstance(rows, np.ndarray) and rows.ndim > 1 and rows.dtype.kind in "iub"


@functools.cache
def _tell(fitting: tuple[tuple[int, int], ...], most: int) -> None:
    sizes = " and ".join(f"{length} of {limit}" for limit, length in fitting)
    logger.info("rows of %s positions: one of at most %d sizes to compile for", sizes, most)
