"""Rows that ended leave the decoding loop: its stages, and who goes on from one to the next.

Rows stand in groups: those of a group share one prompt's keys and values. The next stage has fewer
rows a group, or where a group is one row, fewer groups; a prompt with more rows left than a group
takes has several. Each part of the batch, the rows of one device, is packed by itself and has room
for as many, so that no row changes its device.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from po_jax.partitioning import take_rows

STAGES = 4  # Each is a loop that is compiled.
FEWEST_ROWS = 8  # Of a part. Fewer cost what these do: reading the parameters.


@dataclasses.dataclass(frozen=True)
class Stage:
    """The shape of the rows in a stage.

    Attributes:
      parts: of the batch, one after the other.
      groups: of a part.
      size: rows of a group.
    """

    parts: int
    groups: int
    size: int

    @property
    def rows(self) -> int:
        """Of a part."""
        return self.groups * self.size

    def smaller(self) -> "Stage":
        """About half of the rows, and never more groups."""
        if self.size > 1:
            return dataclasses.replace(self, size=(self.size + 1) // 2)
        return dataclasses.replace(self, groups=(self.groups + 1) // 2)


def stages(parts: int, prompts: int, samples: int) -> list[Stage]:
    """The stages of a batch of prompts: all rows, about half of them, about a quarter, ...

    One alone where the parts have not equally many.
    """
    if prompts % parts:
        return [Stage(1, prompts, samples)]
    found = [Stage(parts, prompts // parts, samples)]
    while len(found) < STAGES and FEWEST_ROWS <= found[-1].smaller().rows < found[-1].rows:
        found.append(found[-1].smaller())
    return found


@dataclasses.dataclass(frozen=True)
class Packing:
    """Who goes on to the next stage, and where it stands there.

    Attributes:
      group: of this stage, whose prompt each group of the next has.
      row: of this stage, that stands in each row of the next.
      taken: whether one does.
      place: in the next stage, of each row of this one.
      goes: whether it has one.
    """

    group: Int[Array, "parts next_groups"]
    row: Int[Array, "parts next_rows"]
    taken: Bool[Array, "parts next_rows"]
    place: Int[Array, "parts rows"]
    goes: Bool[Array, "parts rows"]

    def prompts(self, x: Array, axis: int = 0) -> Array:
        """An array with an axis of prompts, as the next stage has them."""
        return take_rows(x, self.group, axis)

    def rows(self, x: Array, axis: int = 0) -> Array:
        """An array with an axis of rows, as the next stage has them."""
        return take_rows(x, self.row, axis)

    def back(self, before: Array, after: Array) -> Array:
        """An array whose first axis is rows, with what the next stage has made of those there."""
        goes = self.goes.reshape((-1,) + (1,) * (before.ndim - 1))
        return jnp.where(goes, take_rows(after, self.place), before)


def _needed(running: Bool[Array, "rows"], now: Stage, then: Stage) -> Int[Array, "parts groups"]:
    """Groups of the next stage that the rows of each group fill."""
    alive = running.reshape(now.parts, now.groups, now.size)
    return -(-jnp.sum(alive, axis=-1) // then.size)


def fits(running: Bool[Array, "rows"], now: Stage, then: Stage) -> Bool[Array, ""]:
    """Whether the rows that have not ended have room in the next stage, those of every part."""
    return jnp.all(jnp.sum(_needed(running, now, then), axis=-1) <= then.groups)


def pack(running: Bool[Array, "rows"], now: Stage, then: Stage) -> Packing:
    """Packs the rows that have not ended in order, as far as there is room."""
    needed = _needed(running, now, then)
    first = jnp.cumsum(needed, axis=-1) - needed
    alive = running.reshape(now.parts, now.groups, now.size)
    rank = jnp.cumsum(alive, axis=-1) - 1
    place = first[:, :, None] * then.size + rank
    place = jnp.where(alive, place, then.rows).reshape(now.parts, now.rows)
    # Compared and not scattered, so that nobody needs another part's rows.
    stands = place[:, None, :] == jnp.arange(then.rows)[None, :, None]
    row = jnp.argmax(stands, axis=-1)
    return Packing(
        group=row.reshape(now.parts, then.groups, then.size)[:, :, 0] // now.size,
        row=row,
        taken=jnp.any(stands, axis=-1),
        place=place,
        goes=place < then.rows,
    )
