"""ROUGE against values counted by hand, and the judge that knows the author's answer."""

import dataclasses

import numpy as np
import pytest

from po_jax.judges import Pairs, RougeJudge, ask, ask_about_all
from po_jax.judges import rouge as rouge_module
from po_jax.judges.rouge import rouge
from po_jax.vocabulary import to_tokens
from tasks import vocabularies
from tests.vocabularies import Words

WORDS = Words("return the sum of two numbers unlike nothing old new red green blue")


def pairs_of(vocabulary, prompts, completions, answers, length=8, valid=None) -> Pairs:
    """A pair of texts for each prompt; the prompts' tokens are cut to `length`."""
    tokens, _ = to_tokens(vocabulary, [text for pair in completions for text in pair], length)
    tokens = tokens.reshape(len(prompts), 2, length)
    return Pairs(
        to_tokens(vocabulary, prompts, length)[0],
        tokens,
        tokens > 0,
        texts={"inputs": prompts, "answers": answers},
        valid=valid,
    )


def test_counted_by_hand():
    # "the cat sat" and "the cat ran": 2 of 3 words, 1 of 2 word pairs, "the cat" in common.
    # "b a" and "a b": all words, no word pair, one word in order.
    scores = rouge(["the cat sat", "b a"], [["the cat ran"], ["a b"]])
    np.testing.assert_allclose(scores["rouge1"], [200 / 3, 100])
    np.testing.assert_allclose(scores["rouge2"], [50, 0])
    np.testing.assert_allclose(scores["rougeL"], [200 / 3, 50])


def test_words_count_by_their_stems():
    scores = rouge(["summing the rows"], [["sums the row"]])
    assert {name: value.tolist() for name, value in scores.items()} == {
        "rouge1": [100.0],
        "rouge2": [100.0],
        "rougeL": [100.0],
    }


def test_the_best_of_several_answers_counts():
    scores = rouge(["a b c", "a"], [["x", "a b c", "a"], ["a"]])
    np.testing.assert_allclose(scores["rouge2"], [100, 0])
    np.testing.assert_allclose(scores["rougeL"], [100, 100])


def test_an_empty_completion_scores_zero():
    assert rouge(["", ""], [["a"], ["b"]])["rouge1"].tolist() == [0.0, 0.0]


def test_only_what_is_asked_for_is_measured():
    assert list(rouge(["a"], [["a"]], ["rouge2"])) == ["rouge2"]


def test_a_missing_answer_is_an_error():
    with pytest.raises(ValueError, match="expected answers for 2 completions, got 1"):
        rouge(["a", "b"], [["a"]])


def test_the_answer_nearer_to_the_author_wins():
    author = "return the sum of two numbers"
    # Longest common subsequence 4 of 4 and 6 words: P = 1, R = 4/6, F = 0.8.
    assert rouge(["the sum two numbers"], [[author]])["rougeL"] == pytest.approx(80)
    completions = [
        ("the sum two numbers", "numbers two"),
        ("numbers two", "the sum two numbers"),
        ("the sum", "sum the of"),  # F = 1/2 against 4/9
        ("unlike", "nothing"),
    ]
    pairs = pairs_of(WORDS, ["red"] * 4, completions, [[author]] * 4)
    judgement = ask(RougeJudge(WORDS), pairs)()
    np.testing.assert_array_equal(judgement.preference, [1.0, 0.0, 1.0, 0.5])
    assert judgement.by_order is None  # it has no order, so it is asked once


def test_each_completion_is_scored_once_however_many_it_meets(monkeypatch):
    """Of four completions of each of two prompts, all judged against each other."""
    scorer, asked = rouge_module._scorer(("rougeL",)), []

    class Counting:
        def score_multi(self, answers, text):
            asked.append(text)
            return scorer.score_multi(answers, text)

    monkeypatch.setattr(rouge_module, "_scorer", lambda measures: Counting())
    texts = ["red two", "red of sum", "red", "red sum", "old the", "old of", "old two", "old"]
    tokens, _ = to_tokens(WORDS, texts, 5)
    tokens = tokens.reshape(2, 4, 5)
    prompt, answers = to_tokens(WORDS, ["new", "blue"], 3)[0], [["red the sum"], ["old of two"]]
    ask_about_all(RougeJudge(WORDS), prompt, tokens, tokens > 0, {"answers": answers})()
    assert len(asked) == 8


def test_the_measure_decides():
    pairs = pairs_of(
        WORDS, ["red"], [("two numbers the sum", "the sum")], [["the sum two numbers"]]
    )
    # All words and two of three pairs, against half the words and one pair; in order, two words.
    assert RougeJudge(WORDS, "rouge1").begin(pairs)().preference.tolist() == [1.0]
    assert RougeJudge(WORDS, "rougeL").begin(pairs)().preference.tolist() == [0.0]
    assert RougeJudge(WORDS, "rouge1").name == "ROUGE-1 against the author's own answer"


def test_every_prompt_has_its_own_answers():
    pairs = pairs_of(
        WORDS,
        ["red green blue old", "green", "blue red"],
        [("old red", "new red"), ("red", "new"), ("red", "green")],
        [["old red"], ["new green", "old"], ["blue"]],
        length=3,
    )
    # "old red" is the answer; "red" and "new": one word of "new green"; neither is "blue".
    np.testing.assert_array_equal(RougeJudge(WORDS).begin(pairs)().preference, [1.0, 0.0, 0.5])


def test_prompts_that_are_cut_to_the_same_tokens_keep_their_own_answers():
    vocabulary = vocabularies.docstrings()
    head = "You are a helpful assistant. Read the question and answer it in one word."
    prompts = [
        f"{head} Question: which colour has grass?",
        f"{head} Question: which colour has snow?",
    ]
    pairs = pairs_of(vocabulary, prompts, [("green", "white")] * 2, [["green"], ["white"]])
    np.testing.assert_array_equal(pairs.prompt[0], pairs.prompt[1])
    np.testing.assert_array_equal(RougeJudge(vocabulary).begin(pairs)().preference, [1.0, 0.0])


@pytest.mark.parametrize("answers", [[["old"], ["new"], []], []])
def test_a_prompt_without_an_answer_is_an_error(answers):
    prompts = ["red", "green", "blue red"]
    pairs = pairs_of(
        WORDS, prompts, [("old", "new")] * 3, answers, valid=np.array([False, False, True])
    )
    with pytest.raises(ValueError, match="expected the author's answer to 'blue red', got none"):
        RougeJudge(WORDS).begin(pairs)()


def test_a_prompt_without_an_answer_is_named_by_task_split_and_example():
    pairs = pairs_of(WORDS, ["red"], [("old", "new")], [[]])
    texts = {**pairs.texts, "where": ["own_prompts, test, example 3"]}
    with pytest.raises(ValueError, match="^own_prompts, test, example 3: .* to 'red', got none"):
        RougeJudge(WORDS).begin(dataclasses.replace(pairs, texts=texts))()


def test_data_without_answers_are_an_error():
    completion = np.asarray([[[2, 1], [3, 1]]])
    pairs = Pairs(np.asarray([[4, 1]]), completion, completion > 0)
    with pytest.raises(ValueError, match="expected the author's answer to 'sum', got none"):
        RougeJudge(WORDS).begin(pairs)()


def test_rows_that_only_fill_up_need_no_answer():
    pairs = pairs_of(
        WORDS,
        ["red", "green"],
        [("old", "new"), ("old", "new")],
        [["old"], []],
        valid=np.array([True, False]),
    )
    assert RougeJudge(WORDS).begin(pairs)().preference[0] == 1.0


def test_an_unknown_measure_is_refused():
    with pytest.raises(ValueError, match="expected a measure of .* got 'bleu'"):
        RougeJudge(WORDS, "bleu")
