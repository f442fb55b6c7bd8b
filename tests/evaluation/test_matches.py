"""Matches judged by annotators whose answers are known in closed form."""

import numpy as np
import pytest

from po_jax.evaluation.matches import judge_matches, position_bias, win_rates
from po_jax.evaluation.samples import Samples
from po_jax.judges.judge import Judgement

PROMPTS, LENGTH = 7, 5


def always(quality: int) -> Samples:
    """A policy whose completions begin with their quality."""
    completion = np.tile(np.array([[quality, 9, 1, 0, 0]]), (PROMPTS, 1))
    return Samples(completion, completion > 0, ("text",) * PROMPTS)


class QualityAnnotator:
    """P(first > second) = first / (first + second) + bias, whatever the prompt."""

    def __init__(self, bias=0.0):
        self.bias = bias
        self.rows = []
        self.begun_before_answer = 0

    def begin(self, prompt, completion, mask):
        assert completion.shape[1:] == mask.shape[1:] == (2, LENGTH)
        np.testing.assert_array_equal(mask, completion > 0)
        self.rows.append(prompt[:, 0].tolist())
        first, second = completion[:, 0, 0], completion[:, 1, 0]

        def finish():
            self.begun_before_answer = self.begun_before_answer or len(self.rows)
            return Judgement(first / (first + second) + self.bias)

        return finish


def prompts():
    return np.arange(10, 10 + PROMPTS)[:, None] * np.ones((1, 3), int)


def test_win_rates_are_the_annotators():
    samples = {"a": always(2), "b": always(3), "c": always(5)}
    matches = judge_matches(QualityAnnotator(), prompts(), samples, batch_size=3)
    rates = win_rates(matches)
    assert set(matches) == {("a", "b"), ("a", "c"), ("b", "c")}
    for name, quality in {"a": 2, "b": 3, "c": 5}.items():
        for opponent, other in {"a": 2, "b": 3, "c": 5}.items():
            if name != opponent:
                assert rates[name][opponent].mean == pytest.approx(quality / (quality + other))
                assert rates[name][opponent].n == PROMPTS
    assert position_bias(matches) == pytest.approx(0.0)


def test_a_favour_to_a_position_cancels_and_is_reported():
    samples = {"a": always(2), "b": always(3)}
    matches = judge_matches(QualityAnnotator(bias=0.125), prompts(), samples, batch_size=4)
    np.testing.assert_allclose(matches["a", "b"][:, 0], 0.4 + 0.125)
    np.testing.assert_allclose(matches["a", "b"][:, 1], 0.4 - 0.125)
    assert win_rates(matches)["a"]["b"].mean == pytest.approx(0.4)
    assert position_bias(matches) == pytest.approx(0.125)


def test_every_question_has_the_same_number_of_rows_and_is_begun_early():
    annotator = QualityAnnotator()
    judge_matches(annotator, prompts(), {"a": always(2), "b": always(3)}, batch_size=3)
    one_order = [[10, 11, 12], [13, 14, 15], [16, 10, 11]]
    assert annotator.rows == one_order * 2
    assert annotator.begun_before_answer == len(one_order)


def test_preferences_differ_by_prompt():
    first = np.arange(1, PROMPTS + 1)
    completion = np.stack([first, np.ones(PROMPTS, int), 0 * first, 0 * first, 0 * first], axis=1)
    samples = {"a": Samples(completion, completion > 0, ("",) * PROMPTS), "b": always(2)}
    matches = judge_matches(QualityAnnotator(), prompts(), samples, batch_size=2)
    np.testing.assert_allclose(matches["a", "b"][:, 0], first / (first + 2))
    np.testing.assert_allclose(matches["a", "b"][:, 1], first / (first + 2))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"at least two policies, got \['a'\]"):
        judge_matches(QualityAnnotator(), prompts(), {"a": always(2)}, batch_size=3)
    with pytest.raises(ValueError, match="expected 6 completions of 'a', one a prompt, got 7"):
        samples = {"a": always(2), "b": always(3)}
        judge_matches(QualityAnnotator(), prompts()[:6], samples, batch_size=3)
