"""The embedded default: the first line of a docstring, from the signature and the rest.

Nothing is downloaded. Importing the module registers docstrings_sft and docstrings_prompts, whose
pairs are extracted once from the installed packages into the folder PO_JAX_DOCSTRINGS_DIR (default:
~/.cache/po_jax/docstrings), docstrings_spoilt, comparisons of theirs that are easy to tell, and
docstrings_comparisons, which reads comparisons.SPLIT.jsonl there, in the format of `tasks.jsonl`;
the quickstart writes it. PO_JAX_DOCSTRINGS_MORE names packages, with spaces between them, that
widen the training split.
"""

import functools
import os
from pathlib import Path

from po_jax.data import records
from tasks import docstring_pairs, docstring_spoilt, registration, vocabularies

FOLDER_VARIABLE = "PO_JAX_DOCSTRINGS_DIR"
MORE_VARIABLE = "PO_JAX_DOCSTRINGS_MORE"
DEFAULT_FOLDER = "~/.cache/po_jax/docstrings"


def folder() -> Path:
    """Where the extracted pairs and the comparisons are kept."""
    return Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER).expanduser()


@functools.lru_cache
def _load(where: Path, more: str) -> dict[str, list[docstring_pairs.Pair]]:
    return docstring_pairs.load(where, more=more.split())


def _pairs(split: str) -> list[docstring_pairs.Pair]:
    return _load(folder(), os.environ.get(MORE_VARIABLE, ""))[split]


def _demonstrations(split: str) -> list[records.Row]:
    return [
        {"inputs": pair.document, "targets": pair.summary, "answers": [pair.summary]}
        for pair in _pairs(split)
    ]


def _prompts(split: str) -> list[records.Row]:
    return [{"inputs": pair.document, "answers": [pair.summary]} for pair in _pairs(split)]


def _spoilt(split: str) -> list[records.Row]:
    return docstring_spoilt.comparisons(_pairs(split))


def _comparisons(split: str) -> list[records.Row]:
    return records.rows(folder() / f"comparisons.{split}.jsonl", records.comparison)


_VOCABULARY = vocabularies.docstrings()
registration.add_sft("docstrings_sft", _demonstrations, _VOCABULARY)
registration.add_prompts("docstrings_prompts", _prompts, _VOCABULARY)
registration.add_comparisons("docstrings_comparisons", _comparisons, _VOCABULARY)
registration.add_comparisons("docstrings_spoilt", _spoilt, _VOCABULARY)
