"""The vocabulary beside the weights: SentencePiece or bytes, in the files `transformers` reads."""

from collections.abc import Iterator
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
    config |= {"extra_ids": sentinels, "additional_special_tokens": names, **_SPECIAL}
    for name, content in (("tokenizer_config.json", config), ("special_tokens_map.json", {
        "additional_special_tokens": names, **_SPECIAL
    })):  # fmt: skip
        (target / name).write_text(json.dumps(content, indent=2) + "\n")


def check(vocabulary: str, *, embedding_rows: int) -> int:
    """The number of sentinels that come on top of a vocabulary, which must fit the embedding.

    A SentencePiece model whose pieces include sentinels gets no more; others get T5's 100.

    Raises:
      ValueError: if there are more ids than rows, or the file is not a SentencePiece model.
    """
    if vocabulary == BYTES:
        own, sentinels = BYTE_IDS, BYTE_SENTINELS
    else:
        pieces = list(_pieces(epath.Path(vocabulary)))
        own = len(pieces)
        sentinels = 0 if any("<extra_id_0>" in piece for piece in pieces) else SENTINELS
    if own + sentinels > embedding_rows:
        raise ValueError(
            f"{vocabulary}: expected at most {embedding_rows} ids, the rows of the embedding, got "
            f"{own} pieces and {sentinels} sentinels."
        )
    return sentinels


def _pieces(file: epath.Path) -> Iterator[str]:
    """The pieces of a SentencePiece model: messages in field 1, whose field 1 is the text."""
    if not file.is_file():
        raise ValueError(f"{file}: expected a SentencePiece model, got no such file.")
    try:
        for message in _field_one(file.read_bytes()):
            yield next(_field_one(message)).decode()
    except (LookupError, StopIteration, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: expected a SentencePiece model, got other bytes.") from error


def _field_one(message: bytes) -> Iterator[bytes]:
    """Every value of field 1, where it is of variable length, of a protocol buffer message."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        field, wire = tag >> 3, tag & 7
        if wire == 0:
            _, position = _varint(message, position)
            continue
        if wire == 2:
            size, position = _varint(message, position)
        else:
            size = {1: 8, 5: 4}[wire]
        if position + size > len(message):
            raise IndexError(position)
        if field == 1 and wire == 2:
            yield message[position : position + size]
        position += size


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """A variable-length integer, seven bits a byte, and the position after it."""
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, position
