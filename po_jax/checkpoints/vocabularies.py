"""The vocabulary that a checkpoint brings, as seqio has it."""

import os
from pathlib import Path

from etils import epath
import seqio

from po_jax.checkpoints import tokenizer
from po_jax.checkpoints.tokenizer_json import TokenizerJson

JSON = "tokenizer.json"


def t5(path: str | os.PathLike, extra_ids: int | None = None) -> seqio.Vocabulary:
    """A T5's or T5Gemma's vocabulary: a SentencePiece model, tokenizer.json, or a folder with one.

    Args:
      path: of the file or folder.
      extra_ids: sentinels on top of a SentencePiece model; None for what belongs to it: none where
        its pieces hold them already (mT5's do) or it has BOS (Gemma's), else what
        tokenizer_config.json beside it says, else T5's hundred.

    Raises:
      ValueError: there is no such file, or it is of another kind.
    """
    path = Path(path)
    if path.is_dir():
        names = (tokenizer.SPIECE, tokenizer.GEMMA, JSON)
        present = [path / name for name in names if (path / name).is_file()]
        path = present[0] if present else path / tokenizer.SPIECE
    if not path.is_file():
        raise ValueError(f"expected a SentencePiece model or {JSON}, got no file at {path}")
    if path.suffix == ".json":
        return TokenizerJson(path.absolute())
    extra_ids = tokenizer.sentinels(epath.Path(path)) if extra_ids is None else extra_ids
    return seqio.SentencePieceVocabulary(os.fspath(path.absolute()), extra_ids=extra_ids)
