"""Data as it comes from disk: as it is, or with log mu for offline algorithms."""

from collections.abc import Mapping
from functools import cached_property, partial
import time

from etils import epath
import jax
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from po_jax.checkpoints.fingerprint import fingerprint
from po_jax.data.corpus import Batches
from po_jax.language_model import LanguageModel
from po_jax.like_lengths import reading_by_length
from po_jax.logprobs import sequence_logprob
from po_jax.metrics import Metrics
from po_jax.reporting.clock import StageClock
from po_jax.training.reference_cache import ReferenceCache
from po_jax.training.run import Run
from po_jax.training.state import TrainState
from po_jax.types import Params, PreferenceBatch


class DataFeed:
    """Hands batches to the devices as the data set has them: for SFT and for judges.

    Args:
      run: the run that is fed.
      data: batches by step.
    """

    def __init__(self, run: Run, data: Batches):
        self._run = run
        self._data = data

    def batch(
        self, step: int, state: TrainState, clock: StageClock
    ) -> tuple[Mapping[str, Array], Metrics]:
        """The batch of one step."""
        return self._run.partitioner.distribute(self._data.batch(step).arrays), {}

    def save(self) -> None:
        """Nothing needs to be kept beside a checkpoint."""


class OfflineFeed:
    """Comparisons of a data set, with log mu of both completions.

    Args:
      run: the run that is fed; its directory keeps log mu between runs.
      comparisons: batches by step, of prompt, completion, mask and preference.
    """

    def __init__(self, run: Run, comparisons: Batches):
        self._run = run
        self._comparisons = comparisons

    @cached_property
    def _cache(self) -> ReferenceCache:
        file = epath.Path(self._run.directory) / "reference_logprobs.npz"
        return ReferenceCache(file, fingerprint(self._run.reference))

    def batch(
        self, step: int, state: TrainState, clock: StageClock
    ) -> tuple[PreferenceBatch, Metrics]:
        """The batch of one step."""
        host = self._comparisons.batch(step).arrays
        place = self._run.partitioner.distribute
        batch = place(host)

        def score() -> Array:
            began = time.monotonic()
            with self._run.partitioner.activate():
                scores = score_reference(
                    reading_by_length(self._run.language_model, self._run.partitioner.lengths),
                    self._run.reference,
                    batch["prompt"],
                    batch["completion"],
                    batch["mask"],
                )
            clock.queued("scoring", began, scores)
            return scores

        known = self._cache.lookup(host["prompt"], host["completion"], score)
        steps = place(np.full(len(host["prompt"]), step, np.int32))
        # What was scored lies as the compiler left it.
        reference_logprob = jax.device_put(place(known), self._run.partitioner.batch)
        return PreferenceBatch(**batch, reference_logprob=reference_logprob, step=steps), {}

    def save(self) -> None:
        """Writes the cache; called before every checkpoint, so that a resumed run finds in it
        whatever the run before had used."""
        self._cache.save()


@partial(jax.jit, static_argnames="model")
def score_reference(
    model: LanguageModel,
    reference: Params,
    prompt: Int[Array, "batch prompt_length"],
    completion: Int[Array, "batch samples length"],
    mask: Bool[Array, "batch samples length"],
) -> Float[Array, "batch samples"]:
    """log mu(y | x), summed over tokens."""
    return sequence_logprob(model.score(reference, prompt, completion, mask), mask)
