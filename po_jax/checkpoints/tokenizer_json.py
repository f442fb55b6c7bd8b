"""A vocabulary out of `tokenizer.json`, the only file that `transformers` 5 saves.

Its ids are those of the SentencePiece model that it was made from, but beside a sentinel without a
space. As there, what is written like a special token in a text is text: no `</s>` ends anything.
"""

from collections.abc import Sequence
import json
import os
from pathlib import Path
import re
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

UNKNOWN = " \u2047 "  # How SentencePiece shows it.
_SENTINEL = re.compile(r"(\u2581)?<extra_id_\d+>")
_SPECIAL = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}


class TokenizerJson(seqio.Vocabulary):
    """Reads with the library `tokenizers`.

    Args:
      path: of tokenizer.json; tokenizer_config.json beside it may name the special tokens.

    Raises:
      ValueError: if the file is no tokenizer, or has no EOS, or padding that is not 0.
      ImportError: without the library.
    """

    def __init__(self, path: str | os.PathLike):
        super().__init__()
        try:
            import tokenizers  # Here, so that SentencePiece files need no further library.
        except ImportError as error:
            raise ImportError(
                f"{path}: expected the package tokenizers to read it with, got none: pip install "
                "tokenizers"
            ) from error
        self._path = os.fspath(path)
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            self._ids, self._tokenizer = _special_ids(Path(path), content), None
            _hide_special(content, self._ids)
            self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(content))
        except Exception as error:  # The library raises Exception itself.
            raise ValueError(f"{path}: expected a tokenizer.json, got: {error}") from error
        if self._ids["pad"] != 0 or self._ids["eos"] is None:
            raise ValueError(f"{path}: expected padding of id 0 and an EOS, got {self._ids}")
        self._size = 1 + max(self._tokenizer.get_vocab().values())

    @property
    def bos_id(self) -> int | None:
        return None

    @property
    def eos_id(self) -> int | None:
        return self._ids["eos"]

    @property
    def unk_id(self) -> int | None:
        return self._ids["unk"]

    @property
    def _base_vocab_size(self) -> int:
        return self._size

    def _encode(self, s: str) -> Sequence[int]:
        return self._tokenizer.encode(s, add_special_tokens=False).ids

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        def encode(text: Any) -> np.ndarray:
            text = np.asarray(text, object).item()  # Bytes in a graph, else an array of them.
            return np.asarray(self._encode(text.decode("utf-8")), np.int32)

        text = tf.convert_to_tensor(s, tf.string)
        return tf.ensure_shape(tf.numpy_function(encode, [text], tf.int32), [None])

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        def decode(rows: np.ndarray) -> Any:
            texts = [self._decode(row).encode() for row in rows.reshape(-1, rows.shape[-1])]
            return np.asarray(texts, object).reshape(rows.shape[:-1])

        return tf.ensure_shape(tf.numpy_function(decode, [ids], tf.string), ids.shape[:-1])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenizerJson) and self._path == other._path

    def __hash__(self) -> int:
        return hash(self._path)


def _special_ids(path: Path, content: dict[str, Any]) -> dict[str, int | None]:
    """Ids of padding, EOS and the unknown token; None for one that the vocabulary lacks."""
    file = path.with_name("tokenizer_config.json")
    config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    vocab = content["model"]["vocab"]
    ids = vocab if isinstance(vocab, dict) else {item[0]: i for i, item in enumerate(vocab)}
    ids = ids | {token["content"]: token["id"] for token in content.get("added_tokens", [])}

    def id_of(name: str) -> int | None:
        token = config.get(f"{name}_token", _SPECIAL[name])
        return ids.get(token["content"] if isinstance(token, dict) else token)

    return {name: id_of(name) for name in _SPECIAL}


def _hide_special(content: dict[str, Any], ids: dict[str, int | None]) -> None:
    """Leaves the special tokens their ids, and names with spaces that no piece of a text has."""
    added = content.get("added_tokens", [])
    content["added_tokens"] = [t for t in added if _SENTINEL.fullmatch(t["content"])]
    content["post_processor"] = None  # It would append EOS by its name.
    vocab = content["model"]["vocab"]
    if isinstance(vocab, list):  # Other models than Unigram match no special token in a text.
        for name, id in ids.items():
            if id is not None:
                vocab[id][0] = UNKNOWN if name == "unk" else f" {vocab[id][0]} "
