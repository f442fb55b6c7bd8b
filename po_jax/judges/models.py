"""Judges of completions: a pairwise preference model and a Bradley-Terry reward model.

Both answer in words they already know, so that their trees are T5X's: no new parameters. How
they read and answer is defined in `po_jax.judges.learned`, which also asks them.
"""

from collections.abc import Mapping
import dataclasses
from functools import partial
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from po_jax.judges.learned import answer_log_odds, judge_pairs, reward_completions
from po_jax.judges.template import Template
from po_jax.losses.supervised import binary_cross_entropy
from po_jax.metrics import Mean
from po_jax.models.base import LossAndMetrics, Model, preference_batch
from po_jax.types import Params, PreferenceBatch

Pairs = PreferenceBatch | Mapping[str, Any]


def _loss_and_metrics(logit: Float[Array, " batch"], preference: Float[Array, " batch"]):
    """Mean cross-entropy with the label, and accuracy on all but tied labels."""
    loss = Mean.of(binary_cross_entropy(logit, preference))
    correct = (logit > 0) == (preference > 0.5)
    return loss.compute(), {"loss": loss, "accuracy": Mean.of(correct, preference != 0.5)}


@dataclasses.dataclass(kw_only=True, eq=False)
class PreferenceModel(Model):
    """P(y1 > y2): the encoder reads text and both completions, the decoder's first token answers.

    Attributes:
      template: how a pair is read, and the two answers.
    """

    template: Template

    def loss_fn(
        self, params: Params, batch: Pairs, dropout_rng: PRNGKeyArray | None
    ) -> LossAndMetrics:
        """Mean cross-entropy with the label.

        Half of the pairs, told by their content, are read in the other order: where the data
        always puts the better one first, its place still says nothing.
        """
        batch = preference_batch(batch)
        swapped = _parity(batch.completion)
        first, second = batch.completion[:, 0], batch.completion[:, 1]
        logit = answer_log_odds(
            partial(self.language_model.score, params, dropout_key=dropout_rng),
            self.template,
            batch.prompt,
            jnp.where(swapped[:, None], second, first),
            jnp.where(swapped[:, None], first, second),
        )
        return _loss_and_metrics(jnp.where(swapped, -logit, logit), batch.preference)

    def predict_batch_with_aux(
        self, params: Params, batch: Pairs, rng: PRNGKeyArray | None = None
    ) -> tuple[Array, dict[str, Array]]:
        """Index of the better completion, and P(y1 > y2) averaged over both orders."""
        preference = self.score_batch(params, batch)
        return (preference < 0.5).astype(jnp.int32), {"preference": preference}

    def score_batch(self, params: Params, batch: Pairs) -> Float[Array, " batch"]:
        """P(y1 > y2), averaged over both orders."""
        batch = preference_batch(batch)
        return judge_pairs(
            self.language_model, self.template, params, batch.prompt, batch.completion
        )


@dataclasses.dataclass(kw_only=True, eq=False)
class RewardModel(Model):
    """Bradley-Terry: P(y1 > y2) = sigmoid(r(y1) - r(y2)), r the log-odds of the answer "good".

    Attributes:
      template: how a completion is read, and the two answers.
    """

    template: Template

    def loss_fn(
        self, params: Params, batch: Pairs, dropout_rng: PRNGKeyArray | None
    ) -> LossAndMetrics:
        """Mean cross-entropy of the reward difference with the label."""
        batch = preference_batch(batch)
        pairs, _, length = batch.completion.shape
        reward = answer_log_odds(
            partial(self.language_model.score, params, dropout_key=dropout_rng),
            self.template,
            jnp.repeat(batch.prompt, 2, axis=0),
            batch.completion.reshape(2 * pairs, length),
        ).reshape(pairs, 2)
        loss, metrics = _loss_and_metrics(reward[:, 0] - reward[:, 1], batch.preference)
        return loss, {**metrics, "reward": Mean.of(reward)}

    def predict_batch_with_aux(
        self, params: Params, batch: Pairs, rng: PRNGKeyArray | None = None
    ) -> tuple[Array, dict[str, Array]]:
        """Index of the better completion, and the rewards of both."""
        batch = preference_batch(batch)
        reward = reward_completions(
            self.language_model, self.template, params, batch.prompt, batch.completion
        )
        return jnp.argmax(reward, axis=1), {"reward": reward}

    def score_batch(self, params: Params, batch: Pairs) -> Float[Array, " batch"]:
        """r(y1) - r(y2), the log-odds of the preference."""
        reward = self.predict_batch_with_aux(params, batch)[1]["reward"]
        return reward[:, 0] - reward[:, 1]


def _parity(completion: Array) -> Array:
    """A coin flip for each pair that depends on which completions it holds, not on their order."""
    return jnp.sum(completion, axis=(1, 2)) % 2 == 1
