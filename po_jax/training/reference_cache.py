"""Reference log-probabilities of the data set's completions, computed once and kept on disk.

Values are found by the content of prompt and completion, so shuffling, batching and resuming do
not matter. The file names the reference that it belongs to by its fingerprint: of another reference
nothing is taken.
"""

from collections.abc import Callable
import hashlib
import logging

from etils import epath
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from po_jax import files, processes
from po_jax.partitioning import collect

logger = logging.getLogger(__name__)

Score = Callable[[], Float[Array, "batch samples"]]


class ReferenceCache:
    """log mu(y | x), summed over tokens, by the content of x and y.

    Args:
      file: where the values are kept between runs.
      reference: fingerprint of the reference's parameters.
    """

    def __init__(self, file: epath.PathLike, reference: str):
        self._file = epath.Path(file)
        self._reference = reference
        self._values: dict[bytes, np.float32] = {}
        self._pending: tuple[list[list[bytes]], Array] | None = None
        if self._file.exists():
            self._read()
        if processes.count() > 1:
            self._agree()
        self._in_file = len(self._values)

    def __len__(self) -> int:
        self._collect()
        return len(self._values)

    def lookup(
        self,
        prompt: Int[np.ndarray, "batch prompt_length"],
        completion: Int[np.ndarray, "batch samples length"],
        score: Score,
    ) -> Float[Array, "batch samples"] | Float[np.ndarray, "batch samples"]:
        """The values of a batch; `score` is called only if some are unknown, and not waited for.

        Args:
          prompt: token ids, 0 is padding.
          completion: token ids, 0 is padding.
          score: queues the scoring of this very batch by the reference, on the device.
        """
        self._collect()
        keys = [[_key(x, y) for y in pair] for x, pair in zip(prompt, completion, strict=True)]
        known = np.asarray([[key in self._values for key in row] for row in keys])
        values = np.asarray(
            [[self._values.get(key, 0.0) for key in row] for row in keys], np.float32
        )
        if known.all():
            return values
        scored = score()
        self._pending = keys, scored
        return jnp.where(known, values, scored)

    def save(self) -> None:
        """Writes the file anew, whole or not at all, where there are values that it lacks."""
        self._collect()
        if len(self._values) == self._in_file or processes.index() > 0:
            return
        keys = np.frombuffer(b"".join(self._values), np.uint8).reshape(len(self._values), -1)
        values = np.asarray([*self._values.values()], np.float32)
        with files.written_whole(self._file) as beside, beside.open("wb") as stream:
            np.savez(stream, keys=keys, values=values, reference=np.array(self._reference))
        self._in_file = len(self._values)

    def _collect(self) -> None:
        """Takes in the values that the device has computed since; the first value stays."""
        if self._pending is None:
            return
        keys, scored = self._pending
        self._pending = None
        for row, values in zip(keys, collect(scored), strict=True):
            for key, value in zip(row, values, strict=True):
                self._values.setdefault(key, value)

    def _read(self) -> None:
        try:
            with self._file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
                reference = str(content["reference"])
                keys, values = content["keys"], content["values"]
        except Exception as error:  # a damaged archive raises many unrelated types
            logger.warning("%s cannot be read, its values are computed anew: %s", self._file, error)
            return
        if reference != self._reference:
            logger.warning("%s is of another reference: computed anew", self._file)
            return
        self._values = {key.tobytes(): value for key, value in zip(keys, values, strict=True)}

    def _agree(self) -> None:
        """Forgets all, if not every process read the same: all must score the same batches."""
        digest = hashlib.blake2b(b"".join(self._values), digest_size=16)
        digest.update(np.asarray([*self._values.values()], np.float32).tobytes())
        if len(set(processes.gathered(lambda: [digest.hexdigest()]))) > 1:
            logger.warning("%s is not the same for all processes: computed anew", self._file)
            self._values = {}


def _key(prompt: np.ndarray, completion: np.ndarray) -> bytes:
    """Identifies a prompt and completion whatever their padding."""
    rows = [np.trim_zeros(row.astype(np.int64), "b") for row in (prompt, completion)]
    digest = hashlib.blake2b(np.int64(len(rows[0])).tobytes(), digest_size=16)
    for row in rows:
        digest.update(row.tobytes())
    return digest.digest()
