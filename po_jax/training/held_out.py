"""Evaluations while training: what a policy answers to held-out prompts, and supervised losses."""

from itertools import islice
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from po_jax.data.corpus import Batch, BatchStream
from po_jax.judges.judge import Annotator
from po_jax.metrics import merge
from po_jax.models.base import Model
from po_jax.sampling import Strategy, sample
from po_jax.training.randomness import purpose_key
from po_jax.training.run import Run
from po_jax.training.state import TrainState
from po_jax.vocabulary import Vocabulary, to_text


@runtime_checkable
class Evaluation(Protocol):
    """Asks something of a state."""

    def __call__(self, state: TrainState) -> tuple[dict[str, float], str]:
        """Numbers by name, and a text to log (Markdown), which may be empty."""


class PolicyEvaluation:
    """Fresh completions of held-out prompts: win rate over mu, KL to mu, entropy, length, EOS.

    The prompts and the randomness are the same at every evaluation.

    Args:
      run: the run that is evaluated.
      prompts: batches of held-out prompts.
      strategy: how tokens are drawn.
      vocabulary: of the policy, for the texts.
      annotator: judges pi's completions against mu's; None for no win rate.
      batches: how many batches of prompts.
      shown: how many prompts are shown with their completions.
    """

    def __init__(
        self,
        run: Run,
        *,
        prompts: BatchStream,
        strategy: Strategy,
        vocabulary: Vocabulary,
        annotator: Annotator | None = None,
        batches: int = 4,
        shown: int = 4,
    ):
        self._run = run
        self._prompts = list(islice(prompts.one_pass(), batches))
        self._strategy = strategy
        self._vocabulary = vocabulary
        self._annotator = annotator
        self._shown = shown

    def __call__(self, state: TrainState) -> tuple[dict[str, float], str]:
        """Samples, judges and counts."""
        facts, texts = [], []
        for index, batch in enumerate(self._prompts):
            prompt = self._run.partitioner.distribute(batch.arrays["prompt"])
            rollout = self._sample(index, state, prompt)
            answer = None
            if self._annotator is not None:
                answer = self._annotator.begin(prompt, rollout.completion, rollout.mask)
            facts.append(self._facts(batch, rollout, answer))
            texts += self._texts(batch, rollout) if len(texts) < self._shown else []
        valid = np.concatenate([batch.valid for batch in self._prompts])
        return {
            name: float(np.concatenate([part[name] for part in facts])[valid].mean())
            for name in facts[0]
        }, "\n\n".join(texts[: self._shown])

    def _sample(self, index: int, state: TrainState, prompt: jax.Array) -> Any:
        """One completion of pi and one of mu for each prompt, in one program."""
        beta = np.broadcast_to(np.float32([0.0, 1.0]), (prompt.shape[0], 2))
        with self._run.partitioner.activate():
            return sample(
                self._run.language_model,
                self._strategy,
                state.params,
                self._run.reference,
                prompt,
                self._run.partitioner.distribute(beta),
                purpose_key(self._run.key, index, "evaluation"),
            )

    def _facts(self, batch: Batch, rollout: Any, answer: Any) -> dict[str, np.ndarray]:
        """Numbers of every prompt."""
        policy, reference, tokens, mask = (
            x[:, 0]
            for x in jax.device_get(
                (
                    rollout.policy_logprob,
                    rollout.reference_logprob,
                    rollout.completion,
                    rollout.mask,
                )
            )
        )
        facts = {
            "kl": (policy - reference).sum(axis=-1),
            "entropy": -policy.sum(axis=-1),
            "length": mask.sum(axis=-1),
            "eos_rate": ((tokens == self._strategy.eos_id) & mask).any(axis=-1),
        }
        if answer is not None:
            facts["win_rate"] = np.asarray(jax.device_get(answer().preference))
        return facts

    def _texts(self, batch: Batch, rollout: Any) -> list[str]:
        completion = jax.device_get(rollout.completion)
        texts = []
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
      batches: how many; None for all.
    """

    def __init__(
        self, run: Run, *, model: Model, examples: BatchStream, batches: int | None = None
    ):
        self._run = run
        self._examples = examples
        self._batches = batches
        self._evaluate = jax.jit(lambda params, batch: model.eval_fn(params, batch)[1])

    def __call__(self, state: TrainState) -> tuple[dict[str, float], str]:
        """Means over the examples."""
        total = None
        for batch in islice(self._examples.one_pass(), self._batches):
            arrays = dict(batch.arrays)
            weights = arrays["decoder_loss_weights"]
            arrays["decoder_loss_weights"] = weights * batch.valid[:, None].astype(weights.dtype)
            with self._run.partitioner.activate():
                metrics = self._evaluate(state.params, self._run.partitioner.distribute(arrays))
            total = metrics if total is None else merge(total, metrics)
        return {name: float(metric.compute()) for name, metric in total.items()}, ""


class JudgeEvaluation:
    """How often a judge agrees with the labels of held-out comparisons; ties are not counted.

    Args:
      run: the run that is evaluated.
      model: the preference or reward model that is trained.
      comparisons: batches of the held-out split.
      batches: how many; None for all.
    """

    def __init__(
        self, run: Run, *, model: Model, comparisons: BatchStream, batches: int | None = None
    ):
        self._run = run
        self._comparisons = comparisons
        self._batches = batches
        self._predict = jax.jit(model.predict_batch)

    def __call__(self, state: TrainState) -> tuple[dict[str, float], str]:
        """Accuracy, in both orders where the judge reads pairs."""
        agreed = []
        for batch in islice(self._comparisons.one_pass(), self._batches):
            with self._run.partitioner.activate():
                better = self._predict(state.params, self._run.partitioner.distribute(batch.arrays))
            preference = batch.arrays["preference"]
            counted = batch.valid & (preference != 0.5)
            agreed.append(((np.asarray(better) == 0) == (preference > 0.5))[counted])
        agreed = np.concatenate(agreed)
        return {"accuracy": float(agreed.mean()), "comparisons": float(len(agreed))}, ""
