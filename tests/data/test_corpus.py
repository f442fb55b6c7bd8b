"""Batches of a hand-written corpus, by layout, by host and in one pass."""

import dataclasses

import numpy as np
import pytest

from po_jax.data.corpus import BatchStream, Corpus, Ragged
from po_jax.data.layouts import Comparisons, Prompts, Supervised

LENGTHS = {"inputs": 4, "targets": 3}


def ragged(*rows: list[int]) -> Ragged:
    return Ragged(np.concatenate(rows), np.array([len(row) for row in rows]))


@pytest.fixture
def corpus() -> Corpus:
    """Seven examples; example i has prompts of i + 10 and completions of i + 20 and i + 30."""
    inputs = [[i + 10] * (i % 3 + 1) + [1] for i in range(6)] + [[16] * 7 + [1]]
    first = [[i + 20] * (i % 2 + 1) + [1] for i in range(6)] + [[26] * 5 + [1]]
    second = [[i + 30, 1] for i in range(7)]
    return Corpus(
        tokens={
            "inputs": ragged(*inputs),
            "targets": ragged(*first),
            "completion_1": ragged(*first),
            "completion_2": ragged(*second),
        },
        texts={"inputs": [f"prompt {i}" for i in range(7)]},
        sizes=[7],
        rates=[1.0],
        preference=np.linspace(0.4, 1.0, 7, dtype=np.float32),
    )


def test_padded_rows_and_what_is_cut(corpus):
    ids, mask = corpus.tokens["inputs"].padded(np.array([6, 0, 2]), 5)
    assert ids.tolist() == [[16] * 5, [10, 1, 0, 0, 0], [12, 12, 12, 1, 0]]
    assert mask.sum(axis=1).tolist() == [5, 2, 4]
    assert corpus.tokens["inputs"].row(2).tolist() == [12, 12, 12, 1]
    assert corpus.tokens["inputs"].count(16).tolist() == [0] * 6 + [7]
    assert corpus.tokens["inputs"].count(None).tolist() == [0] * 7


def test_of_a_prompt_that_is_too_long_either_side_can_be_kept(corpus):
    rows, flips = np.array([6, 0]), np.zeros(2, bool)
    for layout in (Prompts, Comparisons):
        kept = layout(LENGTHS, keep_end=True)(corpus, rows, flips)["prompt"]
        assert kept.tolist() == [[16, 16, 16, 1], [10, 1, 0, 0]]
    arrays = Supervised(LENGTHS, keep_end=True)(corpus, rows, flips)
    assert arrays["encoder_input_tokens"].tolist() == [[16, 16, 16, 1], [10, 1, 0, 0]]
    assert arrays["decoder_target_tokens"].tolist() == [[26, 26, 26], [20, 1, 0]]
    pairs = Comparisons(LENGTHS, keep_end=True)(corpus, rows, flips)
    assert pairs["completion"][0].tolist() == [[26, 26, 26], [36, 1, 0]]


def test_supervised_arrays_shift_the_decoders_input(corpus):
    arrays = Supervised(LENGTHS)(corpus, np.array([1, 6]), np.array([True, False]))
    assert arrays["encoder_input_tokens"].tolist() == [[11, 11, 1, 0], [16, 16, 16, 16]]
    assert arrays["decoder_target_tokens"].tolist() == [[21, 21, 1], [26, 26, 26]]
    assert arrays["decoder_input_tokens"].tolist() == [[0, 21, 21], [0, 26, 26]]
    assert arrays["decoder_loss_weights"].tolist() == [[1, 1, 1], [1, 1, 1]]


def test_comparisons_change_places_together_with_their_label(corpus):
    arrays = Comparisons(LENGTHS)(corpus, np.array([0, 0, 6]), np.array([False, True, True]))
    assert arrays["prompt"].tolist() == [[10, 1, 0, 0], [10, 1, 0, 0], [16, 16, 16, 16]]
    assert arrays["completion"].tolist() == [
        [[20, 1, 0], [30, 1, 0]],
        [[30, 1, 0], [20, 1, 0]],
        [[36, 1, 0], [26, 26, 26]],  # cut: without its EOS
    ]
    np.testing.assert_array_equal(arrays["mask"], arrays["completion"] > 0)
    np.testing.assert_allclose(arrays["preference"], [0.4, 0.6, 0.0], atol=1e-7)
    assert arrays["preference"].dtype == np.float32


def test_a_batch_depends_on_its_step_and_not_on_those_before(corpus):
    read_from_the_start = BatchStream(corpus, Comparisons(LENGTHS), 3, seed=4)
    batches = [read_from_the_start.batch(step) for step in range(12)]
    for step in (11, 5, 6):
        found = BatchStream(corpus, Comparisons(LENGTHS), 3, seed=4).batch(step)
        assert batches[step].arrays.keys() == found.arrays.keys()
        for name, expected in batches[step].arrays.items():
            np.testing.assert_array_equal(expected, found.arrays[name])
        assert batches[step].texts == found.texts
    other = BatchStream(corpus, Comparisons(LENGTHS), 3, seed=5)
    assert any(other.batch(step).texts != batches[step].texts for step in range(12))


def test_texts_belong_to_their_rows(corpus):
    for step in range(5):
        batch = BatchStream(corpus, Prompts(LENGTHS), 2, seed=4).batch(step)
        ids = [int(text.split()[1]) + 10 for text in batch.texts["inputs"]]
        assert batch.arrays["prompt"][:, 0].tolist() == ids
        assert batch.valid.all()
        assert batch.text_rows(np.array([1, 0, 1])) == {
            "inputs": [batch.texts["inputs"][row] for row in (1, 0, 1)]
        }


def test_rows_are_filled_up_with_the_padding_of_the_corpus(corpus):
    other = dataclasses.replace(corpus, pad_id=3)
    rows, flips = np.array([0, 2]), np.zeros(2, bool)
    assert Prompts(LENGTHS)(other, rows, flips)["prompt"].tolist() == [
        [10, 1, 3, 3],
        [12] * 3 + [1],
    ]
    pairs = Comparisons(LENGTHS)(other, rows, flips)
    assert pairs["completion"][0].tolist() == [[20, 1, 3], [30, 1, 3]]
    np.testing.assert_array_equal(pairs["mask"], pairs["completion"] != 3)
    assert Corpus.joined([other, other]).pad_id == 3


@pytest.mark.parametrize("batch_size", [3, 4, 7, 12])
def test_one_pass_holds_every_example_once(corpus, batch_size):
    seen = []
    for batch in BatchStream(corpus, Prompts(LENGTHS), batch_size).one_pass():
        assert batch.arrays["prompt"].shape == (batch_size, 4)
        seen += batch.arrays["prompt"][batch.valid, 0].tolist()
    assert sorted(seen) == list(range(10, 17))


def test_joined_corpora_keep_what_all_have(corpus):
    other = Corpus(
        tokens={name: ragged([99, 1], [98, 97, 1]) for name in corpus.tokens},
        texts={"inputs": ["x", "y"], "title": ["u", "v"]},
        sizes=[2],
        rates=[2.5],
        preference=np.array([0.0, 0.5], np.float32),
    )
    joined = Corpus.joined([corpus, other])
    assert len(joined) == 9 and joined.sizes == [7, 2] and joined.rates == [1.0, 2.5]
    ids, _ = joined.tokens["inputs"].padded(np.array([8, 1]), 4)
    assert ids.tolist() == [[98, 97, 1, 0], [11, 11, 1, 0]]
    assert list(joined.texts) == ["inputs"] and joined.texts["inputs"][7:] == ["x", "y"]
    assert joined.preference[7:].tolist() == [0.0, 0.5]


def test_impossible_requests_are_refused(corpus):
    with pytest.raises(ValueError, match="a batch size of 1 or more, got 0"):
        BatchStream(corpus, Prompts(LENGTHS), 0)
    with pytest.raises(ValueError, match="a length of 'targets'"):
        Supervised({"inputs": 4})
