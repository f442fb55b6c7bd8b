"""Comparisons made by a policy and a judge: what preference models and offline algorithms read."""

from collections import Counter
from collections.abc import Iterator, Mapping
import dataclasses
from itertools import combinations
import logging
from typing import Any

import numpy as np

from po_jax.checkpoints.about import POLICIES
from po_jax.checkpoints.load import load_parameters
from po_jax.data.corpus import BatchStream
from po_jax.evaluation.prompts import Prompts, gather
from po_jax.judges import Judge, ask_about_all
from po_jax.partitioning import collect, filled_batches
from po_jax.sampling import Sampler
from po_jax.training.randomness import root_key
from po_jax.types import Rollout
from po_jax.vocabulary import Vocabulary, ended, to_text

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labelling:
    """Draws completions of each prompt and has every pair of them judged.

    Attributes:
      sampler: how the completions are drawn.
      checkpoint: of the policy, in any known format.
      prompts: of a split.
      judge: who says which is better.
      vocabulary: of the policy.
      samples: completions of each prompt, at least 2; K of them make K (K - 1) / 2 pairs.
      max_prompts: at most so many, evenly spaced over the split; None for all.
      random_seed: of the sampling.

    Raises:
      ValueError: fewer than two samples.
    """

    sampler: Sampler
    checkpoint: str
    prompts: BatchStream
    judge: Judge
    vocabulary: Vocabulary
    samples: int = 2
    max_prompts: int | None = None
    random_seed: int = 0

    def __post_init__(self):
        if self.samples < 2:
            raise ValueError(
                f"Labelling: expected at least 2 samples of each prompt, got {self.samples}"
            )

    def records(self) -> Iterator[dict[str, Any]]:
        """The verdicts, as records that `tasks.jsonl` reads.

        Pairs are left out that teach nothing (both are judged alike, or are one text) or that text
        cannot hold (it is empty); how many is logged. A completion that was cut off before its EOS
        is said to be: what is trained on it must not end it.

        Raises:
          ValueError: a checkpoint that is none or of another model, or a batch that the mesh cannot
            divide.
          JudgeError: if the judge raises or answers outside [0, 1].
        """
        model, partitioner = self.sampler.language_model, self.sampler.partitioner
        asked = gather(self.prompts, self.max_prompts)
        rollout = self.sampler.draw_all(
            load_parameters(model, self.checkpoint, partitioner, kinds=POLICIES),
            None,
            asked.tokens,
            (0.0,) * self.samples,
            root_key(self.random_seed),
        )
        left_out: Counter[str] = Counter()
        for rows, valid in filled_batches(len(asked), self.sampler.batch_size):
            yield from self._verdicts(asked, rollout, rows, valid, left_out)
        if left_out:
            reasons = ", ".join(f"{count} {why}" for why, count in left_out.items())
            pairs = len(asked) * self.samples * (self.samples - 1) // 2
            logger.warning("of %d pairs are left out: %s", pairs, reasons)

    def _verdicts(
        self,
        asked: Prompts,
        rollout: Rollout,
        rows: np.ndarray,
        valid: np.ndarray,
        left_out: Counter[str],
    ) -> Iterator[dict[str, Any]]:
        texts = [[to_text(self.vocabulary, y) for y in rollout.completion[row]] for row in rows]
        completion, mask = rollout.completion[rows], rollout.mask[rows]
        ends = ended(completion, mask, self.vocabulary.eos_id)
        given = (asked.tokens[rows], completion, mask, asked.text_rows(rows), valid)
        preference = collect(ask_about_all(self.judge, *given)())
        for pair in combinations(range(self.samples), 2):
            for place in np.flatnonzero(valid):
                p = float(preference[place, pair[0], pair[1]])
                chosen, rejected = pair if p > 0.5 else pair[::-1]
                record = {
                    "prompt": asked.inputs[rows[place]],
                    "chosen": texts[place][chosen],
                    "rejected": texts[place][rejected],
                    "preference": max(p, 1.0 - p),
                    "chosen_ended": bool(ends[place][chosen]),
                    "rejected_ended": bool(ends[place][rejected]),
                }
                if reason := _worthless(record):
                    left_out[reason] += 1
                else:
                    yield record


def _worthless(record: Mapping[str, Any]) -> str | None:
    """Why a verdict teaches nothing, or cannot be told; None if it does and can."""
    if not all(record[key].strip() for key in ("prompt", "chosen", "rejected")):
        return "with an empty text"
    if record["preference"] == 0.5:
        return "judged alike"
    alike = all(record[f"chosen{x}"] == record[f"rejected{x}"] for x in ("", "_ended"))
    return "of one text twice" if alike else None
