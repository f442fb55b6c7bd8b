"""What is said of a corpus, its numbers counted by hand."""

import numpy as np
import pytest

from po_jax.data.corpus import Corpus, Ragged
from po_jax.data.layouts import Comparisons, Prompts, Supervised
from po_jax.data.remarks import remarks
from tests.vocabularies import Numbers

WORDS = Numbers()
UNKNOWN = 2


class WithUnknown(Numbers):
    """Words that are no number are unknown."""

    unk_id = UNKNOWN

    def encode(self, text):
        return [int(word) if word.isdigit() else UNKNOWN for word in text.split()]


def corpus(vocabulary=WORDS, **texts: list[str]) -> Corpus:
    tokens = {}
    for name, column in texts.items():
        rows = [[*vocabulary.encode(text), vocabulary.eos_id] for text in column]
        tokens[name] = Ragged(np.concatenate(rows), np.array([len(row) for row in rows]))
    size = len(texts["inputs"])
    return Corpus(tokens, texts, [size], [1.0], np.ones(size, np.float32))


def test_nothing_is_said_where_nothing_is_lost():
    found = corpus(inputs=["5 6", "7"], completion_1=["3", "4"], completion_2=["5", "6"])
    assert list(remarks(found, Comparisons({"inputs": 3, "targets": 2}), WORDS)) == []


@pytest.mark.parametrize(
    ("keep_end", "said"),
    [
        (False, "they are cut, and 2 of them read"),
        (True, "they are cut at the beginning, and 3 of"),
    ],
)
def test_prompts_that_read_alike_once_cut(keep_end, said):
    # Beginnings: 5 6 twice, 7 6, 8 9 twice. Ends, EOS included: 4 1, and 3 1 four times. Two of
    # the prompts are one and the same without being cut, and count once.
    found = corpus(inputs=["5 6 4", "5 6 3", "7 6 3", "8 9 3", "8 9 3", "5"])
    (remark,) = remarks(found, Prompts({"inputs": 2}, keep_end=keep_end), WORDS)
    assert remark.startswith("5 of 6 inputs are longer than 2 tokens; " + said)


def test_pairs_that_are_one_completion_twice():
    found = corpus(
        WithUnknown(),
        inputs=["5"] * 6,
        #             text   unknown  cut      cut, and its end   other  unknown and cut
        completion_1=["3 4", "3 x", "3 4 5 6", "3 4 5", "3 4", "x 4 5 6"],
        completion_2=["3 4", "3 y", "3 4 5 7", "3 4", "3 5", "y 4 5 7"],
    )
    *_, remark = remarks(found, Comparisons({"inputs": 2, "targets": 3}), WithUnknown())
    assert remark == (
        "4 of 6 pairs are one completion twice and teach nothing: 1 as texts, 1 in the "
        "vocabulary's tokens, 2 when cut to 3 tokens"
    )


def test_what_the_vocabulary_does_not_know():
    found = corpus(WithUnknown(), inputs=["5 \u4f60", "x x", "7"], targets=["3", "4", "5"])
    layout = Supervised({"inputs": 8, "targets": 8})
    assert list(remarks(found, layout, WithUnknown())) == [
        "2 of 3 inputs hold characters unknown to the vocabulary"
    ]
    assert list(remarks(found, layout, WORDS)) == []  # which knows none that is unknown


class Literal(Numbers):
    """Reads what stands for an end as text."""

    def encode(self, text):
        return [int(word) if word.isdigit() else 999 for word in text.replace("<", " <").split()]


def test_ends_that_are_written_out():
    written = ["3</s>", "4 <|im_end|>\n", "</s> 5", "6"]
    found = corpus(Literal(), inputs=["5"] * 4, targets=written)
    layout = Supervised({"inputs": 8, "targets": 8})
    said = "have an end written out, such as </s>; take it off"
    assert list(remarks(found, layout, Literal())) == [f"2 of 4 targets {said}"]
    # A vocabulary that knows it makes a second EOS of it; here by its number, 1.
    found = corpus(inputs=["5"] * 3, targets=["3 1", "4", "1 1 5"])
    assert list(remarks(found, layout, WORDS)) == [f"2 of 3 targets {said}"]
