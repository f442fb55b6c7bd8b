"""Policies side by side: each answers the same held-out prompts, and a judge compares them all.

Of a run's checkpoints along its training the last meets everybody, the others the reference alone.
"""

from collections.abc import Collection, Mapping
import dataclasses
from itertools import combinations
import logging
import os
import time

from po_jax.checkpoints.about import POLICIES, About
from po_jax.checkpoints.load import Checkpoint, load_parameters, open_checkpoint
from po_jax.data.corpus import BatchStream
from po_jax.evaluation import training_curves
from po_jax.evaluation.along import Stop, along_training, on_the_way
from po_jax.evaluation.best_of import best_of, kl_bound
from po_jax.evaluation.intervals import Mean, mean_interval
from po_jax.evaluation.matches import judge_matches
from po_jax.evaluation.prompts import Prompts, gather
from po_jax.evaluation.report import Findings, Metrics, Report, build_report
from po_jax.evaluation.samples import Samples, offline_regulariser, sequence_kl
from po_jax.judges import CallsFunction, Judge
from po_jax.judges.rouge import rouge
from po_jax.language_model import as_read
from po_jax.sampling import Sampler
from po_jax.training.randomness import purpose_key, root_key
from po_jax.types import Params, Rollout
from po_jax.vocabulary import Vocabulary

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SideBySide:
    """Draws, judges and counts.

    The KL is that of the policies themselves: where the sampler's strategy changes the distribution
    that tokens are drawn from, it is taken from further samples with nothing changed.

    Attributes:
      sampler: how the completions that are judged are drawn; its batch size is the judge's too.
      policies: name -> checkpoint, in any known format; or a pattern such as runs/x/checkpoint_*,
        which names all of a run along its training, as NAME@STEP.
      reference: name of the policy that the others started from.
      prompts: of the held-out split.
      judge: who says which is better.
      vocabulary: of the policies.
      metrics: of a task: names and values of one policy's completions, by the texts of the prompts.
      max_prompts: at most so many, evenly spaced over the split; None for all.
      examples: how many prompts are shown side by side.
      round_robin: whether all policies meet all, and not the reference alone.
      best_of: name -> n, at least 2: further policies, the best of the reference's n completions.
      best_of_judge: who says which is the best; None for `judge`.
      regulariser: whether to measure E[h^2] / 2 over pairs of the reference's completions, which
        offline losses put in the place of the KL; it is another drawing for every policy.
      random_seed: of the sampling.

    Raises:
      ValueError: fewer than two policies, an unknown reference, one checkpoint or one name for two
        of them, or a checkpoint of no policy: found now and not after an hour of sampling.
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
    round_robin: bool = True
    best_of: Mapping[str, int] = dataclasses.field(default_factory=dict)
    best_of_judge: Judge | None = None
    regulariser: bool = False
    random_seed: int = 0
    _opened: dict[str, Checkpoint] = dataclasses.field(init=False, repr=False)
    _runs: dict[str, tuple[Stop, ...]] = dataclasses.field(init=False, repr=False)

    def __post_init__(self):
        if self.examples < 0:
            raise ValueError(f"SideBySide.examples: expected 0 or more, got {self.examples}")
        paths, runs = along_training(self.policies)
        names = [*paths, *self.best_of]
        if len(names) < 2 or self.reference not in paths:
            raise ValueError(
                f"SideBySide: expected two or more policies, the reference {self.reference!r} "
                f"among them, got {names}"
            )
        for name, n in self.best_of.items():
            if name in paths or n < 2:
                raise ValueError(
                    "SideBySide.best_of: expected names of their own and 2 completions or more, "
                    f"got {n} for {name!r}"
                )
        opened = {name: open_checkpoint(path) for name, path in paths.items()}
        model = About.of(self.sampler.language_model)
        known: dict[str, str] = {}
        for name, checkpoint in opened.items():
            checkpoint.about.require(f"{checkpoint.path}", POLICIES, model)
            other = known.setdefault(os.path.realpath(checkpoint.path), name)
            if other != name:
                raise ValueError(
                    f"SideBySide: expected a checkpoint for each policy, got {checkpoint.path} for "
                    f"{other!r} and {name!r}"
                )
        object.__setattr__(self, "_opened", opened)  # a run that goes on saves newer ones
        object.__setattr__(self, "_runs", runs)

    def report(self) -> Report:
        """What was found.

        Raises:
          ValueError: a checkpoint of another model, fewer than two prompts, or a batch that the
            mesh cannot divide.
          JudgeError: if the judge raises or answers what is no answer.
        """
        prompts = gather(self.prompts, self.max_prompts)
        if len(prompts) < 2:
            raise ValueError(f"SideBySide: expected at least 2 prompts, got {len(prompts)}")
        answers = self._answers(prompts)
        samples = {name: answer.samples for name, answer in answers.items()}
        began = time.monotonic()
        matches = judge_matches(
            self.judge, prompts, samples, self.sampler.batch_size, self._meetings(samples)
        )
        logger.info("judged %d pairs of policies in %.1f s", len(matches), time.monotonic() - began)
        findings = Findings(
            prompts=prompts,
            samples=samples,
            matches=matches,
            reference=self.reference,
            judge=self.judge.name,
            calls=self.judge.record() if isinstance(self.judge, CallsFunction) else None,
            kl={name: answer.kl for name, answer in answers.items()},
            regulariser={
                name: answer.regulariser for name, answer in answers.items() if answer.regulariser
            },
            rouge=None
            if prompts.answers is None
            else {name: _rouge(x, prompts) for name, x in samples.items()},
            metrics=None
            if self.metrics is None
            else {name: self.metrics(prompts.texts, x.text) for name, x in samples.items()},
            best_of=self.best_of,
            runs=self._runs,
            training={
                name: curves
                for name, checkpoint in self._opened.items()
                if (curves := training_curves.of_run(checkpoint.path.parent))
            },
        )
        strategy = dataclasses.asdict(self.sampler.strategy)
        config = {"policies": dict(self.policies), "strategy": strategy}
        return build_report(findings, examples=self.examples, config=config)

    def _meetings(self, names: Collection[str]) -> list[tuple[str, str]]:
        """Who meets whom: all the reference, and, but for checkpoints on the way, each other."""
        alone = on_the_way(self._runs)
        return [
            pair
            for pair in combinations(names, 2)
            if self.reference in pair or (self.round_robin and alone.isdisjoint(pair))
        ]

    def _answers(self, prompts: Prompts) -> dict[str, "_Answers"]:
        """What every policy answers, and its KL; one policy beside the reference in memory."""
        mu = self._load(self.reference)
        answers = {}
        for index, name in enumerate([*self._opened, *self.best_of]):
            began = time.monotonic()
            if name in self.best_of:
                answers[name] = self._best_answers(mu, prompts, self.best_of[name], index)
            else:
                pi = mu if name == self.reference else self._load(name)
                answers[name] = self._own_answers(pi, mu, prompts, index)
            seconds = time.monotonic() - began
            logger.info("%s answered %d prompts in %.1f s", name, len(prompts), seconds)
        return answers

    def _own_answers(self, pi: Params, mu: Params, prompts: Prompts, index: int) -> "_Answers":
        def draw(sampler: Sampler, betas: tuple[float, ...], purpose: str) -> Rollout:
            # Policies that meet draw with different keys, or they would not be independent.
            key = purpose_key(root_key(self.random_seed), index, purpose)
            return sampler.draw_all(pi, mu, prompts.tokens, betas, key)

        samples = fresh = Samples.of(draw(self.sampler, (0.0,), "evaluation"), self.vocabulary)
        unchanged = dataclasses.replace(self.sampler, strategy=self.sampler.strategy.unchanged)
        if self.sampler != unchanged:
            fresh = Samples.of(draw(unchanged, (0.0,), "kl"), self.vocabulary)
        regulariser = None
        if self.regulariser:
            regulariser = offline_regulariser(draw(unchanged, (1.0, 1.0), "regulariser"))
        return _Answers(samples, sequence_kl(fresh), regulariser)

    def _best_answers(self, mu: Params, prompts: Prompts, n: int, index: int) -> "_Answers":
        key = purpose_key(root_key(self.random_seed), index, "evaluation")
        drawn = self.sampler.draw_all(mu, mu, prompts.tokens, (0.0,) * n, key)
        judge = self.best_of_judge or self.judge
        best = best_of(judge, prompts, drawn, self.sampler.batch_size)
        return _Answers(Samples.of(best, self.vocabulary), kl_bound(n, len(prompts)))

    def _load(self, name: str) -> Params:
        model = self.sampler.language_model
        return as_read(model, load_parameters(model, self._opened[name], self.sampler.partitioner))


@dataclasses.dataclass(frozen=True)
class _Answers:
    samples: Samples
    kl: Mean
    regulariser: Mean | None = None


def _rouge(samples: Samples, prompts: Prompts) -> dict[str, Mean]:
    return {name: mean_interval(x) for name, x in rouge(samples.text, prompts.answers).items()}
