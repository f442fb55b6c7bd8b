"""Rows of like lengths go together, and every such group is cut to its own length.

A batch's longest row is nearly always as long as rows may be. So within a program every device
sorts its rows by length, and they go in a few groups, one after the other, each cut to the fewest
of a few numbers of positions that hold it. The program has a branch for each of these numbers;
which of them a group takes is found on the devices, by all of them alike. So no length compiles
anything, no row leaves its device, and results are in the order of the rows.

Rows are trees of arrays. Integers and booleans with the most positions, as in `Lengths.cut`, tell
their length and are cut.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any, cast

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from po_jax.language_model import (
    Cache,
    Encoded,
    LanguageModel,
    SpecialIds,
    Take,
    require_completions,
)
from po_jax.lengths import Lengths
from po_jax.partitioning import row_parts, take_rows
from po_jax.types import Params

MOST_GROUPS = 8
MOST_BRANCHES = 5  # Each is compiled.
FEWEST_POSITIONS = 2048  # of a group, on a device. Fewer cost what these do: reading parameters.


def number_of_groups(lengths: Lengths, rows: Any, multiple: int = 1) -> int:
    """Groups that these rows are worth: a multiple of a number, and at least that many."""
    limit, count = _limit(rows), jax.tree.leaves(rows)[0].shape[0]
    if len(_choices(lengths, limit)) == 1 or count % (row_parts() * multiple):
        return multiple
    own = count // (row_parts() * multiple)
    return multiple * max(
        parts
        for parts in range(1, max(1, MOST_GROUPS // multiple) + 1)
        if parts == 1 or (own % parts == 0 and own // parts * limit >= FEWEST_POSITIONS)
    )


def split(rows: Any, count: int) -> Any:
    """Rows as groups, with an axis of groups before: the first has rows 0, n, 2n, ...

    No row leaves its device.
    """

    def groups(x):
        return jnp.moveaxis(x.reshape(len(x) // count, count, *x.shape[1:]), 1, 0)

    return jax.tree.map(groups, rows)


def join(groups: Any) -> Any:
    """Undoes `split`."""

    def rows(x):
        return jnp.moveaxis(x, 0, 1).reshape(x.shape[0] * x.shape[1], *x.shape[2:])

    return jax.tree.map(rows, groups)


def by_length(rows: Any, count: int) -> Int[Array, "parts rows"]:
    """The order of each part's rows in which `split` makes groups of like lengths of them."""
    ascending = jnp.argsort(_used(rows).reshape(row_parts(), -1), axis=-1)
    return ascending.reshape(len(ascending), count, -1).swapaxes(1, 2).reshape(ascending.shape)


def ordered(rows: Any, order: Int[Array, "parts rows"]) -> Any:
    """Rows in another order, each part's by itself."""
    return jax.tree.map(lambda x: take_rows(x, order), rows)


def grouped(lengths: Lengths, rows: Any, count: int) -> Any:
    """`split` of rows, those of like lengths together if lengths matter."""
    if len(_choices(lengths, _limit(rows))) > 1:
        rows = ordered(rows, by_length(rows, count))
    return split(rows, count)


def at_own_length(lengths: Lengths, function: Callable[[Any], Any], rows: Any) -> Any:
    """What a function makes of rows that are cut; its results must not have their positions."""
    limit = _limit(rows)
    choices = _choices(lengths, limit)
    if len(choices) == 1:
        return function(rows)

    def cut_to(length):
        return lambda whole: function(
            jax.tree.map(lambda x: x[..., :length] if _positions(x) == limit else x, whole)
        )

    shorter = jnp.asarray(choices[:-1]) < jnp.max(_used(rows))
    return lax.switch(jnp.sum(shorter), [cut_to(length) for length in choices], rows)


def in_groups(
    lengths: Lengths,
    function: Callable[..., Any],
    rows: Int[Array, "rows positions"],
    *beside: Array,
) -> Any:
    """What a function makes of rows, each by itself, computed in groups of like lengths.

    Args:
      lengths: the numbers of positions.
      function: of rows and what is beside them; makes trees of arrays, rows first, whose shapes do
        not tell how many positions it was given.
      rows: tokens.
      *beside: what else belongs to the rows, and is not cut.
    """
    count = number_of_groups(lengths, rows)
    if count == 1:
        return function(rows, *beside)
    order = by_length(rows, count)
    structure = None

    def leaves(*given):
        nonlocal structure  # A record's fields may not have the axis of groups.
        found, structure = jax.tree.flatten(function(*given))
        return found

    def group(given):
        own, *others = given
        return at_own_length(lengths, lambda cut: leaves(cut, *others), own)

    results = lax.map(group, split(ordered((rows, *beside), order), count))
    return jax.tree.unflatten(structure, ordered(join(results), jnp.argsort(order, axis=-1)))


def positions_read(model: LanguageModel, rows: Int[Array, "rows positions"]) -> Int[Array, " rows"]:
    """How many positions of each row a language model is given, padding and all."""

    def number(cut):
        return jnp.full(cut.shape[:1], cut.shape[1])

    return in_groups(model.lengths, number, rows) if isinstance(model, _ByLength) else number(rows)


def reading_by_length(model: LanguageModel, lengths: Lengths) -> LanguageModel:
    """The same language model, which reads prompts in groups of like lengths.

    For what is not differentiated: a backward pass would keep what every branch keeps.
    """
    return cast(LanguageModel, _ByLength(model, lengths))


@dataclasses.dataclass(frozen=True)
class _ByLength:
    """`encode`, `score` and `next_token_logits` of its own; all else is the model's."""

    model: LanguageModel
    lengths: Lengths

    @property
    def vocab_size(self) -> int:
        return self.model.vocab_size

    @property
    def special_ids(self) -> SpecialIds:
        return self.model.special_ids

    @property
    def has_dropout(self) -> bool:
        return self.model.has_dropout

    @property
    def frozen(self) -> tuple[str, ...]:
        return self.model.frozen

    @property
    def beyond_shapes(self) -> Mapping[str, Any]:
        return self.model.beyond_shapes

    def init(self, key: PRNGKeyArray) -> Params:
        return self.model.init(key)

    def parameter_axes(self) -> Any:
        return self.model.parameter_axes()

    def for_sampling(self, params: Params) -> Params:
        return self.model.for_sampling(params)

    def prefill(self, params: Params, encoded: Encoded, samples: int, max_length: int) -> Cache:
        return self.model.prefill(params, encoded, samples, max_length)

    def extend(
        self, params: Params, cache: Cache, tokens: Int[Array, "rows"]
    ) -> tuple[Float[Array, "rows vocab"], Cache]:
        return self.model.extend(params, cache, tokens)

    def take(self, cache: Cache, prompts: Take, rows: Take) -> Cache:
        return self.model.take(cache, prompts, rows)

    def logits(
        self,
        params: Params,
        inputs: Int[Array, "batch input_length"],
        decoder_inputs: Int[Array, "batch length"],
    ) -> Float[Array, "batch length vocab"]:
        return self.model.logits(params, inputs, decoder_inputs)

    def encode(self, params: Params, prompt: Int[Array, "batch prompt"]) -> Encoded:
        """Positions that were cut off are padding, and have the states of the last that was not.

        A prompt of nothing but padding attends to all of it, however much there is.
        """
        limit = prompt.shape[1]

        def encode(rows):
            length = rows.shape[1]

            def filled(x):
                if x.ndim < 2 or x.shape[1] != length:
                    return x
                widths = [(0, 0), (0, limit - length)] + [(0, 0)] * (x.ndim - 2)
                floating = jnp.issubdtype(x.dtype, jnp.floating)
                return jnp.pad(x, widths, mode="edge" if floating else "constant")

            return jax.tree.map(filled, self.model.encode(params, rows))

        return in_groups(self.lengths, encode, prompt)

    def score(
        self,
        params: Params,
        prompt: Int[Array, "batch prompt"],
        completion: Int[Array, "batch samples length"],
        mask: Bool[Array, "batch samples length"],
    ) -> Float[Array, "batch samples length"]:
        require_completions(prompt, completion)

        def score(*rows):
            return self.model.score(params, *rows)

        return in_groups(self.lengths, score, prompt, completion, mask)

    def next_token_logits(
        self,
        params: Params,
        prompt: Int[Array, "batch prompt"],
        completion: Int[Array, "batch samples length"],
        mask: Bool[Array, "batch samples length"],
    ) -> Float[Array, "batch samples vocab"]:
        require_completions(prompt, completion)

        def next_token_logits(*rows):
            return self.model.next_token_logits(params, *rows)

        return in_groups(self.lengths, next_token_logits, prompt, completion, mask)


def _choices(lengths: Lengths, limit: int) -> list[int]:
    """The numbers of positions, or if they are too many, every second or third of them."""
    descending = lengths.up_to(limit)[::-1]
    return descending[:: -(-len(descending) // MOST_BRANCHES)][::-1]


def _positions(x: Any) -> int:
    """Of an array of tokens or of what belongs to them; 0 of others."""
    has = x.ndim > 1 and (x.dtype == bool or jnp.issubdtype(x.dtype, jnp.integer))
    return x.shape[-1] if has else 0


def _limit(rows: Any) -> int:
    return max(map(_positions, jax.tree.leaves(rows)))


def _used(rows: Any) -> Int[Array, " rows"]:
    """Positions of each row up to the last that is not padding."""
    limit = _limit(rows)
    place = jnp.arange(1, limit + 1)
    ends = [
        jnp.max(jnp.where(x != 0, place, 0), axis=tuple(range(1, x.ndim)))
        for x in jax.tree.leaves(rows)
        if _positions(x) == limit
    ]
    return jnp.max(jnp.stack(ends), axis=0)
