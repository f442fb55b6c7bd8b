"""The vocabulary beside the weights: SentencePiece or bytes, in the files `transformers` reads."""

import json

from etils import epath

SPIECE = "spiece.model"
BYTES = "bytes"  # ByT5's vocabulary, which needs no file.
BYTE_IDS = 3 + 256  # Padding, EOS, unknown, and the bytes.
BYTE_SENTINELS = 125
SENTINELS = 100

FILES = (
    SPIECE,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_SPECIAL = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def present(directory: epath.Path) -> bool:
    """Whether a directory has tokenizer files."""
    return any((directory / name).exists() for name in FILES)


def copy(source: epath.Path, target: epath.Path, *, embedding_rows: int) -> None:
    """Copies the tokenizer files that a Hugging Face directory has; see `write`."""
    if (source / SPIECE).exists():
        check(str(source / SPIECE), embedding_rows=embedding_rows)
    for name in FILES:
        if (source / name).exists():
            (source / name).copy(target / name)


def write(target: epath.Path, vocabulary: str, *, embedding_rows: int) -> None:
    """Writes tokenizer files from a SentencePiece model, or for "bytes".

    Args:
      target: an existing directory.
      vocabulary: path of the SentencePiece model, or "bytes".
      embedding_rows: of the model, at least as many as there are ids.

    Raises:
      ValueError: if the vocabulary has more ids than the embedding has rows.
    """
    sentinels = check(vocabulary, embedding_rows=embedding_rows)
    if vocabulary == BYTES:
        config = {"tokenizer_class": "ByT5Tokenizer"}
    else:
        epath.Path(vocabulary).copy(target / SPIECE)
        config = {"tokenizer_class": "T5Tokenizer"}
    names = [f"<extra_id_{i}>" for i in range(sentinels)]
    special = {"additional_special_tokens": names, **_SPECIAL}
    files = {
        "tokenizer_config.json": {**config, "extra_ids": sentinels, **special},
        "special_tokens_map.json": special,
    }
    for name, content in files.items():
        (target / name).write_text(json.dumps(content, indent=2) + "\n")


def check(vocabulary: str, *, embedding_rows: int) -> int:
    """The number of sentinels that come on top of a vocabulary, which must fit the embedding.

    A SentencePiece model whose pieces include sentinels gets no more; others get T5's 100.

    Raises:
      ValueError: if there are more ids than rows, or the file is not a SentencePiece model.
      ImportError: if there is no sentencepiece to read one with.
    """
    if vocabulary == BYTES:
        own, sentinels = BYTE_IDS, BYTE_SENTINELS
    else:
        pieces = _pieces(epath.Path(vocabulary))
        own = len(pieces)
        sentinels = 0 if any("<extra_id_0>" in piece for piece in pieces) else SENTINELS
    if own + sentinels > embedding_rows:
        raise ValueError(
            f"{vocabulary}: expected at most {embedding_rows} ids, the rows of the embedding, got "
            f"{own} pieces and {sentinels} sentinels."
        )
    return sentinels


def _pieces(file: epath.Path) -> list[str]:
    """The pieces of a SentencePiece model, in the order of their ids."""
    if not file.is_file():
        raise ValueError(f"{file}: expected a SentencePiece model, got no such file.")
    try:
        import sentencepiece  # Here, so that all other conversions work without it.
    except ImportError as error:
        raise ImportError(
            f"{file}: expected the package sentencepiece to read this vocabulary with, got none: "
            "pip install sentencepiece."
        ) from error
    model = sentencepiece.SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto(file.read_bytes())
    except RuntimeError as error:
        raise ValueError(f"{file}: expected a SentencePiece model, got other bytes.") from error
    return [model.id_to_piece(i) for i in range(model.get_piece_size())]
