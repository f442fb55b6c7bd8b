"""Postprocessors and metric functions of the tasks, in seqio's conventions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seqio

from po_jax.judges import rouge as scoring


def answers_or_prediction(
    text: str, example: Mapping[str, Any], is_target: bool = False
) -> list[str] | str:
    """All answers of an example for its target; a prediction as it is."""
    if not is_target:
        return text.strip()
    return [answer.decode() for answer in example["answers"]]


def rouge(targets: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, float]:
    """Mean F-measures in [0, 100] of ROUGE-1, 2 and L, the best answer counting."""
    return {name: float(x.mean()) for name, x in scoring.rouge(predictions, targets).items()}


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
        preferences = [np.asarray(row["preference"]).item() for row in task_dataset_as_numpy]
        return preference_accuracy(preferences, scores), {"targets": preferences, "score": scores}
