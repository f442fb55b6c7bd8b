"""Between token ids and text."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Int
import numpy as np

Array = Any  # of the devices or of the host


@runtime_checkable
class Vocabulary(Protocol):
    """Text to token ids and back, such as seqio's vocabularies; ids without padding and EOS.

    Attributes:
      pad_id: fills rows up.
      eos_id: ends a text.
      vocab_size: number of ids.
    """

    @property
    def pad_id(self) -> int: ...

    @property
    def eos_id(self) -> int | None: ...

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str, /) -> Sequence[int]: ...

    def decode(self, ids: Sequence[int], /) -> str: ...


def ended(
    completion: Int[Array, "*rows length"], mask: Bool[Array, "*rows length"], eos: int | None
) -> Bool[Array, "*rows"]:
    """Whether completions came to their EOS."""
    return ((completion == eos) & mask).any(axis=-1)


def to_text(vocabulary: Vocabulary, tokens: Int[np.ndarray, " length"]) -> str:
    """Token ids as text, without padding and EOS."""
    left_out = (vocabulary.pad_id, vocabulary.eos_id)
    return vocabulary.decode([int(token) for token in tokens if token not in left_out])


def encode(vocabulary: Vocabulary, text: str, ended: bool = True) -> list[int]:
    """A text as token ids, and EOS where it ended and the vocabulary has one."""
    eos = [vocabulary.eos_id] if ended and vocabulary.eos_id is not None else []
    return [*vocabulary.encode(text), *eos]


def to_tokens(
    vocabulary: Vocabulary,
    texts: Sequence[str],
    length: int,
    keep_end: bool = False,
    ended: Sequence[bool] | None = None,
) -> tuple[Int[np.ndarray, "texts length"], int]:
    """Texts as rows of token ids with EOS, cut to `length`, and how many were cut.

    What is cut loses its EOS, as in T5's tasks; or with `keep_end` its beginning. A text of which
    `ended` says that it was cut before gets none.
    """
    ended = [True] * len(texts) if ended is None else ended
    rows = [encode(vocabulary, text, end) for text, end in zip(texts, ended, strict=True)]
    tokens = np.full((len(rows), length), vocabulary.pad_id, np.int32)
    for out, row in zip(tokens, rows, strict=True):
        out[: len(row)] = row[-length:] if keep_end else row[:length]
    return tokens, sum(len(row) > length for row in rows)
