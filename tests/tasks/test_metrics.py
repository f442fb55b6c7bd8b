"""ROUGE by hand on small texts; preference accuracy by counting."""

import math

import numpy as np
import pytest

from tasks import metrics


def test_rouge_of_the_best_reference():
    # "a b c d" against "a b x d": 3 of 4 words, 1 of 3 bigrams, longest common subsequence 3.
    scores = metrics.rouge([["q q q", "a b x d"], ["y z"]], ["a b c d", "y z"])
    expected = {"rouge1": (3 / 4 + 1) / 2, "rouge2": (1 / 3 + 1) / 2, "rougeL": (3 / 4 + 1) / 2}
    assert scores == pytest.approx({name: 100 * value for name, value in expected.items()})


def test_targets_are_all_references_and_predictions_are_stripped():
    example = {"answers": np.array([b"one", b"two"], object)}
    assert metrics.answers_or_prediction("one", example, is_target=True) == ["one", "two"]
    assert metrics.answers_or_prediction(" one\n", example) == "one"


def test_preference_accuracy_counts_decided_comparisons():
    # Agrees, disagrees, not decided by the people, not decided by the score.
    result = metrics.preference_accuracy([1.0, 0.2, 0.5, 0.0], [0.3, 7.0, 1.0, 0.0], prefix="pm/")
    assert result == {"pm/preference_accuracy": pytest.approx(1.5 / 3), "pm/comparisons": 3.0}
    assert math.isnan(metrics.preference_accuracy([0.5], [1.0])["preference_accuracy"])
