"""The vocabulary beside the weights: SentencePiece or bytes, in the files `transformers` reads."""

import json
from typing import Any

from etils import epath

from po_jax.checkpoints import json_files

SPIECE = "spiece.model"
GEMMA = "tokenizer.model"  # Gemma's name of its SentencePiece model.
JSON = "tokenizer.json"
CONFIG = "tokenizer_config.json"
BYTES = "bytes"  # ByT5's vocabulary, which needs no file.
BYTE_IDS = 3 + 256  # Padding, EOS, unknown, and the bytes.
BYTE_SENTINELS = 125
SENTINELS = 100

FILES = (
    SPIECE,
    GEMMA,
    JSON,
    CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
)
_SPECIAL = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def present(directory: epath.Path) -> bool:
    """Whether a directory has tokenizer files."""
    return any((directory / name).exists() for name in FILES)


def copy(source: epath.Path, target: epath.Path, *, embedding_rows: int) -> None:
    """Copies the tokenizer files that a Hugging Face directory has; see `write`."""
    for name in (SPIECE, GEMMA, JSON):
        if (source / name).exists():
            check(str(source / name), embedding_rows=embedding_rows)
    for name in FILES:
        if (source / name).exists():
            (source / name).copy(target / name)


def write(target: epath.Path, vocabulary: str, *, embedding_rows: int) -> None:
    """Writes tokenizer files from another, or for "bytes".

    Args:
      target: an existing directory.
      vocabulary: path of a SentencePiece model or of tokenizer.json, or "bytes".
      embedding_rows: of the model, at least as many as there are ids.

    Raises:
      ValueError: if the vocabulary has more ids than the embedding has rows, or is no T5's.
    """
    sentinels = check(vocabulary, embedding_rows=embedding_rows)
    if vocabulary.endswith(".json"):
        epath.Path(vocabulary).copy(target / JSON)
        beside = epath.Path(vocabulary).parent / CONFIG
        if beside.exists():
            beside.copy(target / CONFIG)
        return
    if vocabulary == BYTES:
        config = {"tokenizer_class": "ByT5Tokenizer"}
    elif _model(epath.Path(vocabulary)).bos_id() >= 0:
        raise ValueError(
            f"{vocabulary}: expected a T5's vocabulary, got one with BOS, as Gemma's: name its "
            "folder, whose tokenizer's files are copied as they are."
        )
    else:
        epath.Path(vocabulary).copy(target / SPIECE)
        config = {"tokenizer_class": "T5Tokenizer"}
    names = [f"<extra_id_{i}>" for i in range(sentinels)]
    special = {"additional_special_tokens": names, **_SPECIAL}
    files = {
        CONFIG: {**config, "extra_ids": sentinels, **special},
        "special_tokens_map.json": special,
    }
    for name, content in files.items():
        (target / name).write_text(json.dumps(content, indent=2) + "\n")


def check(vocabulary: str, *, embedding_rows: int) -> int:
    """The number of sentinels that come on top of a vocabulary, which must fit the embedding.

    Raises:
      ValueError: if there are more ids than rows, or the file is of another kind.
      ImportError: if there is no sentencepiece to read one with.
    """
    if vocabulary == BYTES:
        own, on_top = BYTE_IDS, BYTE_SENTINELS
    elif vocabulary.endswith(".json"):
        own, on_top = _ids_of_json(epath.Path(vocabulary)), 0
    else:
        own = len(_pieces(epath.Path(vocabulary)))
        on_top = sentinels(epath.Path(vocabulary))
    if own + on_top > embedding_rows:
        raise ValueError(
            f"{vocabulary}: expected at most {embedding_rows} ids, the rows of the embedding, got "
            f"{own} pieces and {on_top} sentinels."
        )
    return on_top


def sentinels(file: epath.Path) -> int:
    """How many come on top of a SentencePiece model.

    None where its pieces hold them already, as mT5's do, or where it has BOS, as Gemma's; else as
    many as the tokenizer's config beside it says, or T5's 100.

    Raises:
      ValueError, ImportError: as `check` does.
    """
    if _model(file).bos_id() >= 0 or any("<extra_id_0>" in piece for piece in _pieces(file)):
        return 0
    config = file.parent / CONFIG
    said = json_files.read_object(config).get("extra_ids") if config.exists() else None
    if said is not None and (type(said) is not int or said < 0):
        raise ValueError(f"{config}: expected extra_ids to be a number of sentinels, got {said!r}.")
    return SENTINELS if said is None else said


def _ids_of_json(file: epath.Path) -> int:
    content = json_files.read_object(file)
    try:
        vocab = content["model"]["vocab"]
        last = max(vocab.values()) if isinstance(vocab, dict) else len(vocab) - 1
        return 1 + max([last, *(token["id"] for token in content.get("added_tokens", []))])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: expected a tokenizer of {JSON}, got: {error!r}") from error


def _pieces(file: epath.Path) -> list[str]:
    """The pieces of a SentencePiece model, in the order of their ids."""
    model = _model(file)
    return [model.id_to_piece(i) for i in range(model.get_piece_size())]


def _model(file: epath.Path) -> Any:
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
    return model
