"""T5 judges: a pairwise preference model and a Bradley-Terry reward model.

Both read a composed input and answer with one token out of two; the log-odds of that choice are
the logit of the preference, or the reward. The models in `po_jax.models` train the same functions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from po_jax.judges.judge import Judgement, Tokens
from po_jax.judges.template import Template, compose
from po_jax.t5.language_model import T5LM
from po_jax.types import Params


def answer_log_odds(
    score: Callable[..., Float[Array, "batch 2 1"]],
    template: Template,
    *fields: Int[Array, "batch _"],
) -> Float[Array, " batch"]:
    """log P(first answer) - log P(second answer), given the composed fields.

    Args:
      score: `T5LM.score` with everything bound but prompt, completion and mask.
      template: how the fields are composed, and the two answers.
      *fields: token ids of the prompt and of the completions.
    """
    question = compose(template, *fields)
    answers = jnp.asarray(template.answers, question.dtype)[None, :, None]
    answers = jnp.broadcast_to(answers, (question.shape[0], 2, 1))
    logprob = score(question, answers, jnp.ones(answers.shape, bool))[..., 0]
    return logprob[:, 0] - logprob[:, 1]


@partial(jax.jit, static_argnames=("model", "template"))
def judge_pairs(
    model: T5LM,
    template: Template,
    params: Params,
    prompt: Int[Array, "batch prompt_length"],
    completion: Int[Array, "batch 2 length"],
) -> Float[Array, " batch"]:
    """P(y1 > y2) averaged over both orders, so that P(y1 > y2) + P(y2 > y1) = 1 exactly."""
    first, second = completion[:, 0], completion[:, 1]
    logit = answer_log_odds(
        partial(model.score, params),
        template,
        jnp.concatenate([prompt, prompt]),
        jnp.concatenate([first, second]),
        jnp.concatenate([second, first]),
    )
    forward, backward = jnp.split(jax.nn.sigmoid(logit), 2)
    return 0.5 * (forward + (1.0 - backward))


@partial(jax.jit, static_argnames=("model", "template"))
def reward_completions(
    model: T5LM,
    template: Template,
    params: Params,
    prompt: Int[Array, "batch prompt_length"],
    completion: Int[Array, "batch K length"],
) -> Float[Array, "batch K"]:
    """The reward of each completion: the log-odds that it is good."""
    batch, samples, length = completion.shape
    reward = answer_log_odds(
        partial(model.score, params),
        template,
        jnp.repeat(prompt, samples, axis=0),
        completion.reshape(batch * samples, length),
    )
    return reward.reshape(batch, samples)


@dataclass(frozen=True)
class PreferenceAnnotator:
    """P(y1 > y2) from a pairwise preference T5 that shares the policy's vocabulary.

    Attributes:
      model: the language model it is.
      template: how it reads a pair, as it was trained to.
      params: its parameters, on the device.
    """

    model: T5LM
    template: Template
    params: Params

    def begin(
        self,
        prompt: Int[Tokens, "batch prompt_length"],
        completion: Int[Tokens, "batch 2 length"],
        mask: Bool[Tokens, "batch 2 length"],
    ) -> Callable[[], Judgement]:
        """Queues the judging on the device."""
        del mask  # a completion is zero where its mask is false
        preference = judge_pairs(self.model, self.template, self.params, prompt, completion)
        return lambda: Judgement(preference)


@dataclass(frozen=True)
class RewardAnnotator:
    """P = sigmoid(r1 - r2) from a Bradley-Terry reward T5 that shares the policy's vocabulary.

    Attributes:
      model: the language model it is.
      template: how it reads a completion, as it was trained to.
      params: its parameters, on the device.
    """

    model: T5LM
    template: Template
    params: Params

    def begin(
        self,
        prompt: Int[Tokens, "batch prompt_length"],
        completion: Int[Tokens, "batch 2 length"],
        mask: Bool[Tokens, "batch 2 length"],
    ) -> Callable[[], Judgement]:
        """Queues the scoring on the device."""
        del mask
        reward = reward_completions(self.model, self.template, self.params, prompt, completion)
        return lambda: Judgement(jax.nn.sigmoid(reward[:, 0] - reward[:, 1]), reward)
