"""Policies side by side: each answers the same held-out prompts, and a judge compares them all."""

from collections.abc import Mapping
import dataclasses
import logging
import os
import time

from po_jax.checkpoints.about import POLICIES
from po_jax.checkpoints.load import Checkpoint, load_parameters, open_checkpoint
from po_jax.data.corpus import BatchStream
from po_jax.evaluation.intervals import Mean, mean_interval
from po_jax.evaluation.matches import judge_matches
from po_jax.evaluation.prompts import Prompts, gather
from po_jax.evaluation.report import Findings, Metrics, Report, build_report
from po_jax.evaluation.samples import Samples, sequence_kl
from po_jax.judges import CallsFunction, Judge
from po_jax.judges.rouge import rouge
from po_jax.sampling import Sampler
from po_jax.training.randomness import purpose_key, root_key
from po_jax.types import Params
from po_jax.vocabulary import Vocabulary

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SideBySide:
    """Draws, judges and counts.

    The KL is that of the policies themselves: where the sampler's strategy changes the distribution
    that tokens are drawn from, it is taken from further samples with nothing changed.

    Attributes:
      sampler: how the completions that are judged are drawn; its batch size is the judge's too.
      policies: name -> checkpoint, in any known format.
      reference: name of the policy that the others started from.
      prompts: of the held-out split.
      judge: who says which is better.
      vocabulary: of the policies.
      metrics: of a task: names and values of one policy's completions, by the texts of the prompts.
      max_prompts: at most so many, evenly spaced over the split; None for all.
      examples: how many prompts are shown side by side.
      random_seed: of the sampling.

    Raises:
      ValueError: fewer than two policies, an unknown reference, one checkpoint for two of them, or
        a checkpoint of no policy: found now and not after an hour of sampling.
    """

    sampler: Sampler
    policies: Mapping[str, str]
    reference: str
    prompts: BatchStream
    judge: Judge
    vocabulary: Vocabulary
    metrics: Metrics | None = None
    max_prompts: int | None = None
    examples: int = 12
    random_seed: int = 0
    _opened: dict[str, Checkpoint] = dataclasses.field(init=False, repr=False)

    def __post_init__(self):
        if self.examples < 0:
            raise ValueError(f"SideBySide.examples: expected 0 or more, got {self.examples}")
        if len(self.policies) < 2 or self.reference not in self.policies:
            raise ValueError(
                f"SideBySide: expected two or more policies, the reference {self.reference!r} "
                f"among them, got {list(self.policies)}"
            )
        opened = {name: open_checkpoint(path) for name, path in self.policies.items()}
        names: dict[str, str] = {}
        for name, checkpoint in opened.items():
            ids = self.sampler.language_model.special_ids
            checkpoint.about.require(f"{checkpoint.path}", POLICIES, ids)
            other = names.setdefault(os.path.realpath(checkpoint.path), name)
            if other != name:
                raise ValueError(
                    f"SideBySide: expected a checkpoint for each policy, got {checkpoint.path} for "
                    f"{other!r} and {name!r}"
                )
        object.__setattr__(self, "_opened", opened)  # a run that goes on saves newer ones

    def report(self) -> Report:
        """What was found.

        Raises:
          ValueError: a checkpoint of another model, fewer than two prompts, or a batch that the
            mesh cannot divide.
          JudgeError: if the judge raises or answers what is no answer.
        """
        prompts = gather(self.prompts, self.max_prompts)
        samples, kl = self._answers(prompts)
        began = time.monotonic()
        matches = judge_matches(self.judge, prompts, samples, self.sampler.batch_size)
        logger.info("judged %d pairs of policies in %.1f s", len(matches), time.monotonic() - began)
        findings = Findings(
            prompts=prompts,
            samples=samples,
            matches=matches,
            reference=self.reference,
            judge=self.judge.name,
            calls=self.judge.record() if isinstance(self.judge, CallsFunction) else None,
            kl=kl,
            rouge=None
            if prompts.answers is None
            else {name: _rouge(x, prompts) for name, x in samples.items()},
            metrics=None
            if self.metrics is None
            else {name: self.metrics(prompts.texts, x.text) for name, x in samples.items()},
        )
        strategy = dataclasses.asdict(self.sampler.strategy)
        config = {"policies": dict(self.policies), "strategy": strategy}
        return build_report(findings, examples=self.examples, config=config)

    def _answers(self, prompts: Prompts) -> tuple[dict[str, Samples], dict[str, Mean]]:
        """What every policy answers, and its KL; one policy beside the reference in memory."""
        mu = self._load(self.reference)
        samples, kl = {}, {}
        for index, name in enumerate(self.policies):
            began = time.monotonic()
            pi = mu if name == self.reference else self._load(name)
            samples[name] = self._draw(self.sampler, pi, mu, prompts, (index, "evaluation"))
            fresh = samples[name]
            unchanged = self.sampler.strategy.unchanged
            if self.sampler.strategy != unchanged:
                sampler = dataclasses.replace(self.sampler, strategy=unchanged)
                fresh = self._draw(sampler, pi, mu, prompts, (index, "kl"))
            kl[name] = sequence_kl(fresh)
            seconds = time.monotonic() - began
            logger.info("%s answered %d prompts in %.1f s", name, len(prompts), seconds)
        return samples, kl

    def _load(self, name: str) -> Params:
        checkpoint = self._opened[name]
        return load_parameters(self.sampler.language_model, checkpoint, self.sampler.partitioner)

    def _draw(
        self,
        sampler: Sampler,
        pi: Params,
        mu: Params,
        prompts: Prompts,
        purpose: tuple[int, str],
    ) -> Samples:
        """Policies that meet draw with different keys, or they would not be independent."""
        key = purpose_key(root_key(self.random_seed), *purpose)
        rollout = sampler.draw_all(pi, mu, prompts.tokens, (0.0,), key)
        return Samples.of(rollout, self.vocabulary)


def _rouge(samples: Samples, prompts: Prompts) -> dict[str, Mean]:
    return {name: mean_interval(x) for name, x in rouge(samples.text, prompts.answers).items()}
