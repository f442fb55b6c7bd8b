"""What every annotator answers, and the interface by which feeds ask.

An annotator is asked in two steps, so that host work can overlap device work: `begin` returns as
soon as the question is under way, and the function that it returns waits for the answer.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import flax
from jaxtyping import Bool, Int

from po_jax.types import Leaf

Tokens = Any  # integer arrays of the device or of the host


@flax.struct.dataclass
class Judgement:
    """The answer about a batch of pairs.

    Attributes:
      preference: [batch] P(y1 > y2) in [0, 1].
      reward: [batch, 2] reward of each completion, from annotators that have one.
    """

    preference: Leaf
    reward: Leaf | None = None


class AnnotatorError(RuntimeError):
    """An annotator raised, or answered something that is no answer; the message names the pair."""


@runtime_checkable
class Annotator(Protocol):
    """Judges pairs of completions of the same prompts."""

    def begin(
        self,
        prompt: Int[Tokens, "batch prompt_length"],
        completion: Int[Tokens, "batch 2 length"],
        mask: Bool[Tokens, "batch 2 length"],
    ) -> Callable[[], Judgement]:
        """Asks; the returned function waits for the answer."""
