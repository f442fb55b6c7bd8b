"""A corpus of records in memory: a data frame's, or a list of dictionaries."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from po_jax.data.corpus import Corpus, Ragged
from po_jax.vocabulary import Vocabulary, encode


def comparisons(records: Any, vocabulary: Vocabulary) -> Corpus:
    """Comparisons in TRL's format: `prompt`, `chosen`, `rejected`, and if you like `preference`.

    Args:
      records: a pandas DataFrame, or dictionaries; `preference` is P(chosen > rejected) in [0, 1],
        by default 1.
      vocabulary: of the policy.

    Raises:
      ValueError: without records, or where a text is missing, empty or no string, or a preference
        no number in [0, 1]; names the record.
    """
    rows = _rows(records)
    columns = {"inputs": "prompt", "completion_1": "chosen", "completion_2": "rejected"}
    preference = np.array([_preference(row, index) for index, row in enumerate(rows)], np.float32)
    return _corpus(rows, columns, vocabulary, preference)


def prompts(records: Any, vocabulary: Vocabulary) -> Corpus:
    """Prompts alone, of records with `prompt`; arguments and errors as of `comparisons`."""
    return _corpus(_rows(records), {"inputs": "prompt"}, vocabulary, None)


def _rows(records: Any) -> Sequence[Mapping[str, Any]]:
    rows = records.to_dict("records") if hasattr(records, "to_dict") else list(records)
    if not rows:
        raise ValueError("expected records with a prompt, got none")
    return rows


def _corpus(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    vocabulary: Vocabulary,
    preference: np.ndarray | None,
) -> Corpus:
    texts = {
        name: [_text(row, key, index) for index, row in enumerate(rows)]
        for name, key in columns.items()
    }
    return Corpus(
        tokens={name: _tokenised(column, vocabulary) for name, column in texts.items()},
        texts={"inputs": texts["inputs"]},
        sizes=[len(rows)],
        rates=[1.0],
        preference=preference,
        pad_id=vocabulary.pad_id,
    )


def _tokenised(texts: Iterable[str], vocabulary: Vocabulary) -> Ragged:
    rows = [encode(vocabulary, text) for text in texts]
    return Ragged(np.concatenate(rows), np.array([len(row) for row in rows]))


def _text(row: Mapping[str, Any], key: str, index: int) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"record {index}: expected a text under {key!r}, got {value!r:.60}")
    return value


def _preference(row: Mapping[str, Any], index: int) -> float:
    value = row.get("preference", 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"record {index}: expected a preference in [0, 1], got {value!r:.60}")
    return float(value)
