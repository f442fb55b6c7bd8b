"""A judge's input, against plain Python list concatenation."""

import jax
import numpy as np
import pytest

from po_jax.judges.template import Template, compose, reward_template


def test_composing_is_list_concatenation_without_padding_and_eos():
    rng = np.random.default_rng(0)
    template = Template(pieces=((7, 8), (), (9,)), answers=(5, 6))

    def field(length):
        rows = []
        for _ in range(5):
            size = rng.integers(0, length)
            row = [*rng.integers(2, 30, size), 1]
            rows.append(row + [0] * (length - len(row)))
        return np.asarray(rows, np.int32)

    fields = field(7), field(3), field(4)
    composed = jax.jit(compose, static_argnums=0)(template, *map(jax.numpy.asarray, fields))
    assert composed.shape == (5, 2 + 7 + 3 + 1 + 4 + 1)
    for row in range(5):
        expected = []
        for piece, tokens in zip(template.pieces, fields, strict=True):
            expected += [*piece, *(token for token in tokens[row] if token > 1)]
        expected.append(1)
        assert composed[row].tolist() == expected + [0] * (composed.shape[1] - len(expected))


def test_words_make_a_template():
    class Lengths:
        def encode(self, text):
            return [10 + len(word) for word in text.split()]

        def decode(self, ids):
            raise NotImplementedError

    template = reward_template(Lengths(), ("a bb", "ccc"), ("first", "second"))
    assert template.pieces == ((11, 12), (13,))
    assert template.answers == (15, 16)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="two different answers, got \\(3, 3\\)"):
        Template(pieces=((),), answers=(3, 3))
    with pytest.raises(ValueError, match="template's 2 pieces, got 1 fields"):
        compose(Template(pieces=((), ()), answers=(3, 4)), jax.numpy.zeros((2, 3), int))
