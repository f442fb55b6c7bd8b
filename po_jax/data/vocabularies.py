"""Vocabularies of T5's families from their files, as seqio has them."""

from etils import epath

from po_jax.vocabulary import Vocabulary

SENTINELS = 100  # of span corruption, which T5's checkpoints count as pieces


def t5(path: epath.PathLike, sentinels: int = SENTINELS) -> Vocabulary:
    """A SentencePiece model on disk, with T5's sentinels on top.

    Raises:
      ValueError: there is no such file.
    """
    path = epath.Path(path)
    if not path.is_file():
        raise ValueError(f"expected a SentencePiece model, got no file at {path}")
    import seqio  # an optional dependency of the core

    return seqio.SentencePieceVocabulary(str(path), extra_ids=sentinels)
