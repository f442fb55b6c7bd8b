"""How a T5 judge reads: the text and the completions it judges, with words around them.

A template is the token ids around the fields, for example (in words)

    which is better? text: <prompt> first: <completion 1> second: <completion 2>

with the two verdicts the judge chooses between, one token each. The encoder reads all of it, or the
text alone, and then the decoder the rest. Composing happens on token ids, inside jit, so that a
judge which shares the policy's vocabulary never leaves the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Int

from po_jax.language_model import SpecialIds, require_completions
from po_jax.vocabulary import Vocabulary


@dataclass(frozen=True)
class Template:
    """Token ids around the fields of a judge's input, and the ids of its two verdicts.

    Attributes:
      pieces: the ids before each field; an empty tuple joins two fields directly.
      verdicts: the ids that say "the first" and "the second" (or "good" and "bad").
      decoded: whether the decoder reads what comes after the prompt, and then answers. So the
        encoder reads the prompt of a pair once, for both completions and orders. A judge answers
        as it was trained: with this as it was then.
    """

    pieces: tuple[tuple[int, ...], ...]
    verdicts: tuple[int, int]
    decoded: bool = False

    def __post_init__(self):
        if len(self.verdicts) != 2 or self.verdicts[0] == self.verdicts[1]:
            raise ValueError(f"Template: expected two different verdicts, got {self.verdicts}")
        # Hashable, whatever sequences they were.
        object.__setattr__(self, "pieces", tuple(map(tuple, self.pieces)))
        object.__setattr__(self, "verdicts", tuple(self.verdicts))


def preference_template(
    vocabulary: Vocabulary,
    pieces: Sequence[str] = ("which is better? text: ", " first: ", " second: "),
    verdicts: Sequence[str] = ("first", "second"),
    decoded: bool = False,
) -> Template:
    """How a pairwise preference model reads: text, first and second completion.

    Args:
      vocabulary: of the judge.
      pieces: the words before each field.
      verdicts: the words for either completion; each is known by its first token.
      decoded: as of `Template`.

    Raises:
      ValueError: if the verdicts begin with the same token.
    """
    return _from_words(vocabulary, pieces, verdicts, decoded)


def reward_template(
    vocabulary: Vocabulary,
    pieces: Sequence[str] = ("is this good? text: ", " answer: "),
    verdicts: Sequence[str] = ("good", "bad"),
    decoded: bool = False,
) -> Template:
    """How a reward model reads: text and completion. Arguments as in `preference_template`."""
    return _from_words(vocabulary, pieces, verdicts, decoded)


def _from_words(vocabulary, pieces, verdicts, decoded):
    begins = [[int(token) for token in vocabulary.encode(verdict)[:1]] for verdict in verdicts]
    if [len(begin) for begin in begins] != [1, 1]:
        raise ValueError(f"expected two words as verdicts, got {list(verdicts)}")
    (first,), (second,) = begins
    return Template(
        pieces=tuple(tuple(int(token) for token in vocabulary.encode(piece)) for piece in pieces),
        verdicts=(first, second),
        decoded=decoded,
    )


def compose(
    template: Template,
    ids: SpecialIds,
    prompt: Int[Array, "batch _"],
    *completions: Int[Array, "batch questions _"],
) -> tuple[Int[Array, "rows length"], Int[Array, "rows rest decoder_length"]]:
    """What the encoder reads and, with an axis of what is asked about it, what the decoder reads.

    Each has pieces and fields in turn and a final EOS, without the fields' own padding and EOS; a
    decoder that reads nothing has no positions. The length is the sum of all lengths: nothing is
    ever cut. Padding gathers on the right.

    Args:
      template: the pieces, and who reads the completions.
      ids: of padding and EOS.
      prompt: token ids.
      *completions: one field a piece after the prompt's, for each question about the prompt.

    Raises:
      ValueError: if the template has not one piece for each field, or fields are of other prompts.
    """
    if 1 + len(completions) != len(template.pieces):
        raise ValueError(
            f"compose: expected one field for each of the template's {len(template.pieces)} "
            f"pieces, got {1 + len(completions)} fields"
        )
    require_completions(prompt, *completions)
    batch, questions = completions[0].shape[:2]
    asked = [field.reshape(batch * questions, field.shape[-1]) for field in completions]
    if template.decoded:
        read = _joined(template.pieces[1:], ids, asked)
        return _joined(template.pieces[:1], ids, [prompt]), read.reshape(batch, questions, -1)
    fields = [jnp.repeat(prompt, questions, axis=0), *asked]
    return _joined(template.pieces, ids, fields), jnp.zeros((len(asked[0]), 1, 0), prompt.dtype)


def _joined(pieces, ids, fields):
    batch = fields[0].shape[0]

    def constant(tokens: tuple[int, ...]) -> Array:
        row = jnp.asarray(tokens, dtype=fields[0].dtype)
        return jnp.broadcast_to(row[None], (batch, len(tokens)))

    parts = []
    for piece, field in zip(pieces, fields, strict=True):
        parts += [constant(piece), jnp.where(field == ids.eos, ids.pad, field)]
    joined = jnp.concatenate([*parts, constant((ids.eos,))], axis=1)
    order = jnp.argsort(joined == ids.pad, axis=1, stable=True)
    return jnp.take_along_axis(joined, order, axis=1)
