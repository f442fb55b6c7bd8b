"""A tokenised data set in memory, and its batches as a function of the step.

The batch of step n depends on the data, the seed and n alone, so a run that is resumed at n sees
bit for bit what it would have seen uninterrupted, and no state needs saving. Every process has the
whole batch; `po_jax.partitioning` gives its devices their rows.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import hashlib
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int, Int32
import numpy as np

from po_jax.data.order import DataOrder
from po_jax.partitioning import filled_batches

WHERE = "where"  # the text of an example that says where it comes from, for messages


class Ragged:
    """Token sequences of different lengths, stored end to end."""

    def __init__(self, values: Int[np.ndarray, "tokens"], lengths: Int[np.ndarray, "sequences"]):
        self.values = values.astype(np.int32)
        self.lengths = lengths.astype(np.int64)
        self._starts = np.cumsum(self.lengths) - self.lengths

    def row(self, index: int) -> Int32[np.ndarray, " length"]:
        """One sequence, whole."""
        start = self._starts[index]
        return self.values[start : start + self.lengths[index]]

    def count(self, token: int | None) -> Int[np.ndarray, " sequences"]:
        """How often an id stands in each sequence; None stands in none."""
        places = np.flatnonzero(self.values == token)
        rows = np.searchsorted(self._starts + self.lengths, places, side="right")
        return np.bincount(rows, minlength=len(self.lengths))

    def padded(
        self,
        rows: Int[np.ndarray, "batch"],
        length: int,
        pad_id: int = 0,
        keep_end: bool = False,
    ) -> tuple[Int32[np.ndarray, "batch length"], Bool[np.ndarray, "batch length"]]:
        """The rows, cut to `length` at their end or beginning or filled up, and a mask of their
        tokens."""
        positions = np.arange(length)
        mask = positions < self.lengths[rows, None]
        left_out = np.maximum(self.lengths[rows] - length, 0) * keep_end
        first = self._starts[rows] + left_out
        indices = np.where(mask, first[:, None] + positions, 0)
        return np.where(mask, self.values[indices], np.int32(pad_id)), mask


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The examples of one split of one or several tasks, those of a task side by side.

    Attributes:
      tokens: feature name -> token sequences, EOS included.
      texts: feature name -> text, or list of texts, of every example; for judges and logs.
      preference: [examples] P(completion_1 > completion_2), of comparisons.
      pad_id: fills rows of tokens up.
      sizes: number of examples of each task.
      rates: how often each task is drawn from, relative to the others.
    """

    tokens: Mapping[str, Ragged]
    texts: Mapping[str, Sequence[Any]]
    sizes: Sequence[int]
    rates: Sequence[float]
    preference: Float[np.ndarray, "examples"] | None = None
    pad_id: int = 0

    @classmethod
    def joined(cls, parts: Sequence["Corpus"]) -> "Corpus":
        """The corpora one after the other, with the texts that all of them have."""
        tokens = {}
        for name in parts[0].tokens:
            columns = [part.tokens[name] for part in parts]
            values, lengths = ([getattr(c, a) for c in columns] for a in ("values", "lengths"))
            tokens[name] = Ragged(np.concatenate(values), np.concatenate(lengths))
        texts = {
            name: [text for part in parts for text in part.texts[name]]
            for name in parts[0].texts
            if all(name in part.texts for part in parts)
        }
        preferences = [part.preference for part in parts if part.preference is not None]
        return cls(
            tokens,
            texts,
            [size for part in parts for size in part.sizes],
            [rate for part in parts for rate in part.rates],
            np.concatenate(preferences) if len(preferences) == len(parts) else None,
            parts[0].pad_id,
        )

    def __len__(self) -> int:
        return sum(self.sizes)

    def padded(
        self, name: str, rows: Int[np.ndarray, "batch"], length: int, keep_end: bool = False
    ) -> tuple[Int32[np.ndarray, "batch length"], Bool[np.ndarray, "batch length"]]:
        """Rows of a feature, cut to `length` or filled up, and a mask of their tokens."""
        return self.tokens[name].padded(rows, length, self.pad_id, keep_end)

    def fingerprint(self) -> str:
        """A hash of tokens, texts, preferences, sizes and rates."""
        digest = hashlib.blake2b(digest_size=16)
        facts = [*self.tokens, *self.sizes, *map(float, self.rates), self.pad_id]
        digest.update(repr(facts).encode())
        for column in self.tokens.values():
            digest.update(column.lengths.tobytes() + column.values.tobytes())
        for name, texts in self.texts.items():
            digest.update(name.encode())
            for text in texts:
                digest.update(repr(text).encode())
        if self.preference is not None:
            digest.update(np.asarray(self.preference, np.float32).tobytes())
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Batch:
    """A batch on the host.

    Attributes:
      arrays: what goes to the device.
      texts: what stays on the host, feature name -> one value a row.
      valid: false on rows that only fill the last batch of a pass.
    """

    arrays: dict[str, np.ndarray]
    texts: dict[str, list[Any]]
    valid: Bool[np.ndarray, "batch"]

    def text_rows(self, rows: Int[np.ndarray, "rows"]) -> dict[str, list[Any]]:
        """The texts of some rows."""
        return {name: [column[row] for row in rows] for name, column in self.texts.items()}


@runtime_checkable
class Layout(Protocol):
    """Makes the arrays of a batch; see `po_jax.data.layouts`.

    Attributes:
      features: the token features that it takes, and the length to which each is cut or filled.
      keep_end: whether the end of a prompt that is too long is kept, and not its beginning.
    """

    features: Mapping[str, int]
    keep_end: bool

    def __call__(
        self, corpus: Corpus, rows: Int[np.ndarray, "batch"], flips: Bool[np.ndarray, "batch"]
    ) -> dict[str, np.ndarray]:
        """The arrays of these rows; `flips` is a random bit a row."""


@runtime_checkable
class Batches(Protocol):
    """Where a feed finds its batches.

    Attributes:
      batch_size: rows.
    """

    @property
    def batch_size(self) -> int: ...

    def batch(self, step: int) -> Batch:
        """The batch of a training step."""


class BatchStream:
    """Batches of a corpus by step.

    Args:
      corpus: the examples.
      layout: makes the arrays.
      batch_size: rows.
      seed: of the order; not negative.

    Raises:
      ValueError: no data, or no rows.
    """

    def __init__(self, corpus: Corpus, layout: Layout, batch_size: int, seed: int = 0):
        if batch_size < 1:
            raise ValueError(f"expected a batch size of 1 or more, got {batch_size}")
        if not len(corpus):
            raise ValueError("expected data of one or more rows, got none")
        self.corpus = corpus
        self._layout = layout
        self._seed = seed
        self._order = DataOrder(corpus.sizes, corpus.rates, seed)
        self.batch_size = batch_size

    def made_from(self) -> dict[str, Any]:
        """What tells these batches from others, as JSON."""
        return {
            "batch_size": self.batch_size,
            "seed": self._seed,
            "layout": type(self._layout).__qualname__,
            "lengths": dict(self._layout.features),
            "keep_end": self._layout.keep_end,
            "examples": len(self.corpus),
            "fingerprint": self.corpus.fingerprint(),
        }

    def batch(self, step: int) -> Batch:
        """The batch of training step `step`, 0 or more."""
        rows, flips = self._order.take(step * self.batch_size, self.batch_size)
        return self._make(rows, flips, np.ones(self.batch_size, bool))

    def one_pass(self) -> Iterator[Batch]:
        """Every example once, in the order of the data; the first fill up the last batch."""
        _, flips = self._order.epoch(0)
        for rows, valid in filled_batches(len(self.corpus), self.batch_size):
            yield self._make(rows, flips[rows], valid)

    def _make(self, rows: np.ndarray, flips: np.ndarray, valid: np.ndarray) -> Batch:
        texts = {name: [column[row] for row in rows] for name, column in self.corpus.texts.items()}
        return Batch(self._layout(self.corpus, rows, flips), texts, valid)
