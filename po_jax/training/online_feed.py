"""Online data: completions drawn from the parameters just updated, and who wins.

Which pairs an algorithm learns from is told by two weights and a partner: each completion is drawn
from the geometric mixture pi^(1 - beta) partner^beta, with its own beta. So (0, 0) is (pi, pi), the
second alone at 1 is (pi, mu), and (0, beta) is Nash-MD's pair. Or more are drawn, and the pair is
the best and the worst of them.
"""

from functools import partial
import time
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from po_jax.data.corpus import Batch, Batches
from po_jax.interruption import check
from po_jax.judges import Judge, Judgement, Pairs, ask, ask_about_all, best_and_worst
from po_jax.language_model import LanguageModel
from po_jax.like_lengths import reading_by_length
from po_jax.logprobs import kl_k1, sequence_logprob
from po_jax.metrics import Mean, Metrics
from po_jax.reporting.clock import StageClock
from po_jax.sampling import Sampler, Strategy
from po_jax.training.randomness import purpose_key
from po_jax.training.run import Run
from po_jax.training.schedules import at_step
from po_jax.training.state import TrainState
from po_jax.types import Params, PreferenceBatch, Rollout, Schedule
from po_jax.vocabulary import ended

Weight = float | int | Schedule


class OnlineFeed:
    """Prompts in, annotated pairs of fresh completions out.

    Args:
      run: the run that is fed.
      prompts: batches of prompts by step.
      annotator: judges the pairs; in both orders, unless it is antisymmetric.
      strategy: the completions' length; tokens must be drawn from the mixture itself.
      betas: weight of the partner in the mixture that y1 and y2 are drawn from, each in [0, 1], a
        number or a schedule of the step. None, an offline algorithm's, is refused.
      against_average: the partner is the train state's moving average of pi, in place of mu.
      missing_eos_penalty: taken from the preference for a completion that was cut off before its
        EOS, in [0, 1], and from its reward.
      candidates: completions of each prompt, all judged against each other, of which y1 is the best
        and y2 the worst; at least 2, drawn with equal betas. None for two, as they were drawn.
      pieces: parts that a batch is sampled in, one after the other, so that a judge on the host
        reads one while the devices draw the next.

    Raises:
      ValueError: on a weight, strategy, penalty or number of candidates or pieces out of range.
    """

    def __init__(
        self,
        run: Run,
        prompts: Batches,
        *,
        annotator: Judge,
        strategy: Strategy,
        betas: tuple[Weight, Weight] | None,
        against_average: bool = False,
        missing_eos_penalty: float = 0.0,
        candidates: int | None = None,
        pieces: int = 1,
    ):
        if betas is None:
            raise ValueError("OnlineFeed.betas: expected two weights, got None (offline)")
        if len(betas) != 2:
            raise ValueError(f"OnlineFeed.betas: expected two weights, got {betas}")
        for index, value in enumerate(betas):
            if not callable(value) and not 0.0 <= value <= 1.0:
                raise ValueError(
                    f"OnlineFeed.betas[{index}]: expected a weight in [0, 1], got {value}"
                )
        if strategy != strategy.unchanged:
            raise ValueError(
                "OnlineFeed.strategy: expected tokens drawn from the policy itself (temperature 1, "
                f"nothing truncated, no least length), which the losses assume, got {strategy}"
            )
        if not 0.0 <= missing_eos_penalty <= 1.0:
            raise ValueError(
                "OnlineFeed.missing_eos_penalty: expected a share in [0, 1], got "
                f"{missing_eos_penalty}"
            )
        if candidates is not None and (candidates < 2 or betas[0] != betas[1]):
            raise ValueError(
                "OnlineFeed.candidates: expected 2 or more, drawn with equal betas, got "
                f"{candidates} with betas {betas}"
            )
        if pieces < 1 or prompts.batch_size % pieces:
            raise ValueError(
                f"OnlineFeed.pieces: expected a divisor of the batch size {prompts.batch_size}, "
                f"got {pieces}"
            )
        self._run = run
        self._prompts = prompts
        self._annotator = annotator
        self._sampler = Sampler(run.language_model, strategy, run.partitioner, prompts.batch_size)
        self._betas = betas
        self._against_average = against_average
        self._penalty = missing_eos_penalty
        self._candidates = candidates
        self._pieces = pieces

    def made_from(self) -> dict[str, Any]:
        """What tells this feed from others, for the run's record."""
        return {
            "judge": self._annotator,
            "max_length": self._sampler.strategy.max_length,
            "betas": self._betas,
            "against_average": self._against_average,
            "missing_eos_penalty": self._penalty,
            **({} if self._candidates is None else {"candidates": self._candidates}),
            "pieces": self._pieces,
        }

    def batch(
        self, step: int, state: TrainState, clock: StageClock
    ) -> tuple[PreferenceBatch, Metrics]:
        """The batch of one step, drawn from `state.params`, and facts about its completions."""
        host = self._prompts.batch(step)
        betas = tuple(at_step(beta, step) for beta in self._betas)
        began = time.monotonic()
        rollouts = self._draw(step, state, host, betas)
        clock.queued("sampling", began, rollouts)
        check()  # The first time, sampling was compiled; the judge may be slow, or cost money.
        began = time.monotonic()
        judgement = self._judge(host, rollouts)
        on_host = isinstance(judgement.preference, np.ndarray)
        clock.queued("annotating", began, judgement, on_host)
        began = time.monotonic()
        with self._run.partitioner.activate():
            batch, metrics = make_batch(
                reading_by_length(self._run.language_model, self._run.partitioner.lengths),
                self._from_policy,
                self._run.reference if self._must_score else None,
                self._whole(host, rollouts),
                self._run.partitioner.distribute(judgement),
                jnp.float32(self._penalty),
                jnp.int32(step),
            )
        clock.queued("scoring", began, metrics)
        if any(callable(beta) for beta in self._betas):
            metrics["beta"] = Mean.of(jnp.float32(betas))
        return jax.device_put(batch, self._run.partitioner.batch), metrics

    def save(self) -> None:
        """Nothing needs to be kept beside a checkpoint."""

    @property
    def _must_score(self) -> bool:
        """Whether the decoding loop does not run mu, so that its log-probs are still to be had."""
        return self._against_average or not self._mixes

    @property
    def _from_policy(self) -> tuple[int, ...]:
        """Which of the pair are fair draws from the policy: what was chosen is none."""
        if self._candidates is not None:
            return ()
        return tuple(index for index, beta in enumerate(self._betas) if beta == 0)

    @property
    def _mixes(self) -> bool:
        return any(beta != 0 for beta in self._betas)

    def _draw(
        self, step: int, state: TrainState, host: Batch, betas: tuple[float, ...]
    ) -> list[Rollout]:
        partner = None
        if self._mixes:
            average = self._against_average
            partner = self._run.join(state.average) if average else self._run.reference
        if self._candidates is not None:
            betas = betas[:1] * self._candidates
        key = purpose_key(self._run.key, step, "sampling")
        policy = self._run.join(state.params)
        return [
            self._sampler.draw(policy, partner, prompt, betas, jax.random.fold_in(key, index))
            for index, prompt in enumerate(np.split(host.arrays["prompt"], self._pieces))
        ]

    def _whole(self, host: Batch, rollouts: list[Rollout]) -> Rollout:
        """The rollout of a batch; each of its pieces has prompts as long as its own longest."""
        whole = _join([rollout.replace(prompt=None) for rollout in rollouts])
        prompt = self._run.partitioner.distribute(host.arrays["prompt"])
        return self._sampler.fitted(whole.replace(prompt=prompt))

    def _judge(self, host: Batch, rollouts: list[Rollout]) -> Judgement:
        rows = np.split(np.arange(len(host.valid)), self._pieces)
        asked = []
        for part, rollout in zip(rows, map(self._sampler.fitted, rollouts), strict=True):
            entrants = (rollout.prompt, rollout.completion, rollout.mask, host.text_rows(part))
            if self._candidates is None:
                asked.append(ask(self._annotator, Pairs(*entrants)))
            else:
                asked.append(ask_about_all(self._annotator, *entrants))
        answers = [answer() for answer in asked]
        if self._candidates is not None:
            return Judgement(_join(answers))
        return _join([answer.replace(by_order=None) for answer in answers])


def _join(pieces: list[Any]) -> Any:
    """The pieces of a batch, trees of arrays, as one."""
    if len(pieces) == 1:
        return pieces[0]

    def concatenate(*parts):
        library = np if isinstance(parts[0], np.ndarray) else jnp
        return library.concatenate(parts)

    return jax.tree.map(concatenate, *pieces)


@partial(jax.jit, static_argnames=("model", "from_policy"))
def make_batch(
    model: LanguageModel,
    from_policy: tuple[int, ...],
    reference: Params | None,
    rollout: Rollout,
    judgement: Judgement,
    missing_eos_penalty: Float[Array, ""],
    step: Int[Array, ""],
) -> tuple[PreferenceBatch, Metrics]:
    """Makes a batch of what was drawn and judged.

    Args:
      model: language model of the reference, static.
      from_policy: which completions were drawn from the policy alone, static.
      reference: parameters of mu, to score with; None where the rollout's partner is mu.
      rollout: two completions of each prompt, or k candidates.
      judgement: P(y1 > y2), and rewards if the judge has them; of candidates [batch, k, k].
      missing_eos_penalty: see `OnlineFeed`.
      step: updates so far.
    """
    entropy = Mean.of(-sequence_logprob(rollout.behaviour_logprob, rollout.mask))
    if judgement.preference.ndim == 3:
        rollout, judgement = best_pair(rollout, judgement)
    mask = rollout.mask
    if reference is None:
        reference_logprob = rollout.partner_logprob
    else:
        reference_logprob = model.score(reference, rollout.prompt, rollout.completion, mask)
    log_mu = sequence_logprob(reference_logprob, mask)
    log_pi = sequence_logprob(rollout.policy_logprob, mask)
    ends = ended(rollout.completion, mask, model.special_ids.eos)
    preference, reward = penalise(judgement, ends, missing_eos_penalty)
    batch = PreferenceBatch(
        rollout.prompt,
        rollout.completion,
        mask,
        preference,
        log_mu,
        reward,
        jnp.broadcast_to(step, preference.shape),
    )
    metrics = {"entropy": entropy, "preference": Mean.of(preference)}
    if judgement.read is not None:
        tokens, positions = jnp.sum(judgement.read, axis=0).astype(jnp.float32)
        metrics["judge_padding"] = Mean(positions - tokens, positions)
    if from_policy:
        drawn = jnp.asarray(from_policy)
        metrics["kl"] = Mean.of(kl_k1(log_pi[:, drawn], log_mu[:, drawn]))
    return batch, metrics


def best_pair(rollout: Rollout, judgement: Judgement) -> tuple[Rollout, Judgement]:
    """Of k candidates the best and the worst, and what the judge says of the two."""
    table = judgement.preference
    row = jnp.arange(len(table))
    best, worst = best_and_worst(table)
    places = jnp.stack([best, worst], axis=1)
    candidates = rollout.replace(prompt=None)
    pair = jax.tree.map(lambda x: x[row[:, None], places], candidates)
    return pair.replace(prompt=rollout.prompt), Judgement(table[row, best, worst])


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
