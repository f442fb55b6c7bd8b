"""T5 judges: a pairwise preference model and a Bradley-Terry reward model, to train and to ask.

Both read a composed input and answer with one token out of two, words that they already know, so
that their trees are T5X's: no new parameters. The log-odds of that choice are the logit of the
preference, or the reward.
"""

from collections.abc import Callable, Mapping
import dataclasses
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from po_jax.judges.judge import Judgement, Tokens
from po_jax.judges.template import Template, compose
from po_jax.language_model import LanguageModel
from po_jax.like_lengths import positions_read
from po_jax.losses.supervised import binary_cross_entropy
from po_jax.metrics import Mean, agreement
from po_jax.models.base import LossAndMetrics, Model, preference_batch
from po_jax.types import Params, PreferenceBatch

Comparisons = PreferenceBatch | Mapping[str, Any]


def verdict_log_odds(
    model: LanguageModel,
    logits: Callable[..., Float[Array, "batch 1 vocab"]],
    template: Template,
    *fields: Int[Array, "batch _"],
) -> Float[Array, " batch"]:
    """log P(first verdict) - log P(second verdict), given the composed fields.

    Taken from the logits: through log-probabilities, the head's other columns would have gradients
    of rounding errors, which an optimiser that normalises gradients makes large.

    Args:
      model: the language model that is asked.
      logits: its `logits` with everything bound but inputs and decoder inputs.
      template: how the fields are composed, and the two verdicts.
      *fields: token ids of the prompt and of the completions.
    """
    return _log_odds(model, logits, template, compose(template, model.special_ids, *fields))


def _log_odds(model, logits, template, question):
    start = jnp.full((question.shape[0], 1), model.special_ids.start, question.dtype)
    first, second = template.verdicts
    answer = logits(question, start)[:, 0]
    return answer[:, first] - answer[:, second]


def _answered(
    model: LanguageModel, template: Template, params: Params, *fields: Int[Array, "batch _"]
) -> tuple[Float[Array, " batch"], Int[Array, "batch 2"]]:
    """`verdict_log_odds`, and `Judgement.read` of each question."""
    question = compose(template, model.special_ids, *fields)
    log_odds = _log_odds(model, partial(model.logits, params), template, question)
    tokens = jnp.sum(question != model.special_ids.pad, axis=1)
    return log_odds, jnp.stack([tokens, positions_read(model, question)], axis=-1)


@partial(jax.jit, static_argnames=("model", "template"))
def prefer(
    model: LanguageModel,
    template: Template,
    params: Params,
    prompt: Int[Array, "batch prompt_length"],
    completion: Int[Array, "batch 2 length"],
) -> tuple[Float[Array, " batch"], Int[Array, "batch 2"]]:
    """P(y1 > y2) averaged over both orders, so that P(y1 > y2) + P(y2 > y1) = 1 exactly.

    And `Judgement.read`.
    """
    log_odds, read = _answered(model, template, params, *_in_both_orders(prompt, completion))
    forward, backward = log_odds.reshape(-1, 2).T
    preference = _mean_preference(forward, backward)
    return preference, jnp.sum(read.reshape(-1, 2, 2), axis=1)


def _in_both_orders(
    prompt: Int[Array, "batch prompt_length"], completion: Int[Array, "batch 2 length"]
) -> tuple[Int[Array, "batch*2 _"], ...]:
    """The fields of each pair, and beside them, on the same device, those of the other order."""
    orders = jnp.stack([completion, completion[:, ::-1]], axis=1)
    first, second = jnp.moveaxis(orders.reshape(-1, *completion.shape[1:]), 1, 0)
    return jnp.repeat(prompt, 2, axis=0), first, second


def _mean_preference(
    forward: Float[Array, " batch"], backward: Float[Array, " batch"]
) -> Float[Array, " batch"]:
    """P(y1 > y2) from the log-odds of "the first" in either order."""
    return 0.5 * (jax.nn.sigmoid(forward) + (1.0 - jax.nn.sigmoid(backward)))


@partial(jax.jit, static_argnames=("model", "template"))
def reward(
    model: LanguageModel,
    template: Template,
    params: Params,
    prompt: Int[Array, "batch prompt_length"],
    completion: Int[Array, "batch K length"],
) -> tuple[Float[Array, "batch K"], Int[Array, "batch 2"]]:
    """The reward of each completion, the log-odds that it is good, and `Judgement.read`."""
    batch, samples, length = completion.shape
    log_odds, read = _answered(
        model,
        template,
        params,
        jnp.repeat(prompt, samples, axis=0),
        completion.reshape(batch * samples, length),
    )
    return log_odds.reshape(batch, samples), jnp.sum(read.reshape(batch, samples, 2), axis=1)


@runtime_checkable
class JudgeModel(Protocol):
    """The part of a trained model that makes it a judge.

    Attributes:
      kind: what it is, for reports.
      language_model: the network.
    """

    kind: str
    language_model: LanguageModel

    def judge(
        self,
        params: Params,
        prompt: Int[Tokens, "batch prompt_length"],
        completion: Int[Tokens, "batch 2 length"],
    ) -> Judgement:
        """The judgement of pairs; antisymmetric."""


def _loss_and_metrics(
    losses: Float[Array, " batch"],
    margin: Float[Array, " batch"],
    preference: Float[Array, " batch"],
) -> LossAndMetrics:
    """The mean of the losses, and how often the margin agrees with the label."""
    loss = Mean.of(losses)
    return loss.compute(), {"loss": loss, "accuracy": agreement(margin, preference)}


@dataclasses.dataclass(kw_only=True, eq=False)
class PreferenceModel(Model):
    """P(y1 > y2): the encoder reads text and both completions, the decoder's first token answers.

    Attributes:
      template: how a pair is read, and the two verdicts.
    """

    template: Template
    kind = "a trained preference model"

    def judge(
        self,
        params: Params,
        prompt: Int[Tokens, "batch prompt_length"],
        completion: Int[Tokens, "batch 2 length"],
    ) -> Judgement:
        """P(y1 > y2), averaged over both orders."""
        given = (self.language_model, self.template, params, prompt, completion)
        preference, read = prefer(*given)
        return Judgement(preference, read=read)

    def loss_fn(
        self, params: Params, batch: Comparisons, dropout_rng: PRNGKeyArray | None
    ) -> LossAndMetrics:
        """Mean cross-entropy with the label, of both orders; agreement of their mean with it.

        A pair is read as it is judged. In one order alone the gradient's noise would be mostly the
        judge's liking for a place, which is most of what it has at first.
        """
        batch = preference_batch(batch)
        log_odds = verdict_log_odds(
            self.language_model,
            partial(self.language_model.logits, params, dropout_key=dropout_rng),
            self.template,
            *_in_both_orders(batch.prompt, batch.completion),
        )
        forward, backward = log_odds.reshape(-1, 2).T
        as_first = binary_cross_entropy(forward, batch.preference)
        as_second = binary_cross_entropy(-backward, batch.preference)
        margin = _mean_preference(forward, backward) - 0.5
        return _loss_and_metrics(0.5 * (as_first + as_second), margin, batch.preference)

    def predict_batch_with_aux(
        self, params: Params, batch: Comparisons, rng: PRNGKeyArray | None = None
    ) -> tuple[Array, dict[str, Array]]:
        """Index of the better completion, and P(y1 > y2) averaged over both orders."""
        batch = preference_batch(batch)
        preference = self.judge(params, batch.prompt, batch.completion).preference
        return (preference < 0.5).astype(jnp.int32), {"preference": preference}

    def score_batch(self, params: Params, batch: Comparisons) -> Float[Array, " batch"]:
        """Log-odds of P(y1 > y2), averaged over both orders: positive where y1 is better."""
        preference = self.predict_batch_with_aux(params, batch)[1]["preference"]
        return jnp.log(preference) - jnp.log1p(-preference)


@dataclasses.dataclass(kw_only=True, eq=False)
class RewardModel(Model):
    """Bradley-Terry: P(y1 > y2) = sigmoid(r(y1) - r(y2)), r the log-odds of the verdict "good".

    Attributes:
      template: how a completion is read, and the two verdicts.
    """

    template: Template
    kind = "a trained reward model"

    def judge(
        self,
        params: Params,
        prompt: Int[Tokens, "batch prompt_length"],
        completion: Int[Tokens, "batch 2 length"],
    ) -> Judgement:
        """sigmoid(r(y1) - r(y2)), and both rewards."""
        rewards, read = reward(self.language_model, self.template, params, prompt, completion)
        return Judgement(jax.nn.sigmoid(rewards[:, 0] - rewards[:, 1]), rewards, read=read)

    def loss_fn(
        self, params: Params, batch: Comparisons, dropout_rng: PRNGKeyArray | None
    ) -> LossAndMetrics:
        """Mean cross-entropy of the reward difference with the label."""
        batch = preference_batch(batch)
        pairs, _, length = batch.completion.shape
        rewards = verdict_log_odds(
            self.language_model,
            partial(self.language_model.logits, params, dropout_key=dropout_rng),
            self.template,
            jnp.repeat(batch.prompt, 2, axis=0),
            batch.completion.reshape(2 * pairs, length),
        ).reshape(pairs, 2)
        margin = rewards[:, 0] - rewards[:, 1]
        losses = binary_cross_entropy(margin, batch.preference)
        loss, metrics = _loss_and_metrics(losses, margin, batch.preference)
        return loss, {**metrics, "reward": Mean.of(rewards)}

    def predict_batch_with_aux(
        self, params: Params, batch: Comparisons, rng: PRNGKeyArray | None = None
    ) -> tuple[Array, dict[str, Array]]:
        """Index of the better completion, and the rewards of both."""
        batch = preference_batch(batch)
        given = (self.language_model, self.template, params, batch.prompt, batch.completion)
        rewards, _ = reward(*given)
        return jnp.argmax(rewards, axis=1), {"reward": rewards}

    def score_batch(self, params: Params, batch: Comparisons) -> Float[Array, " batch"]:
        """r(y1) - r(y2), the log-odds of the preference."""
        rewards = self.predict_batch_with_aux(params, batch)[1]["reward"]
        return rewards[:, 0] - rewards[:, 1]
