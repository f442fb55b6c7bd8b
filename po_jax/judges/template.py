"""How a T5 judge reads: the text and the completions it judges, joined into one input.

A template is the token ids around the fields, for example (in words)

    which is better? text: <prompt> first: <completion 1> second: <completion 2>

with the two verdicts the judge chooses between, one token each. Composing happens on token ids,
inside jit, so that a judge which shares the policy's vocabulary never leaves the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Int

from po_jax.language_model import SpecialIds
from po_jax.vocabulary import Vocabulary


@dataclass(frozen=True)
class Template:
    """Token ids around the fields of a judge's input, and the ids of its two verdicts.

    Attributes:
      pieces: the ids before each field; an empty tuple joins two fields directly.
      verdicts: the ids that say "the first" and "the second" (or "good" and "bad").
    """

    pieces: tuple[tuple[int, ...], ...]
    verdicts: tuple[int, int]

    def __post_init__(self):
        if self.verdicts[0] == self.verdicts[1]:
            raise ValueError(f"Template: expected two different verdicts, got {self.verdicts}")


def preference_template(
    vocabulary: Vocabulary,
    pieces: Sequence[str] = ("which is better? text: ", " first: ", " second: "),
    verdicts: Sequence[str] = ("first", "second"),
) -> Template:
    """How a pairwise preference model reads: text, first and second completion.

    Args:
      vocabulary: of the judge.
      pieces: the words before each field.
      verdicts: the words for either completion; each is known by its first token.

    Raises:
      ValueError: if the verdicts begin with the same token.
    """
    return _from_words(vocabulary, pieces, verdicts)


def reward_template(
    vocabulary: Vocabulary,
    pieces: Sequence[str] = ("is this good? text: ", " answer: "),
    verdicts: Sequence[str] = ("good", "bad"),
) -> Template:
    """How a reward model reads: text and completion. Arguments as in `preference_template`."""
    return _from_words(vocabulary, pieces, verdicts)


def _from_words(vocabulary, pieces, verdicts):
    first, second = (int(vocabulary.encode(verdict)[0]) for verdict in verdicts)
    return Template(
        pieces=tuple(tuple(int(token) for token in vocabulary.encode(piece)) for piece in pieces),
        verdicts=(first, second),
    )


def compose(
    template: Template, ids: SpecialIds, *fields: Int[Array, "batch _"]
) -> Int[Array, "batch length"]:
    """Pieces and fields in turn and a final EOS, without the fields' own padding and EOS.

    The length is the sum of all lengths: nothing is ever cut. Padding gathers on the right.

    Raises:
      ValueError: if the template has not one piece for each field.
    """
    if len(fields) != len(template.pieces):
        raise ValueError(
            f"compose: expected one field for each of the template's {len(template.pieces)} "
            f"pieces, got {len(fields)} fields"
        )
    batch = fields[0].shape[0]

    def constant(tokens: tuple[int, ...]) -> Array:
        row = jnp.asarray(tokens, dtype=fields[0].dtype)
        return jnp.broadcast_to(row[None], (batch, len(tokens)))

    parts = []
    for piece, field in zip(template.pieces, fields, strict=True):
        parts += [constant(piece), jnp.where(field == ids.eos, ids.pad, field)]
    joined = jnp.concatenate([*parts, constant((ids.eos,))], axis=1)
    order = jnp.argsort(joined == ids.pad, axis=1, stable=True)
    return jnp.take_along_axis(joined, order, axis=1)
