"""A judge's input, against plain Python list concatenation."""

import jax
import numpy as np
import pytest

from po_jax.judges.template import Template, compose, preference_template, reward_template
from po_jax.language_model import SpecialIds


@pytest.mark.parametrize("ids", [SpecialIds(), SpecialIds(pad=31, eos=30)], ids=["T5", "other"])
def test_composing_is_list_concatenation_without_padding_and_eos(ids):
    rng = np.random.default_rng(0)
    template = Template(pieces=((7, 8), (), (9,)), verdicts=(5, 6))

    def field(length):
        rows = []
        for _ in range(5):
            size = rng.integers(0, length)
            row = [*rng.integers(2, 30, size), ids.eos]
            rows.append(row + [ids.pad] * (length - len(row)))
        return np.asarray(rows, np.int32)

    fields = field(7), field(3), field(4)
    composed = jax.jit(compose, static_argnums=(0, 1))(
        template, ids, *map(jax.numpy.asarray, fields)
    )
    assert composed.shape == (5, 2 + 7 + 3 + 1 + 4 + 1)
    for row in range(5):
        expected = []
        for piece, tokens in zip(template.pieces, fields, strict=True):
            expected += [
                *piece,
                *(token for token in tokens[row] if token not in (ids.pad, ids.eos)),
            ]
        expected.append(ids.eos)
        assert composed[row].tolist() == expected + [ids.pad] * (composed.shape[1] - len(expected))


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
    assert template.verdicts == (14, 16)
    with pytest.raises(ValueError, match="two different verdicts, got \\(14, 14\\)"):
        reward_template(Lengths(), verdicts=("good", "evil"))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="two different verdicts, got \\(3, 3\\)"):
        Template(pieces=((),), verdicts=(3, 3))
    with pytest.raises(ValueError, match="template's 2 pieces, got 1 fields"):
        compose(Template(((), ()), verdicts=(3, 4)), SpecialIds(), jax.numpy.zeros((2, 3), int))
