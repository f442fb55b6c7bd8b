"""Online data: completions drawn from the parameters just updated, and who wins.

Which pairs an algorithm learns from is told by two weights and a partner: each completion is drawn
from the geometric mixture pi^(1 - beta) partner^beta, with its own beta. So (0, 0) is (pi, pi), the
second alone at 1 is (pi, mu), and (0, beta) is Nash-MD's pair.
"""

from functools import partial
import time
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from po_jax.data.corpus import BatchStream
from po_jax.judges.judge import Annotator, Judgement
from po_jax.logprobs import sequence_logprob
from po_jax.metrics import Mean, Metrics
from po_jax.reporting.clock import StageClock
from po_jax.sampling import Strategy, sample
from po_jax.t5.language_model import T5LM
from po_jax.training.randomness import purpose_key
from po_jax.training.run import Run
from po_jax.training.state import TrainState
from po_jax.types import Params, PreferenceBatch, Rollout


class OnlineFeed:
    """Prompts in, annotated pairs of fresh completions out.

    Args:
      run: the run that is fed.
      prompts: batches of prompts by step.
      annotator: judges the pairs.
      strategy: how tokens are drawn.
      beta: weight of the partner in the mixture that y1 and y2 are drawn from, each in [0, 1].
      partner: "reference", mu itself, or "average", the train state's moving average of pi.
      missing_eos_penalty: taken from the preference for a completion that was cut off before its
        EOS, in [0, 1], and from its reward.
      pieces: parts that a batch is sampled in, one after the other, so that a host annotator
        judges one while the device draws the next.

    Raises:
      ValueError: on a weight, partner or penalty out of range.
    """

    def __init__(
        self,
        run: Run,
        prompts: BatchStream,
        *,
        annotator: Annotator,
        strategy: Strategy,
        beta: tuple[float, float],
        partner: str = "reference",
        missing_eos_penalty: float = 0.0,
        pieces: int = 1,
    ):
        for name, value in (("beta[0]", beta[0]), ("beta[1]", beta[1])):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"OnlineFeed.{name}: expected a weight in [0, 1], got {value}")
        if not 0.0 <= missing_eos_penalty <= 1.0:
            raise ValueError(
                "OnlineFeed.missing_eos_penalty: expected a share in [0, 1], got "
                f"{missing_eos_penalty}"
            )
        if partner not in ("reference", "average"):
            raise ValueError(
                f"OnlineFeed.partner: expected 'reference' or 'average', got {partner!r}"
            )
        if pieces < 1:
            raise ValueError(f"OnlineFeed.pieces: expected at least 1, got {pieces}")
        self._run = run
        self._prompts = prompts
        self._annotator = annotator
        self._strategy = strategy
        self._beta = beta
        self._partner = partner
        self._penalty = missing_eos_penalty
        self._pieces = pieces

    def batch(
        self, step: int, state: TrainState, clock: StageClock
    ) -> tuple[PreferenceBatch, Metrics]:
        """The batch of one step, drawn from `state.params`, and facts about its completions."""
        prompts = np.split(self._prompts.batch(step).arrays["prompt"], self._pieces)
        prompts = [self._run.partitioner.distribute(prompt) for prompt in prompts]
        began = time.monotonic()
        rollouts = [self._sample(step, i, state, prompt) for i, prompt in enumerate(prompts)]
        clock.queued("sampling", began, rollouts)
        began = time.monotonic()
        asked = [
            self._annotator.begin(prompt, rollout.completion, rollout.mask)
            for prompt, rollout in zip(prompts, rollouts, strict=True)
        ]
        judgement = _join([answer() for answer in asked])
        on_host = isinstance(judgement.preference, np.ndarray)
        clock.queued("annotating", began, judgement, on_host)
        began = time.monotonic()
        reference = self._run.reference if self._must_score else None
        with self._run.partitioner.activate():
            batch, metrics = complete(
                self._run.language_model,
                self._strategy.eos_id,
                self._beta,
                reference,
                _join(prompts),
                _join(rollouts),
                self._run.partitioner.distribute(judgement) if on_host else judgement,
                jnp.float32(self._penalty),
            )
        clock.queued("scoring", began, metrics)
        return jax.device_put(batch, self._run.partitioner.batch), metrics

    def save(self) -> None:
        """Nothing needs to be kept beside a checkpoint."""

    @property
    def _must_score(self) -> bool:
        """Whether the decoding loop does not run mu, so that its log-probs are still to be had."""
        return self._partner == "average" or not any(self._beta)

    def _sample(self, step: int, piece: int, state: TrainState, prompt: Array) -> Rollout:
        partner = state.average if self._partner == "average" else self._run.reference
        key = jax.random.fold_in(purpose_key(self._run.key, step, "sampling"), piece)
        beta = np.broadcast_to(np.float32(self._beta), (prompt.shape[0], 2))
        with self._run.partitioner.activate():
            return sample(
                self._run.language_model,
                self._strategy,
                state.params,
                partner if any(self._beta) else None,
                prompt,
                self._run.partitioner.distribute(beta),
                key,
            )


def _join(pieces: list[Any]) -> Any:
    """The pieces of a batch, trees of arrays, as one."""
    if len(pieces) == 1:
        return pieces[0]

    def concatenate(*parts):
        library = np if isinstance(parts[0], np.ndarray) else jnp
        return library.concatenate(parts)

    return jax.tree.map(concatenate, *pieces)


@partial(jax.jit, static_argnames=("model", "eos_id", "beta"))
def complete(
    model: T5LM,
    eos_id: int,
    beta: tuple[float, float],
    reference: Params | None,
    prompt: Int[Array, "batch prompt_length"],
    rollout: Rollout,
    judgement: Judgement,
    missing_eos_penalty: Float[Array, ""],
) -> tuple[PreferenceBatch, Metrics]:
    """Makes a batch of what was drawn and judged.

    Args:
      model: language model of the reference, static.
      eos_id: ends a completion, static.
      beta: weights that the two completions were drawn with, static.
      reference: parameters of mu, to score with; None where the rollout holds log mu.
      prompt: token ids.
      rollout: two completions a prompt.
      judgement: P(y1 > y2), and rewards if the annotator has them.
      missing_eos_penalty: see `OnlineFeed`.
    """
    if reference is None:
        reference_logprob = rollout.reference_logprob
    else:
        reference_logprob = model.score(reference, prompt, rollout.completion, rollout.mask)
    log_mu = sequence_logprob(reference_logprob, rollout.mask)
    log_pi = sequence_logprob(rollout.policy_logprob, rollout.mask)
    ended = jnp.any((rollout.completion == eos_id) & rollout.mask, axis=-1)
    preference, reward = penalise(judgement, ended, missing_eos_penalty)
    batch = PreferenceBatch(prompt, rollout.completion, rollout.mask, preference, log_mu, reward)
    metrics = {
        "entropy": Mean.of(-sequence_logprob(rollout.behaviour_logprob, rollout.mask)),
        "preference": Mean.of(preference),
    }
    from_policy = [i for i in (0, 1) if beta[i] == 0.0]
    if from_policy:
        metrics["kl"] = Mean.of(jnp.stack([log_pi[:, i] - log_mu[:, i] for i in from_policy]))
    return batch, metrics


def penalise(
    judgement: Judgement, ended: Bool[Array, "batch 2"], penalty: Float[Array, ""]
) -> tuple[Float[Array, " batch"], Float[Array, "batch 2"] | None]:
    """Takes the penalty from completions without EOS; looks at the completions alone.

    P(y1 > y2) moves by the penalty towards the completion that ended, within [0, 1]; nothing moves
    where both or neither did.
    """
    missing = penalty * (~ended).astype(jnp.float32)
    preference = jnp.clip(judgement.preference - missing[:, 0] + missing[:, 1], 0.0, 1.0)
    return preference, None if judgement.reward is None else judgement.reward - missing
