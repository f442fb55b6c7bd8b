"""Evaluations while training: what a policy answers to held-out prompts, and a model's own loss."""

import dataclasses
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool
import numpy as np

from po_jax.data.corpus import Batch, BatchStream
from po_jax.interruption import check
from po_jax.judges import Judge, Pairs, ask
from po_jax.logprobs import kl_k1
from po_jax.metrics import Mean, agreement, merge
from po_jax.models.base import Model
from po_jax.partitioning import collect
from po_jax.sampling import Sampler, Strategy
from po_jax.training.randomness import purpose_key
from po_jax.training.run import Run
from po_jax.training.state import TrainState
from po_jax.types import Params, Rollout
from po_jax.vocabulary import Vocabulary, ended, to_text

Facts = dict[str, np.ndarray]  # a number for each prompt, by name


@runtime_checkable
class Evaluation(Protocol):
    """Asks something of a state."""

    def __call__(self, state: TrainState) -> tuple[dict[str, float], str]:
        """Numbers by name, and a text to log (Markdown), which may be empty."""


def _check_batches(max_batches: int | None) -> None:
    if max_batches is not None and max_batches < 1:
        raise ValueError(f"expected max_batches of 1 or more, got {max_batches}")


@jax.jit
def _equal(policy: Params, reference: Params) -> Bool[Array, ""]:
    """Whether one has become the other's values, in the other's dtype."""
    same = jax.tree.map(lambda x, y: (x.astype(y.dtype) == y).all(), policy, reference)
    return jnp.stack(jax.tree.leaves(same)).all()


class PolicyEvaluation:
    """Fresh completions of held-out prompts: win rate over mu, KL to mu, entropy, length, EOS.

    The prompts and the randomness are the same at every evaluation. KL and entropy are those of the
    policy itself: where `strategy` changes the distribution that tokens are drawn from, they are
    taken from further completions with nothing changed. Where pi is mu, as it is at step 0, the win
    rate is 1/2 and the judge is not asked.

    Args:
      run: the run that is evaluated.
      prompts: batches of held-out prompts.
      strategy: how the completions that are judged and shown are drawn.
      vocabulary: of the policy, for the texts.
      judge: compares pi's completions with mu's; None for no win rate.
      max_batches: how many batches of prompts.
      shown: how many prompts are shown with their completions.
    """

    def __init__(
        self,
        run: Run,
        *,
        prompts: BatchStream,
        strategy: Strategy,
        vocabulary: Vocabulary,
        judge: Judge | None = None,
        max_batches: int = 4,
        shown: int = 4,
    ):
        _check_batches(max_batches)
        self._run = run
        self._prompts = list(islice(prompts.one_pass(), max_batches))
        self._sampler = Sampler(run.language_model, strategy, run.partitioner, prompts.batch_size)
        self._vocabulary = vocabulary
        self._judge = judge
        self._shown = shown

    def __call__(self, state: TrainState) -> tuple[dict[str, float], str]:
        """Samples, judges and counts."""
        facts, texts = [], []
        same = bool(_equal(self._run.join(state.params), self._run.reference))
        for index, batch in enumerate(self._prompts):
            check()
            rollout = self._draw(self._sampler, index, batch, state, "evaluation")
            facts.append(self._facts(index, batch, state, rollout, same))
            if len(texts) < self._shown:
                texts += self._texts(batch, rollout)
        valid = np.concatenate([batch.valid for batch in self._prompts])
        return {
            name: float(np.concatenate([part[name] for part in facts])[valid].mean())
            for name in facts[0]
        }, "\n\n".join(texts[: self._shown])

    def _facts(
        self, index: int, batch: Batch, state: TrainState, rollout: Rollout, same: bool
    ) -> Facts:
        """Numbers of every prompt of a batch."""
        unchanged, fresh = self._sampler.strategy.unchanged, rollout
        if self._sampler.strategy != unchanged:
            sampler = dataclasses.replace(self._sampler, strategy=unchanged)
            fresh = self._draw(sampler, index, batch, state, "kl")
        answer = None
        if self._judge is not None and not same:
            pairs = Pairs(
                rollout.prompt, rollout.completion, rollout.mask, batch.texts, batch.valid
            )
            answer = ask(self._judge, pairs)
        tokens, mask, policy, reference = (
            x[:, 0]
            for x in collect(
                (rollout.completion, rollout.mask, fresh.policy_logprob, fresh.partner_logprob)
            )
        )
        eos = self._run.language_model.special_ids.eos
        facts = {
            "kl": kl_k1(policy, reference).sum(axis=-1),
            "entropy": -policy.sum(axis=-1),
            "length": mask.sum(axis=-1),
            "eos_rate": ended(tokens, mask, eos),
        }
        if answer is not None:
            facts["win_rate"] = collect(answer().preference)
        elif self._judge is not None:
            facts["win_rate"] = np.full(len(mask), 0.5)
        return facts

    def _draw(
        self, sampler: Sampler, index: int, batch: Batch, state: TrainState, purpose: str
    ) -> Rollout:
        """One completion of pi and one of mu for each prompt, in one program."""
        key = purpose_key(self._run.key, index, purpose)
        policy = self._run.join(state.params)
        drawn = sampler.draw(policy, self._run.reference, batch.arrays["prompt"], (0.0, 1.0), key)
        return sampler.fitted(drawn)

    def _texts(self, batch: Batch, rollout: Rollout) -> list[str]:
        texts = []
        completion = collect(rollout.completion)
        for prompt, (own, reference) in zip(batch.arrays["prompt"], completion, strict=True):
            read = [to_text(self._vocabulary, tokens) for tokens in (prompt, own, reference)]
            texts.append("**prompt** {}\n\n**policy** {}\n\n**reference** {}".format(*read))
        return texts


class SupervisedEvaluation:
    """The model's own metrics on held-out examples, without dropout.

    Args:
      run: the run that is evaluated.
      model: what is trained.
      examples: batches of the held-out split.
      max_batches: how many; None for all.
    """

    def __init__(
        self, run: Run, *, model: Model, examples: BatchStream, max_batches: int | None = None
    ):
        _check_batches(max_batches)
        self._run = run
        self._examples = examples
        self._max_batches = max_batches
        self._evaluate = jax.jit(lambda params, batch: model.eval_fn(params, batch)[1])

    def __call__(self, state: TrainState) -> tuple[dict[str, float], str]:
        """Means over the examples."""
        params = self._run.join(state.params)
        total: Any = None
        for batch in islice(self._examples.one_pass(), self._max_batches):
            jax.block_until_ready(total)  # A signal waits for one batch, not for all in the queue.
            check()
            arrays = dict(batch.arrays)
            weights = arrays["decoder_loss_weights"]
            arrays["decoder_loss_weights"] = weights * batch.valid[:, None].astype(weights.dtype)
            with self._run.partitioner.activate():
                metrics = self._evaluate(params, self._run.partitioner.distribute(arrays))
            total = metrics if total is None else merge(total, metrics)
        return {name: float(metric.compute()) for name, metric in total.items()}, ""


class JudgeEvaluation:
    """How often a judge agrees with the labels of held-out comparisons; ties are not counted.

    Args:
      run: the run that is evaluated.
      model: the preference or reward model that is trained.
      comparisons: batches of the held-out split.
      max_batches: how many; None for all.
    """

    def __init__(
        self, run: Run, *, model: Model, comparisons: BatchStream, max_batches: int | None = None
    ):
        _check_batches(max_batches)
        self._run = run
        self._comparisons = comparisons
        self._max_batches = max_batches
        self._score = jax.jit(model.score_batch)

    def __call__(self, state: TrainState) -> tuple[dict[str, float], str]:
        """Agreement, in both orders where the judge reads pairs; absent where all labels tie."""
        params = self._run.join(state.params)
        total = Mean(0.0, 0.0)
        for batch in islice(self._comparisons.one_pass(), self._max_batches):
            check()
            with self._run.partitioner.activate():
                score = self._score(params, self._run.partitioner.distribute(batch.arrays))
            # Rows that fill up the batch tie.
            preference = np.where(batch.valid, batch.arrays["preference"], 0.5)
            total = total.merge(agreement(jnp.asarray(collect(score)), jnp.asarray(preference)))
        values = {"comparisons": float(total.count)}
        if total.count:
            values["accuracy"] = float(total.compute())
        return values, ""
