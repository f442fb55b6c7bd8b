"""Vocabularies: the docstrings' own, a T5's from a path, and bytes."""

import os
from pathlib import Path

import seqio

from po_jax.checkpoints.vocabularies import t5

DOCSTRINGS_MODEL = Path(__file__).with_name("docstrings.model")
VARIABLE = "PO_JAX_VOCABULARY"


def docstrings() -> seqio.Vocabulary:
    """The 8,192 pieces shipped with po_jax; `tasks.train_vocabulary` made them."""
    return seqio.SentencePieceVocabulary(str(DOCSTRINGS_MODEL))


def named(choice: str) -> seqio.Vocabulary:
    """The vocabulary that is meant by "docstrings", "bytes", or a path for `t5`.

    Raises:
      ValueError: there is no such file, or it is of another kind.
    """
    if choice == "docstrings":
        return docstrings()
    return seqio.ByteVocabulary() if choice == "bytes" else t5(choice)


def from_environment() -> seqio.Vocabulary:
    """What PO_JAX_VOCABULARY names, as `named` knows it.

    Raises:
      ValueError: it is not set; a wrong guess would train on other ids than a checkpoint knows.
    """
    choice = os.environ.get(VARIABLE)
    if not choice:
        raise ValueError(
            f"{VARIABLE}: expected the path of your T5's SentencePiece model (spiece.model), "
            '"bytes" for ByT5, or "docstrings" for the 8,192 pieces shipped; it is not set'
        )
    return named(choice)
