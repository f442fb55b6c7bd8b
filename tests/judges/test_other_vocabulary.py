"""A judge whose ids mean other words than the policy's."""

import dataclasses

import numpy as np
import pytest

from po_jax.judges import Judgement, OtherVocabularyJudge, Pairs, ask, other_vocabulary

PROMPT = np.asarray([[5, 6, 1, 0], [7, 1, 0, 0], [8, 9, 10, 1]])
COMPLETION = np.asarray([[[11, 1, 0], [12, 13, 1]], [[14, 15, 16], [1, 0, 0]], [[17, 1, 0]] * 2])
PAIRS = Pairs(PROMPT, COMPLETION, COMPLETION > 0, valid=np.array([True, True, False]))


class Letters:
    """Token t of the policy is the letter chr(t + 60)."""

    pad_id, eos_id, vocab_size = 0, 1, 30

    def decode(self, ids):
        return "".join(chr(60 + token) for token in ids)

    def encode(self, text):
        return [ord(letter) - 60 for letter in text]


class Backwards(Letters):
    """The judge's ids run the other way, and it pads with 2 and ends with 3."""

    pad_id, eos_id = 2, 3

    def encode(self, text):
        return [29 - token for token in super().encode(text)]


class Recorder:
    """Prefers the longer completion, and keeps what it was asked."""

    name = "the longer one"

    def __init__(self, antisymmetric):
        self.antisymmetric = antisymmetric
        self.asked = []

    def begin(self, pairs):
        self.asked.append(pairs)
        length = pairs.mask.sum(axis=2)
        return lambda: Judgement(0.5 + 0.5 * np.sign(length[:, 0] - length[:, 1]))


def translate(rows, length):
    """Cut to the judge's length; no EOS where it does not fit, or the policy did not come to it."""
    rows = [[3 if token == 1 else 29 - int(token) for token in row if token] for row in rows]
    return np.asarray([(row + [2] * length)[:length] for row in rows])


def through_text(inner):
    return OtherVocabularyJudge(inner, Letters(), Backwards(), lengths={"inputs": 3, "targets": 5})


def test_what_is_judged_are_the_judges_own_ids():
    inner = Recorder(antisymmetric=True)
    judgement = ask(through_text(inner), PAIRS)()
    (asked,) = inner.asked
    np.testing.assert_array_equal(asked.prompt, translate(PROMPT, 3))  # the third one is cut
    completion = np.stack([translate(pair, 5) for pair in COMPLETION])
    np.testing.assert_array_equal(asked.completion, completion)
    np.testing.assert_array_equal(asked.mask, completion != 2)
    np.testing.assert_array_equal(judgement.preference, [0.0, 1.0, 0.5])
    assert asked.valid is PAIRS.valid


def test_a_whole_prompt_is_translated_where_the_data_has_it():
    inner = Recorder(antisymmetric=True)
    texts = {"inputs": [Letters().decode(row) for row in ([20, 21], [22], [23, 24, 25])]}
    through_text(inner).begin(Pairs(PROMPT, COMPLETION, COMPLETION > 0, texts))()
    expected = translate([[20, 21, 1], [22, 1], [23, 24, 25]], 3)
    np.testing.assert_array_equal(inner.asked[0].prompt, expected)
    assert inner.asked[0].texts is texts


def test_the_end_of_a_prompt_is_kept_where_asked_for():
    inner = Recorder(antisymmetric=True)
    dataclasses.replace(through_text(inner), keep_end=True).begin(PAIRS)()
    expected = [translate([[5, 6, 1]], 3)[0], translate([[7, 1]], 3)[0], [29 - 9, 29 - 10, 3]]
    np.testing.assert_array_equal(inner.asked[0].prompt, expected)


def test_it_is_asked_as_often_and_called_as_the_judge_inside():
    for antisymmetric in (True, False):
        inner = Recorder(antisymmetric)
        judge = through_text(inner)
        assert judge.name == "the longer one" and judge.antisymmetric is antisymmetric
        judgement = ask(judge, PAIRS)()
        assert len(inner.asked) == (1 if antisymmetric else 2)
        np.testing.assert_array_equal(judgement.preference, [0.0, 1.0, 0.5])


@pytest.mark.parametrize("lengths", [{"inputs": 3}, {"inputs": 0, "targets": 5}])
def test_lengths_that_are_none_are_named(lengths):
    with pytest.raises(ValueError, match="OtherVocabularyJudge.lengths: expected a length of"):
        OtherVocabularyJudge(Recorder(True), Letters(), Backwards(), lengths=lengths)


def test_what_is_cut_for_the_judge_is_said_once(caplog):
    other_vocabulary._warn_once.cache_clear()
    for _ in range(2):
        ask(through_text(Recorder(antisymmetric=True)), PAIRS)()
    assert caplog.messages == ["prompts of more than 3 of the judge's own tokens are cut for it"]
