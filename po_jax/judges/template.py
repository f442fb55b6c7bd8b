"""How a T5 judge reads: the text and the completions it judges, joined into one input.

A template is the token ids around the fields, for example (in words)

    which is better? text: <prompt> first: <completion 1> second: <completion 2>

with the two answers the judge chooses between, one token each. Composing happens on token ids,
inside jit, so that a judge which shares the policy's vocabulary never leaves the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Int

from po_jax.vocabulary import Vocabulary


@dataclass(frozen=True)
class Template:
    """Token ids around the fields of a judge's input, and the ids of its two answers.

    Attributes:
      pieces: the ids before each field; an empty tuple joins two fields directly.
      answers: the ids that say "the first" and "the second" (or "good" and "bad").
      eos_id: closes the input; dropped from the fields.
    """

    pieces: tuple[tuple[int, ...], ...]
    answers: tuple[int, int]
    eos_id: int = 1

    def __post_init__(self):
        if self.answers[0] == self.answers[1]:
            raise ValueError(f"Template: expected two different answers, got {self.answers}")


def preference_template(
    vocabulary: Vocabulary,
    pieces: Sequence[str] = ("which is better? text: ", " first: ", " second: "),
    answers: Sequence[str] = ("first", "second"),
) -> Template:
    """How a pairwise preference model reads: text, first and second completion.

    Args:
      vocabulary: of the judge.
      pieces: the words before each field.
      answers: the words for either completion; each is known by its first token.

    Raises:
      ValueError: if the answers begin with the same token.
    """
    return _from_words(vocabulary, pieces, answers)


def reward_template(
    vocabulary: Vocabulary,
    pieces: Sequence[str] = ("is this good? text: ", " answer: "),
    answers: Sequence[str] = ("good", "bad"),
) -> Template:
    """How a reward model reads: text and completion. Arguments as in `preference_template`."""
    return _from_words(vocabulary, pieces, answers)


def _from_words(vocabulary, pieces, answers):
    first, second = (int(vocabulary.encode(answer)[0]) for answer in answers)
    return Template(
        pieces=tuple(tuple(int(token) for token in vocabulary.encode(piece)) for piece in pieces),
        answers=(first, second),
    )


def compose(template: Template, *fields: Int[Array, "batch _"]) -> Int[Array, "batch length"]:
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

    def constant(ids: tuple[int, ...]) -> Array:
        row = jnp.asarray(ids, dtype=fields[0].dtype)
        return jnp.broadcast_to(row[None], (batch, len(ids)))

    parts = []
    for piece, field in zip(template.pieces, fields, strict=True):
        parts += [constant(piece), jnp.where(field == template.eos_id, 0, field)]
    joined = jnp.concatenate([*parts, constant((template.eos_id,))], axis=1)
    order = jnp.argsort(joined == 0, axis=1, stable=True)
    return jnp.take_along_axis(joined, order, axis=1)
