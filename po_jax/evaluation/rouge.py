"""ROUGE of completions against references, by the `rouge_score` package."""

from collections.abc import Sequence

import numpy as np

from po_jax.evaluation.intervals import Mean, mean_interval

MEASURES = ("rouge1", "rouge2", "rougeL")


def rouge(completions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Mean]:
    """Mean F-measure in [0, 1] of ROUGE-1, 2 and L, without stemming.

    Args:
      completions: one text a prompt.
      references: the human texts for each prompt; of several, the best match counts.

    Raises:
      ValueError: if the numbers of completions and of references differ.
    """
    if len(completions) != len(references):
        raise ValueError(
            f"rouge: expected references for {len(completions)} completions, got {len(references)}"
        )
    from rouge_score.rouge_scorer import RougeScorer  # an optional dependency

    scorer = RougeScorer(list(MEASURES))
    scores = [
        scorer.score_multi(list(targets), text)
        for text, targets in zip(completions, references, strict=True)
    ]
    return {
        measure: mean_interval(np.array([score[measure].fmeasure for score in scores]))
        for measure in MEASURES
    }
