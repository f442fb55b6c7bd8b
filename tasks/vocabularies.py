"""Vocabularies: the docstrings' own, T5's SentencePiece from a path, and bytes."""

import os
from pathlib import Path

import seqio

DOCSTRINGS_MODEL = Path(__file__).with_name("docstrings.model")
VARIABLE = "PO_JAX_VOCABULARY"
T5_EXTRA_IDS = 100  # sentinels of span corruption, which T5's checkpoints count as pieces


def docstrings() -> seqio.Vocabulary:
    """The 4,096 pieces shipped with po_jax; `tasks.train_vocabulary` made them."""
    return seqio.SentencePieceVocabulary(str(DOCSTRINGS_MODEL))


def t5(path: str | os.PathLike, extra_ids: int = T5_EXTRA_IDS) -> seqio.Vocabulary:
    """A SentencePiece model on disk, with T5's sentinels on top.

    Raises:
      ValueError: there is no such file.
    """
    if not Path(path).is_file():
        raise ValueError(f"expected a SentencePiece model, got no file at {path}")
    return seqio.SentencePieceVocabulary(os.fspath(path), extra_ids=extra_ids)


def named(choice: str) -> seqio.Vocabulary:
    """The vocabulary that is meant by "docstrings", "bytes", or a path for `t5`.

    Raises:
      ValueError: there is no such file.
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
            '"bytes" for ByT5, or "docstrings" for the 4,096 pieces shipped; it is not set'
        )
    return named(choice)
