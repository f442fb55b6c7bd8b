"""The policy: an objective on the log-probabilities of a pair of completions."""

from collections.abc import Mapping
import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
import numpy as np

from po_jax.logprobs import margin, sequence_logprob
from po_jax.losses.objectives import Objective
from po_jax.metrics import Mean, agreement
from po_jax.models.base import LossAndMetrics, Model, preference_batch
from po_jax.types import Params, PreferenceBatch
from po_jax.vocabulary import ended

# What an objective is given, to find a coefficient that is out of its range, or is none, at once.
_PAIR = jax.ShapeDtypeStruct((1, 2), jnp.float32)
_ONE = jax.ShapeDtypeStruct((1,), jnp.float32)
_TOKENS = jax.ShapeDtypeStruct((1, 2, 1), jnp.int32)
_OF_ONE_PAIR = (
    _PAIR,
    PreferenceBatch(
        prompt=jax.ShapeDtypeStruct((1, 1), jnp.int32),
        completion=_TOKENS,
        mask=jax.ShapeDtypeStruct((1, 2, 1), jnp.bool_),
        preference=_ONE,
        reference_logprob=_PAIR,
        reward=_PAIR,
        step=jax.ShapeDtypeStruct((1,), jnp.int32),
    ),
)


@dataclasses.dataclass(kw_only=True, eq=False)
class PolicyModel(Model):
    """A language model trained on preferences between pairs of completions, from wherever.

    The reference policy is not here: batches bring its log-probabilities.

    Attributes:
      objective: loss of each pair, one of `po_jax.losses.objectives`.
      reduce: how a completion's log-probability is made of its tokens', for the policy and, from
        the batch's sums, for the reference: "sum" as in the papers, or "mean".
      learned: completions of a pair whose log-probabilities the objective differentiates: both, or
        1 for the first alone, which spares the other's backward pass.

    Raises:
      ValueError: if the objective refuses its coefficients, or differentiates more than is said.
    """

    kind = "a policy"
    objective: Objective
    reduce: Literal["sum", "mean"] = "sum"
    learned: Literal[1, 2] = 2

    def __post_init__(self):
        try:
            jax.eval_shape(self.objective, *_OF_ONE_PAIR)
        except (TypeError, ValueError) as error:
            first = str(error).strip().partition("\n")[0]
            raise ValueError(f"PolicyModel.objective: {first}") from error
        if self.learned == 1 and _slopes(self.objective)[..., 1].any():
            raise ValueError(
                "PolicyModel.learned: expected 2 of an objective that differentiates both "
                "completions, got 1"
            )

    def loss_fn(
        self,
        params: Params,
        batch: PreferenceBatch | Mapping[str, Any],
        dropout_rng: PRNGKeyArray | None,
    ) -> LossAndMetrics:
        """The mean objective; the encoder runs once for both completions of a prompt.

        The metrics `log_ratio` (log pi - log mu) and `nll` (-log pi), sums over tokens, are
        estimates of the KL and of the entropy where the completions are samples of this policy.
        """
        batch = preference_batch(batch)
        policy, batch = self._score(params, batch, dropout_rng)
        loss = Mean.of(self.objective(policy, batch))
        h = margin(policy, batch.reference_logprob)
        length = jnp.sum(batch.mask, axis=-1)
        eos = self.language_model.special_ids.eos
        metrics = {
            "loss": loss,
            "margin": Mean.of(h),
            "accuracy": agreement(h, batch.preference),
            "log_ratio": Mean.of(policy - batch.reference_logprob),
            "nll": Mean.of(-policy),
            "length": Mean.of(length),
            "eos_rate": Mean.of(ended(batch.completion, batch.mask, eos)),
        }
        return loss.compute(), metrics

    def predict_batch_with_aux(
        self,
        params: Params,
        batch: PreferenceBatch | Mapping[str, Any],
        rng: PRNGKeyArray | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """Completions of the prompts, and their log-probabilities."""
        prompt = preference_batch(batch).prompt
        return self._sample(params, prompt, self.strategy.max_length, rng)

    def score_batch(
        self, params: Params, batch: PreferenceBatch | Mapping[str, Any]
    ) -> Float[Array, " batch"]:
        """The margin of each pair; without a reference in the batch, of the policy alone."""
        batch = preference_batch(batch)
        if batch.reference_logprob is None:
            zeros = jnp.zeros(batch.completion.shape[:2])
            batch = dataclasses.replace(batch, reference_logprob=zeros)
        policy, batch = self._score(params, batch, None)
        return margin(policy, batch.reference_logprob)

    def _score(
        self, params: Params, batch: PreferenceBatch, dropout_rng: PRNGKeyArray | None
    ) -> tuple[Float[Array, "batch 2"], PreferenceBatch]:
        """The policy's log-probabilities, and the batch with the reference's reduced alike."""
        options = {} if self.learned == 2 else {"learned": self.learned}
        logprobs = self.language_model.score(
            params, batch.prompt, batch.completion, batch.mask, dropout_key=dropout_rng, **options
        )
        policy = sequence_logprob(logprobs, batch.mask, self.reduce)
        if self.reduce == "mean":
            length = jnp.maximum(jnp.sum(batch.mask, axis=-1), 1).astype(jnp.float32)
            batch = dataclasses.replace(batch, reference_logprob=batch.reference_logprob / length)
        return policy, batch


def _slopes(objective: Objective) -> Float[np.ndarray, "places batch 2"]:
    """Of an objective in the log-probabilities of a pair, at several places."""
    places = [(first, second, p) for first in (-5, 3) for second in (-4, 6) for p in (0, 1)]

    def loss(policy, preference):
        batch = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), _OF_ONE_PAIR[1])
        return jnp.sum(objective(policy, batch.replace(preference=preference)))

    values = np.array(places, np.float32)
    return np.asarray(jax.vmap(jax.grad(loss))(values[:, None, :2], values[:, 2:]))
