"""Policies side by side: each answers the same held-out prompts, and a judge compares them all."""

from collections.abc import Mapping, Sequence
import dataclasses
import logging
import time

import jax
from jaxtyping import Int
import numpy as np

from po_jax.checkpoints.judges import load_parameters
from po_jax.checkpoints.load import open_checkpoint
from po_jax.data.corpus import BatchStream
from po_jax.evaluation.intervals import Mean
from po_jax.evaluation.matches import judge_matches
from po_jax.evaluation.report import Report, build_report
from po_jax.evaluation.rouge import rouge
from po_jax.evaluation.samples import Samples, draw_samples, sequence_kl
from po_jax.judges.judge import Annotator
from po_jax.models.base import Model
from po_jax.partitioning import Partitioner
from po_jax.sampling import Strategy
from po_jax.t5.language_model import T5LM
from po_jax.training.randomness import purpose_key
from po_jax.vocabulary import Vocabulary

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Prompts as token ids and as text, and human answers, where there are any."""

    tokens: Int[np.ndarray, "prompts length"]
    texts: Sequence[str]
    references: Sequence[Sequence[str]] | None


def compare(
    *,
    language_model: T5LM,
    policies: Mapping[str, str],
    reference: str,
    prompts: BatchStream,
    annotator: Annotator,
    judge: str,
    strategy: Strategy,
    vocabulary: Vocabulary,
    partitioner: Partitioner,
    batch_size: int,
    max_prompts: int | None = None,
    examples: int = 12,
    random_seed: int = 0,
) -> Report:
    """Draws, judges and counts.

    The KL is that of the policies themselves: where `strategy` changes the distribution that
    tokens are drawn from, it is taken from further samples with nothing changed.

    Args:
      language_model: of all policies.
      policies: name -> checkpoint, in any known format.
      reference: name of the policy that the others started from.
      prompts: of the held-out split.
      annotator: the judge.
      judge: who that is, in words.
      strategy: how the completions that are judged are drawn.
      vocabulary: of the policies.
      partitioner: the mesh and its rules.
      batch_size: prompts at a time.
      max_prompts: at most so many, evenly spaced over the split; None for all.
      examples: how many prompts are shown side by side.
      random_seed: of the sampling.

    Raises:
      ValueError: fewer than two policies, an unknown reference, a checkpoint that is none or of
        another model, fewer than two prompts, or a batch that the mesh cannot divide.
    """
    if len(policies) < 2 or reference not in policies:
        raise ValueError(
            f"compare: expected two or more policies, the reference {reference!r} among them, "
            f"got {list(policies)}"
        )
    for path in policies.values():
        open_checkpoint(path)  # a wrong path is found now and not after an hour of sampling
    held_out = gather(prompts, max_prompts)
    samples, kl = _answer(
        language_model, policies, reference, held_out, strategy, vocabulary, partitioner,
        batch_size, random_seed,
    )  # fmt: skip
    began = time.monotonic()
    matches = judge_matches(annotator, held_out.tokens, samples, batch_size, partitioner.distribute)
    logger.info("judged %d pairs of policies in %.1f s", len(matches), time.monotonic() - began)
    scores = None
    if held_out.references is not None:
        scores = {name: rouge(x.text, held_out.references) for name, x in samples.items()}
    return build_report(
        held_out.texts,
        samples,
        matches,
        reference=reference,
        judge=judge,
        references=held_out.references,
        kl=kl,
        rouge=scores,
        examples=examples,
        config={"policies": dict(policies), "strategy": dataclasses.asdict(strategy)},
    )


def gather(prompts: BatchStream, limit: int | None) -> HeldOut:
    """The prompts of a split, or `limit` of them, evenly spaced.

    There are references only where every prompt has one.
    """
    tokens, texts, references = [], [], []
    for batch in prompts.one_pass():
        rows = np.flatnonzero(batch.valid)
        none = [[]] * len(batch.valid)
        tokens.append(batch.arrays["prompt"][rows])
        texts += [batch.texts["inputs"][row] for row in rows]
        references += [batch.texts.get("references", none)[row] for row in rows]
    tokens = np.concatenate(tokens)
    kept = np.arange(len(tokens))
    if limit is not None and limit < len(kept):
        kept = np.linspace(0, len(kept) - 1, limit).round().astype(int)
    return HeldOut(
        tokens=tokens[kept],
        texts=[texts[row] for row in kept],
        references=[references[row] for row in kept] if all(references) else None,
    )


def _answer(
    model, policies, reference, held_out, strategy, vocabulary, partitioner, batch_size, seed
) -> tuple[dict[str, Samples], dict[str, Mean]]:
    """What every policy answers, and its KL; one policy beside the reference in memory."""
    unchanged = Strategy(strategy.max_length, eos_id=strategy.eos_id)
    holder = Model(language_model=model)
    mu = load_parameters(holder, policies[reference], partitioner)
    root = jax.random.key(seed)
    samples, kl = {}, {}
    for index, (name, path) in enumerate(policies.items()):
        began = time.monotonic()
        pi = mu if name == reference else load_parameters(holder, path, partitioner)

        def draw(how: Strategy, purpose: str, pi=pi, index=index) -> Samples:
            key = purpose_key(root, index, purpose)
            return draw_samples(
                model, how, pi, mu, held_out.tokens, key,
                vocabulary=vocabulary, batch_size=batch_size, partitioner=partitioner,
            )  # fmt: skip

        samples[name] = draw(strategy, "evaluation")
        fresh = samples[name] if strategy == unchanged else draw(unchanged, "kl")
        kl[name] = sequence_kl(fresh)
        logger.info(
            "%s answered %d prompts in %.1f s",
            name,
            len(held_out.texts),
            time.monotonic() - began,
        )
    return samples, kl
