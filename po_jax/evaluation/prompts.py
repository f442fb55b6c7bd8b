"""The prompts that policies are compared on."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from jaxtyping import Int
import numpy as np

from po_jax.data.corpus import BatchStream


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Prompts as token ids, and what the data says of them as text.

    Attributes:
      tokens: ids.
      texts: "inputs", the prompts, and other texts that every one of them has, such as "answers".
    """

    tokens: Int[np.ndarray, "prompts length"]
    texts: Mapping[str, Sequence[Any]]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def inputs(self) -> Sequence[str]:
        """The prompts as text."""
        return self.texts["inputs"]

    @property
    def answers(self) -> Sequence[Sequence[str]] | None:
        """What people answered, where every prompt has such an answer."""
        answers = self.texts.get("answers")
        return answers if answers is not None and all(answers) else None

    def text_rows(self, rows: Int[np.ndarray, "batch"]) -> dict[str, list[Any]]:
        """The texts of some rows."""
        return {name: [column[row] for row in rows] for name, column in self.texts.items()}


def gather(prompts: BatchStream, limit: int | None = None) -> Prompts:
    """The prompts of a split, or `limit` of them, evenly spaced over it.

    Raises:
      ValueError: if `limit` is less than 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"expected at least 1 prompt, got a limit of {limit}")
    batches = list(prompts.one_pass())
    valid = np.concatenate([batch.valid for batch in batches])
    kept = np.flatnonzero(valid)
    if limit is not None and limit < len(kept):
        kept = kept[np.linspace(0, len(kept) - 1, limit).round().astype(int)]
    tokens = np.concatenate([batch.arrays["prompt"] for batch in batches])
    texts = {
        name: [text for batch in batches for text in batch.texts[name]] for name in batches[0].texts
    }
    whole = Prompts(tokens, texts)
    return Prompts(tokens[kept], whole.text_rows(kept))
