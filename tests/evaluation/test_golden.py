"""The golden judge of a task's prompts, on text that its vocabulary cuts."""

import numpy as np
from po_jax.evaluation.golden import RougeJudge
import pytest

from po_jax.data.corpus import BatchStream, Corpus, Ragged
from po_jax.data.layouts import Prompts

WORDS = ["<pad>", "</s>", "red", "green", "blue", "old", "new"]


class Words:
    def encode(self, text):
        return [WORDS.index(word) for word in text.split()]

    def decode(self, ids):
        return " ".join(WORDS[i] for i in ids)


def prompts(references) -> BatchStream:
    rows = [[2, 3, 4, 5, 1], [3, 1], [4, 2, 1]]
    corpus = Corpus(
        tokens={"inputs": Ragged(np.concatenate(rows), np.array([len(row) for row in rows]))},
        texts={"references": references},
        sizes=[3],
        rates=[1.0],
    )
    return BatchStream(corpus, Prompts({"inputs": 3}), batch_size=2)


def test_the_closer_to_the_reference_wins():
    stream = prompts([["old red"], ["new green", "old"], ["blue"]])
    annotator = RougeJudge(stream, Words())
    prompt = np.concatenate([batch.arrays["prompt"] for batch in stream.one_pass()])[:3]
    completion = np.array([[[5, 2, 1], [6, 2, 1]], [[2, 1, 0], [6, 1, 0]], [[2, 1, 0], [3, 1, 0]]])
    answer = annotator.begin(prompt, completion, completion > 0)()
    # "old red" is the reference; "red" and "new": one word of "new green"; neither is "blue".
    np.testing.assert_array_equal(answer.preference, [1.0, 0.0, 0.5])


def test_a_prompt_without_reference_is_an_error():
    with pytest.raises(ValueError, match="expected a reference for 'blue red'"):
        RougeJudge(prompts([["old"], ["new"], []]), Words())
