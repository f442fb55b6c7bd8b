"""Postprocessors and metric functions of the tasks, in seqio's conventions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rouge_score import rouge_scorer, scoring
import seqio

ROUGE = ("rouge1", "rouge2", "rougeL")


def references_or_prediction(
    text: str, example: Mapping[str, Any], is_target: bool = False
) -> list[str] | str:
    """All references of an example for its target; a prediction as it is."""
    if not is_target:
        return text.strip()
    return [reference.decode() for reference in example["references"]]


def rouge(targets: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, float]:
    """Mean F-measure in [0, 100] of the best reference, as the package rouge_score has it."""
    scorer = rouge_scorer.RougeScorer(ROUGE, use_stemmer=True)
    scores: list[dict[str, scoring.Score]] = [
        scorer.score_multi(references, prediction)
        for references, prediction in zip(targets, predictions, strict=True)
    ]
    return {name: 100 * float(np.mean([s[name].fmeasure for s in scores])) for name in ROUGE}


def preference_accuracy(
    preferences: Sequence[float], scores: Sequence[float], prefix: str = ""
) -> dict[str, float]:
    """Share of the comparisons with a preferred side where the score has that side's sign.

    Args:
      preferences: P(y1 > y2) in [0, 1]; those equal to 1/2 are not counted.
      scores: positive where y1 is judged better; 0 counts as half an agreement.
      prefix: put before each name, to tell several judges apart.
    """
    sides, signs = np.sign(np.asarray(preferences) - 0.5), np.sign(np.asarray(scores))
    decided = sides != 0
    agreement = (1 + sides * signs)[decided] / 2
    return {
        f"{prefix}preference_accuracy": float(agreement.mean()) if decided.any() else float("nan"),
        f"{prefix}comparisons": float(decided.sum()),
    }


class PreferenceAccuracy(seqio.metrics.CollectingMetric):
    """`preference_accuracy` of the scores that a model gives the comparisons of a task."""

    model_output_type = seqio.metrics.ModelOutputType.SCORE

    def actual_compute(
        self,
        task_dataset_as_numpy: Sequence[Mapping[str, Any]],
        task_output_features: Mapping[str, seqio.Feature],
        target_field_name: str = "targets",
        cached_targets: Sequence[float] | None = None,
    ) -> tuple[dict[str, float], dict[str, Any]]:
        del task_output_features, target_field_name, cached_targets
        indices, scores = seqio.metrics.remove_padding_examples(
            self.values["model_output"], self.values["indices_2d"], self.values["mask"]
        )
        scores = seqio.metrics.globally_sort_model_output(scores, indices)
        preferences = [float(example["preference"]) for example in task_dataset_as_numpy]
        return preference_accuracy(preferences, scores), {"targets": preferences, "score": scores}
