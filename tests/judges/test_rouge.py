"""The golden judge, against ROUGE worked out by hand."""

import pytest

from po_jax.judges.judge import JudgeError
from po_jax.judges.rouge import RougeJudge


def test_the_answer_nearer_to_the_author_wins():
    judge = RougeJudge({"x": "return the sum of two numbers"})
    # Longest common subsequence 4 of 4 and 6 words: P = 1, R = 4/6, F = 0.8.
    assert judge.score("x", "the sum two numbers") == pytest.approx(0.8)
    assert judge("x", "the sum two numbers", "numbers two") == 1.0
    assert judge("x", "numbers two", "the sum two numbers") == 0.0
    assert judge("x", "the sum", "sum the of") == 1.0  # F = 1/2 against 4/9
    assert judge("x", "unlike", "nothing") == 0.5


def test_an_unknown_prompt_is_an_error():
    with pytest.raises(JudgeError, match="no author's answer is known to 'y'"):
        RougeJudge({"x": "z"})("y", "a", "b")
