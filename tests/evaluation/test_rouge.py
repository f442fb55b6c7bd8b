"""ROUGE means against values counted by hand."""

import pytest

from po_jax.evaluation.rouge import rouge


def test_counted_by_hand():
    # "the cat sat" and "the cat ran": 2 of 3 words, 1 of 2 word pairs, "the cat" in common.
    # "b a" and "a b": all words, no word pair, one word in order.
    scores = rouge(["the cat sat", "b a"], [["the cat ran"], ["a b"]])
    assert scores["rouge1"].mean == pytest.approx((2 / 3 + 1) / 2)
    assert scores["rouge2"].mean == pytest.approx((1 / 2 + 0) / 2)
    assert scores["rougeL"].mean == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["rouge1"].n == 2


def test_the_best_of_several_references_counts():
    scores = rouge(["a b c", "a"], [["x", "a b c", "a"], ["a"]])
    assert scores["rouge2"].mean == pytest.approx((1 + 0) / 2)
    assert scores["rougeL"].mean == pytest.approx(1.0)


def test_an_empty_completion_scores_zero():
    assert rouge(["", ""], [["a"], ["b"]])["rouge1"].mean == 0.0


def test_a_missing_reference_is_an_error():
    with pytest.raises(ValueError, match="references for 2 completions, got 1"):
        rouge(["a", "b"], [["a"]])
