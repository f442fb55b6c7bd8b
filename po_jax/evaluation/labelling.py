"""Comparisons made by a policy and a judge: what preference models and offline algorithms read."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import jax
import numpy as np

from po_jax.checkpoints.judges import load_parameters
from po_jax.data.corpus import BatchStream
from po_jax.evaluation.samples import draw
from po_jax.evaluation.side_by_side import gather
from po_jax.judges.judge import Annotator
from po_jax.models.base import Model
from po_jax.partitioning import Partitioner
from po_jax.sampling import Strategy
from po_jax.t5.language_model import T5LM
from po_jax.vocabulary import Vocabulary, to_text


def label(
    *,
    language_model: T5LM,
    checkpoint: str,
    prompts: BatchStream,
    annotator: Annotator,
    strategy: Strategy,
    vocabulary: Vocabulary,
    partitioner: Partitioner,
    batch_size: int,
    samples: int = 2,
    max_prompts: int | None = None,
    random_seed: int = 0,
) -> Iterator[dict[str, Any]]:
    """Draws completions of each prompt, has every pair of them judged, and yields the verdicts.

    They are records as `tasks.jsonl` reads them.

    Pairs are left out that teach nothing (both are judged alike) or that text cannot hold (one is
    empty).

    Args:
      language_model: of the policy.
      checkpoint: of the policy, in any known format.
      prompts: of a split.
      annotator: the judge.
      strategy: how tokens are drawn.
      vocabulary: of the policy.
      partitioner: the mesh and its rules.
      batch_size: prompts at a time.
      samples: completions a prompt, at least 2; K of them make K (K - 1) / 2 pairs.
      max_prompts: at most so many, evenly spaced over the split; None for all.
      random_seed: of the sampling.

    Raises:
      ValueError: fewer than two samples, a checkpoint that is none or of another model, or a batch
        that the mesh cannot divide.
      AnnotatorError: if the judge raises or answers outside [0, 1].
    """
    if samples < 2:
        raise ValueError(f"labelling.label: expected at least 2 samples a prompt, got {samples}")
    asked = gather(prompts, max_prompts)
    rollout = draw(
        language_model,
        strategy,
        load_parameters(Model(language_model=language_model), checkpoint, partitioner),
        None,
        asked.tokens,
        (0.0,) * samples,
        jax.random.key(random_seed),
        batch_size=batch_size,
        partitioner=partitioner,
    )
    count = len(asked.texts)
    for start in range(0, count, batch_size):
        rows = np.arange(start, start + batch_size) % count  # the last batch is filled up
        texts = [
            [to_text(vocabulary, tokens) for tokens in drawn] for drawn in rollout.completion[rows]
        ]
        for pair in combinations(range(samples), 2):
            completion, mask = (x[rows][:, pair] for x in (rollout.completion, rollout.mask))
            verdict = annotator.begin(asked.tokens[rows], completion, mask)()
            preference = np.asarray(verdict.preference)
            for i, row in enumerate(rows[: count - start]):
                first, second = (texts[i][k] for k in pair)
                p = float(preference[i])
                if p == 0.5 or not (first.strip() and second.strip()):
                    continue
                chosen, rejected = (first, second) if p > 0.5 else (second, first)
                yield {
                    "prompt": asked.texts[row],
                    "chosen": chosen,
                    "rejected": rejected,
                    "preference": max(p, 1.0 - p),
                }
