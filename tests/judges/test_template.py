"""A judge's input, against plain Python list concatenation."""

import itertools

import jax
import numpy as np
import pytest

from po_jax.judges.template import Template, compose, preference_template, reward_template
from po_jax.language_model import SpecialIds


def field(rng, rows, length, ids):
    """Rows of tokens, EOS and padding."""
    found = []
    for _ in range(rows):
        size = rng.integers(0, length)
        row = [*rng.integers(2, 30, size), ids.eos]
        found.append(row + [ids.pad] * (length - len(row)))
    return np.asarray(found, np.int32)


def concatenated(pieces, rows, ids):
    """What is joined of one row of each field, in plain Python."""
    expected = []
    for piece, row in zip(pieces, rows, strict=True):
        expected += [*piece, *(token for token in row if token not in (ids.pad, ids.eos))]
    return [*expected, ids.eos]


def without_padding(row, ids):
    """A row up to its padding, of which none is before."""
    tokens = [token for token in row.tolist() if token != ids.pad]
    assert row.tolist() == tokens + [ids.pad] * (len(row) - len(tokens))
    return tokens


@pytest.mark.parametrize("decoded", [False, True], ids=["encoder", "decoder"])
@pytest.mark.parametrize("ids", [SpecialIds(), SpecialIds(pad=31, eos=30)], ids=["T5", "other"])
def test_composing_is_list_concatenation_without_padding_and_eos(ids, decoded):
    rng, pieces = np.random.default_rng(0), ((7, 8), (), (9,))
    template = Template(pieces=pieces, verdicts=(5, 6), decoded=decoded)
    prompt = field(rng, 5, 7, ids)
    first, second = (field(rng, 5 * 2, length, ids).reshape(5, 2, length) for length in (3, 4))
    read, asked = jax.jit(compose, static_argnums=(0, 1))(template, ids, prompt, first, second)
    if decoded:
        assert read.shape == (5, 2 + 7 + 1) and asked.shape == (5, 2, 3 + 1 + 4 + 1)
    else:
        assert read.shape == (5 * 2, 2 + 7 + 3 + 1 + 4 + 1) and asked.shape == (5 * 2, 1, 0)
    for row, question in itertools.product(range(5), range(2)):
        fields = prompt[row], first[row, question], second[row, question]
        if decoded:
            expected = concatenated(pieces[:1], fields[:1], ids)
            assert without_padding(read[row], ids) == expected
            expected = concatenated(pieces[1:], fields[1:], ids)
            assert without_padding(asked[row, question], ids) == expected
        else:
            expected = concatenated(pieces, fields, ids)
            assert without_padding(read[2 * row + question], ids) == expected


def test_words_make_a_template():
    class Lengths:
        pad_id, eos_id, vocab_size = 0, 1, 30

        def encode(self, text):
            return [10 + len(word) for word in text.split()]

        def decode(self, ids):
            raise NotImplementedError

    template = reward_template(Lengths(), ("a bb", "ccc"), ("first", "second"))
    assert template.pieces == ((11, 12), (13,))
    assert template.verdicts == (15, 16)
    template = preference_template(Lengths(), ("a", "bb", ""), ("good", "better one"))
    assert template.pieces == ((11,), (12,), ())
    assert template.verdicts == (14, 16) and not template.decoded
    assert reward_template(Lengths(), decoded=True).decoded
    with pytest.raises(ValueError, match="two different verdicts, got \\(14, 14\\)"):
        reward_template(Lengths(), verdicts=("good", "evil"))
    for verdicts in (("good",), ("good", "bad", "worse")):
        with pytest.raises(ValueError, match="expected two words as verdicts, got"):
            reward_template(Lengths(), verdicts=verdicts)


def test_mistakes_are_named(unchecked):
    with pytest.raises(ValueError, match="two different verdicts, got \\(3, 3\\)"):
        Template(pieces=((),), verdicts=(3, 3))
    with pytest.raises(ValueError, match="two different verdicts, got \\(3,\\)"):
        Template(pieces=((),), verdicts=(3,))
    two, prompt = Template([[], []], verdicts=[3, 4]), jax.numpy.zeros((2, 3), int)
    assert hash(two) == hash(Template(((), ()), (3, 4)))
    with pytest.raises(ValueError, match="template's 2 pieces, got 1 fields"):
        compose(two, SpecialIds(), prompt)
    for shape in ((5, 1, 7), (2, 7)):
        with pytest.raises(ValueError, match=r"completions of them \[batch, samples, length\]"):
            compose(two, SpecialIds(), prompt, jax.numpy.zeros(shape, int))
