"""Matches under judges whose answers are known in closed form."""

import numpy as np
import pytest

from po_jax.evaluation.matches import flips, judge_matches, position_bias, win_rates
from po_jax.evaluation.prompts import Prompts
from po_jax.evaluation.samples import Samples
from po_jax.judges import Judgement, RougeJudge
from tests.vocabularies import Words

PROMPTS, LENGTH = 7, 5


def always(quality: int) -> Samples:
    """A policy whose completions begin with their quality."""
    return policy(np.tile(np.array([[quality, 9, 1, 0, 0]]), (PROMPTS, 1)))


def policy(completion: np.ndarray) -> Samples:
    ended = (completion == 1).any(axis=1)
    return Samples(completion, completion > 0, ("text",) * len(completion), ended)


class QualityJudge:
    """P(first > second) = first / (first + second) + bias, whatever the prompt."""

    name = "quality"

    def __init__(self, bias=0.0, antisymmetric=False):
        self.bias = bias
        self.antisymmetric = antisymmetric
        self.asked = []
        self.begun_before_answer = 0

    def begin(self, pairs):
        assert pairs.completion.shape[1:] == pairs.mask.shape[1:] == (2, LENGTH)
        np.testing.assert_array_equal(pairs.mask, pairs.completion > 0)
        self.asked.append(pairs)
        first, second = pairs.completion[:, 0, 0], pairs.completion[:, 1, 0]

        def finish():
            self.begun_before_answer = self.begun_before_answer or len(self.asked)
            return Judgement(first / (first + second) + self.bias)

        return finish


def prompts(count=PROMPTS) -> Prompts:
    tokens = np.arange(10, 10 + count)[:, None] * np.ones((1, 3), int)
    return Prompts(tokens, {"inputs": [f"prompt {i}" for i in range(count)]})


def test_win_rates_are_the_judges():
    samples = {"a": always(2), "b": always(3), "c": always(5)}
    matches = judge_matches(QualityJudge(), prompts(), samples, batch_size=3)
    rates = win_rates(matches)
    assert set(matches) == {("a", "b"), ("a", "c"), ("b", "c")}
    for name, quality in {"a": 2, "b": 3, "c": 5}.items():
        for opponent, other in {"a": 2, "b": 3, "c": 5}.items():
            if name != opponent:
                assert rates[name][opponent].mean == pytest.approx(quality / (quality + other))
                assert rates[name][opponent].n == PROMPTS
    assert position_bias(matches) == pytest.approx(0.0) and flips(matches) == 0.0


def test_a_favour_to_a_position_cancels_and_is_reported():
    samples = {"a": always(2), "b": always(3)}
    matches = judge_matches(QualityJudge(bias=0.125), prompts(), samples, batch_size=4)
    np.testing.assert_allclose(matches["a", "b"][:, 0], 0.4 + 0.125)
    np.testing.assert_allclose(matches["a", "b"][:, 1], 0.4 - 0.125)
    assert win_rates(matches)["a"]["b"].mean == pytest.approx(0.4)
    assert position_bias(matches) == pytest.approx(0.125)
    assert flips(matches) == 1.0  # 0.525 and 0.275


def test_every_question_has_the_same_number_of_rows_and_is_begun_early():
    judge = QualityJudge()
    judge_matches(judge, prompts(), {"a": always(2), "b": always(3)}, batch_size=3)
    one_order = [[10, 11, 12], [13, 14, 15], [16, 10, 11]]
    both_orders = [rows for rows in one_order for _ in range(2)]
    assert [pairs.prompt[:, 0].tolist() for pairs in judge.asked] == both_orders
    assert judge.begun_before_answer == len(both_orders)


def test_questions_say_which_rows_only_fill_up_and_what_the_data_says():
    judge = QualityJudge(antisymmetric=True)
    judge_matches(judge, prompts(), {"a": always(2), "b": always(3)}, batch_size=3)
    assert [pairs.valid.tolist() for pairs in judge.asked] == [
        [True, True, True],
        [True, True, True],
        [True, False, False],
    ]
    for pairs in judge.asked:
        assert pairs.texts == {"inputs": [f"prompt {row - 10}" for row in pairs.prompt[:, 0]]}


def test_a_judge_without_an_order_is_asked_once_and_has_no_bias_to_report():
    judge = QualityJudge(antisymmetric=True)
    samples = {"a": always(2), "b": always(3), "c": always(5)}
    matches = judge_matches(judge, prompts(), samples, batch_size=4)
    assert len(judge.asked) == 3 * 2
    assert {preference.shape for preference in matches.values()} == {(PROMPTS, 1)}
    assert win_rates(matches)["b"]["c"].mean == pytest.approx(3 / 8)
    assert position_bias(matches) is None and flips(matches) is None


def test_prompts_that_are_cut_to_the_same_tokens_keep_their_own_answers():
    words = Words("grass snow green white")
    completion = np.array([[4, 1, 0, 0, 0], [5, 1, 0, 0, 0]])  # "green" and "white"
    both = Prompts(
        np.array([[2], [2]]),
        {
            "inputs": ["grass or snow? grass", "grass or snow? snow"],
            "answers": [["green"], ["white"]],
        },
    )
    samples = {"green": policy(completion[[0, 0]]), "right": policy(completion)}
    matches = judge_matches(RougeJudge(words), both, samples, batch_size=3)
    assert matches["green", "right"].tolist() == [[0.5], [0.0]]


def test_preferences_differ_by_prompt():
    first = np.arange(1, PROMPTS + 1)
    completion = np.stack([first, np.ones(PROMPTS, int), 0 * first, 0 * first, 0 * first], axis=1)
    samples = {"a": policy(completion), "b": always(2)}
    matches = judge_matches(QualityJudge(), prompts(), samples, batch_size=2)
    np.testing.assert_allclose(matches["a", "b"][:, 0], first / (first + 2))
    np.testing.assert_allclose(matches["a", "b"][:, 1], first / (first + 2))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"at least two policies, got \['a'\]"):
        judge_matches(QualityJudge(), prompts(), {"a": always(2)}, batch_size=3)
    with pytest.raises(
        ValueError, match="expected 6 completions of 'a', one for each prompt, got 7"
    ):
        samples = {"a": always(2), "b": always(3)}
        judge_matches(QualityJudge(), prompts(6), samples, batch_size=3)
