"""Between ids and text, with the padding and the EOS of whatever vocabulary is given."""

import numpy as np
import pytest

from po_jax.vocabulary import to_text, to_tokens
from tests.vocabularies import Numbers

OWN_IDS = Numbers(pad_id=3, eos_id=4)


def test_text_has_neither_padding_nor_eos_of_its_vocabulary():
    assert to_text(OWN_IDS, np.array([0, 1, 7, 4, 3, 3])) == "0 1 7"
    assert to_text(Numbers(), np.array([3, 4, 7, 1, 0, 0])) == "3 4 7"
    assert to_text(OWN_IDS, np.array([4, 3])) == ""


def test_tokens_are_filled_up_and_cut_with_the_vocabularys_own_ids():
    tokens, cut = to_tokens(OWN_IDS, ["7", "", "8 9 10", "0 1"], 3)
    assert tokens.tolist() == [[7, 4, 3], [4, 3, 3], [8, 9, 10], [0, 1, 4]]
    assert cut == 1  # it has lost its EOS
    assert tokens.dtype == np.int32


@pytest.mark.parametrize("vocabulary", [OWN_IDS, Numbers()])
def test_a_text_that_fits_comes_back(vocabulary):
    texts = ["11 12", "", "5"]
    tokens, cut = to_tokens(vocabulary, texts, 3)
    assert cut == 0
    assert [to_text(vocabulary, row) for row in tokens] == texts


def test_the_end_of_a_text_can_be_kept():
    tokens, cut = to_tokens(OWN_IDS, ["7", "8 9 10 11", "5 6"], 3, keep_end=True)
    assert tokens.tolist() == [[7, 4, 3], [10, 11, 4], [5, 6, 4]]
    assert cut == 1
