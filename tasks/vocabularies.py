"""Vocabularies: the docstrings' own, a T5's from a path, and bytes."""

import os
from pathlib import Path

from etils import epath
import seqio

from po_jax.checkpoints import tokenizer
from tasks.tokenizer_json import TokenizerJson

DOCSTRINGS_MODEL = Path(__file__).with_name("docstrings.model")
VARIABLE = "PO_JAX_VOCABULARY"
JSON = "tokenizer.json"


def docstrings() -> seqio.Vocabulary:
    """The 4,096 pieces shipped with po_jax; `tasks.train_vocabulary` made them."""
    return seqio.SentencePieceVocabulary(str(DOCSTRINGS_MODEL))


def t5(path: str | os.PathLike, extra_ids: int | None = None) -> seqio.Vocabulary:
    """A T5's vocabulary on disk: a SentencePiece model, tokenizer.json, or the folder of either.

    Args:
      path: of the file or folder.
      extra_ids: sentinels on top of a SentencePiece model; None for what belongs to it: none where
        its pieces hold them already (mT5's do), else what tokenizer_config.json beside it says,
        else T5's hundred.

    Raises:
      ValueError: there is no such file, or it is of another kind.
    """
    path = Path(path)
    if path.is_dir():
        present = [path / name for name in (tokenizer.SPIECE, JSON) if (path / name).is_file()]
        path = present[0] if present else path / tokenizer.SPIECE
    if not path.is_file():
        raise ValueError(f"expected a SentencePiece model or {JSON}, got no file at {path}")
    if path.suffix == ".json":
        return TokenizerJson(path.absolute())
    extra_ids = tokenizer.sentinels(epath.Path(path)) if extra_ids is None else extra_ids
    return seqio.SentencePieceVocabulary(os.fspath(path.absolute()), extra_ids=extra_ids)


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
            '"bytes" for ByT5, or "docstrings" for the 4,096 pieces shipped; it is not set'
        )
    return named(choice)
