"""Data as it comes from disk: for supervised models, and comparisons for offline algorithms."""

from collections.abc import Iterator, Mapping
from functools import partial
import os
import time
from typing import Any

import jax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
import numpy as np

from po_jax.logprobs import sequence_logprob
from po_jax.metrics import Mean, Metrics
from po_jax.partitioning import Partitioner
from po_jax.t5.language_model import T5LM
from po_jax.training.clock import StageClock
from po_jax.training.reference_cache import ReferenceCache
from po_jax.training.state import TrainState
from po_jax.types import Params, PreferenceBatch

Examples = Iterator[Mapping[str, np.ndarray]]


class SupervisedFeed:
    """Hands batches to the devices as the data set has them.

    Args:
      partitioner: where batches go.
      examples: batches, from the step that the run starts at.
    """

    def __init__(self, partitioner: Partitioner, examples: Examples):
        self._partitioner = partitioner
        self._examples = examples

    def batch(
        self, step: int, state: TrainState, clock: StageClock
    ) -> tuple[Mapping[str, Array], Metrics]:
        """The batch of one step."""
        return self._partitioner.distribute(dict(next(self._examples))), {}

    def save(self) -> None:
        """Nothing needs to be kept beside a checkpoint."""


class OfflineFeed:
    """Comparisons of a data set, with log mu of both completions.

    Args:
      model: the reference's language model.
      reference: parameters of mu.
      partitioner: where batches go.
      comparisons: batches of prompt, completion [batch, 2, length] and preference, from the step
        that the run starts at.
      cache: file that keeps log mu between runs; None for none.
    """

    def __init__(
        self,
        model: T5LM,
        reference: Params,
        partitioner: Partitioner,
        comparisons: Examples,
        *,
        cache: str | os.PathLike | None = None,
    ):
        self._model = model
        self._reference = reference
        self._partitioner = partitioner
        self._comparisons = comparisons
        self._cache = ReferenceCache(cache)

    def batch(
        self, step: int, state: TrainState, clock: StageClock
    ) -> tuple[PreferenceBatch, Metrics]:
        """The batch of one step, and facts about its completions."""
        examples = next(self._comparisons)
        host = {name: examples[name] for name in ("prompt", "completion", "preference")}
        host["mask"] = host["completion"] > 0
        batch = self._partitioner.distribute(host)

        def score() -> Array:
            began = time.monotonic()
            with self._partitioner.activate():
                scores = score_reference(
                    self._model, self._reference, batch["prompt"], batch["completion"], batch["mask"]
                )
            clock.queued("scoring", began, scores)
            return scores

        known = self._cache.lookup(host["prompt"], host["completion"], score)
        reference_logprob = (
            self._partitioner.distribute(known)
            if isinstance(known, np.ndarray)
            else jax.device_put(known, self._partitioner.batch)
        )
        metrics = {"length": Mean.of(batch["mask"].sum(axis=-1))}
        return PreferenceBatch(**batch, reference_logprob=reference_logprob), metrics

    def save(self) -> None:
        """Writes the cache; called before every checkpoint, so that a resumed run finds in it
        whatever the run before had used."""
        self._cache.save()


@partial(jax.jit, static_argnames="model")
def score_reference(
    model: T5LM,
    reference: Params,
    prompt: Int[Array, "batch prompt_length"],
    completion: Int[Array, "batch samples length"],
    mask: Bool[Array, "batch samples length"],
) -> Float[Array, "batch samples"]:
    """log mu(y | x), summed over tokens."""
    return sequence_logprob(model.score(reference, prompt, completion, mask), mask)
