"""The order in which training reads its data: shuffled, endless, reproducible at any position."""

from collections.abc import Sequence
import functools

from jaxtyping import Bool, Int
import numpy as np


class DataOrder:
    """Endless, reproducible order of a corpus: every epoch is another permutation.

    An epoch has as many rows as the corpus. A task's share of them is its rate's; a task that is
    drawn from more (less) often than it has rows goes through its own permutations faster (slower)
    than the epochs.

    Args:
      sizes: rows of each task.
      rates: of the tasks, relative to each other.
      seed: in [0, 2^63).

    Raises:
      ValueError: if the seed is out of its range.
    """

    _SHUFFLE, _FLIP, _TASK = 0, 1, 2  # streams of random bits; task k uses _TASK + k

    def __init__(self, sizes: Sequence[int], rates: Sequence[float], seed: int):
        if not 0 <= seed < 2**63:
            raise ValueError(f"expected a seed of the order in [0, 2^63), got {seed}")
        self.size = sum(sizes)
        self._seed = seed
        self._sizes = sizes
        shares = self.size * np.asarray(rates, np.float64) / sum(rates)
        ends = np.rint(np.cumsum(shares)).astype(int)
        self._quotas = np.diff(ends, prepend=0)
        self.epoch = functools.lru_cache(maxsize=2)(self._epoch)

    def take(
        self, start: int, count: int
    ) -> tuple[Int[np.ndarray, "count"], Bool[np.ndarray, "count"]]:
        """Rows at the positions start ... start + count - 1 of the endless order, and a random
        bit for each, which says whether to exchange the row's two completions."""
        epochs = range(start // self.size, (start + count - 1) // self.size + 1)
        rows, flips = zip(*(self.epoch(epoch) for epoch in epochs), strict=True)
        part = slice(start - epochs[0] * self.size, start - epochs[0] * self.size + count)
        return np.concatenate(rows)[part], np.concatenate(flips)[part]

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        rows, offset = [], 0
        for task, (size, quota) in enumerate(zip(self._sizes, self._quotas, strict=True)):
            positions = np.arange(epoch * quota, (epoch + 1) * quota)
            for turn in np.unique(positions // size):
                order = np.argsort(self._bits(size, int(turn), self._TASK + task), kind="stable")
                rows.append(offset + order[positions[positions // size == turn] % size])
            offset += size
        shuffle = np.argsort(self._bits(self.size, epoch, self._SHUFFLE), kind="stable")
        flips = self._bits(self.size, epoch, self._FLIP) % 2 == 1
        return np.concatenate(rows)[shuffle], flips

    def _bits(self, count: int, epoch: int, stream: int) -> np.ndarray:
        """Raw bits of a counter-based generator, which no version of numpy may change."""
        generator = np.random.Philox(key=[self._seed, epoch], counter=[0, 0, 0, stream])
        return generator.random_raw(count)
