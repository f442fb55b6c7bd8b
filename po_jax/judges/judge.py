"""What every judge is asked and answers, and the one way to ask.

A judge is asked in two steps, so that host work can overlap device work: `begin` returns as soon as
the question is under way, and the function that it returns waits for the answer.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any, Protocol, runtime_checkable

import flax
from jaxtyping import Bool, Int
import numpy as np

from po_jax.judges.calls import CallRecord
from po_jax.partitioning import collect
from po_jax.types import Leaf
from po_jax.vocabulary import Vocabulary, to_text

Rows = Int[np.ndarray, " rows"]  # indices
Tokens = Any  # integer arrays of the devices or of the host


class JudgeError(RuntimeError):
    """A judge raised, or answered something that is no answer; the message names the pair."""


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Two completions of each of some prompts, as tokens, and what the data says as text.

    Attributes:
      prompt: token ids, cut to what the policy reads.
      completion: token ids, padding outside the mask.
      mask: true on the completions' tokens, EOS included.
      texts: "inputs", the whole prompt, and "answers", those that people gave; what the data has
        of them.
      valid: false on rows that only fill up a batch: their answer does not matter; None for none.
    """

    prompt: Int[Tokens, "batch prompt_length"]
    completion: Int[Tokens, "batch 2 length"]
    mask: Bool[Tokens, "batch 2 length"]
    texts: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    valid: Bool[np.ndarray, " batch"] | None = None

    def exchanged(self) -> "Pairs":
        """The second completion first."""
        return dataclasses.replace(
            self, completion=self.completion[:, ::-1], mask=self.mask[:, ::-1]
        )

    def asked(self) -> Rows:
        """Indices of the rows that want an answer."""
        if self.valid is not None:
            return np.flatnonzero(self.valid)
        return np.arange(len(self.mask))

    def prompt_texts(self, vocabulary: Vocabulary, rows: Rows | None = None) -> Sequence[str]:
        """The prompts, or those of some rows; whole where the data came with its texts."""
        if "inputs" in self.texts:
            texts = self.texts["inputs"]
            return texts if rows is None else [texts[row] for row in rows]
        prompt = collect(self.prompt)
        return [to_text(vocabulary, row) for row in (prompt if rows is None else prompt[rows])]

    def completion_texts(
        self, vocabulary: Vocabulary, rows: Rows | None = None
    ) -> list[tuple[str, str]]:
        """Both completions of each row, or of some rows; waits for the tokens."""
        completion, mask = collect((self.completion, self.mask))
        if rows is not None:
            completion, mask = completion[rows], mask[rows]
        return [
            (to_text(vocabulary, pair[0][kept[0]]), to_text(vocabulary, pair[1][kept[1]]))
            for pair, kept in zip(completion, mask, strict=True)
        ]


@flax.struct.dataclass
class Judgement:
    """The answer about a batch of pairs.

    Attributes:
      preference: [batch] P(y1 > y2) in [0, 1].
      reward: [batch, 2] reward of each completion, from judges that have one.
      by_order: [batch, 2] P(y1 > y2) with y1 shown first, and with y1 shown second, of a judge for
        whom that can differ.
      read: [batch, 2] tokens that a network read for it, and positions that it took for them,
        padding with them; None where none did.
    """

    preference: Leaf
    reward: Leaf | None = None
    by_order: Leaf | None = None
    read: Leaf | None = None


@runtime_checkable
class Judge(Protocol):
    """Judges pairs of completions of the same prompts.

    Attributes:
      name: who it is, for reports.
      antisymmetric: whether P(y1 > y2) + P(y2 > y1) = 1 by construction.
    """

    @property
    def name(self) -> str: ...

    @property
    def antisymmetric(self) -> bool: ...

    def begin(self, pairs: Pairs) -> Callable[[], Judgement]:
        """Asks in the order that is given; the returned function waits for the answer."""


@runtime_checkable
class CallsFunction(Protocol):
    """A judge that calls a function, and keeps a record of what became of the calls."""

    @property
    def name(self) -> str: ...

    def record(self) -> CallRecord:
        """What became of the questions so far."""


def ask(judge: Judge, pairs: Pairs) -> Callable[[], Judgement]:
    """Asks so that the place of a completion tells nothing; the function waits for the answer.

    A judge that is not antisymmetric is asked in both orders, and what it says is averaged:
    P(y1 > y2) = (P(first, y1 first) + 1 - P(first, y2 first)) / 2.
    """
    if judge.antisymmetric:
        return judge.begin(pairs)
    forward, backward = judge.begin(pairs), judge.begin(pairs.exchanged())

    def finish() -> Judgement:
        shown_first, shown_second = collect((forward(), backward()))
        by_order = np.stack([shown_first.preference, 1.0 - shown_second.preference], axis=1)
        reward = shown_first.reward
        if reward is not None:
            reward = 0.5 * (reward + shown_second.reward[:, ::-1])
        return Judgement(by_order.mean(axis=1), reward, by_order)

    return finish
