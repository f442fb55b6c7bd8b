"""Between token ids and text."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Int
import numpy as np


@runtime_checkable
class Vocabulary(Protocol):
    """Text to token ids and back, such as seqio's vocabularies; ids without padding and EOS."""

    def encode(self, text: str) -> Sequence[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


def to_text(vocabulary: Vocabulary, tokens: Int[np.ndarray, " length"]) -> str:
    """Token ids as text, without padding (0) and EOS (1)."""
    return vocabulary.decode([int(token) for token in tokens if token > 1])
