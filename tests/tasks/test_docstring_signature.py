"""What stands above a docstring, for definitions written for the test."""

import ast

import pytest

from tasks import docstring_signature


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        ("sparse_categorical_crossentropy", "sparse categorical crossentropy"),
        ("Conv2DTranspose", "conv 2 d transpose"),
        ("HTTPServerError", "http server error"),
        ("_fromNumPy", "from num py"),
        ("__call__", "call"),
    ],
)
def test_words_of_identifiers(identifier, expected):
    assert docstring_signature.words(identifier) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(): pass", "()"),
        ("def f(self, x, /, y: int = 3, *z, k, **more) -> bool: pass", None),
        ("def f(cls, *, k='a'): pass", "(*, k='a')"),
        ("async def f(x: dict[str, tuple[int, int]] = {'a': (1, 2), 'b': ()}): pass", "(x=...)"),
        ("def f(x: 'caf\u00e9'): pass", "(x)"),
        ("class A(B, metaclass=M): pass", "(B)"),
        ("class A(B):\n  def __init__(self, units=8): pass", "(units=8)"),
        (f"def f({'x' * 60}, {'y' * 60}): pass", f"({'x' * 60}, ...)"),
        (f"def f({'x' * 91}): pass", "(...)"),
    ],
)
def test_signatures(source, expected):
    (definition,) = ast.parse(source).body
    expected = expected or "(x, y: int=3, *z, k, **more) -> bool"
    assert docstring_signature.signature(definition) == expected


def test_headings_say_the_name_in_words_and_in_full():
    tree = ast.parse("class DenseLayer:\n  def add_weight(self, shape): pass")
    layer = tree.body[0]
    heading = docstring_signature.heading
    assert heading(tree, "keras.src.dense", "") == "dense\nmodule keras.src.dense"
    assert heading(layer, "keras.src.dense", "DenseLayer") == (
        "dense layer\nclass keras.DenseLayer()"
    )
    assert heading(layer.body[0], "keras.src.dense", "DenseLayer.add_weight") == (
        "add weight of dense layer\nkeras.DenseLayer.add_weight(shape)"
    )
