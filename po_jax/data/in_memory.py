"""A corpus of records in memory: a data frame's, or a list of dictionaries."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from po_jax.data import records
from po_jax.data.corpus import Corpus, Ragged
from po_jax.vocabulary import Vocabulary, encode


def comparisons(rows: Any, vocabulary: Vocabulary) -> Corpus:
    """Comparisons in TRL's format: `prompt`, `chosen`, `rejected`, and if you like `preference`.

    Args:
      rows: a pandas DataFrame, or dictionaries; `preference` is P(chosen > rejected) in [0, 1], by
        default 1.
      vocabulary: of the policy.

    Raises:
      ValueError: without records, or on one that `tasks.jsonl` would refuse; names the record.
    """
    return _corpus(rows, records.comparison, ("inputs", "completion_1", "completion_2"), vocabulary)


def prompts(rows: Any, vocabulary: Vocabulary) -> Corpus:
    """Prompts alone, of records with `prompt`; arguments and errors as of `comparisons`."""
    return _corpus(rows, records.prompt, ("inputs",), vocabulary)


def _corpus(
    rows: Any,
    parse: Callable[[records.Record, str], records.Row],
    features: Iterable[str],
    vocabulary: Vocabulary,
) -> Corpus:
    given = rows.to_dict("records") if hasattr(rows, "to_dict") else list(rows)
    if not given:
        raise ValueError("expected records with a prompt, got none")
    parsed = [parse(dict(row), f"record {index}") for index, row in enumerate(given)]
    preference = None
    if "preference" in parsed[0]:
        preference = np.array([row["preference"] for row in parsed], np.float32)
    return Corpus(
        tokens={name: _tokens(parsed, name, vocabulary) for name in features},
        texts={name: [row[name] for row in parsed] for name in ("inputs", "answers")},
        sizes=[len(parsed)],
        rates=[1.0],
        preference=preference,
        pad_id=vocabulary.pad_id,
    )


def _tokens(rows: Sequence[Mapping[str, Any]], name: str, vocabulary: Vocabulary) -> Ragged:
    tokens = [encode(vocabulary, row[name], row.get(f"{name}_ended", True)) for row in rows]
    return Ragged(np.concatenate(tokens), np.array([len(row) for row in tokens]))
