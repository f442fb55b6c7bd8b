"""T5 judges: a pairwise preference model and a Bradley-Terry reward model, to train and to ask.

Both read a composed input and answer with one token out of two, words that they already know, so
that their trees are T5X's: no new parameters. The log-odds of that choice are the logit of the
preference, or the reward.
"""

from collections.abc import Mapping
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
    template: Template,
    params: Params,
    prompt: Int[Array, "batch prompt_length"],
    *completions: Int[Array, "batch questions _"],
    dropout_key: PRNGKeyArray | None = None,
) -> Float[Array, "batch questions"]:
    """log P(first verdict) - log P(second verdict), of each question about a prompt.

    Taken from the logits: through log-probabilities, the head's other columns would have gradients
    of rounding errors, which an optimiser that normalises gradients makes large.

    Args:
      model: the language model that is asked.
      template: how the fields are composed, and the two verdicts.
      params: of the model.
      prompt: token ids.
      *completions: the fields after the prompt, for each question.
      dropout_key: randomness of dropout; None for none.
    """
    encoded, decoded = compose(template, model.special_ids, prompt, *completions)
    options = {} if dropout_key is None else {"dropout_key": dropout_key}
    mask = decoded != model.special_ids.pad
    answer = model.next_token_logits(params, encoded, decoded, mask, **options)
    first, second = template.verdicts
    return (answer[..., first] - answer[..., second]).reshape(completions[0].shape[:2])


def _read(
    model: LanguageModel,
    template: Template,
    prompt: Int[Array, "batch prompt_length"],
    *completions: Int[Array, "batch questions _"],
) -> Int[Array, "batch 2"]:
    """`Judgement.read` of all questions about each prompt."""
    encoded, decoded = compose(template, model.special_ids, prompt, *completions)
    tokens = [jnp.sum(x != model.special_ids.pad, axis=-1) for x in (encoded, decoded)]
    positions = [positions_read(model, encoded), jnp.full(decoded.shape[:2], decoded.shape[2])]

    def of_each_prompt(counts):
        return sum(jnp.sum(x.reshape(len(prompt), -1), axis=1) for x in counts)

    return jnp.stack([of_each_prompt(tokens), of_each_prompt(positions)], axis=-1)


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
    given = (prompt, *_in_both_orders(completion))
    forward, backward = verdict_log_odds(model, template, params, *given).T
    return _mean_preference(forward, backward), _read(model, template, *given)


def _require_pairs(completion: Int[Array, "batch 2 length"]) -> None:
    if completion.ndim != 3 or completion.shape[1] != 2:
        raise ValueError(
            f"expected two completions of each prompt, [batch, 2, length], got "
            f"{list(completion.shape)}"
        )


def _in_both_orders(
    completion: Int[Array, "batch 2 length"],
) -> tuple[Int[Array, "batch 2 length"], Int[Array, "batch 2 length"]]:
    """The first and the second field of the two questions about each pair."""
    _require_pairs(completion)
    return completion, completion[:, ::-1]


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
    given = (prompt, completion)
    return verdict_log_odds(model, template, params, *given), _read(model, template, *given)


@runtime_checkable
class JudgeModel(Protocol):
    """The part of a trained model that makes it a judge.

    Attributes:
      kind: what it is, for reports.
      language_model: the network.
    """

    language_model: LanguageModel

    @property
    def kind(self) -> str: ...

    def judge(
        self,
        params: Params,
        prompt: Int[Tokens, "batch prompt_length"],
        completion: Int[Tokens, "batch 2 length"],
    ) -> Judgement:
        """The judgement of pairs; antisymmetric."""


def _require_ids(model: LanguageModel, template: Template) -> None:
    """Holds the ids that a judge's template has against its network, which would clip them."""
    largest = max(max(ids, default=0) for ids in (*template.pieces, template.verdicts))
    if largest >= model.vocab_size:
        raise ValueError(
            f"template: expected ids below {model.vocab_size}, as many as the judge has "
            f"embeddings, got {largest}: give the judge's own vocabulary"
        )


def _reading(template: Template) -> str:
    """What else a checkpoint says of a judge: asked in another way, it would answer at random."""
    return " whose decoder reads the answers" if template.decoded else ""


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
    """P(y1 > y2): the network reads text and both completions, and the next token answers.

    Attributes:
      template: how a pair is read, and the two verdicts.

    Raises:
      ValueError: if the template's ids are not of the network's vocabulary.
    """

    template: Template

    def __post_init__(self):
        _require_ids(self.language_model, self.template)

    @property
    def kind(self) -> str:
        return f"a trained preference model{_reading(self.template)}"

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
        forward, backward = verdict_log_odds(
            self.language_model,
            self.template,
            params,
            batch.prompt,
            *_in_both_orders(batch.completion),
            dropout_key=dropout_rng,
        ).T
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

    Raises:
      ValueError: if the template's ids are not of the network's vocabulary.
    """

    template: Template

    def __post_init__(self):
        _require_ids(self.language_model, self.template)

    @property
    def kind(self) -> str:
        return f"a trained reward model{_reading(self.template)}"

    def judge(
        self,
        params: Params,
        prompt: Int[Tokens, "batch prompt_length"],
        completion: Int[Tokens, "batch 2 length"],
    ) -> Judgement:
        """sigmoid(r(y1) - r(y2)), and both rewards."""
        _require_pairs(completion)
        rewards, read = reward(self.language_model, self.template, params, prompt, completion)
        return Judgement(jax.nn.sigmoid(rewards[:, 0] - rewards[:, 1]), rewards, read=read)

    def loss_fn(
        self, params: Params, batch: Comparisons, dropout_rng: PRNGKeyArray | None
    ) -> LossAndMetrics:
        """Mean cross-entropy of the reward difference with the label."""
        batch = preference_batch(batch)
        _require_pairs(batch.completion)
        rewards = verdict_log_odds(
            self.language_model,
            self.template,
            params,
            batch.prompt,
            batch.completion,
            dropout_key=dropout_rng,
        )
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
