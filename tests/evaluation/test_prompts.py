"""Which prompts of a split are compared on, and what is known of each."""

import numpy as np
import pytest

from po_jax.data import layouts
from po_jax.data.corpus import BatchStream, Corpus, Ragged
from po_jax.evaluation.prompts import gather


def stream(count: int, batch_size: int = 4, **texts) -> BatchStream:
    """Prompt i has the tokens i + 10, 1 and the text of its number."""
    rows = np.stack([np.arange(10, 10 + count), np.ones(count, int)], axis=1)
    corpus = Corpus(
        tokens={"inputs": Ragged(rows.reshape(-1), np.full(count, 2))},
        texts={"inputs": [str(i) for i in range(count)], **texts},
        sizes=[count],
        rates=[1.0],
    )
    return BatchStream(corpus, layouts.Prompts({"inputs": 3}), batch_size)


def test_every_prompt_once_in_the_order_of_the_data():
    prompts = gather(stream(7))
    assert len(prompts) == 7
    assert prompts.tokens.tolist() == [[i + 10, 1, 0] for i in range(7)]
    assert prompts.inputs == [str(i) for i in range(7)]


@pytest.mark.parametrize(
    ("limit", "kept"), [(1, [0]), (3, [0, 5, 10]), (11, list(range(11))), (99, list(range(11)))]
)
def test_fewer_are_spaced_evenly(limit, kept):
    prompts = gather(stream(11), limit)
    assert prompts.inputs == [str(i) for i in kept]
    assert prompts.tokens[:, 0].tolist() == [i + 10 for i in kept]


def test_answers_count_where_every_prompt_has_one():
    known = gather(stream(2, answers=[["a", "b"], ["c"]]))
    assert known.answers == [["a", "b"], ["c"]]
    assert gather(stream(2, answers=[["a"], []])).answers is None
    assert gather(stream(2)).answers is None
    assert known.text_rows(np.array([1, 0, 1])) == {
        "inputs": ["1", "0", "1"],
        "answers": [["c"], ["a", "b"], ["c"]],
    }


def test_no_prompt_is_said():
    with pytest.raises(ValueError, match="expected data of one or more rows, got none"):
        stream(0)


def test_none_is_no_number_of_prompts():
    with pytest.raises(ValueError, match="at least 1 prompt, got a limit of 0"):
        gather(stream(2), 0)
